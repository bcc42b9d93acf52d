"""The nearest of millions of embedded windows, exactly: a query and a folder of ``predict --embeddings`` -> windows.

The first search makes an index, ``DIR/MEMBER/.search/``: all embeddings once more in one file (to open thousands of
small ones takes longer than to compare them), their lengths, and where each window's line stands in ``index.csv``. A
search reads this file once, block by block, in float32; whatever may belong to the nearest, by the largest error that
float32 can make, is computed again in float64. So the result is that of a comparison with every window in float64, and
memory grows by some 30 bytes for each window, not by its numbers.
"""

import csv
import itertools
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError, MetadataError, OutputError
from birdinfer.inference.embeddings import (
    HEADER_BYTES,
    INDEX_COLUMNS,
    INFO_NAME,
    SEARCH_NAME,
    EmbeddingInfo,
    index_of,
    load_values,
    member_folder,
    npy_header,
    read_info,
)
from birdinfer.system.cpu import available_cores, one_thread_per_worker
from birdinfer.system.files import atomic_folder, remove_leftovers, write_atomic
from birdinfer.system.locks import locked
from birdinfer.typing import Float32, Float64, Index, Int64

Metric = Literal["cosine", "euclidean"]
_ABOUT, _VALUES, _LENGTHS, _LINES, _FIRSTS = "search.json", "values.npy", "lengths.npy", "lines.npy", "firsts.npy"
_KIND = ("an index of embeddings", "remove it", _ABOUT)
_BLOCK_ROWS, _TASK_ROWS = 256, 1 << 14
"""Windows that are compared at once, in a core's cache; and by a thread before it takes others."""
_MOST_PRODUCTS = 1 << 24
"""Of windows and queries that are kept at once: 64 MB."""
_HALF_BITS = np.int32(-0x70002000)
"""What float16 bits, shifted into their places in a float32, keep: sign, exponent and fraction."""
_HALF_SCALE = np.float32(2.0**112)
"""Float16 counts exponents from 15, float32 from 127."""


class IndexedWindow(NamedTuple):
    """A window of the index."""

    row: int
    """In the index, from 0."""
    row_id: str
    recording: str
    start_seconds: float
    end_seconds: float


class Neighbour(NamedTuple):
    """A window near to a query."""

    row: int
    similarity: float
    """Cosine of the angle, or 1 / (1 + Euclidean distance)."""


