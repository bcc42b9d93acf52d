"""Labels of soundscapes, as competitions give them -> windows with their species -> counts for a table of priors.

Two forms are read, told apart by their columns:

* ``filename,start,end,primary_label`` (BirdCLEF 2026): several labels have ``;`` between them, start and end are
  seconds or ``00:01:05``. Every row of 2026 stands twice, and a window may have a row for each species: it is one
  window, with the labels of all its rows. An empty label and ``nocall`` say that nobody was heard.
* ``row_id`` and a column of 0 and 1 for each label (truth.csv); a row id is ``<stem>_<end second>``.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AUDIO_SUFFIXES
from birdinfer.errors import MetadataError
from birdinfer.recording_names import hour_at, parse_name
from birdinfer.row_ids import split_row_id
from birdinfer.tables.csv_files import csv_rows
from birdinfer.tables.prior_tables import Occasion, PriorTable
from birdinfer.tables.score_files import rows_by_file
from birdinfer.tables.score_table import ROW_ID, ScoreTable, check_truth, read_scores

NO_CALL = "nocall"
_NEEDED = ("filename", "start", "end", "primary_label")
_MIN_TAIL_SECONDS = 0.5
"""A shorter rest at a file's end is no window, as in prediction."""
_MIN_SECONDS = 0.1
_TIME = re.compile(r"(?:(?:([0-9]{1,4}):)?([0-9]{1,2}):)?([0-9]{1,9}(?:[.][0-9]{1,9})?)")
_SHOWN = 20
"""Signs of a cell that is no time."""


class Window(NamedTuple):
    """A stretch of a soundscape."""

    stem: str
    """The file's name without its ending."""
    start_seconds: float
    end_seconds: float


Labelled = tuple[Window, frozenset[str]]
"""A window, and who is heard in it."""


class LabelledWindows(NamedTuple):
    """What was listened to, and what was heard."""

    heard: dict[Window, frozenset[str]]
    """The labels of each window, none where nobody was heard."""
    labels: tuple[str, ...]
    """All that the tables name: in the order of the columns where they are columns, else sorted."""
    repeated_rows: int
    """Rows of a window that has one already."""


def read_labelled_windows(paths: Sequence[Path], row_seconds: float) -> LabelledWindows:
    """Read one table of labels or several.

    Args:
        paths: of either form.
        row_seconds: length of a window where row ids tell its end alone, > 0.

    Raises:
        InputNotFoundError: a table is not there.
        MetadataError: a table is of neither form, holds what is no time or neither 0 nor 1, or has no column for a
            species that another table names: there it would pass for not heard.
    """
    heard: dict[Window, frozenset[str]] = {}
    columns: dict[Path, list[str]] = {}
    n_rows = 0
    for path in paths:
        if ROW_ID in _read(path)[0]:
            table = read_scores(path)
            columns[path] = table.labels
            rows = _truth_windows(table, row_seconds)
        else:
            rows = _listed_windows(path)
        n_rows += len(rows)
        for window, labels in rows:
            heard[window] = heard.get(window, frozenset()) | labels
    return LabelledWindows(heard, _all_labels(heard, columns), n_rows - len(heard))


def silent_windows(heard: Iterable[Window], duration_seconds: Mapping[str, float]) -> list[Window]:
    """The windows of labelled files that no row tells of: they were listened to, and nobody was heard.

    A file's windows lie side by side from its beginning, all as long as its first labelled one. Those that meet a
    labelled one are none of them, nor is a rest of less than half a second.

    Args:
        heard: the labelled windows.
        duration_seconds: of files, by stem; files without one, or without a labelled window, add none.
    """
    of_file: dict[str, list[Window]] = {}
    for window in heard:
        of_file.setdefault(window.stem, []).append(window)
    known = [(duration_seconds[stem], windows) for stem, windows in of_file.items() if stem in duration_seconds]
    return [silent for duration, windows in known for silent in _free_places(windows, duration)]


