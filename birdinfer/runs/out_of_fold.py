"""oof.csv of a fold -> the clips that it was validated on, and its probabilities for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import MetadataError
from birdinfer.tables.cells import numbers_of
from birdinfer.tables.csv import check_columns, csv_rows, numbered
from birdinfer.typing import Float64

_NAMES = ("filename", "primary_label")
_SHOWN = 30
"""Characters of a cell in a message."""


class OutOfFold(NamedTuple):
    """A fold's table."""

    filenames: list[str]
    primary_labels: list[str]
    labels: tuple[str, ...]
    probabilities: Float64
    """[clips, labels], in [0, 1]."""


def read_out_of_fold(path: Path, labels: Sequence[str] | None = None) -> OutOfFold:
    """Read a fold's table, of all its labels or of those that are named, in their order.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it is damaged, lacks a column, or a cell is no probability.
    """
    names, probabilities = [], []
    with csv_rows(path, "train the fold to its end", _NAMES) as rows:
        header = next(rows, [])
        check_columns(path, header, (*_NAMES, *(labels or ())))
        wanted = tuple(labels) if labels is not None else tuple(name for name in header if name not in _NAMES)
        columns = [header.index(label) for label in wanted]
        first, second = (header.index(name) for name in _NAMES)
        for number, row in numbered(rows):
            cells = [row[column] for column in columns]
            values = numbers_of(cells)
            wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))  # also true for NaN
            if wrong.size:
                what = f"row {number}, column {wanted[wrong[0]]!r} holds {cells[wrong[0]][:_SHOWN]!r}"
                raise MetadataError(path, what, "a probability from 0 to 1 is needed: train the fold to its end")
            names.append((row[first], row[second]))
            probabilities.append(values)
    table = np.stack(probabilities) if probabilities else np.zeros((0, len(wanted)))
    return OutOfFold([name for name, _ in names], [label for _, label in names], wanted, table)
