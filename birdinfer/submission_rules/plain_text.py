"""A file that may be anything -> its rows of cells; what it is instead of UTF-8 text with commas is noted.

Unlike :func:`birdinfer.tables.csv_files.csv_rows` this refuses nothing that can be read all the same: who checks a
file wants to know all that is wrong with it, not the first.
"""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from birdinfer.errors import InputNotFoundError
from birdinfer.submission_rules.findings import Findings, Kind

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip, or a spreadsheet",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PAR1": "Parquet",
}
"""What files begin with, and what they are."""
_SEPARATORS = ";\t|"
_LONGEST_HEADER = 1 << 20
"""Bytes that are looked at for a separator: ten times the longest header there was."""


@contextlib.contextmanager
def plain_rows(path: Path, findings: Findings) -> Iterator[Iterator[list[str]]]:
    """Open a submission to be read row by row, the header first; blank lines are left out.

    Rows end where the file cannot be read on; that is noted, too.

    Raises:
        InputNotFoundError: there is no such file, or it may not be read.
    """
    with _opened(path) as raw:
        head = raw.read(_LONGEST_HEADER)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        findings.note(Kind.compressed, packed)
        yield iter(())
        return
    if head.startswith(_BYTE_ORDER_MARK):
        findings.note(Kind.byte_order_mark, "EF BB BF")
    separator = _separator(head)
    if separator != ",":
        findings.note(Kind.other_separator, repr(separator))
    with path.open(newline="", encoding="utf-8-sig") as text:
        yield _rows(text, separator, findings)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:  # ValueError: NUL in a name
        raise InputNotFoundError(path, "no such file") from error
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})") from error


def _separator(head: bytes) -> str:
    """What stands between the cells of the first line; a comma, unless there is none and there is another."""
    line = head.partition(b"\n")[0].decode("utf-8", "replace")
    others = [sign for sign in _SEPARATORS if sign in line]
    return others[0] if others and "," not in line else ","


def _rows(text: TextIO, separator: str, findings: Findings) -> Iterator[list[str]]:
    number = 0
    try:
        for row in csv.reader(text, delimiter=separator):
            number += 1
            if row:
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        findings.note(Kind.not_text, f"after line {number}: {error}")
