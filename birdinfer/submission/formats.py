"""Formats of a submission: columns and cells of each BirdCLEF year, and the year of a given table.

In: labels, and probabilities [species] in [0, 1]. Out: names of columns and text of cells. Everything that reads or
writes a submission uses this module.

* 2021: ``birds``, the species detected in a row with spaces between them, ``nocall`` if there is none.
* 2022: ``target``, True or False for the one species that the row is about.
* 2023 to 2026: one column of probabilities per species.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.species import NO_CALL
from birdinfer.tables.csv import csv_rows, numbered
from birdinfer.tables.row_ids import PREFIX, Misspelling, misspelling
from birdinfer.typing import Bool, Float64

YEARS = (2021, 2022, 2023, 2024, 2025, 2026)
BIRDS = "birds"
TARGET = "target"
TRUTHS = ("False", "True")
"""Cells of 2022."""
N_SPECIES = {2021: 397, 2022: 21, 2023: 264, 2024: 182, 2025: 206, 2026: 234}
"""Species that a year asks for: its columns from 2023 on; in 2022 those of the rows, 21 of 152 that have clips."""
_CLASSES = {N_SPECIES[year]: year for year in YEARS if year >= 2023}
_ROWS_FOR_GUESS = 100
SCORE_DIGITS = 7
"""Significant digits of a score in a table. Fewer would make ties of float32 scores, which a rank metric punishes."""
_NUMBER = f"%.{SCORE_DIGITS}g"
_POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(23)])
"""Those that double precision holds exactly."""
_NEAR_HALF = 1e-6
_CLOSE = 10.0 ** (2 - SCORE_DIGITS)
"""A number up to 1 as text lies nearer to it by far."""


def value_names(year: int, labels: Sequence[str]) -> tuple[str, ...]:
    """List the columns of a year, 2021 to 2026, without ``row_id``.

    >>> value_names(2021, ("a", "b")), value_names(2026, ("a", "b"))
    (('birds',), ('a', 'b'))
    """
    return {2021: (BIRDS,), 2022: (TARGET,)}.get(year, tuple(labels))


def is_wide(year: int) -> bool:
    """Whether a year has a column of probabilities for each species."""
    return year >= 2023


def guess_year(columns: Sequence[str], row_ids: Iterable[str]) -> int:
    """Guess the year of a table from its format; 2023 to 2025 differ only in the number of species.

    Row ids of one's own recordings, which are like those of no other year, are those of 2026.
    """
    for year in (2021, 2022):
        if tuple(columns) == value_names(year, ()):
            return year
    looked_at = list(islice(row_ids, _ROWS_FOR_GUESS))
    if len(columns) in _CLASSES:
        year = _CLASSES[len(columns)]
        is_own = looked_at and all(misspelling(row_id, year) is Misspelling.grammar for row_id in looked_at)
        return 2026 if is_own else year
    return 2025 if looked_at and all(row_id.startswith(PREFIX) for row_id in looked_at) else 2026


def check_shape(columns: Sequence[str], row_ids: Iterable[str], year: int, where: Path) -> None:
    """Refuse a table of another year's shape with MetadataError, an unknown year with ConfigError."""
    check_year(year)
    wanted, found = (other if not is_wide(other) else 0 for other in (year, guess_year(columns, row_ids)))
    if wanted != found:
        shown = ",".join(value_names(year, ("a column per species",)))
        raise MetadataError(where, f"its columns are not those of {year} (row_id,{shown})", "give another --year")


def check_year(year: int) -> None:
    """Raise ConfigError for a year without a known format."""
    if year not in YEARS:
        raise ConfigError("--year", f"{year} is not known", f"choose one of {YEARS[0]} to {YEARS[-1]}")


def number_cells(values: npt.NDArray[np.floating[Any]]) -> list[str]:
    """Format numbers [species] with seven digits.

    They keep the order of float32 scores; fewer digits would make ties, which cost a rank metric.

    >>> number_cells(np.array([0.1, 1 / 3], np.float32))
    ['0.1', '0.3333333']
    """
    return number_line(values).split(",") if values.size else []


