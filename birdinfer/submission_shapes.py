"""The shapes of a submission: which columns a BirdCLEF year has, what stands in a cell, and whose shape a table has.

In: labels, and probabilities [species] in [0, 1]. Out: names of columns and text of cells. All that writes or reads a
submission asks here.

* 2021: ``birds``, the species heard in a row with spaces between them, ``nocall`` if there is none.
* 2022: ``target``, True or False for the one species that the row is about.
* 2023 to 2026: one column of probabilities per species.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.row_ids import PREFIX

YEARS = (2021, 2022, 2023, 2024, 2025, 2026)
NO_CALL = "nocall"
BIRDS = "birds"
TARGET = "target"
TRUTHS = ("False", "True")
"""What a row of 2022 says."""
_CLASSES = {264: 2023, 182: 2024, 206: 2025, 234: 2026}
"""Columns of a year."""
_LOOKED_AT_ROWS = 100
_CLOSE = 1e-5
"""Seven digits of a number up to 1 lie nearer to it by far."""


def value_names(year: int, labels: Sequence[str]) -> tuple[str, ...]:
    """The columns beside ``row_id``.

    Args:
        year: 2021 to 2026.
        labels: species in column order, which are the columns from 2023 on.
    """
    return {2021: (BIRDS,), 2022: (TARGET,)}.get(year, tuple(labels))


def is_wide(year: int) -> bool:
    """Whether a year has a column of probabilities per species."""
    return year >= 2023


def guess_year(columns: Sequence[str], row_ids: Iterable[str]) -> int:
    """The year whose shape a table has; 2023 to 2025 differ in the number of species alone.

    Args:
        columns: all but ``row_id``.
        row_ids: of the table; the first of them are looked at.
    """
    for year in (2021, 2022):
        if tuple(columns) == value_names(year, ()):
            return year
    if len(columns) in _CLASSES:
        return _CLASSES[len(columns)]
    looked_at = list(islice(row_ids, _LOOKED_AT_ROWS))
    return 2025 if looked_at and all(row_id.startswith(PREFIX) for row_id in looked_at) else 2026


def check_shape(columns: Sequence[str], row_ids: Iterable[str], year: int, where: Path) -> None:
    """Refuse a table of another year's shape.

    Args:
        columns: all but ``row_id``.
        row_ids: of the table.
        year: whose shape it should have.
        where: the table, as a complaint names it.

    Raises:
        ConfigError: there is no such year.
        MetadataError: the table is of another shape.
    """
    check_year(year)
    wanted, found = (other if not is_wide(other) else 0 for other in (year, guess_year(columns, row_ids)))
    if wanted != found:
        shown = ",".join(value_names(year, ("a column per species",)))
        raise MetadataError(where, f"its columns are not those of {year} (row_id,{shown})", "give another --year")


def check_year(year: int) -> None:
    """Refuse a year that had no BirdCLEF of these shapes.

    Raises:
        ConfigError: there is no such year.
    """
    if year not in YEARS:
        raise ConfigError("--year", f"{year} is not known", f"choose one of {YEARS[0]} to {YEARS[-1]}")


def number_cells(values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """Numbers [species] as text of seven digits.

    They keep the order of float32 scores; fewer would make ties, which a rank metric punishes.
    """
    return ["%.7g" % value for value in values.tolist()]  # noqa: UP031 - twice as fast as a format call


def is_heard(value: float, threshold: float) -> bool:
    """Whether a species counts as heard: its probability, written with seven digits, reaches the threshold.

    The digits of :func:`number_cells`, so that scores and the table that was written of them agree.
    """
    return float(f"{value:.7g}") >= threshold


def heard(values: npt.NDArray[np.floating[Any]], threshold: float) -> npt.NDArray[np.bool_]:
    """:func:`is_heard` of many probabilities [species]."""
    exact = values.astype(np.float64)
    found = exact >= threshold
    for index in np.flatnonzero(np.abs(exact - threshold) < _CLOSE):
        found[index] = is_heard(exact[index], threshold)
    return found


def list_cell(labels: Sequence[str], found: Iterable[bool]) -> str:
    """What a row of 2021 says.

    Args:
        labels: species in column order; a column ``nocall`` is none.
        found: [species], of :func:`heard`.
    """
    named = [label for label, is_there in zip(labels, found, strict=True) if is_there and label != NO_CALL]
    return " ".join(named) or NO_CALL


def truth_cell(found: bool) -> str:
    """What a row of 2022 says of its species: whether it was heard."""
    return TRUTHS[found]
