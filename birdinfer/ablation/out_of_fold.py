"""What the folds of a run say of clips that they were not trained on: ``runs/NAME/fold*/oof.csv`` -> one table.

In: a run's folder. Each fold's table holds ``filename``, ``primary_label`` and a probability per label; ``folds.csv``
beside them names the group (recording, author) of every clip. Out: :class:`OutOfFold`. A clip's primary label is its
truth, as in the run's summary: secondary labels stand in neither table.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.labels import check_labels
from birdinfer.tables.csv_files import csv_rows, numbers_of

Float32 = npt.NDArray[np.float32]

_KEYS = ("filename", "primary_label")
_REMEDY = "birdinfer train makes it"


class OutOfFold(NamedTuple):
    """Clips, each scored by the fold that did not train on it."""

    filenames: tuple[str, ...]
    groups: tuple[str, ...]
    """What each clip was cut from; its own file name where nothing is known."""
    primary_labels: tuple[str, ...]
    labels: tuple[str, ...]
    """The columns."""
    probabilities: Float32
    """[clips, labels], 0 to 1."""

    @property
    def truth(self) -> npt.NDArray[np.bool_]:
        """[clips, labels]: whether it is the clip's primary label."""
        truth: npt.NDArray[np.bool_] = np.array(self.primary_labels)[:, np.newaxis] == np.array(self.labels)
        return truth


class _Clip(NamedTuple):
    """A line of oof.csv."""

    filename: str
    primary_label: str
    probabilities: Float32
    """[labels]."""


def read_out_of_fold(run_dir: Path) -> OutOfFold:
    """Read the out-of-fold tables of all folds that there are.

    Args:
        run_dir: ``runs/NAME``.

    Raises:
        InputNotFoundError: there is no such folder, or no fold of it has a table yet.
        MetadataError: a table is not as training writes it, two folds have other columns, or a clip stands twice.
        LabelError: a column stands twice.
    """
    tables = sorted(run_dir.glob("fold*/oof.csv"))
    if not tables:
        why = "holds no fold*/oof.csv" if run_dir.is_dir() else "no such folder"
        raise InputNotFoundError(run_dir, why, "name the folder of a trained run, runs/NAME")
    labels = _labels(tables[0])
    clips = [clip for table in tables for clip in _read(table, labels)]
    _check_clips(run_dir, clips)
    groups = _read_groups(run_dir / "folds.csv")
    return OutOfFold(
        filenames=tuple(clip.filename for clip in clips),
        groups=tuple(groups.get(clip.filename) or clip.filename for clip in clips),
        primary_labels=tuple(clip.primary_label for clip in clips),
        labels=labels,
        probabilities=np.stack([clip.probabilities for clip in clips]),
    )


def _labels(path: Path) -> tuple[str, ...]:
    with csv_rows(path) as rows:
        header = next(rows, [])
    if len(header) <= len(_KEYS):
        raise MetadataError(path, "has no column for any label", _REMEDY)
    return check_labels(header[len(_KEYS) :], str(path))


def _read(path: Path, labels: Sequence[str]) -> Iterator[_Clip]:
    for line, header, cells in _lines(path, _KEYS):
        if tuple(header[len(_KEYS) :]) != tuple(labels):
            raise MetadataError(path, "has other columns than the fold before", "the folds are of different runs")
        yield _Clip(cells[0], cells[1], _probabilities(f"{path}, line {line}", cells[len(_KEYS) :]))


def _probabilities(where: str, cells: Sequence[str]) -> Float32:
    values = numbers_of(cells).astype(np.float32)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if wrong.size:
        raise MetadataError(where, f"holds {cells[wrong[0]]!r}", "a probability from 0 to 1 is needed")
    return values


def _check_clips(run_dir: Path, clips: Sequence[_Clip]) -> None:
    if not clips:
        raise MetadataError(run_dir, "its folds validated no clip", "nothing can be compared")
    seen: set[str] = set()
    for clip in clips:
        if clip.filename in seen:
            raise MetadataError(run_dir, f"clip {clip.filename!r} stands in two rows of fold*/oof.csv", "one is needed")
        seen.add(clip.filename)


def _read_groups(path: Path) -> Mapping[str, str]:
    """The group of each clip that has one; none where there is no folds.csv, or no such column in it."""
    if not path.is_file():
        return {}
    rows = [dict(zip(header, cells, strict=True)) for _, header, cells in _lines(path, ("filename",))]
    return {row["filename"]: row.get("group", "") for row in rows}


def _lines(path: Path, first: Sequence[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """Each row's number and cells, with the header, which has to begin like ``first``; blank lines are passed over."""
    with csv_rows(path) as rows:
        header = next(rows, [])
        if header[: len(first)] != list(first):
            raise MetadataError(path, f"does not begin with the columns {', '.join(first)}", _REMEDY)
        for number, cells in enumerate(rows, start=2):
            if cells and len(cells) != len(header):
                what = f"has {len(cells)} cells, the header {len(header)}"
                raise MetadataError(f"{path}, line {number}", what, _REMEDY)
            if cells:
                yield number, header, cells