def as_written(values: npt.NDArray[np.floating[Any]]) -> Float64:
    """Round scores of any shape to what :func:`number_cells` writes of them, as it is read back; NaN stays.

    >>> as_written(np.array([1 / 3, 0.1], np.float32)).tolist()
    [0.3333333, 0.1]
    """
    exact = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = SCORE_DIGITS - 1 - np.floor(np.log10(np.abs(exact)))
        is_easy = (exponent >= 0) & (exponent < len(_POWERS_OF_TEN))
        power = _POWERS_OF_TEN[np.where(is_easy, exponent, 0).astype(np.intp)]
        scaled = exact * power
        # Where rounding here may not be that of the exact number, the text decides.
        is_near_half = np.abs(scaled - np.floor(scaled) - 0.5) < _NEAR_HALF
        size = np.abs(scaled)
        is_easy &= ~is_near_half & (size > 10 ** (SCORE_DIGITS - 1)) & (size < 10**SCORE_DIGITS - 1)
        written = np.where(is_easy, np.rint(scaled) / power, exact)
    flat, hard = written.reshape(-1), np.flatnonzero(~is_easy & (exact != 0) & np.isfinite(exact))
    flat[hard] = [float(_NUMBER % value) for value in exact.reshape(-1)[hard].tolist()]
    return written


def number_line(values: npt.NDArray[np.floating[Any]]) -> str:
    """Format numbers [species] as :func:`number_cells` does, with commas between: thousands in a third of the time.

    >>> number_line(np.array([0.1, 1 / 3, 2e-8], np.float32))
    '0.1,0.3333333,2e-8'
    """
    if not np.isfinite(values).all():
        return ",".join(_NUMBER % value for value in values.tolist())
    listed = msgspec.json.encode(as_written(values).tolist())
    return listed[1:].replace(b"]", b",").replace(b".0,", b",")[:-1].decode()


def is_detected(value: float, threshold: float) -> bool:
    """Whether a species counts as detected: its probability, written with seven digits, reaches the threshold.

    These are the digits of :func:`number_cells`, so that scores and a table written from them agree.
    """
    return float(_NUMBER % value) >= threshold


def detected(values: npt.NDArray[np.floating[Any]], threshold: float) -> Bool:
    """:func:`is_detected` of many probabilities [species]."""
    exact = values.astype(np.float64)
    found = exact >= threshold
    for index in np.flatnonzero(np.abs(exact - threshold) < _CLOSE):
        found[index] = is_detected(exact[index], threshold)
    return found


def list_cell(labels: Sequence[str], found: Iterable[bool]) -> str:
    """Format a cell of 2021: the species that were found, without a column ``nocall``.

    >>> list_cell(("a", "b", "c"), (True, False, True))
    'a c'
    """
    named = [label for label, is_there in zip(labels, found, strict=True) if is_there and label != NO_CALL]
    return " ".join(named) or NO_CALL


def truth_cell(found: bool) -> str:
    """Format a cell of 2022: whether its species was detected."""
    return TRUTHS[found]


class Sample(NamedTuple):
    """The rows and columns of sample_submission.csv."""

    path: Path
    row_ids: tuple[str, ...]
    columns: tuple[str, ...]
    """Without ``row_id``."""


def read_sample(path: Path) -> Sample:
    """Read the rows and columns of a sample_submission.csv; its values are ignored.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has no ``row_id`` in front, no rows, or a row or column twice.
    """
    with csv_rows(path, needed=["row_id"]) as rows:
        header = next(rows, [])
        numbered_ids = [(number, row[0]) for number, row in numbered(rows)]
    row_ids = tuple(row_id for _, row_id in numbered_ids)
    for number, row_id in numbered_ids:
        if not row_id.strip():
            raise MetadataError(path, f"row {number} has no row_id")
    if header[:1] != ["row_id"]:
        raise MetadataError(path, f"its first column is {(header or ['missing'])[0]!r}, needed is 'row_id'")
    for kind, names in (("column", header), ("row_id", row_ids)):
        name, times = Counter(names).most_common(1)[0] if names else ("", 0)
        if times > 1:
            raise MetadataError(path, f"{kind} {name!r} stands {times} times")
    if not row_ids:
        raise MetadataError(path, "has no rows")
    return Sample(path, row_ids, tuple(header[1:]))
