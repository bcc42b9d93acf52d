"""How often a species was heard where and when, on disk: a CSV of ``site,hour,windows,<label>,...`` with counts.

One row per site and hour of the day (0 to 23, by the recorder's clock): how many labelled windows there are, and in how
many of them each species was heard. An empty site or hour stands for windows whose recording's name does not tell it.
Counts, not rates: what few windows say can then be weighed as little as it is worth, and tables can be added up. Read
strictly, as :mod:`birdinfer.tables.score_table` reads scores.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import LabelError, MetadataError
from birdinfer.files import atomic_text
from birdinfer.labels import check_labels
from birdinfer.tables.csv_files import CsvWriter, csv_rows

Int64 = npt.NDArray[np.int64]

HEADER = ["site", "hour", "windows"]
_MOST_DIGITS = 15
"""Of a count: more windows than anybody has listened to, and still exact in double precision."""
_SHOWN = 20
"""Signs of a cell that is none."""


class Occasion(NamedTuple):
    """Where and when windows were recorded; None where it is not known."""

    site: str | None
    hour: int | None
    """0 to 23."""


class PriorTable(NamedTuple):
    """Counts of labelled windows."""

    labels: tuple[str, ...]
    occasions: tuple[Occasion, ...]
    """No two are the same."""
    windows: Int64
    """[occasions], 0 or more."""
    heard: Int64
    """[occasions, labels]: windows with the species, at most as many as there are windows."""


def write_priors(path: Path, table: PriorTable) -> None:
    """Write the table, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as file:
        writer = CsvWriter(file)
        writer.row(HEADER[0], [*HEADER[1:], *table.labels])
        for (site, hour), windows, heard in zip(table.occasions, table.windows, table.heard, strict=True):
            writer.row(site or "", ["" if hour is None else hour, windows, *heard])


def read_priors(path: Path) -> PriorTable:
    """Read the table.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has other columns, no windows, an occasion twice, or a cell that is not what stands in it.
    """
    with csv_rows(path, "birdinfer prior makes one") as rows:
        labels = _read_header(path, next(rows, []))
        occasions, counts = _read_rows(path, labels, rows)
    if not counts[:, 0].any():
        raise MetadataError(path, "counts no windows", "birdinfer prior makes a table of labelled soundscapes")
    return PriorTable(labels, occasions, counts[:, 0], counts[:, 1:])


def _read_header(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The labels."""
    if list(header[: len(HEADER)]) != HEADER:
        found = ", ".join(header[: len(HEADER)]) or "none, it is empty"
        raise MetadataError(path, f"its first columns are {found}", f"needed: {','.join(HEADER)}, then the labels")
    try:
        return check_labels(header[len(HEADER) :], str(path))
    except LabelError as error:
        raise MetadataError(path, error.what) from error


def _read_rows(path: Path, labels: Sequence[str], rows: Iterable[list[str]]) -> tuple[tuple[Occasion, ...], Int64]:
    """Occasions, and their counts [occasions, 1 + labels]: of windows, then of labels; blank lines are passed over."""
    counts: dict[Occasion, list[int]] = {}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(HEADER) + len(labels):
            needed = len(HEADER) + len(labels)
            raise MetadataError(path, f"row {number} has {len(row)} cells, the header {needed}")
        occasion = Occasion(row[0] or None, _hour(path, number, row[1]))
        if occasion in counts:
            raise MetadataError(
                path, f"row {number}: site {row[0]!r} at hour {row[1]!r} stands twice", "add the rows up"
            )
        counts[occasion] = [_count(path, number, cell) for cell in row[2:]]
        if max(counts[occasion]) > counts[occasion][0]:
            label = labels[counts[occasion].index(max(counts[occasion])) - 1]
            raise MetadataError(path, f"row {number} heard {label!r} in more windows than there are")
    return tuple(counts), np.array(list(counts.values()), np.int64).reshape(len(counts), 1 + len(labels))


def _hour(path: Path, number: int, cell: str) -> int | None:
    if not cell:
        return None
    hour = _count(path, number, cell)
    if hour > 23:
        raise MetadataError(path, f"row {number} holds the hour {hour}", "0 to 23 are there, or an empty cell")
    return hour


def _count(path: Path, number: int, cell: str) -> int:
    if not (cell.isascii() and cell.isdigit() and len(cell) <= _MOST_DIGITS):
        raise MetadataError(path, f"row {number} holds {cell[:_SHOWN]!r}", "a count is needed: 0, 1, 2 ...")
    return int(cell)
