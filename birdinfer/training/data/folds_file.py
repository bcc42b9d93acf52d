"""folds.csv: a fold per clip, so that a later run validates on the same clips; and what a fold's number means."""

from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.system.files import atomic_text
from birdinfer.tables.cells import whole_of
from birdinfer.tables.csv import CsvWriter, rows
from birdinfer.training.data.clip import Clip

ALWAYS_TRAINING = -1
"""The clip is in the training of every fold."""
TEST = -2
"""The clip is in no fold: neither training nor validation."""
LEFT_OUT = -3
"""The clip is in the data and not in the run: it repeats another one, or only some were chosen."""
VALIDATION = -4
"""The clip is held out by every fold, and never trained on: of a source whose role is ``validate``."""
FOLDS_FILE = "folds.csv"
"""In a run's folder."""
_COLUMNS = ("filename", "primary_label", "group", "fold")
_NEEDED = ("filename", "primary_label", "fold")
_MOST_FOLDS = 50
"""As ``data.n_folds`` allows."""


def write_folds(path: Path, clips: Sequence[Clip], folds: Sequence[int]) -> None:
    """Write folds.csv, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as file:
        writer = CsvWriter(file)
        writer.row(_COLUMNS[0], _COLUMNS[1:])
        for clip, fold in zip(clips, folds, strict=True):
            writer.row(clip.filename, [clip.primary_label, clip.group, fold])


def read_folds(path: Path, clips: Sequence[Clip]) -> list[int]:
    """Find each clip's fold in folds.csv.

    Args:
        path: what :func:`write_folds` wrote, or a table like it; its column ``group`` is not read.
        clips: in any order, and perhaps fewer than the file names.

    Returns:
        Fold per clip, from -4.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: a column is missing, a fold is none, a clip stands twice, is not there or has another label.
    """
    found = folds_by_name(path)
    unnamed = [clip.filename for clip in clips if clip.filename not in found]
    if unnamed:
        what = f"names no fold for {len(unnamed)} of {len(clips)} clips, first {unnamed[0]}"
        raise MetadataError(path, what, "leave data.folds_file out, or add the rows (fold -1: training)")
    for clip in clips:
        label, _ = found[clip.filename]
        if label != clip.primary_label:
            what = f"labels {clip.filename} {label!r}, train.csv {clip.primary_label!r}"
            raise MetadataError(path, what, "it belongs to other data")
    return [found[clip.filename][1] for clip in clips]


def gone_clips(path: Path, clips: Sequence[Clip]) -> list[str]:
    """A line on rows of folds.csv whose clips the data does not have any more; none if there are none.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it cannot be read.
    """
    gone = sorted(folds_by_name(path).keys() - {clip.filename for clip in clips})
    return [f"{len(gone)} clips of {path} are not in the data any more, first {gone[0]}"] if gone else []


def folds_by_name(path: Path) -> dict[str, tuple[str, int]]:
    """Read folds.csv: primary label and fold by file name, in the file's order; raises as :func:`read_folds`."""
    if not path.is_file():
        raise InputNotFoundError(path, "no such file of folds", "data.folds_file names an earlier run's folds.csv")
    found: dict[str, tuple[str, int]] = {}
    for number, cells in rows(path, _NEEDED):
        filename = cells["filename"]
        if filename in found:
            raise MetadataError(path, f"row {number} names {filename} a second time", "keep one of them")
        found[filename] = cells["primary_label"], _fold(path, number, cells["fold"])
    return found


def _fold(path: Path, number: int, text: str) -> int:
    fold = whole_of(text)
    if fold is None or not VALIDATION <= fold < _MOST_FOLDS:
        what = f"row {number} has the fold {text!r}"
        raise MetadataError(path, what, f"allowed are 0 to {_MOST_FOLDS - 1}, -1, -2, -3 and -4")
    return fold
