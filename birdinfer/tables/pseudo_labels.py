"""Pseudo-labels in a folder: windows of recordings and a teacher's scores for them, read memory-mapped.

``index.csv`` names the windows (filename, start, end, row), ``scores.npy`` holds float16 [rows, labels], and
``pseudo_labels.json`` says who gave them: a :class:`Teacher`. Scores are stored as they were predicted; thresholds and
power are recorded beside them, and applied by whoever trains on them.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.species import check_labels
from birdinfer.system.files import atomic_folder, utf8_text, write_atomic
from birdinfer.tables.cells import seconds_of, whole_of
from birdinfer.tables.csv import CsvWriter, rows
from birdinfer.typing import Float32

INDEX, SCORES, TEACHER = "index.csv", "scores.npy", "pseudo_labels.json"
_COLUMNS = ("filename", "start", "end", "row")
_BLOCK_ROWS = 4096
_HINT = "make the pseudo-labels again"

Scores16 = npt.NDArray[np.float16]


class Teacher(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gave the pseudo-labels, and how they are meant to be used."""

    labels: tuple[str, ...]
    """Columns of the scores, in order."""
    scientific_names: tuple[str, ...] = ()
    """Of each label, "" where it has none; they find the species whose labels are others."""
    bundle: str
    """Identity of the bundle, e.g. the fingerprint that its manifest has."""
    members: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    """Network family and backbone of each member, so that no network is taught by its own kind unawares."""
    steps: tuple[str, ...] = ()
    """Post-processing that the scores went through."""
    recordings: str = ""
    """Folder that the filenames are relative to, as it was given."""
    power: float = 1.0
    """Scores are meant to be raised to this."""
    keep: float = 0.0
    """A window is meant to be used if its largest score reaches this."""
    zero: float = 0.0
    """Scores below this are meant to count as 0."""
    held_out: Mapping[str, tuple[int, ...]] = {}
    """Files with labels of their own -> folds whose members gave the scores: those that did not train on the file."""


class PseudoWindow(NamedTuple):
    """A window of a recording."""

    filename: str
    """Relative to the folder of recordings."""
    start_seconds: float
    end_seconds: float


class PseudoLabels(NamedTuple):
    """What a folder holds."""

    teacher: Teacher
    windows: tuple[PseudoWindow, ...]
    """One for each row of the scores."""
    scores: Scores16
    """[windows, labels], 0 to 1, memory-mapped."""


def write_pseudo_labels(
    folder: Path, teacher: Teacher, recordings: Iterable[tuple[str, Iterable[tuple[float, float]], Float32]]
) -> int:
    """Write a folder of pseudo-labels recording by recording; it appears whole or not at all.

    Args:
        folder: an older folder of pseudo-labels is replaced, one with anything else is refused.
        teacher: who gives the scores.
        recordings: of each recording its filename, the start and end of its windows in seconds, and their scores
            [windows, labels], 0 to 1.

    Returns:
        How many windows were written.

    Raises:
        OutputError: the folder cannot be written.
    """
    n_rows = 0
    with atomic_folder(folder, "pseudo-labels", "name another folder", TEACHER) as new:
        with (new / INDEX).open("w", encoding="utf-8", newline="") as text, (new / SCORES).open("wb") as scores:
            index = CsvWriter(text)
            index.row(_COLUMNS[0], _COLUMNS[1:])
            _write_header(scores, 0, len(teacher.labels))
            for filename, windows, values in recordings:
                for number, (start, end) in enumerate(windows, start=n_rows):
                    index.row(utf8_text(filename), (f"{start:g}", f"{end:g}", number))
                scores.write(values.astype("<f2").tobytes())
                n_rows += len(values)
            scores.seek(0)
            _write_header(scores, n_rows, len(teacher.labels))
        write_atomic(new / TEACHER, msgspec.json.format(msgspec.json.encode(teacher)))
    return n_rows


def _write_header(file: BinaryIO, n_rows: int, n_labels: int) -> None:
    """Write the header of an array whose first axis may grow: numpy pads it for more digits."""
    header = {"descr": "<f2", "fortran_order": False, "shape": (n_rows, n_labels)}
    np.lib.format.write_array_header_1_0(file, header)


def is_pseudo_labels(folder: Path) -> bool:
    """Whether a folder holds pseudo-labels."""
    return (folder / TEACHER).is_file()


def read_pseudo_labels(folder: Path) -> PseudoLabels:
    """Read a folder of pseudo-labels; the scores stay on the disk until they are used.

    Raises:
        InputNotFoundError: it is no such folder, or a file of it is missing.
        MetadataError: its files do not agree, or a score is no probability.
    """
    teacher = read_teacher(folder)
    try:
        scores = np.load(folder / SCORES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputNotFoundError(folder / SCORES, "is no array of scores", _HINT) from error
    if scores.dtype != np.float16 or scores.shape[1:] != (len(teacher.labels),):
        what = f"is {scores.dtype} {list(scores.shape)}, needed is float16 [windows, {len(teacher.labels)}]"
        raise MetadataError(folder / SCORES, what, _HINT)
    _check_probabilities(folder / SCORES, scores)
    return PseudoLabels(teacher, _read_index(folder / INDEX, len(scores)), scores)


def read_teacher(folder: Path) -> Teacher:
    """Read who gave a folder's pseudo-labels; raises as :func:`read_pseudo_labels`."""
    path = folder / TEACHER
    try:
        teacher = msgspec.json.decode(path.read_bytes(), type=Teacher)
    except OSError as error:
        raise InputNotFoundError(path, "no such file", "name a folder that birdinfer pseudo-label made") from error
    except msgspec.DecodeError as error:
        raise MetadataError(path, f"cannot be read ({error})", _HINT) from error
    check_labels(teacher.labels, str(path), _HINT)
    if len(teacher.scientific_names) not in {0, len(teacher.labels)}:
        what = f"has {len(teacher.scientific_names)} scientific names of {len(teacher.labels)} labels"
        raise MetadataError(path, what, _HINT)
    return teacher


def _read_index(path: Path, n_rows: int) -> tuple[PseudoWindow, ...]:
    windows = dict(_indexed(path))
    if windows.keys() != set(range(n_rows)):
        raise MetadataError(path, f"does not name each of the {n_rows} rows of {SCORES} once", _HINT)
    return tuple(windows[row] for row in range(n_rows))


def _indexed(path: Path) -> Iterator[tuple[int, PseudoWindow]]:
    seen: set[int] = set()
    for line, cells in rows(path, _COLUMNS):
        start, end, row = seconds_of(cells["start"]), seconds_of(cells["end"]), whole_of(cells["row"])
        if start is None or end is None or row is None or not start < end or row in seen:
            what = f"row {line} needs start < end in seconds and a row of {SCORES} that is named once"
            raise MetadataError(path, what, _HINT)
        seen.add(row)
        yield row, PseudoWindow(cells["filename"], start, end)


def _check_probabilities(path: Path, scores: Scores16) -> None:
    for first in range(0, len(scores), _BLOCK_ROWS):
        block = scores[first : first + _BLOCK_ROWS]
        wrong = np.argwhere(~((block >= 0) & (block <= 1)))
        if len(wrong):
            row, column = wrong[0]
            raise MetadataError(path, f"row {first + row} holds {block[row, column]:g}, not a probability", _HINT)
