"""Who is present when, for a score: a truth of any kind and the rows of a table -> 0 and 1 for each row and label.

A table of ``row_id`` and a column of 0 and 1 per label is taken as it is. All others are annotations
(:mod:`birdinfer.tables.annotations`): a species is present in a row if a tenth of a second of one of its annotations
lies in the row, or the annotation's middle. All rows of a recording that a truth is about count: those that it says
nothing about hold no species.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.annotations import Annotation, Annotations, annotation_files, is_annotated, read_annotations
from birdinfer.tables.cells import near_miss
from birdinfer.tables.recordings import Recordings, match_recordings, recording_of_table
from birdinfer.tables.scores import ScoreTable, read_zeros_and_ones, rows_by_file
from birdinfer.typing import Bool, Float64

MIN_OVERLAP_SECONDS = 0.1
"""Of an annotation and a row, to be present in it: less is a hand's inaccuracy."""
MIN_TAIL_SECONDS = 0.5
"""A shorter rest at a recording's end is no window, as in prediction."""
_LONGER = 1.5
"""Times a row's length: windows longer than that do not say in which row a species is."""
_NAMED = 3
_NAMES_HINT = "labels are looked for; scientific and common names are known with --taxonomy or --bundle"


class Row(NamedTuple):
    """A row of a score table."""

    row_id: str
    recording: str
    start_seconds: float
    end_seconds: float


class Truth(NamedTuple):
    """A truth of a score table's rows."""

    table: ScoreTable
    """Its values are 0 or 1."""
    notes: tuple[str, ...]
    """What was left out, a line each."""


class Scored(NamedTuple):
    """The table whose truth is asked for."""

    rows: Sequence[Row]
    species: Sequence[Species]
    """In the order of the columns."""
    name: str
    """For messages."""


def rows_of(table: ScoreTable) -> list[Row]:
    """Find where the rows of a score table begin: where the one before ends, or a row's length before its end.

    Raises:
        MetadataError: a row id does not end in a second, or two of one file end at the same.
    """
    files = rows_by_file(table.row_ids, table.path)
    ends = [[int(table.row_ids[row].rpartition("_")[2]) for row in file.rows] for file in files]
    length = min((int(np.diff([0, *each]).min()) for each in ends), default=0)
    found: dict[int, Row] = {}
    for file, file_ends in zip(files, ends, strict=True):
        for index, before, end in zip(file.rows.tolist(), [0, *file_ends], file_ends, strict=False):
            start = before if end - before < 2 * length else end - length  # ends of broken seconds are rounded
            found[index] = Row(table.row_ids[index], file.stem, float(start), float(end))
    return [found[index] for index in sorted(found)]


def rows_as_spelled(asked: Sequence[str], there: Sequence[str]) -> list[str]:
    r"""Spell row ids as another table does that names the recordings otherwise; those that it lacks stay as they are.

    >>> rows_as_spelled(["siteA\\x.WAV_5", "y_5"], ["siteA/x_5"])
    ['siteA/x_5', 'y_5']
    """
    known = set(there)
    recordings: Recordings | None = None
    spelled = []
    for row_id in asked:
        stem, _, end = row_id.rpartition("_")
        if row_id not in known and stem:
            recordings = recordings or Recordings(each.rpartition("_")[0] for each in there)
            found = recordings.find(stem)
            spelled.append(f"{found[0]}_{end}" if len(found) == 1 else row_id)
        else:
            spelled.append(row_id)
    return spelled if len(set(spelled)) == len(spelled) else list(asked)


