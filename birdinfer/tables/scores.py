"""Score tables, read strictly: a CSV of ``row_id`` and one column per label -> row ids, labels, values [rows, labels].

submission.csv and truth.csv have this shape. A cell that is empty or no number, and a row or column that stands twice,
are refused with their place, for a scorer would fail on them. A table can be divided into its sound files, and what is
computed file by file comes back in the table's order.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.tables.binary_scores import ROW_ID as ROW_ID
from birdinfer.tables.binary_scores import is_binary, read_binary
from birdinfer.tables.cells import flag_of, numbers_of
from birdinfer.tables.csv import csv_rows
from birdinfer.tables.row_ids import split_row_id
from birdinfer.typing import Bool, Float32, Float64, Index

_LISTED_COLUMNS = 5
_USAGE = "Usage"
_USAGES = frozenset(("public", "private", "ignored"))

_Parse = Callable[[Path, str, Sequence[str], Sequence[str]], Float64]
"""The values of a row: of which table and row, the labels, the cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """A score table in memory."""

    path: Path
    row_ids: list[str]
    labels: list[str]
    values: Float64
    """[rows, labels], finite. In double precision, so that a rank metric sees no ties that the text does not have."""


def read_scores(path: Path) -> ScoreTable:
    """Read submission.csv or truth.csv, where ``row_id`` may stand in any column; or a ``.parquet`` or ``.npz``.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has no ``row_id``, no label or no rows, a row or column twice, a row of another length, or a
            cell that is not a finite number.
    """
    return _whole(path) if is_binary(path) else _read(path, _numbers)


def check_probabilities(table: ScoreTable, hint: str) -> None:
    """Raise MetadataError for a cell outside [0, 1]."""
    _refuse(table, (table.values < 0) | (table.values > 1), ", not a probability", hint)


def read_zeros_and_ones(path: Path) -> tuple[ScoreTable, tuple[str, ...]]:
    """Read a table of truth, and list in a line each what was left out.

    0 and 1 may be True and False, as pandas writes them. A column Usage of Public and Private, as the files of Kaggle's
    solutions have it, is left out.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: as of :func:`read_scores`, or a cell is neither 0 nor 1.
    """
    table = _read(path, _truths)
    columns = [index for index, label in enumerate(table.labels) if not np.isnan(table.values[:, index]).all()]
    kept = ScoreTable(
        path=path, row_ids=table.row_ids, labels=[table.labels[index] for index in columns],
        values=table.values[:, columns],
    )  # fmt: skip
    _refuse(kept, np.isnan(kept.values), ", in some rows only", "a column of Public and Private, or of 0 and 1")
    is_left_out = len(columns) < len(table.labels)
    return kept, (f"{path.name}: column {_USAGE} is left out: its rows count alike",) if is_left_out else ()


def _refuse(table: ScoreTable, wrong: Bool, what: str, hint: str) -> None:
    """Raise for the first cell that is ``wrong`` [rows, labels]."""
    for row, column in np.argwhere(wrong)[:1]:
        where = f"row {table.row_ids[row]!r}, column {table.labels[column]!r}"
        raise MetadataError(table.path, f"{where} holds {table.values[row, column]:g}{what}", hint)


def _check_header(path: Path, header: list[str]) -> int:
    if ROW_ID not in header:
        more = ", ..." if len(header) > _LISTED_COLUMNS else ""
        found = ", ".join(header[:_LISTED_COLUMNS]) + more if header else "none, it is empty"
        raise MetadataError(path, f"has no column {ROW_ID}", f"its columns are: {found}")
    if len(header) == 1:
        raise MetadataError(path, f"has no column but {ROW_ID}", "one column per label is needed")
    _check_unique(path, "column", header)
    return header.index(ROW_ID)