def count_windows(heard: Mapping[Window, frozenset[str]], labels: Sequence[str]) -> PriorTable:
    """Count labelled windows by the site and the hour in which they begin, as their files' names tell them.

    Args:
        heard: the labels of each window.
        labels: the columns; labels that are none of them are not counted.
    """
    column = {label: index for index, label in enumerate(labels)}
    counts: dict[Occasion, npt.NDArray[np.int64]] = {}
    for window, named in heard.items():
        name = parse_name(window.stem)
        occasion = Occasion(name.site, hour_at(name, window.start_seconds))
        row = counts.setdefault(occasion, np.zeros(1 + len(labels), np.int64))
        row[[0, *(1 + column[label] for label in named if label in column)]] += 1
    occasions = sorted(counts, key=lambda one: (one.site or "", -1 if one.hour is None else one.hour))
    stacked = np.array([counts[one] for one in occasions], np.int64).reshape(-1, 1 + len(labels))
    return PriorTable(tuple(labels), tuple(occasions), stacked[:, 0], stacked[:, 1:])


def _free_places(windows: Sequence[Window], duration_seconds: float) -> list[Window]:
    """Of one file."""
    first = min(windows, key=lambda window: window.start_seconds)
    length = first.end_seconds - first.start_seconds
    n_places = max(0, math.ceil((duration_seconds - _MIN_TAIL_SECONDS) / length))
    taken: set[int] = set()
    for window in windows:
        # Off by a thousandth of a place: 0.3 s are 0.1 s and 0.2 s, though not to the last bit.
        begin = math.floor(window.start_seconds / length + 1e-3)
        taken.update(range(begin, min(n_places, math.ceil(window.end_seconds / length - 1e-3))))
    free = (place for place in range(n_places) if place not in taken)
    return [Window(first.stem, place * length, (place + 1) * length) for place in free]


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, blank lines left out."""
    with csv_rows(path) as cells:
        rows = [row for row in cells if row]
    return (rows[0], rows[1:]) if rows else ([], [])


def _listed_windows(path: Path) -> list[Labelled]:
    """The rows of a table of ``filename,start,end,primary_label``; other columns are passed over."""
    header, rows = _read(path)
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        needed = f"needed are {ROW_ID} and labels, or {','.join(_NEEDED)}"
        raise MetadataError(path, f"has no column {', '.join(missing)}", needed)
    if not rows:
        raise MetadataError(path, "has no rows")
    places = [header.index(name) for name in _NEEDED]
    found = []
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise MetadataError(path, f"row {number} has {len(row)} cells, the header {len(header)}")
        found.append(_listed_window(path, number, *(row[place].strip() for place in places)))
    return found


def _listed_window(path: Path, number: int, filename: str, start: str, end: str, labels: str) -> Labelled:
    name = PurePosixPath(filename)
    stem = name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name
    if not stem:
        raise MetadataError(path, f"row {number} names no file")
    window = Window(stem, _seconds(path, number, start), _seconds(path, number, end))
    if window.end_seconds - window.start_seconds < _MIN_SECONDS:
        raise MetadataError(path, f"row {number} is from {start} to {end}", f"{_MIN_SECONDS:g} s are needed at least")
    named = (label.strip() for label in labels.split(";"))
    return window, frozenset(label for label in named if label and label != NO_CALL)


def _seconds(path: Path, number: int, cell: str) -> float:
    """``65``, ``65.0``, ``01:05`` or ``00:01:05`` -> 65 seconds."""
    found = _TIME.fullmatch(cell)
    if not found:
        raise MetadataError(path, f"row {number} holds {cell[:_SHOWN]!r}", "a time is needed, as 65 or 00:01:05")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3_600 + minutes * 60 + seconds


def _truth_windows(table: ScoreTable, row_seconds: float) -> list[Labelled]:
    """The rows of a table of 0 and 1; the first window of a file may be shorter than the others."""
    check_truth(table)
    found = []
    for stem, rows in rows_by_file(table.row_ids, table.path):
        for row in rows:
            end_seconds = float(split_row_id(table.row_ids[row], table.path)[1])
            labels = frozenset(table.labels[column] for column in np.flatnonzero(table.values[row]))
            found.append((Window(stem, max(0.0, end_seconds - row_seconds), end_seconds), labels))
    return found


def _all_labels(heard: Mapping[Window, frozenset[str]], columns: Mapping[Path, list[str]]) -> tuple[str, ...]:
    named = sorted({label for labels in heard.values() for label in labels} | {x for c in columns.values() for x in c})
    for path, labels in columns.items():
        lacking = sorted(set(named) - set(labels))
        if lacking:
            raise MetadataError(path, f"has no column {lacking[0]!r}", "another table has; make a table of each")
    if not named:
        raise MetadataError("labels", "no window has a species", "there is nothing to count")
    return tuple(next(iter(columns.values()), named))
