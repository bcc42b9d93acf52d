"""The one strict reader of CSV tables, and their writer: a file <-> rows of text; ``cells`` says what a cell means.

The standard library's reader guesses no types, so that a label like ``0012`` stays text. What spreadsheets and other
programs make of a table is read as it is meant: a byte order mark, UTF-16, a first line ``sep=;``, semicolons, tabs or
bars between cells, rows of nothing but separators, empty columns behind the last name. Everything else (a row that is
short or long, a quote that is not closed, NUL bytes, what is no UTF-8) is refused with its row. No row vanishes.
"""

import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.system.text import encoding_of

HINT = "mend or delete the file"
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip, or a spreadsheet",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PAR1": "Parquet",
}
"""First bytes of a file that is no text -> its format."""
_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t| ]*', re.IGNORECASE)
"""What Excel takes for the separator of the rows that follow."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_HEAD_BYTES = 1 << 16
_MOST_HEADER_LINES = 100
_LISTED = 8
_SHOWN = 30
"""Characters of a cell in a message."""


class RawRows:
    """The rows of a table as they stand, the header first, of any length; lines without anything are left out."""

    number = 0
    """Of the row that came last, from 1; lines without anything count, as in an editor."""

    def __init__(self, path: Path, lines: Iterator[str], needed: Sequence[str] = ()) -> None:
        self._path = path
        self.separator, lines = _separator(path, lines, needed)
        self._cells = csv.reader(self._checked(lines), delimiter=self.separator, strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            row = self._next()
            if row:
                return row

    def _next(self) -> list[str]:
        try:
            row = next(self._cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise self._refusal(f"is not one of a CSV table ({error})", HINT, 1) from error
        self.number += 1
        return row

    def _checked(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if ("\0" in line or not line.isascii()) and (found := _NO_TEXT.search(line)):
                self._refuse_sign(line, found.start())
            yield line

    def _refuse_sign(self, line: str, place: int) -> None:
        if line[place] == "\0":
            raise self._refusal("holds NUL bytes", "copy the table again: a copy was cut off, or it is no text", 1)
        around = ascii(line[max(0, place - _SHOWN // 2) : place + _SHOWN // 2].strip()).replace("\\udc", "\\x")
        raise self._refusal(f"holds what is no UTF-8, {around}", "save the table as CSV UTF-8", 1)

    def _refusal(self, what: str, hint: str, ahead: int = 0) -> MetadataError:
        return MetadataError(self._path, f"row {self.number + ahead} {what}", hint)


class Rows(RawRows):
    """The rows of a table, the header first; each has as many cells as the header has names, or none if it is blank."""

    n_needed = 0
    """Cells that all rows need, if a program leaves out empty columns at the end; 0: those of the header."""

    def __init__(self, path: Path, lines: Iterator[str], needed: Sequence[str]) -> None:
        super().__init__(path, lines, needed)
        self._n_names = 0
        """0 before the header."""
        self._n_cells = 0
        """Of every row, empty ones behind the last name included; 0 before the first."""

    def __next__(self) -> list[str]:
        row: list[str] = []
        while not row:
            row = self._next()
            row = row if any(cell and not cell.isspace() for cell in row) else []
            if self._n_names:
                return self._whole(row) if row else []
        return self._header(row)

    def _header(self, row: list[str]) -> list[str]:
        names = [name.strip() for name in row]
        while not names[-1]:
            names.pop()
        self._n_names = len(names)
        return names

    def _whole(self, row: list[str]) -> list[str]:
        self._n_cells = self._n_cells or len(row)
        if len(row) == self._n_names == self._n_cells:
            return row
        beyond = "".join(row[self._n_names :]).strip()
        if len(row) != self._n_cells or len(row) < (self.n_needed or self._n_names) or beyond:
            other = ("the header", self._n_names) if len(row) != self._n_names else ("rows before it", self._n_cells)
            raise self._refusal(f"has {len(row)} cells, {other[0]} {other[1]}", "")
        return [*row[: self._n_names], *[""] * (self._n_names - len(row))]


@contextlib.contextmanager
def csv_rows(path: Path, hint: str = "", needed: Sequence[str] = ()) -> Iterator[Rows]:
    """Open a table to be read row by row, the header first; a row of nothing but separators has no cells.

    Args:
        path: UTF-8 or UTF-16 text.
        hint: where a table comes from, if there is none.
        needed: names of the header, which show its separator; their lack is the caller's to report.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it is no table; where rows are taken, too.
    """
    with _text(path, hint) as text:
        yield Rows(path, text, needed)


@contextlib.contextmanager
def raw_rows(path: Path) -> Iterator[RawRows]:
    """Open a table whose faults are to be listed; raises as :func:`csv_rows`, but for rows of another length."""
    with _text(path, "") as text:
        yield RawRows(path, text)


def text_lines(path: Path) -> Iterator[str]:
    """Read a text that has no header line by line, without line ends; errors as of :func:`csv_rows`."""
    with _text(path, "") as text:
        for number, line in enumerate(text, start=1):
            if _NO_TEXT.search(line):
                raise MetadataError(path, f"row {number} holds what is no UTF-8 text", "save it as UTF-8")
            yield line.rstrip("\r\n")


def numbered(rows: Iterable[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Number the rows that follow the header, skipping blank ones."""
    for number, row in enumerate(rows, start=2):
        if row:
            yield (rows.number if isinstance(rows, Rows) else number), row


