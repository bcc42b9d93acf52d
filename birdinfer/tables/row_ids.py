"""Row ids: how a row of a score table names its sound file and the end of its window, year by year.

In: the text of a row id, or a file's stem and an end second. Out: its parts, its text, or what is wrong with the
spelling. The number is the END of a row's window in whole seconds.

::

    2021         <id>_<site>_<end>            3575_COL_5: the date of the file 3575_COL_20170105 is left out
    2022         <stem>_<species>_<end>       soundscape_453028782_akiapo_5
    2023-2025    <stem>_<end>                 soundscape_42_5
    2026         <stem>_<end>                 BC2026_Test_0001_S05_20250227_010002_20
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from birdinfer.audio.kinds import sounds_by_name
from birdinfer.errors import MetadataError

ROW_SECONDS = 5
"""Every BirdCLEF since 2021 scores windows of five seconds, side by side."""
PREFIX = "soundscape_"
"""How names of test files begin in 2022 to 2025; it belongs to the stem."""
_MAX_DIGITS = 9
"""Of an end second: 31 years. Python itself refuses numbers of thousands of digits."""
_END = "(?:0|[1-9][0-9]*)"
_NUMBERED = re.compile(f"{PREFIX}[0-9]+_{_END}")
_GRAMMARS = {
    2021: re.compile(f"[0-9]+_[A-Z]{{3}}_{_END}"),
    2022: re.compile(f"{PREFIX}[0-9]+_[^_]+_{_END}"),
    2023: _NUMBERED,
    2024: _NUMBERED,
    2025: _NUMBERED,
    2026: re.compile(f".+_{_END}", re.DOTALL),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowId:
    """The parts of a row id."""

    text: str
    stem: str
    """Of the sound file, as the year's row ids spell it."""
    end_seconds: int
    label: str = ""
    """The species that a row of 2022 is about."""


class Misspelling(StrEnum):
    """What is wrong with a row id, the most specific first."""

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
    """It does not look like the year's row ids otherwise."""


def split_row_id(row_id: str, where: Path) -> tuple[str, int]:
    """Split a row id into the file's stem and the second at which its window ends, or raise MetadataError.

    >>> split_row_id("a_b_15", Path("submission.csv"))
    ('a_b', 15)
    """
    stem, _, end = row_id.rpartition("_")
    if not stem or not _is_second(end):
        raise MetadataError(where, f"row_id {row_id!r} does not end in _<end second>", "needed to keep files apart")
    return stem, int(end)


def parse_row_id(row_id: str, year: int, where: Path) -> RowId:
    """Parse a row id of a year; MetadataError if it does not end in a second, or names no file or (2022) no species."""
    stem, end_seconds = split_row_id(row_id, where)
    if year != 2022:
        return RowId(text=row_id, stem=stem, end_seconds=end_seconds)
    stem, _, label = stem.rpartition("_")
    if not stem or not label:
        raise MetadataError(where, f"row_id {row_id!r} is not <file>_<species>_<end second>, as those of 2022 are")
    return RowId(text=row_id, stem=stem, end_seconds=end_seconds, label=label)


def make_row_id(stem: str, end_seconds: int, label: str = "") -> RowId:
    """Make a row id of a stem as :func:`row_stem` spells it; ``label`` is the species, for rows of 2022."""
    text = f"{stem}_{label}_{end_seconds}" if label else f"{stem}_{end_seconds}"
    return RowId(text=text, stem=stem, end_seconds=end_seconds, label=label)


def row_stem(stem: str, year: int) -> str:
    """Spell a file as a year's row ids do: 2021 leaves out the date of ``<id>_<site>_<date>``, the others nothing."""
    return "_".join(stem.split("_")[:2]) if year == 2021 else stem


def misspelling(row_id: str, year: int) -> Misspelling | None:
    """Find what is wrong with a row id of a year; None if nothing is."""
    stem, _, end = row_id.rpartition("_")
    if not stem or not _is_second(end):
        return Misspelling.no_end
    if stem.startswith(PREFIX * 2):
        return Misspelling.prefix_twice
    if sounds_by_name(stem):
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
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
