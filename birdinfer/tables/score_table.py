"""Score tables, read strictly: a CSV of ``row_id`` and one column per label -> row ids, labels, values [rows, labels].

submission.csv and truth.csv have this shape. What a scorer would trip over (an empty cell, a row or column twice,
text for a number) is refused here with its row and column. The standard library's reader does it: it guesses no
types, so row ids and labels that look like numbers stay text, and it needs no import of a quarter of a second.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.tables.csv_files import csv_rows, numbers_of

ROW_ID = "row_id"
_LISTED_COLUMNS = 5


class ScoreTable(NamedTuple):
    """What a score table holds."""

    path: Path
    row_ids: list[str]
    labels: list[str]
    values: npt.NDArray[np.float64]
    """[rows, labels], finite. Double precision, for a rank metric must not see ties that the text does not have."""


def read_scores(path: Path) -> ScoreTable:
    """Read submission.csv or truth.csv.

    Args:
        path: UTF-8 text with a header; ``row_id`` may stand in any column.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has no ``row_id``, no label or no rows, a row or column twice, a row of another length, or a
            cell that is not a finite number.
    """
    with csv_rows(path) as rows:
        header = next(rows, [])
        place = _check_header(path, header)
        row_ids, values = _read_rows(path, header, place, rows)
    _check_unique(path, ROW_ID, row_ids)
    return ScoreTable(path, row_ids, _without(header, place), values)


def check_probabilities(table: ScoreTable, remedy: str) -> None:
    """Refuse a table that holds something else than probabilities.

    Raises:
        MetadataError: a cell lies outside [0, 1].
    """
    _refuse(table, (table.values < 0) | (table.values > 1), ", not a probability", remedy)


def check_truth(table: ScoreTable) -> None:
    """Refuse a table that holds something else than 0 and 1.

    Raises:
        MetadataError: a cell is neither.
    """
    _refuse(table, (table.values != 0) & (table.values != 1), "", "truth is 0 or 1")


def _refuse(table: ScoreTable, wrong: npt.NDArray[np.bool_], what: str, remedy: str) -> None:
    """Complain of the first wrong cell, if there is one; ``wrong`` is [rows, labels]."""
    for row, column in np.argwhere(wrong)[:1]:
        where = f"row {table.row_ids[row]!r}, column {table.labels[column]!r}"
        raise MetadataError(table.path, f"{where} holds {table.values[row, column]:g}{what}", remedy)


def _check_header(path: Path, header: list[str]) -> int:
    """Where ``row_id`` stands among the columns."""
    if ROW_ID not in header:
        more = ", ..." if len(header) > _LISTED_COLUMNS else ""
        found = ", ".join(header[:_LISTED_COLUMNS]) + more if header else "none, it is empty"
        raise MetadataError(path, f"has no column {ROW_ID}", f"its columns are: {found}")
    if len(header) == 1:
        raise MetadataError(path, f"has no column but {ROW_ID}", "one column per label is needed")
    _check_unique(path, "column", header)
    return header.index(ROW_ID)


def _read_rows(
    path: Path, header: list[str], place: int, rows: Iterable[list[str]]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Row ids and values; blank lines are passed over."""
    labels = _without(header, place)
    row_ids: list[str] = []
    values: list[npt.NDArray[np.float64]] = []
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise MetadataError(path, f"row {row[0]!r} has {len(row)} cells, the header {len(header)}")
        row_ids.append(row[place])
        values.append(_numbers(path, row[place], labels, _without(row, place)))
    if not values:
        raise MetadataError(path, "has no rows")
    return row_ids, np.stack(values)


def _numbers(path: Path, row_id: str, labels: Sequence[str], cells: Sequence[str]) -> npt.NDArray[np.float64]:
    """One row's cells as numbers [labels]."""
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


def _without(cells: list[str], place: int) -> list[str]:
    return cells[:place] + cells[place + 1 :]