def read_truth(path: Path, scored: Callable[[], Scored]) -> Truth:
    """Read the truth of rows.

    Args:
        path: a table of 0 and 1, one of annotations, or a folder with a table for each recording.
        scored: gives the table that annotations are compared with; a truth of 0 and 1 is returned as it is.

    Raises:
        InputNotFoundError: there is no such file, or the folder holds no table.
        MetadataError: a table is not as needed, or names a recording or a time that the rows lack; with the row.
        LabelError: it names a species that the columns lack, or is none's.
    """
    if not path.is_dir() and not is_annotated(path):
        return Truth(*read_zeros_and_ones(path))
    place = scored()
    names, recordings = SpeciesNames(place.species), Recordings(row.recording for row in place.rows)
    read = [read_annotations(each, names.texts) for each in annotation_files(path)]
    cells, notes = _Cells(place), []
    for table in read:
        labels, unknown = labels_of_annotations(table, names, place.name)
        cells.add(table, _recordings_of(table, recordings, place.name), labels)
        notes += left_out(table, unknown)
    return Truth(cells.table(path), (*notes, *cells.notes()))


def labels_of_annotations(
    table: Annotations, names: SpeciesNames, where: str
) -> tuple[list[frozenset[str]], "Counter[str]"]:
    """Find the labels of each annotation, and count the texts of calls that are no known species.

    Raises:
        LabelError: a text is a species' name but for case, spaces or the like; it is that of two species; a window of a
            competition names a species that is not known, or none of the texts of calls is known.
    """
    rows: dict[str, list[int]] = {}
    found = [_labels(table, annotation, names, rows) for annotation in table.annotations]
    unknown = Counter({text: len(at) for text, at in rows.items()})
    if unknown and (table.is_windows or not any(found)):
        shown = ", ".join(f"{text!r} (row {at[0]})" for text, at in list(rows.items())[:_NAMED])
        shown += ", ..." if len(rows) > _NAMED else ""
        has_names = len(names.texts) > len(names.labels)
        hint = "write its labels or names, or add the species there" if has_names else _NAMES_HINT
        raise LabelError(table.path, f"names {len(rows)} species that {where} lacks: {shown}", hint)
    return found, unknown


