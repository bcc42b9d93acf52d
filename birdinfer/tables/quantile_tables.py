"""How scores are distributed, on disk: a CSV of ``label,source,reference`` -> two ascending lists of quantiles a label.

One row per label and quantile, from the lowest to the highest: ``source`` in the scores that are to be changed,
``reference`` in those whose distribution they are to take. Both are values in [0, 1] that belong to the same share of
the windows. Read strictly, as :mod:`birdinfer.tables.score_table` reads scores.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.files import atomic_text
from birdinfer.tables.csv_files import CsvWriter, csv_rows, number_of

Float64 = npt.NDArray[np.float64]

HEADER = ["label", "source", "reference"]


class Quantiles(NamedTuple):
    """Of one label."""

    source: Float64
    """[quantiles], ascending, in [0, 1]."""
    reference: Float64
    """The same shape, ascending, in [0, 1]."""


def write_quantiles(path: Path, quantiles: Mapping[str, Quantiles]) -> None:
    """Write the table, atomically; numbers in the fewest digits that read back as the same.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as file:
        table = CsvWriter(file)
        table.row(HEADER[0], HEADER[1:])
        for label, (source, reference) in quantiles.items():
            for x, y in zip(source, reference, strict=True):
                table.row(label, [repr(float(x)), repr(float(y))])


def read_quantiles(path: Path) -> dict[str, Quantiles]:
    """Read the table, labels in its order.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has other columns, no rows, a cell that is no number in [0, 1], or values of a label that
            fall.
    """
    with csv_rows(path) as rows:
        header = next(rows, [])
        if header != HEADER:
            raise MetadataError(path, f"its columns are {', '.join(header) or 'none'}", f"needed: {','.join(HEADER)}")
        pairs = _read_pairs(path, rows)
    return {label: _ascending(path, label, np.array(values)) for label, values in pairs.items()}


def _read_pairs(path: Path, rows: Iterable[list[str]]) -> dict[str, list[tuple[float, float]]]:
    """(source, reference) of each label, in the table's order."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(HEADER) or not row[0].strip():
            raise MetadataError(path, f"row {number} is not a label and two numbers", f"needed: {','.join(HEADER)}")
        pairs.setdefault(row[0], []).append((_share(path, number, row[1]), _share(path, number, row[2])))
    if not pairs:
        raise MetadataError(path, "has no rows")
    return pairs


def _share(path: Path, number: int, cell: str) -> float:
    """A number in [0, 1]."""
    value = number_of(cell)
    if not 0 <= value <= 1:
        raise MetadataError(path, f"row {number} holds {cell!r}", "a number from 0 to 1 is needed")
    return value


def _ascending(path: Path, label: str, pairs: Float64) -> Quantiles:
    if (np.diff(pairs, axis=0) < 0).any():
        raise MetadataError(path, f"the quantiles of {label!r} fall", "sort each label's rows upwards")
    return Quantiles(pairs[:, 0], pairs[:, 1])
