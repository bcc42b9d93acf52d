"""Labelled soundscapes of any kind -> windows with their species -> counts for a table of priors.

Tables of annotations (:mod:`birdinfer.tables.annotations`) and of ``row_id`` and a column of 0 and 1 for each label are
read. Every row of 2026 stands twice, and a window may have a row for each species: it is one window, with the labels of
all its rows. Calls, which begin and end anywhere, are counted in the windows in which they are present.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.annotations import Annotation, Annotations, annotation_files, is_annotated, read_annotations
from birdinfer.tables.cells import near_miss
from birdinfer.tables.recording_names import hour_at, month_at, parse_name
from birdinfer.tables.recordings import own_recording, spelled
from birdinfer.tables.row_ids import split_row_id
from birdinfer.tables.scores import ScoreTable, read_zeros_and_ones, rows_by_file
from birdinfer.tables.step_tables import Occasion, PriorTable
from birdinfer.tables.truth import MIN_TAIL_SECONDS, labels_of_annotations, left_out, overlaps
from birdinfer.typing import Float64, Int64


class Window(NamedTuple):
    """A stretch of a soundscape."""

    recording: str
    """Its path in the folder of recordings, without the ending."""
    start_seconds: float
    end_seconds: float


Labelled = tuple[Window, frozenset[str]]
"""A window and the labels of its species."""


class LabelledWindows(NamedTuple):
    """The windows of one table or several."""

    windows: dict[Window, frozenset[str]]
    """The labels of each window; none where it holds no species."""
    labels: tuple[str, ...]
    """All labels of the tables: in the order of the columns where they are columns, else sorted."""
    repeated_rows: int
    """Rows of a window that has one already."""
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


def read_labelled_windows(
    paths: Sequence[Path], row_seconds: float, species: Sequence[Species] = (), where: str = ""
) -> LabelledWindows:
    """Read tables of labels, or folders of them.

    Args:
        paths: the tables.
        row_seconds: length of a window where row ids give its end alone, or calls are counted, > 0.
        species: those that there are, whose names a table may use; any text is a label if there is none.
        where: what lists the species, for messages.

    Raises:
        InputNotFoundError: a table is not there.
        MetadataError: a table has no known form, holds what is no time or neither 0 nor 1, or has no column for a
            species of another table, which would count as absent.
        LabelError: a label is none of the species, or that of another row but for its spelling.
    """
    labels_of: dict[Window, frozenset[str]] = {}
    columns: dict[Path, list[str]] = {}
    names, notes, seen = SpeciesNames(species), list[str](), dict[str, None]()
    n_repeated = 0
    for path in (each for given in paths for each in annotation_files(given)):
        is_row_a_window = True
        if is_annotated(path):
            table = read_annotations(path, names.texts)
            is_row_a_window = table.is_windows
            rows, lines = _annotated_windows(table, names, where, row_seconds)
            if not species:
                _refuse_twins(table, seen)
        else:
            truth, lines = read_zeros_and_ones(path)
            columns[path] = truth.labels
            rows = _truth_windows(truth, row_seconds)
        notes += lines
        for window, labels in rows:
            n_repeated += is_row_a_window and window in labels_of
            labels_of[window] = labels_of.get(window, frozenset()) | labels
    return LabelledWindows(labels_of, _all_labels(labels_of, columns, paths), n_repeated, tuple(notes))


def silent_windows(labelled: Iterable[Window], duration_seconds: Mapping[str, float]) -> list[Window]:
    """Find the windows of labelled files that have no row: they were listened to, and hold no species.

    A file's windows lie side by side from its beginning, all as long as its first labelled one. A window that overlaps
    a labelled one is not silent, and a rest of less than half a second is no window.

    ``duration_seconds``: of recordings, by name; files without one, or without a labelled window, add none.
    """
    of_file: dict[str, list[Window]] = {}
    for window in labelled:
        of_file.setdefault(window.recording, []).append(window)
    known = [(duration_seconds[stem], windows) for stem, windows in of_file.items() if stem in duration_seconds]
    return [silent for duration, windows in known for silent in _free_places(windows, duration)]


def count_windows(
    labels_of: Mapping[Window, frozenset[str]], labels: Sequence[str], timed: Mapping[str, str] = MappingProxyType({})
) -> PriorTable:
    """Count labelled windows by the site, hour and month in which they begin, which stand in their files' names.

    ``timed``: another name of a recording from which they are read.
    """
    column = {label: index for index, label in enumerate(labels)}
    counts: dict[Occasion, Int64] = {}
    for window, present in labels_of.items():
        name = parse_name(timed.get(window.recording, window.recording))
        begin = window.start_seconds
        occasion = Occasion(name.site, hour_at(name, begin), month_at(name, begin))
        row = counts.setdefault(occasion, np.zeros(1 + len(labels), np.int64))
        row[[0, *(1 + column[label] for label in present if label in column)]] += 1
    occasions = sorted(counts, key=lambda one: (one.site or "", *(-1 if each is None else each for each in one[1:])))
    stacked = np.array([counts[one] for one in occasions], np.int64).reshape(-1, 1 + len(labels))
    return PriorTable(labels=tuple(labels), occasions=tuple(occasions), windows=stacked[:, 0], present=stacked[:, 1:])


def _free_places(windows: Sequence[Window], duration_seconds: float) -> list[Window]:
    first = min(windows, key=lambda window: window.start_seconds)
    length = first.end_seconds - first.start_seconds
    n_places = max(0, math.ceil((duration_seconds - MIN_TAIL_SECONDS) / length))
    taken: set[int] = set()
    for window in windows:
        # Off by a thousandth of a place: 0.3 s are 0.1 s and 0.2 s, though not to the last bit.
        begin = math.floor(window.start_seconds / length + 1e-3)
        taken.update(range(begin, min(n_places, math.ceil(window.end_seconds / length - 1e-3))))
    free = (place for place in range(n_places) if place not in taken)
    return [Window(first.recording, place * length, (place + 1) * length) for place in free]


def _annotated_windows(
    table: Annotations, names: SpeciesNames, where: str, row_seconds: float
) -> tuple[list[Labelled], tuple[str, ...]]:
    if names.labels:
        labels, unknown = labels_of_annotations(table, names, where)
        notes = left_out(table, unknown)
    else:
        labels, notes = [frozenset(texts[0] for texts in each.species) for each in table.annotations], left_out(table)
    own = own_recording(table.path)
    windows_of = _own_window if table.is_windows else _windows_of_call
    rows = [
        (Window(spelled(each.recording) or own, *stretch), present)
        for each, present in zip(table.annotations, labels, strict=True)
        for stretch in windows_of(each, row_seconds)
    ]
    # A table without a call is of a recording without species: its first window, and with their sound its others.
    return rows or [(Window(own, 0.0, row_seconds), frozenset())], tuple(notes)


def _own_window(annotation: Annotation, row_seconds: float) -> list[tuple[float, float]]:
    return [(annotation.start_seconds, annotation.end_seconds)]


def _windows_of_call(annotation: Annotation, row_seconds: float) -> list[tuple[float, float]]:
    """The windows of a file in which a call is present; they lie side by side from its beginning."""
    first, last = (int(time // row_seconds) for time in (annotation.start_seconds, annotation.end_seconds))
    starts: Float64 = np.arange(first, last + 1, dtype=np.float64) * row_seconds
    hit = overlaps(annotation.start_seconds, annotation.end_seconds, starts, starts + row_seconds)
    return [(float(start), float(start + row_seconds)) for start in starts[hit]]


def _refuse_twins(table: Annotations, seen: dict[str, None]) -> None:
    """Refuse a label that is another one, of this table or one before, but for its spelling."""
    for annotation in table.annotations:
        for label in (texts[0] for texts in annotation.species):
            near = near_miss(label, seen) if label not in seen else ""
            if near:
                raise LabelError(table.path, f"row {annotation.row}: {label!r} is {near}", "write both alike")
            seen[label] = None


def _truth_windows(table: ScoreTable, row_seconds: float) -> list[Labelled]:
    """The rows of a table of 0 and 1; the first window of a file may be shorter than the others."""
    found = []
    for stem, rows in rows_by_file(table.row_ids, table.path):
        for row in rows:
            end_seconds = float(split_row_id(table.row_ids[row], table.path)[1])
            labels = frozenset(table.labels[column] for column in np.flatnonzero(table.values[row]))
            found.append((Window(stem, max(0.0, end_seconds - row_seconds), end_seconds), labels))
    return found


def _all_labels(
    labels_of: Mapping[Window, frozenset[str]], columns: Mapping[Path, list[str]], paths: Sequence[Path]
) -> tuple[str, ...]:
    every = sorted({label for labels in (*labels_of.values(), *columns.values()) for label in labels})
    for path, labels in columns.items():
        lacking = sorted(set(every) - set(labels))
        if lacking:
            raise MetadataError(path, f"has no column {lacking[0]!r}", "another table has; make a table of each")
    if not every:
        where = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
        raise MetadataError(where, "no window has a species", "there is nothing to count")
    return tuple(next(iter(columns.values()), every))
