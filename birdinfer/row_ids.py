"""Row ids: the one place that says how a row of a score table names its sound file and the end of its window.

In: the text of a row id, or a file's stem and an end second. Out: the one taken apart, the other put together, or what
is wrong with the spelling. The number is the END of a row's window in whole seconds.

::

    2021         <id>_<site>_<end>            3575_COL_5: the date of the file 3575_COL_20170105 is left out
    2022         <stem>_<species>_<end>       soundscape_453028782_akiapo_5
    2023-2025    <stem>_<end>                 soundscape_42_5
    2026         <stem>_<end>                 BC2026_Test_0001_S05_20250227_010002_20
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import MetadataError

ROW_SECONDS = 5
"""Every BirdCLEF since 2021 scores windows of five seconds, side by side."""
PREFIX = "soundscape_"
"""What names of test files begin with in 2022 to 2025: a part of the stem, nothing to be put in front of it."""
_MOST_DIGITS = 9
"""Of an end second: 31 years. Python itself refuses to count what has thousands."""
_FILE_ENDING = re.compile(r"[^.]\.[A-Za-z][A-Za-z0-9]{2,3}$")
_END = "(?:0|[1-9][0-9]*)"
_NUMBERED = re.compile(f"{PREFIX}[0-9]+_{_END}")
_GRAMMARS = {
    2021: re.compile(f"[0-9]+_[A-Z]{{3}}_{_END}"),
    2022: re.compile(f"{PREFIX}[0-9]+_[^_]+_{_END}"),
    2023: _NUMBERED,
    2024: _NUMBERED,
    2025: _NUMBERED,
    2026: re.compile(f".+_{_END}"),
}


class RowId(NamedTuple):
    """A row id, taken apart."""

    text: str
    stem: str
    """Of the sound file, as the year's row ids spell it."""
    end_seconds: int
    label: str = ""
    """The species that a row of 2022 is about."""


class Misspelling(StrEnum):
    """What is wrong with a row id, the most telling first."""

    no_end = "no_end"
    """It does not end in ``_<whole second>``."""
    prefix_twice = "prefix_twice"
    """``soundscape_`` was put in front of a stem that had it."""
    prefix_missing = "prefix_missing"
    """``soundscape_`` was cut off the stem."""
    file_ending = "file_ending"
    """The stem still ends in ``.ogg`` or the like."""
    start = "start"
    """It ends in 0, where a window starts and none ends."""
    between_rows = "between_rows"
    """Its second is no multiple of five."""
    grammar = "grammar"
    """All else that the year's row ids do not look like."""


def split_row_id(row_id: str, where: Path) -> tuple[str, int]:
    """``a_b_15`` -> the file's stem ``a_b``, and 15: the second at which the row's window ends.

    Taken apart from the end, for names hold underscores too.

    Args:
        row_id: of a table.
        where: the table, as a complaint names it.

    Raises:
        MetadataError: it does not end in a second, or there is nothing before it.
    """
    stem, _, end = row_id.rpartition("_")
    if not stem or not _is_second(end):
        raise MetadataError(where, f"row_id {row_id!r} does not end in _<end second>", "needed to tell files apart")
    return stem, int(end)


def parse_row_id(row_id: str, year: int, where: Path) -> RowId:
    """Take a row id of a year apart.

    Args:
        row_id: of a table of that year's shape.
        year: 2021 to 2026.
        where: the table, as a complaint names it.

    Raises:
        MetadataError: it does not end in a second, or names no file or (2022) no species.
    """
    stem, end_seconds = split_row_id(row_id, where)
    if year != 2022:
        return RowId(row_id, stem, end_seconds)
    stem, _, label = stem.rpartition("_")
    if not stem or not label:
        raise MetadataError(where, f"row_id {row_id!r} is not <file>_<species>_<end second>, as those of 2022 are")
    return RowId(row_id, stem, end_seconds, label)


def make_row_id(stem: str, end_seconds: int, label: str = "") -> RowId:
    """Put a row id together.

    Args:
        stem: of the sound file, as :func:`row_stem` spells it.
        end_seconds: of the row's window, whole seconds.
        label: the species, for rows of 2022.
    """
    text = f"{stem}_{label}_{end_seconds}" if label else f"{stem}_{end_seconds}"
    return RowId(text, stem, end_seconds, label)


def row_stem(stem: str, year: int) -> str:
    """How a year's row ids spell a file: 2021 leaves out the date of ``<id>_<site>_<date>``, the others nothing."""
    return "_".join(stem.split("_")[:2]) if year == 2021 else stem


def misspelling(row_id: str, year: int) -> Misspelling | None:
    """What keeps a row id from being one of a year's; None if nothing does.

    Args:
        row_id: any text.
        year: 2021 to 2026.
    """
    stem, _, end = row_id.rpartition("_")
    if not stem or not _is_second(end):
        return Misspelling.no_end
    if stem.startswith(PREFIX * 2):
        return Misspelling.prefix_twice
    if _FILE_ENDING.search(stem):
        return Misspelling.file_ending
    if int(end) % ROW_SECONDS:
        return Misspelling.between_rows
    if int(end) == 0:
        return Misspelling.start
    if _GRAMMARS[year].fullmatch(row_id):
        return None
    lacks_prefix = _GRAMMARS[year].fullmatch(PREFIX + row_id) is not None
    return Misspelling.prefix_missing if lacks_prefix else Misspelling.grammar


def _is_second(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
