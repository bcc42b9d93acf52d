"""Tables that steps of post-processing read: counts of species by site and hour, and quantiles of scores.

A table of counts is a CSV of ``site,hour,month,windows,<label>,...`` with a row per site, hour of the day (0 to 23, by
the recorder's clock) and month (1 to 12): how many labelled windows there are, and how many of them contain each
species. An empty cell stands for windows whose recording's name does not contain it; older tables have no ``month``.
Counts, not rates, so that a rate of few windows can be given little weight and tables can be added up.

A table of quantiles is a CSV of ``label,source,reference`` with a row per label and quantile, from the lowest to the
highest: ``source`` in the scores that are to be changed, ``reference`` in those whose distribution they are to take.
Both are values in [0, 1] that belong to the same share of the windows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import check_labels
from birdinfer.system.files import atomic_text
from birdinfer.tables.cells import number_of
from birdinfer.tables.csv import CsvWriter, csv_rows, numbered
from birdinfer.typing import Float64, Int64

PRIOR_HEADER = ["site", "hour", "month", "windows"]
_WITHOUT_MONTH = ["site", "hour", "windows"]
QUANTILE_HEADER = ["label", "source", "reference"]
_MAX_DIGITS = 15
"""Of a count: still exact in double precision."""
_MAX_SHOWN = 20
"""Characters of a wrong cell in a message."""


class Occasion(NamedTuple):
    """Where and when windows were recorded; None where it is not known."""

    site: str | None
    hour: int | None
    month: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorTable:
    """Counts of labelled windows."""

    labels: tuple[str, ...]
    occasions: tuple[Occasion, ...]
    """No two are the same."""
    windows: Int64
    """[occasions], 0 or more."""
    present: Int64
    """[occasions, labels]: windows with the species, at most ``windows``."""


class Quantiles(NamedTuple):
    """Quantiles of one label's scores."""

    source: Float64
    """[quantiles], ascending, in [0, 1]."""
    reference: Float64
    """The same shape, ascending, in [0, 1]."""


def write_priors(path: Path, table: PriorTable) -> None:
    """Write a table of counts, atomically; raises OutputError."""
    with atomic_text(path) as file:
        writer = CsvWriter(file)
        writer.row(PRIOR_HEADER[0], [*PRIOR_HEADER[1:], *table.labels])
        for (site, *clock), windows, present in zip(table.occasions, table.windows, table.present, strict=True):
            writer.row(site or "", [*("" if each is None else each for each in clock), windows, *present])


def read_priors(path: Path) -> PriorTable:
    """Read a table of counts.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has other columns, no windows, an occasion twice, or a cell that does not belong there.
    """
    with csv_rows(path, "birdinfer prior makes one", _WITHOUT_MONTH) as rows:
        header = next(rows, [])
        labels = _labels_of(path, header)
        counts = _counts_of(path, header, rows)
    if not any(row[0] for row in counts.values()):
        raise MetadataError(path, "counts no windows", "birdinfer prior makes a table of labelled soundscapes")
    values = np.array(list(counts.values()), np.int64)
    return PriorTable(labels=labels, occasions=tuple(counts), windows=values[:, 0], present=values[:, 1:])


def _n_keys(header: Sequence[str]) -> int:
    """How many columns precede those of the labels."""
    return len(_WITHOUT_MONTH if header[: len(_WITHOUT_MONTH)] == _WITHOUT_MONTH else PRIOR_HEADER)


def _labels_of(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    n = _n_keys(header)
    if header[:n] not in (PRIOR_HEADER, _WITHOUT_MONTH):
        found = ", ".join(header[:n]) or "none, it is empty"
        raise MetadataError(
            path, f"its first columns are {found}", f"needed: {','.join(PRIOR_HEADER)}, then the labels"
        )
    try:
        return check_labels(header[n:], str(path))
    except LabelError as error:
        raise MetadataError(path, error.what) from error


def _counts_of(path: Path, header: Sequence[str], rows: Iterable[list[str]]) -> dict[Occasion, list[int]]:
    """Of each occasion: windows, then those of each label."""
    counts: dict[Occasion, list[int]] = {}
    n = _n_keys(header)
    for number, row in numbered(rows):
        hour = _one_of(path, number, row[1], "hour", range(24))
        month = _one_of(path, number, row[2], "month", range(1, 13)) if n == len(PRIOR_HEADER) else None
        occasion = Occasion(row[0] or None, hour, month)
        if occasion in counts:
            of_month = f" in month {month}" if month else ""
            what = f"row {number}: site {row[0]!r} at hour {row[1]!r}{of_month} stands twice"
            raise MetadataError(path, what, "add the rows up")
        windows, *present = counts[occasion] = [_count(path, number, cell) for cell in row[n - 1 :]]
        if max(present) > windows:
            label = header[n + present.index(max(present))]
            raise MetadataError(path, f"row {number} counts {label!r} in more windows than there are")
    return counts


def _one_of(path: Path, number: int, cell: str, what: str, allowed: range) -> int | None:
    """A number that a cell holds; None if it is empty."""
    value = _count(path, number, cell) if cell else None
    if value is not None and value not in allowed:
        hint = f"{allowed[0]} to {allowed[-1]} are there, or an empty cell"
        raise MetadataError(path, f"row {number} holds the {what} {value}", hint)
    return value


def _count(path: Path, number: int, cell: str) -> int:
    if not (cell.isascii() and cell.isdigit() and len(cell) <= _MAX_DIGITS):
        raise MetadataError(path, f"row {number} holds {cell[:_MAX_SHOWN]!r}", "a count is needed: 0, 1, 2 ...")
    return int(cell)


def write_quantiles(path: Path, quantiles: Mapping[str, Quantiles]) -> None:
    """Write a table of quantiles, atomically; numbers in the fewest digits that read back as the same."""
    with atomic_text(path) as file:
        table = CsvWriter(file)
        table.row(QUANTILE_HEADER[0], QUANTILE_HEADER[1:])
        for label, (source, reference) in quantiles.items():
            for x, y in zip(source, reference, strict=True):
                table.row(label, [repr(float(x)), repr(float(y))])


def read_quantiles(path: Path) -> dict[str, Quantiles]:
    """Read a table of quantiles, labels in its order.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has other columns, no rows, a cell that is no number in [0, 1], or a label's values decrease.
    """
    needed = f"needed: {','.join(QUANTILE_HEADER)}"
    pairs: dict[str, list[tuple[float, float]]] = {}
    with csv_rows(path, needed=QUANTILE_HEADER) as rows:
        header = next(rows, [])
        if header != QUANTILE_HEADER:
            raise MetadataError(path, f"its columns are {', '.join(header) or 'none'}", needed)
        for number, (label, source, reference) in numbered(rows):
            if not label.strip():
                raise MetadataError(path, f"row {number} has no label", needed)
            pairs.setdefault(label, []).append((_share(path, number, source), _share(path, number, reference)))
    if not pairs:
        raise MetadataError(path, "has no rows")
    return {label: _ascending(path, label, np.array(values)) for label, values in pairs.items()}


def _share(path: Path, number: int, cell: str) -> float:
    value = number_of(cell)
    if not 0 <= value <= 1:
        raise MetadataError(path, f"row {number} holds {cell!r}", "a number from 0 to 1 is needed")
    return value


def _ascending(path: Path, label: str, pairs: Float64) -> Quantiles:
    if (np.diff(pairs, axis=0) < 0).any():
        raise MetadataError(path, f"the quantiles of {label!r} fall", "sort each label's rows upwards")
    return Quantiles(pairs[:, 0], pairs[:, 1])
