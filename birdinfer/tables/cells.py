"""The meaning of a cell of a table, once for all tables: text -> a blank, a number, a flag, labels, a near miss.

Functions know neither file nor row; the table that reads a cell names both in what it refuses.
"""

import contextlib
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from birdinfer.errors import MetadataError
from birdinfer.tables.csv import HINT
from birdinfer.typing import Float64

_BLANKS = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
_TIME = re.compile(r"(?:(?:([0-9]{1,4}):)?([0-9]{1,2}):)?([0-9]{1,9}(?:[.,][0-9]{1,20})?)")
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def is_blank(cell: str) -> bool:
    """Whether a cell is empty, in any spelling: nan, None, null, NA, spaces.

    >>> is_blank(" NaN "), is_blank("0")
    (True, False)
    """
    return cell.strip().casefold() in _BLANKS


# ---- Numbers


def number_of(cell: str) -> float:
    """Parse a cell of digits, point and exponent; NaN for all else, also for Python's own ``1_000``.

    >>> number_of("2.5e-3"), number_of("1_000")
    (0.0025, nan)
    """
    try:
        return float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


def numbers_of(cells: Sequence[str]) -> Float64:
    """Parse each cell as :func:`number_of` does, [cells]."""
    text = "".join(cells)
    if text.isascii() and "_" not in text:  # a table of a competition has a million cells: all of a row at once
        with contextlib.suppress(ValueError):
            return np.fromiter(map(float, cells), np.float64, len(cells))
    return np.array([number_of(cell) for cell in cells])


def whole_of(cell: str) -> int | None:
    """Parse a whole number, also as pandas writes it where its column has a blank; None for all else.

    >>> whole_of("-2.0"), whole_of("0.5")
    (-2, None)
    """
    value = number_of(cell)
    return int(value) if value.is_integer() else None


def seconds_of(cell: str) -> float | None:
    """Parse a time in seconds, with a decimal point or comma, or with minutes and hours; None for what is none.

    >>> seconds_of("65.5"), seconds_of("65,5"), seconds_of("01:05"), seconds_of("00:01:05"), seconds_of("-1")
    (65.5, 65.5, 65.0, 65.0, None)
    """
    found = _TIME.fullmatch(cell.strip())
    if not found:
        return None
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in found.groups())
    return hours * 3_600 + minutes * 60 + seconds


def flag_of(cell: str) -> bool | None:
    """Parse a yes or no as pandas and scorers write it: True and False in any case, 1 and 0; None for all else."""
    return _FLAGS.get(cell.strip().casefold())


def number(path: Path, line: int, row: Mapping[str, str], name: str) -> float:
    """Parse a cell as a number; NaN if it, or its column, is blank, and for infinity; MetadataError for all else."""
    text = row.get(name, "").strip()
    try:
        value = math.nan if is_blank(text) else float(text)
    except ValueError as error:
        raise MetadataError(f"{path}, line {line}", f"{name} holds {text!r}, needed is a number", HINT) from error
    return value if math.isfinite(value) else math.nan


def whole_number(path: Path, line: int, row: Mapping[str, str], name: str, lowest: int) -> int:
    """Parse a cell as a whole number from ``lowest`` on; MetadataError for all else."""
    value = number(path, line, row, name)
    if not value.is_integer() or value < lowest:
        what = f"{name} is {row.get(name, '')!r}, needed is a whole number from {lowest}"
        raise MetadataError(f"{path}, line {line}", what, HINT)
    return int(value)


# ---- Labels

_CALL = re.compile(r"(?:np\.)?(?:array|set|frozenset|list|tuple)\((.*?)(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
"""numpy's and Python's own way to write a list."""
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_ITEM = re.compile(
    r"""[\s,;|]*(?:"(?P<double>(?:[^"\\]|\\.)*)"(?=[\s,;|]|$)"""
    r"""|'(?P<single>(?:[^'\\]|\\.)*)'(?=[\s,;|]|$)|(?P<plain>[^\s,;|][^,;|]*))""",
    re.DOTALL,
)


def labels_of(cell: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """Parse a list of labels in the spellings that people have, each label once, blanks left out.

    Python's and JSON's lists, sets, numpy's without commas; labels between commas, semicolons or bars; between spaces,
    too, unless none of the words is ``known`` while others are.

    >>> labels_of("['a' 'b']"), labels_of("a; b|c"), labels_of("nan"), labels_of("a b")
    (('a', 'b'), ('a', 'b', 'c'), (), ('a', 'b'))

    Raises:
        ValueError: a bracket or a quote is not closed.
    """
    text = cell.strip()
    if text in known:
        return (text,)
    called = _CALL.fullmatch(text)
    text = called[1].strip() if called else text
    closing = _BRACKETS.get(text[:1])
    if closing:
        if len(text) < 2 or text[-1] != closing:
            raise ValueError(f"{cell!r} is no list of labels, {closing} is missing")
        text = text[1:-1].strip()
    found = (label for label in _items(text, known) if label in known or not is_blank(label))
    return tuple(dict.fromkeys(found))


def _items(text: str, known: Collection[str]) -> Iterator[str]:
    for item in _ITEM.finditer(text):
        if item["plain"] is None:
            quoted = item["double"] if item["single"] is None else item["single"]
            yield _ESCAPE.sub(_unescaped, quoted).strip()
            continue
        plain = item["plain"].strip()
        if plain.startswith(("'", '"')):
            raise ValueError(f"{plain!r} is no label, its quote is not closed")
        words = plain.split()
        is_list = plain not in known and (not known or any(word in known for word in words))
        yield from words if is_list else [plain]


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1][1:], 16)) if len(found[1]) > 1 else found[1]


def near_miss(label: str, known: Collection[str]) -> str:
    """Say which label is meant by one that is not known, and by what they differ; "" if it is like none.

    >>> near_miss("Dog ", ["cat", "dog"])
    "'dog' but for spaces and case"
    """
    same = next((one for one in known if one != label and plain_label(one) == plain_label(label)), None)
    if same is None:
        return ""
    how = [name for name in _DIFFERENCES if plain_label(label, name) != plain_label(same, name)]
    return f"{same!r} but for {' and '.join(how)}"


def plain_label(label: str, kept: str = "") -> str:
    """Take from a label all by what spellings of it differ (spaces, case, ``.0`` ...) but for one that is ``kept``."""
    for name, plain in _DIFFERENCES.items():
        label = label if name == kept else plain(label)
    return label


_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "the form of an accent": lambda label: unicodedata.normalize("NFC", label),
    "spaces": lambda label: " ".join(label.replace("\ufeff", " ").split()),
    "case": str.casefold,
    "the .0 that pandas writes": lambda label: label[:-2] if label.endswith(".0") and label[:-2].isdecimal() else label,
    "leading zeros": lambda label: label.lstrip("0") or "0" if label.isdecimal() else label,
}
"""By what spellings of one label differ -> what takes it away."""
