"""Blend the scores of a run by rank: rows of [groups * species] in the order of a table -> rows of [species].

A rank needs the scores of all rows, a table is written row by row, and of both there may be more than memory takes. So
the rows go through a temporary file, which holds them in blocks of species: it is filled row by row and read block by
block, and the other way round for the result. Scores are ranked as a table shows them, to seven digits, so that the
result is the one that ``birdinfer blend --how rank`` makes of the groups' own tables.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.inference.bundle import Bundle
from birdinfer.inference.manifest import group_labels
from birdinfer.inference.rank_blend import RankBlender, make_rank_blender
from birdinfer.prediction.score_store import named_errors
from birdinfer.submission.formats import as_written
from birdinfer.typing import Float32, Float64

_BLOCK_SCORES = 2**19
"""Scores that are ranked at a time, if a species' rows are not more: 4 MB in double precision, several times."""
_CHUNK_SCORES = 2**21
"""Scores of rows that are written or read at a time."""
_IN_MEMORY_BYTES = 2**25
"""A table up to this size needs no file: 7,200 rows of 234 species and three groups are 20 MB."""


def rank_blender_of(bundle: Bundle) -> RankBlender:
    """Make the function that blends the groups of a bundle whose blend is by rank."""
    manifest = bundle.manifest
    return make_rank_blender(manifest.blend.groups, manifest.species, group_labels(manifest))


def ranked_rows(rows: Iterable[Float32], n_rows: int, blender: RankBlender, folder: Path) -> Iterator[Float64]:
    """Yield the blended ranks [species] of each of the rows [groups * species], which are all in memory at no time.

    ``folder``: where the temporary file lies; OutputError if it cannot be written.
    """
    n_groups, n_species = blender.n_groups, blender.n_species
    width = max(1, min(n_species, _BLOCK_SCORES // max(1, n_groups * n_rows)))
    blocks = [slice(begin, min(begin + width, n_species)) for begin in range(0, n_species, width)]
    step = max(1, _CHUNK_SCORES // (n_groups * n_species))
    with (
        named_errors(folder),
        _Blocks(folder, n_rows, n_groups, blocks, np.dtype(np.float32)) as given,
        _Blocks(folder, n_rows, 1, blocks, np.dtype(np.float64)) as blended,
    ):
        waiting = iter(rows)
        for first in range(0, n_rows, step):
            chunk = np.stack(list(islice(waiting, step)))
            given.write_rows(first, chunk.reshape(len(chunk), n_groups, n_species))
        for index, columns in enumerate(blocks):
            scores = as_written(given.read_block(index)).transpose(1, 0, 2)
            blended.write_block(index, blender(scores, columns)[:, np.newaxis])
        for first in range(0, n_rows, step):
            yield from blended.read_rows(first, min(step, n_rows - first))[:, 0]


def ranking_seconds(n_rows: int, blender: RankBlender) -> float:
    """Estimate how long :func:`ranked_rows` takes, by ranking one species whose scores are all different."""
    one = RankBlender(weights=np.ones((blender.n_groups, 1)))
    scores = np.random.default_rng(0).random((blender.n_groups, n_rows, 1), np.float32)
    began = time.perf_counter()
    one(as_written(scores))
    return (time.perf_counter() - began) * blender.n_species


class _Blocks:
    """Numbers [rows, groups, species] in a temporary file, one block of species behind the other."""

    def __init__(
        self, folder: Path, n_rows: int, n_groups: int, blocks: list[slice], number: "np.dtype[np.floating[Any]]"
    ) -> None:
        self._n_rows, self._n_groups, self._blocks, self._number = n_rows, n_groups, blocks, number
        self._n_bytes: int = number.itemsize
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def write_rows(self, first: int, rows: npt.NDArray[np.floating[Any]]) -> None:
        for block in self._blocks:
            self._write(block, first, rows[:, :, block])

    def write_block(self, index: int, numbers: npt.NDArray[np.floating[Any]]) -> None:
        self._write(self._blocks[index], 0, numbers)

    def read_block(self, index: int) -> npt.NDArray[np.floating[Any]]:
        return self._read(self._blocks[index], 0, self._n_rows)

    def read_rows(self, first: int, n_rows: int) -> npt.NDArray[np.floating[Any]]:
        return np.concatenate([self._read(block, first, n_rows) for block in self._blocks], axis=2)

    def _write(self, block: slice, first: int, numbers: npt.NDArray[np.floating[Any]]) -> None:
        self._file.seek(self._place(block, first))
        self._file.write(numbers.astype(self._number, copy=False).tobytes())

    def _read(self, block: slice, first: int, n_rows: int) -> npt.NDArray[np.floating[Any]]:
        self._file.seek(self._place(block, first))
        shape = (n_rows, self._n_groups, block.stop - block.start)
        return np.frombuffer(self._file.read(int(np.prod(shape)) * self._n_bytes), self._number).reshape(shape)

    def _place(self, block: slice, first: int) -> int:
        width = block.stop - block.start
        return int((self._n_rows * block.start + first * width) * self._n_groups * self._n_bytes)