class _About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``search.json``: what the index was made of."""

    made_of: tuple[int, int, int]
    """Bytes of ``index.csv`` and the times at which it and ``embeddings.json`` were changed, in ns."""
    recordings: tuple[str, ...]
    """In the order of their windows."""


@dataclass(frozen=True, slots=True)
class EmbeddingIndex:
    """The embeddings of a folder, ready to be searched; opened by :meth:`open`. A context manager."""

    folder: Path
    """Of the member."""
    info: EmbeddingInfo
    recordings: dict[str, int]
    """Each recording and its place in their order."""
    _files: Path
    _lengths: Float32
    _lines: Int64
    _firsts: Int64
    """Row of each recording's first window, and the number of all."""
    _kept: tempfile.TemporaryDirectory[str] | None = None
    """Where the files are if there was no place beside the embeddings."""

    @classmethod
    def open(cls, folder: str | Path, callback: Callback | None = None) -> "EmbeddingIndex":
        """Open the index of a folder of embeddings, and make it if there is none, or one of other embeddings.

        Raises:
            InputNotFoundError: there are no embeddings, or the run that writes them has not ended.
            MetadataError: they are damaged, or those of several members.
        """
        folder, callback = member_folder(Path(folder)), callback or Callback()
        info, made_of, files = read_info(folder), _made_of(folder), folder / SEARCH_NAME
        if (about := _about(files, made_of)) is not None:
            return cls._opened(folder, info, files, about)
        try:
            with locked(files, callback.on_message):
                if (about := _about(files, made_of)) is None:  # no other process has made it meanwhile
                    remove_leftovers(files)
                    with atomic_folder(files, *_KIND) as new:
                        about = _build(folder, new, made_of, callback)
            return cls._opened(folder, info, files, about)
        except OutputError as error:
            callback.on_warning(f"{error.where}: {error.what}; the index is made for this search alone")
        kept = tempfile.TemporaryDirectory(prefix="birdinfer-")
        return cls._opened(folder, info, Path(kept.name), _build(folder, Path(kept.name), made_of, callback), kept)

    @classmethod
    def _opened(
        cls, folder: Path, info: EmbeddingInfo, files: Path, about: _About,
        kept: tempfile.TemporaryDirectory[str] | None = None,
    ) -> "EmbeddingIndex":  # fmt: skip
        lengths, lines, firsts = (np.load(files / name, allow_pickle=False) for name in (_LENGTHS, _LINES, _FIRSTS))
        places = {name: place for place, name in enumerate(about.recordings)}
        return cls(folder, info, places, files, lengths, lines, firsts, kept)

    def __enter__(self) -> "EmbeddingIndex":
        return self

    def __exit__(self, *error: object) -> None:
        if self._kept is not None:
            self._kept.cleanup()

    def __len__(self) -> int:
        """Count the windows."""
        return len(self._lengths)

    @property
    def values(self) -> npt.NDArray[np.float16]:
        """[windows, numbers]; nothing of it is in memory until it is used."""
        return load_values(self._files / _VALUES)

    def window(self, row: int) -> IndexedWindow:
        """Return a window of the index."""
        return next(self._windows(row))

    def windows_of(self, recording: str) -> list[IndexedWindow]:
        """List the windows of a recording by its name, or by the end of its name; empty if there is not just one."""
        place = self.recordings.get(recording)
        if place is None:
            alike = [
                place
                for name, place in self.recordings.items()
                if name.endswith(f"/{recording}") or recording.endswith(f"/{name}")
            ]
            if len(alike) != 1:
                return []
            (place,) = alike
        first, last = (int(each) for each in self._firsts[place : place + 2])
        return list(itertools.islice(self._windows(first), last - first))

    def nearest(
        self,
        queries: Float32,
        k: int,
        *,
        metric: Metric = "cosine",
        per_recording: int | None = None,
        left_out: Sequence[Index] = (),
        callback: Callback | None = None,
    ) -> list[list[Neighbour]]:
        """Find the windows that are nearest to each query, the nearest first; of equally near ones the first.

        Args:
            queries: embeddings [queries, numbers].
            k: windows for each query; fewer if there are not more.
            metric: the cosine, which does not depend on how strong an embedding is, or the distance.
            per_recording: most windows of one recording; None: any number.
            left_out: rows that are not found, for each query; empty: all may be.
            callback: receives the progress.

        Raises:
            ConfigError: the queries have another number of numbers, are not finite or 0 throughout.
        """
        _check_queries(queries, self.values.shape[1])
        size = max(1, _MOST_PRODUCTS // len(self))
        groups = None
        if per_recording is not None:
            groups = np.repeat(np.arange(len(self.recordings)), np.diff(self._firsts))
        found = []
        for first in range(0, len(queries), size):
            some = np.ascontiguousarray(queries[first : first + size], np.float32)
            products = self._products(some, callback or Callback(), (first, len(queries)))
            for number, (query, product) in enumerate(zip(some, products, strict=True), first):
                nearness, error = self._estimated(product, query, metric)
                if left_out:
                    nearness[left_out[number]] = -np.inf
                places = _best(nearness, k, groups, per_recording)
                may_be = np.flatnonzero(nearness >= nearness[places[-1]] - 2 * error) if len(places) else places
                exact = self._exact(may_be, query, metric)
                best = _best(exact, k, None if groups is None else groups[may_be], per_recording)
                found.append([Neighbour(int(may_be[place]), float(exact[place])) for place in best])
        return found

    def _windows(self, first: int) -> Iterator[IndexedWindow]:
        """The windows from a row on."""
        with index_of(self.folder).open("rb") as file:
            file.seek(self._lines[first])
            lines = csv.reader(line.decode() for line in file)
            for row, (row_id, recording, start, end, *_) in enumerate(lines, first):
                yield IndexedWindow(row, row_id, recording, float(start), float(end))

    def _products(self, queries: Float32, callback: Callback, part: tuple[int, int]) -> Float32:
        """Scalar products [queries, windows] in float32."""
        values, n_rows = self.values, len(self)
        offset, width = values.offset, values.shape[1]  # type: ignore[attr-defined]  # of np.memmap
        products = np.empty((len(queries), n_rows), np.float32)

        def multiply(begin: int) -> int:
            half, single = np.empty((_BLOCK_ROWS, width), np.int16), np.empty((_BLOCK_ROWS, width), np.int32)
            end = min(begin + _TASK_ROWS, n_rows)
            with (self._files / _VALUES).open("rb", buffering=0) as file:
                file.seek(offset + 2 * width * begin)
                for row in range(begin, end, _BLOCK_ROWS):
                    n = min(_BLOCK_ROWS, end - row)
                    if file.readinto(half[:n].data) != 2 * width * n:
                        raise MetadataError(self._files / _VALUES, "was cut while it was read", "search again")
                    block = widen(half[:n], single[:n])
                    if len(queries) == 1:
                        np.dot(block, queries[0], out=products[0, row : row + n])
                    else:
                        products[:, row : row + n] = queries @ block.T
            return end - begin

        pool, done = ThreadPoolExecutor(available_cores()), 0
        try:
            with one_thread_per_worker():
                for n_done in pool.map(multiply, range(0, n_rows, _TASK_ROWS)):
                    done += n_done
                    callback.on_progress("search", part[0] * n_rows + done * len(queries), part[1] * n_rows)
        finally:
            pool.shutdown(cancel_futures=True)
        return products

    def _estimated(self, product: Float32, query: Float32, metric: Metric) -> tuple[Float32, float]:
        """How near each window is, in float32, and by how much that may be wrong at most.

        A float32 sum of d products in any order is wrong by at most d / 2^24 of the product of both lengths (Higham,
        Accuracy and Stability of Numerical Algorithms, 3.1); a length by half of its share; a few roundings follow.
        """
        share = 2 * (len(self.values[0]) + 8) * 2.0**-24
        length = float(np.linalg.norm(query.astype(np.float64)))
        if metric == "cosine":
            divided = np.divide(product, self._lengths * np.float32(length), where=self._lengths > 0, out=product)
            return divided, share
        longest = float(self._lengths.max()) * (1 + share)
        np.subtract(2 * product, self._lengths**2, out=product)
        return product, share * longest * (2 * length + longest)

    def _exact(self, rows: Index, query: Float32, metric: Metric) -> Float64:
        """Similarity of some windows in float64."""
        wanted, similarity = query.astype(np.float64), np.empty(len(rows))
        for first in range(0, len(rows), _TASK_ROWS):
            part = slice(first, first + _TASK_ROWS)
            values = np.asarray(self.values[rows[part]], np.float64)  # opened again: what was read is let go
            if metric == "cosine":
                lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted)
                similarity[part] = np.divide(values @ wanted, lengths, where=lengths > 0, out=np.zeros(len(values)))
            else:
                similarity[part] = 1 / (1 + np.linalg.norm(values - wanted, axis=1))
        return similarity