def _read(path: Path, parse: _Parse) -> ScoreTable:
    row_ids: list[str] = []
    values: list[Float64] = []
    with csv_rows(path, needed=[ROW_ID]) as rows:
        header = next(rows, [])
        place = _check_header(path, header)
        labels = _without(header, place)
        for row in rows:
            if row and not row[place].strip():
                raise MetadataError(path, f"row {rows.number} has no {ROW_ID}")
            if row:
                row_ids.append(row[place])
                values.append(parse(path, row[place], labels, _without(row, place)))
    if not values:
        raise MetadataError(path, "has no rows")
    _check_unique(path, ROW_ID, row_ids)
    return ScoreTable(path=path, row_ids=row_ids, labels=labels, values=np.stack(values))


def _whole(path: Path) -> ScoreTable:
    row_ids, labels, values = read_binary(path)
    if not (row_ids and labels):
        raise MetadataError(path, "has no rows" if labels else f"has no column but {ROW_ID}")
    _check_unique(path, "column", labels)
    _check_unique(path, ROW_ID, row_ids)
    table = ScoreTable(path=path, row_ids=row_ids, labels=labels, values=values)
    _refuse(table, ~np.isfinite(values), "", "a finite number is needed")
    return table


def _numbers(path: Path, row_id: str, labels: Sequence[str], cells: Sequence[str]) -> Float64:
    numbers = numbers_of(cells)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        cell = cells[wrong[0]]
        what = f"holds {cell!r}" if cell.strip() else "is empty"
        raise MetadataError(path, f"row {row_id!r}, column {labels[wrong[0]]!r} {what}", "a finite number is needed")
    return numbers


def _check_unique(path: Path, kind: str, names: Sequence[str]) -> None:
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise MetadataError(path, f"{kind} {name!r} stands {times} times")


def _truths(path: Path, row_id: str, labels: Sequence[str], cells: Sequence[str]) -> Float64:
    """0 and 1; NaN for a cell of Kaggle's column Usage."""
    values = numbers_of(cells)
    for index in np.flatnonzero((values != 0) & (values != 1)).tolist():
        flag = flag_of(cells[index])
        if flag is None and not (labels[index] == _USAGE and cells[index].strip().casefold() in _USAGES):
            cell = f"{values[index]:g}" if np.isfinite(values[index]) else repr(cells[index])
            what = f"holds {cell}" if cells[index].strip() else "is empty"
            raise MetadataError(path, f"row {row_id!r}, column {labels[index]!r} {what}", "truth is 0 or 1")
        values[index] = math.nan if flag is None else flag
    return values


def _without(cells: list[str], place: int) -> list[str]:
    return cells[:place] + cells[place + 1 :]


class FileRows(NamedTuple):
    """The rows of one sound file."""

    stem: str
    """The file's name without its ending, as the row ids spell it."""
    rows: Index
    """Indices into the table, in time order."""


def rows_by_file(row_ids: Sequence[str], where: Path) -> list[FileRows]:
    """Group the rows of a table by sound file.

    Rows that the table lacks are not filled in: those on either side of a gap are neighbours.

    >>> rows_by_file(["b_5", "a_10", "a_5"], Path("s.csv"))[1]
    FileRows(stem='a', rows=array([2, 1]))

    Raises:
        MetadataError: a row id does not end in a second, or two of one file end at the same.
    """
    files: dict[str, dict[int, int]] = {}
    for index, row_id in enumerate(row_ids):
        stem, end_second = split_row_id(row_id, where)
        row_at = files.setdefault(stem, {})
        if end_second in row_at:
            both = f"{row_ids[row_at[end_second]]!r} and {row_id!r}"
            raise MetadataError(where, f"rows {both} are the same second of one file", "one row for each is needed")
        row_at[end_second] = index
    return [
        FileRows(stem, np.array([row_at[end_second] for end_second in sorted(row_at)], np.intp))
        for stem, row_at in files.items()
    ]


def apply_by_file(
    values: npt.NDArray[np.floating[Any]], files: Sequence[FileRows], function: Callable[[Float32, str], Float32]
) -> Float32:
    """Apply a function (a file's [rows, labels] in time order, its stem -> the same shape) to each file of a table."""
    done = values.astype(np.float32)
    for stem, rows in files:
        done[rows] = function(done[rows], stem)
    return done