def left_out(table: Annotations, unknown: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """Describe in a line each the calls of no species: by the texts that are ``unknown``, and those without a text."""
    lines = []
    if unknown:
        common = ", ".join(f"{text} ({times})" for text, times in Counter(unknown).most_common(_NAMED))
        more = ", ..." if len(unknown) > _NAMED else ""
        lines.append(
            f"{table.path.name}: {sum(unknown.values())} annotations of no known species: left out ({common}{more})"
        )
    nameless = sum(not each.species for each in table.annotations) if not table.is_windows else 0
    return [*lines, *([f"{table.path.name}: {nameless} annotations name no species"] if nameless else [])]


def overlaps(start: float, end: float, starts: Float64, ends: Float64) -> Bool:
    """Find in which rows an annotation is present, [rows]; see the module."""
    middle = (start + end) / 2
    length = np.minimum(ends, end) - np.maximum(starts, start)
    return (length >= MIN_OVERLAP_SECONDS - 1e-6) | ((starts <= middle) & (middle < ends))


class _Cells:
    """Takes the annotations of one table after the other."""

    def __init__(self, place: Scored) -> None:
        self._place = place
        self._column = {species.label: index for index, species in enumerate(place.species)}
        self._values = np.zeros((len(place.rows), len(place.species)))
        self._rows_of: dict[str, list[int]] = {}
        for index, row in enumerate(place.rows):
            self._rows_of.setdefault(row.recording, []).append(index)
        self._starts = np.array([row.start_seconds for row in place.rows])
        self._ends = np.array([row.end_seconds for row in place.rows])
        self._named: set[str] = set()
        self._is_said = np.zeros(len(place.rows), np.bool_)
        """Whether a window is about the row."""
        self._has_windows = False
        self._behind: list[str] = []

    def add(self, table: Annotations, recordings: Mapping[str, str], labels: Sequence[frozenset[str]]) -> None:
        self._check_length(table)
        self._has_windows = self._has_windows or table.is_windows
        self._named |= set(recordings.values())
        for annotation, present in zip(table.annotations, labels, strict=True):
            rows = np.array(self._rows_of[recordings[annotation.recording]])
            start, end = annotation.start_seconds, annotation.end_seconds
            hit = rows[overlaps(start, end, self._starts[rows], self._ends[rows])]
            if not hit.size or (table.is_windows and end > self._ends[rows].max() + MIN_OVERLAP_SECONDS):
                self._note_behind(table, annotation)
            self._is_said[hit] |= table.is_windows
            for label in present:
                self._values[hit, self._column[label]] = 1

    def table(self, path: Path) -> ScoreTable:
        kept = [index for index, row in enumerate(self._place.rows) if row.recording in self._named]
        return ScoreTable(
            path=path,
            row_ids=[self._place.rows[index].row_id for index in kept],
            labels=[species.label for species in self._place.species],
            values=self._values[kept],
        )

    def notes(self) -> list[str]:
        kept = [row.recording in self._named for row in self._place.rows]
        silent = int((np.array(kept) & ~self._is_said).sum()) if self._has_windows else 0
        lines = [f"{silent} of {sum(kept)} rows have no window in the truth: no species in them"] if silent else []
        if self._behind:
            lines.append(
                f"{len(self._behind)} annotations lie in no row of {self._place.name}: left out ({self._behind[0]})"
            )
        return lines

    def _check_length(self, table: Annotations) -> None:
        lengths = {round(each.end_seconds - each.start_seconds, 3) for each in table.annotations}
        row = float((self._ends - self._starts).max())
        if table.is_windows and len(lengths) == 1 and min(lengths) > _LONGER * row:
            what = f"its windows last {min(lengths):g} s, the rows of {self._place.name} {row:g} s"
            raise MetadataError(table.path, what, "in which of the rows a species is present is not known")

    def _note_behind(self, table: Annotations, annotation: Annotation) -> None:
        stretch = f"row {annotation.row}, {annotation.start_seconds:g} to {annotation.end_seconds:g} s"
        if table.is_windows:
            what = f"{stretch} of {annotation.recording!r}: {self._place.name} has no rows there"
            raise MetadataError(table.path, what, "predict the whole recording, or leave the row out")
        self._behind.append(f"{table.path.name}, {stretch}")


def _recordings_of(table: Annotations, recordings: Recordings, where: str) -> dict[str, str]:
    """The recording of each name; that of "" by the table's own name."""
    asked = [(each.row, each.recording) for each in table.annotations if each.recording]
    if asked:
        return match_recordings(asked, recordings, table.path, where)
    return {"": recording_of_table(table.path, recordings, where)}


def _labels(
    table: Annotations, annotation: Annotation, names: SpeciesNames, unknown: dict[str, list[int]]
) -> frozenset[str]:
    found = set()
    for texts in annotation.species:
        label = _label_of(table.path, annotation.row, texts, names)
        if label is not None:
            found.add(label)
            continue
        if texts[0] not in unknown:
            _refuse_near_miss(table.path, annotation.row, texts, names)
        unknown.setdefault(texts[0], []).append(annotation.row)
    return frozenset(found)


def _label_of(path: Path, row: int, texts: Sequence[str], names: SpeciesNames) -> str | None:
    """The label that the first clear one of a species' names means; None if none is known."""
    found = {text: names.find(text) for text in texts}
    clear = next((labels[0] for labels in found.values() if len(labels) == 1), None)
    shared = next((text for text, labels in found.items() if len(labels) > 1), None)
    if clear is None and shared is not None:
        both = " and ".join(map(repr, found[shared][:2]))
        raise LabelError(path, f"row {row}: {shared!r} is the name of {both}", "write the label itself")
    return clear


def _refuse_near_miss(path: Path, row: int, texts: Sequence[str], names: SpeciesNames) -> None:
    for text in texts:
        near = near_miss(text, names.labels)
        if near:
            raise LabelError(path, f"row {row}: {text!r} is {near}", "write it as the column does")