def widen(half: npt.NDArray[np.int16], out: npt.NDArray[np.int32]) -> Float32:
    """Turn the bits of finite float16 numbers into float32, exactly and four times as fast as numpy's own cast.

    >>> values = np.array([1.5, -0.25, 6e-8, -65504], np.float16)
    >>> widen(values.view(np.int16), np.empty(4, np.int32)).tolist() == values.tolist()
    True
    """
    np.left_shift(half, 13, out=out, dtype=np.int32, casting="unsafe")
    np.bitwise_and(out, _HALF_BITS, out=out)  # what the sign has left in the bits below it
    single: Float32 = out.view(np.float32)
    np.multiply(single, _HALF_SCALE, out=single)
    return single


def _best(nearness: Float32 | Float64, k: int, groups: Index | None, most: int | None) -> Index:
    """Places of the k nearest, of equal ones the first; at most so many of each group; none that is left out."""
    n_seen = k if groups is None else 4 * k
    while True:
        if n_seen < len(nearness):
            places = np.flatnonzero(nearness >= np.partition(nearness, -n_seen)[-n_seen])
        else:
            places = np.arange(len(nearness))
        places = places[nearness[places] > -np.inf]
        places = places[np.argsort(-nearness[places], kind="stable")]
        if groups is not None and most is not None:
            places = places[_turns(groups[places]) < most]
        if len(places) >= k or n_seen >= len(nearness):
            return places[:k]
        n_seen *= 8