def rows(path: Path, needed: str | Sequence[str], hint: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table of named columns: number of the row (from 1, the header's) and cells by name; no blank rows.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it lacks a column that is ``needed``, has one twice, or is no table.
    """
    names = (needed,) if isinstance(needed, str) else tuple(needed)
    with csv_rows(path, hint, names) as table:
        header = next(table, [])
        check_columns(path, header, names)
        for row in table:
            if row:
                yield table.number, dict(zip(header, row, strict=True))


def check_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    """Raise MetadataError if a header lacks a name that is needed, or has one twice."""
    missing = [name for name in needed if name not in header]
    if missing:
        more = ", ..." if len(header) > _LISTED else ""
        found = ", ".join(header[:_LISTED]) + more if header else "none, it is empty"
        raise MetadataError(path, f"has no column {', '.join(missing)}", f"its columns are: {found}")
    for name, times in Counter(filter(None, header)).most_common(1):
        if times > 1:
            raise MetadataError(path, f"column {name!r} stands {times} times", "keep one of them")


def read_head(path: Path) -> bytes:
    """Read the first bytes of a file; InputNotFoundError if there is none."""
    with _opened(path, "") as file:
        return file.peek(_HEAD_BYTES)


def _encoding(path: Path, file: io.BufferedReader) -> str:
    head = file.peek(_HEAD_BYTES)
    packed = packed_as(head)
    if packed:
        raise MetadataError(path, f"is no CSV table but {packed}", "unpack it, or save it as CSV UTF-8")
    return encoding_of(head)


def packed_as(head: bytes) -> str:
    """Return the format of a file that is no text by its first bytes; "" if it may be text."""
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")


def _separator(path: Path, lines: Iterator[str], needed: Sequence[str]) -> tuple[str, Iterator[str]]:
    """What stands between the cells, and the lines to read: from a first line ``sep=``, else from the header."""
    blank: list[str] = []
    first = ""
    for first in lines:
        if first.strip():
            break
        blank.append("\n")
    given = _SEPARATOR_LINE.fullmatch(first.strip("\r\n"))
    if given:
        if given[1] not in _SEPARATORS:
            raise MetadataError(path, f"row 1 names the separator {given[1]!r}", "comma, semicolon, tab or | are read")
        return given[1], itertools.chain(blank, ["\n"], lines)
    header = [first]
    for line in lines if header[0].count('"') % 2 else ():  # a name with a line end
        header.append(line)
        if "".join(header).count('"') % 2 == 0 or len(header) == _MOST_HEADER_LINES:
            break
    names = {sign: _names(header, sign) for sign in _SEPARATORS}
    fitting = [sign for sign in _SEPARATORS if needed and set(needed) <= set(names[sign])]
    fitting = fitting or [sign for sign in _SEPARATORS if len(names[sign]) > 1]
    if len(fitting) > 1 and fitting[0] != ",":
        raise MetadataError(path, f"row 1 may be divided at {' or '.join(map(repr, fitting))}", "write it with commas")
    return (fitting or [","])[0], itertools.chain(blank, header, lines)


def _names(header: Sequence[str], separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader(header, delimiter=separator), [])]
    except csv.Error:
        return []


_NEEDS_QUOTES = re.compile(r'[,"\r\n]')


class CsvWriter:
    """Writes rows of text as lines that end with a line feed.

    Unlike csv.writer it quotes a name with a carriage return, which a reader would take for the end of the line.
    """

    def __init__(self, text: TextIO) -> None:
        """Write to a file that was opened with ``newline=""``."""
        self._text = text
        self._plain = csv.writer(text, lineterminator="\n")
        self._quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def row(self, name: str, cells: Sequence[object] = ()) -> None:
        """Write a row: a name, which may hold anything, and cells, which hold no line end."""
        (self._quoted if "\r" in name else self._plain).writerow([name, *cells])

    def line(self, name: str, cells: str) -> None:
        """Write a row whose cells are joined by commas: numbers, thousands of which a CSV writer is slow to look at."""
        if name and not _NEEDS_QUOTES.search(name):
            self._text.write(f"{name},{cells}\n")
        else:
            self.row(name, cells.split(","))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a small table, the header first; lines end with a line feed, None is an empty cell.

    >>> print(csv_text(["name", "hz"], [["a,b", 1.5]]), end="")
    name,hz
    "a,b",1.5
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


@contextlib.contextmanager
def _text(path: Path, hint: str) -> Iterator[TextIO]:
    with _opened(path, hint) as file:
        encoding = _encoding(path, file)
        errors = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
        with io.TextIOWrapper(file, encoding, errors, newline="") as text:
            try:
                yield text
            except UnicodeDecodeError as error:
                what = f"is no {error.encoding.upper()} text ({error.reason})"
                raise MetadataError(path, what, "save the table as CSV UTF-8") from error


def _opened(path: Path, hint: str) -> io.BufferedReader:
    try:
        return io.BufferedReader(path.open("rb", buffering=0), _HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:  # ValueError: NUL in a name
        raise InputNotFoundError(path, "no such file", hint) from error
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})", hint) from error
