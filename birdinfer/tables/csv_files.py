"""A CSV on disk <-> its rows of text, a cell -> its number; what is wrong with the file itself is said in one line.

The standard library's reader does it: it guesses no types, so that a label like ``0012`` stays text.
"""

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError


@contextlib.contextmanager
def csv_rows(path: Path, remedy: str = "") -> Iterator[Iterator[list[str]]]:
    """Open a table to be read row by row, the header first.

    Args:
        path: UTF-8 text with commas, with or without a byte order mark.
        remedy: what the user can do where there is no such file.

    Yields:
        Each row's cells; a blank line is a row without any.

    Raises:
        InputNotFoundError: there is no such file, or it may not be read.
        MetadataError: it is no UTF-8 text, or a cell is endless. Raised where the rows are taken.
    """
    with _opened(path, remedy) as file:
        try:
            yield csv.reader(file)
        except (csv.Error, UnicodeDecodeError) as error:
            raise MetadataError(path, f"is not a CSV table ({error})", "expected is UTF-8 text with commas") from error


def number_of(cell: str) -> float:
    """What a cell says as a number: digits, point and exponent; NaN for all else, also for Python's own ``1_000``."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


def numbers_of(cells: Sequence[str]) -> npt.NDArray[np.float64]:
    """:func:`number_of` of each cell, [cells]."""
    text = "".join(cells)
    if text.isascii() and "_" not in text:  # a table of a competition has a million cells: all of a row at once
        with contextlib.suppress(ValueError):
            return np.fromiter(map(float, cells), np.float64, len(cells))
    return np.array([number_of(cell) for cell in cells])


class CsvWriter:
    """Rows of text -> lines that end with a line feed.

    Beyond what csv.writer does, a name with a carriage return is quoted: a reader would take it for a line's end.
    """

    def __init__(self, text: TextIO) -> None:
        """Write to a file that was opened with ``newline=""``."""
        self._plain = csv.writer(text, lineterminator="\n")
        self._quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def row(self, name: str, cells: Sequence[object] = ()) -> None:
        """Write a row: a name, which may hold anything, and cells, which hold no line end."""
        (self._quoted if "\r" in name else self._plain).writerow([name, *cells])


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A small table as text, the header first; lines end with a line feed, None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _opened(path: Path, remedy: str) -> TextIO:
    try:
        return path.open(newline="", encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:  # ValueError: NUL in a name
        raise InputNotFoundError(path, "no such file", remedy) from error
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})", remedy) from error