def _turns(groups: Index) -> Index:
    """For each element, how many before it are of its group.

    >>> _turns(np.array([3, 5, 3, 3, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(groups, kind="stable")
    turns = np.empty(len(groups), np.intp)
    turns[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return turns


def _check_queries(queries: Float32, width: int) -> None:
    if queries.ndim != 2 or queries.shape[1] != width:
        what = f"are of shape {queries.shape}, the embeddings have {width} numbers"
        raise ConfigError("queries", what, "embed them with the bundle that made the embeddings")
    usable = np.isfinite(queries).all(axis=1) & (queries != 0).any(axis=1)
    if not usable.all():
        raise ConfigError(f"query {int(np.argmin(usable)) + 1}", "its embedding is 0 throughout, or not finite")


def _made_of(folder: Path) -> tuple[int, int, int]:
    index, info = index_of(folder).stat(), (folder / INFO_NAME).stat()
    return index.st_size, index.st_mtime_ns, info.st_mtime_ns


def _about(files: Path, made_of: tuple[int, int, int]) -> _About | None:
    """Read what an index is of; None if there is none, or one of other embeddings."""
    try:
        about = msgspec.json.decode((files / _ABOUT).read_bytes(), type=_About)
        (n_rows,) = np.load(files / _LENGTHS, mmap_mode="r", allow_pickle=False).shape
        is_whole = len(load_values(files / _VALUES)) == n_rows
    except (OSError, ValueError, msgspec.DecodeError):
        return None
    return about if is_whole and about.made_of == made_of else None


def _build(folder: Path, files: Path, made_of: tuple[int, int, int], callback: Callback) -> _About:
    """Write the files of an index; memory does not grow with the embeddings."""
    index, recordings = index_of(folder), list[str]()
    lines, firsts, lengths = array("q"), array("q"), array("f")
    width = 0
    with (files / _VALUES).open("wb") as out:
        out.write(bytes(HEADER_BYTES))
        for file, recording, offsets in _by_file(index):
            values = load_values(folder / file)
            if len(values) != len(offsets) or values.shape[1] != (width or values.shape[1]):
                raise MetadataError(index, f"does not fit {file}", "predict them again, with --embeddings")
            width = values.shape[1]
            firsts.append(len(lines))
            lines.extend(offsets)
            recordings.append(recording)
            for first in range(0, len(values), _TASK_ROWS):
                part = np.ascontiguousarray(values[first : first + _TASK_ROWS])
                out.write(part.data)
                single = widen(part.view(np.int16), np.empty(part.shape, np.int32))
                lengths.extend(np.sqrt(np.einsum("ij,ij->i", single, single)).tolist())
            callback.on_progress("index", offsets[-1], made_of[0])
        if not lines:
            raise MetadataError(index, "names no window", "predict them again, with --embeddings")
        out.seek(0)
        out.write(npy_header(len(lines), width))
    firsts.append(len(lines))
    np.save(files / _LENGTHS, np.frombuffer(lengths, np.float32))
    np.save(files / _LINES, np.frombuffer(lines, np.int64))
    np.save(files / _FIRSTS, np.frombuffer(firsts, np.int64))
    about = _About(made_of=made_of, recordings=tuple(recordings))
    write_atomic(files / _ABOUT, msgspec.json.encode(about))
    callback.on_progress("index", made_of[0], made_of[0])
    return about


def _by_file(index: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Yield for each file of embeddings its name, its recording, and where the lines of its windows begin."""
    position = 0

    def lines(file: Iterator[bytes]) -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            yield line.decode()

    def placed(table: Iterator[list[str]]) -> Iterator[tuple[str, str, int]]:
        begin = position
        for cells in table:  # a name may hold a line end, so a row may be several lines
            if len(cells) != len(INDEX_COLUMNS):
                raise MetadataError(index, f"is damaged at byte {begin}", "predict them again, with --embeddings")
            yield cells[4], cells[1], begin
            begin = position

    with index.open("rb") as file:
        try:
            table = csv.reader(lines(file), strict=True)
            if tuple(next(table, ())) != INDEX_COLUMNS:
                raise MetadataError(index, "is no index of embeddings", "predict them again, with --embeddings")
            for (name, recording), group in itertools.groupby(placed(table), key=lambda each: each[:2]):
                yield name, recording, [begin for *_, begin in group]
        except (csv.Error, UnicodeDecodeError) as error:
            raise MetadataError(index, f"is damaged ({error})", "predict them again, with --embeddings") from error
