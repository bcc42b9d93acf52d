"""A table of segments -> stretches of recordings with hard or soft labels.

``filename,start,end,primary_label`` has labels that are there, with ``;`` between several; without start and end a
segment is all of its file. ``filename,start,end`` and a column for each label has values from 0 to 1, as has a
submission, ``row_id`` and a column for each label, whose rows end where their id says. A column ``weight`` weighs rows
in the loss.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import NO_CALL
from birdinfer.tables.cells import is_blank, labels_of, number_of, numbers_of, seconds_of
from birdinfer.tables.csv import check_columns, csv_rows
from birdinfer.tables.row_ids import split_row_id
from birdinfer.tables.scores import ROW_ID, check_probabilities, read_scores, rows_by_file

_PLACE = ("filename", "start", "end", "weight")
_LABEL = "primary_label"
_LISTED = 3


class Segment(NamedTuple):
    """A labelled stretch of a recording."""

    recording: str
    start_seconds: float
    end_seconds: float
    values: Mapping[str, float]
    """Label -> 0 to 1; labels that are 0 may be left out."""
    weight: float = 1.0


class Segments(NamedTuple):
    """A table."""

    segments: tuple[Segment, ...]
    known: frozenset[str]
    """Labels that the table says anything about."""
    notes: tuple[str, ...]


def read_segments(path: Path, labels: Sequence[str], window_seconds: float) -> Segments:
    """Read a table of segments.

    Args:
        path: the table.
        labels: those that have a column.
        window_seconds: length of a row that has an id, whose end alone is known.

    Raises:
        InputNotFoundError: there is no such table.
        MetadataError: a column is missing, or a cell is no time, number or probability.
        LabelError: it has none of the labels.
    """
    with csv_rows(path, needed=["filename"]) as rows:
        header = next(rows, [])
    known = frozenset(labels)
    if ROW_ID in header:
        return _of_row_ids(path, known, window_seconds)
    check_columns(path, header, ["filename"])
    if _LABEL in header:
        return _hard(path, known)
    _check_any(path, [name for name in header if name not in _PLACE], known)
    return _soft(path, header, known)


def _of_row_ids(path: Path, known: frozenset[str], window_seconds: float) -> Segments:
    table = read_scores(path)
    check_probabilities(table, "scores of 0 to 1 are labels")
    _check_any(path, table.labels, known)
    columns = [(index, label) for index, label in enumerate(table.labels) if label in known]
    segments = []
    for stem, rows in rows_by_file(table.row_ids, path):
        for row in rows:
            end = float(split_row_id(table.row_ids[row], path)[1])
            values = {label: float(table.values[row, index]) for index, label in columns if table.values[row, index]}
            segments.append(Segment(stem, max(0.0, end - window_seconds), end, values))
    return _segments(path, segments, known & set(table.labels), [one for one in table.labels if one not in known])


def _hard(path: Path, known: frozenset[str]) -> Segments:
    segments, outside = [], Counter[str]()
    with csv_rows(path) as rows:
        header = next(rows)
        for row in filter(None, rows):
            cells = dict(zip(header, row, strict=True))
            try:
                found = [label for label in labels_of(cells[_LABEL], known) if label != NO_CALL]
            except ValueError as error:
                raise MetadataError(path, f"row {rows.number}: {_LABEL} {error}", "mend the row") from error
            outside.update(label for label in found if label not in known)
            values = {label: 1.0 for label in found if label in known}
            segments.append(_segment(path, rows.number, cells, values))
    if outside and not any(segment.values for segment in segments):
        _refuse(path, list(outside))
    common = ", ".join(f"{label} ({times})" for label, times in outside.most_common(_LISTED))
    more = ", ..." if len(outside) > _LISTED else ""
    line = f"{len(outside)} labels outside the taxonomy are left out: {common}{more}"
    return Segments(tuple(segments), known, (line,) if outside else ())


def _soft(path: Path, header: Sequence[str], known: frozenset[str]) -> Segments:
    columns = [(index, name) for index, name in enumerate(header) if name in known and name not in _PLACE]
    segments = []
    with csv_rows(path) as rows:
        next(rows)
        for row in filter(None, rows):
            numbers = numbers_of([row[index] for index, _ in columns])
            wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= 1)))
            if len(wrong):
                index, name = columns[wrong[0]]
                raise MetadataError(path, f"row {rows.number}: {name} is {row[index]!r}", "0 to 1 are needed")
            values = {name: float(value) for (_, name), value in zip(columns, numbers, strict=True) if value}
            segments.append(_segment(path, rows.number, dict(zip(header, row, strict=True)), values))
    outside = [name for name in header if name not in known and name not in _PLACE]
    return _segments(path, segments, frozenset(name for _, name in columns), outside)


def _segment(path: Path, number: int, cells: Mapping[str, str], values: Mapping[str, float]) -> Segment:
    start, end = (
        blank if is_blank(cells.get(name, "")) else seconds_of(cells[name])
        for name, blank in (("start", 0.0), ("end", math.inf))
    )
    if start is None or end is None or not start < end:
        raise MetadataError(path, f"row {number} needs start < end in seconds", "mend the row")
    cell = cells.get("weight", "")
    weight = 1.0 if is_blank(cell) else number_of(cell)
    if not 0 <= weight < math.inf:
        raise MetadataError(path, f"row {number}: weight is {cell!r}", "a number from 0 is needed")
    return Segment(cells["filename"], start, end, values, weight)


def _segments(path: Path, segments: Sequence[Segment], known: frozenset[str], outside: Sequence[str]) -> Segments:
    if not segments:
        raise MetadataError(path, "has no rows")
    shown = ", ".join(outside[:_LISTED]) + (", ..." if len(outside) > _LISTED else "")
    line = f"{len(outside)} columns outside the taxonomy are left out: {shown}"
    return Segments(tuple(segments), known, (line,) if outside else ())


def _check_any(path: Path, found: Sequence[str], known: frozenset[str]) -> None:
    if not known & set(found):
        _refuse(path, found)


def _refuse(path: Path, found: Sequence[str]) -> None:
    shown = ", ".join(map(repr, found[:_LISTED])) + (", ..." if len(found) > _LISTED else "")
    raise LabelError(path, f"none of its {len(found)} labels is in the taxonomy: {shown}", "name them as there")
