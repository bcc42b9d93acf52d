"""folds.csv: a fold per clip on disk, so that a later run validates on the same clips again.

Columns filename, primary_label, group, fold; the fold is a number from 0, -1 (always in training), -2 (test) or -3
(left out). Clips are found again by file name: rows of clips that are gone are passed over, a clip without a row is
refused.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.files import atomic_text
from birdinfer.training.clips.metadata import Clip

FOLDS_FILE = "folds.csv"
"""In a run's folder."""

LEFT_OUT = -3
"""The clip is in the data and not in the run: it repeats another one, or only some were chosen."""

_COLUMNS = ("filename", "primary_label", "group", "fold")
_NEEDED = ("filename", "primary_label", "fold")
_MOST_FOLDS = 50
"""As ``data.n_folds`` allows."""


def write_folds(path: Path, clips: Sequence[Clip], folds: Sequence[int]) -> None:
    """Write folds.csv, whole or not at all.

    Args:
        path: where.
        clips: all of the data, those of the test and those left out, too.
        folds: one per clip.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for clip, fold in zip(clips, folds, strict=True):
            writer.writerow([clip.filename, clip.primary_label, clip.group, fold])


def read_folds(path: Path, clips: Sequence[Clip]) -> list[int]:
    """Find each clip's fold in folds.csv.

    Args:
        path: what :func:`write_folds` wrote, or a table like it; its column ``group`` is not read.
        clips: in any order, and perhaps fewer than the file names.

    Returns:
        Fold per clip, from -3.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: a column is missing, a fold is none, a clip stands twice, is not there or has another label.
    """
    rows = _read(path)
    unnamed = [clip.filename for clip in clips if clip.filename not in rows]
    if unnamed:
        what = f"names no fold for {len(unnamed)} of {len(clips)} clips, first {unnamed[0]}"
        raise MetadataError(path, what, "lay folds anew without data.folds_file, or add the rows (fold -1: training)")
    for clip in clips:
        label, _ = rows[clip.filename]
        if label != clip.primary_label:
            what = f"labels {clip.filename} {label!r}, train.csv {clip.primary_label!r}"
            raise MetadataError(path, what, "it belongs to other data")
    return [rows[clip.filename][1] for clip in clips]


def gone_clips(path: Path, clips: Sequence[Clip]) -> list[str]:
    """A line on rows of folds.csv whose clips the data does not have any more; none if there are none.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it cannot be read.
    """
    gone = sorted(_read(path).keys() - {clip.filename for clip in clips})
    return [f"{len(gone)} clips of {path} are not in the data any more, first {gone[0]}"] if gone else []


def _read(path: Path) -> dict[str, tuple[str, int]]:
    """File name -> label and fold."""
    if not path.is_file():
        raise InputNotFoundError(path, "no such file of folds", "data.folds_file names an earlier run's folds.csv")
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise MetadataError(path, f"lacks the column {', '.join(missing)}", "is it a folds.csv?")
            return _by_filename(path, list(reader))
    except csv.Error as error:
        raise MetadataError(path, f"is not a table ({error})") from error


def _by_filename(path: Path, table: Sequence[dict[str, str | None]]) -> dict[str, tuple[str, int]]:
    rows: dict[str, tuple[str, int]] = {}
    for number, cells in enumerate(table, start=2):
        filename, label, text = (cells[name] or "" for name in _NEEDED)
        if filename in rows:
            raise MetadataError(path, f"row {number} names {filename} a second time", "keep one of them")
        rows[filename] = label, _fold(path, number, text)
    return rows


def _fold(path: Path, number: int, text: str) -> int:
    try:
        fold = int(text)
    except ValueError:
        fold = _MOST_FOLDS
    if not LEFT_OUT <= fold < _MOST_FOLDS:
        what = f"row {number} has the fold {text!r}"
        raise MetadataError(path, what, f"allowed are 0 to {_MOST_FOLDS - 1}, -1, -2 and -3")
    return fold
