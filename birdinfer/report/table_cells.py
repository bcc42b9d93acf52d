"""The tables of a run or a search, strictly read: a CSV -> the line number and cells of each row, a cell -> its number.

What is damaged is refused with its file, line and cell.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from birdinfer.errors import MetadataError

REMEDY = "mend or delete the file"


def rows(path: Path, needed: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number (from 1, the header's) and cells by column, row by row; blank lines are passed over.

    Args:
        path: UTF-8 text with commas, with or without a byte order mark.
        needed: a column that must be there.

    Raises:
        MetadataError: there is no such column, a row is longer or shorter than the header, or it is no such text.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if needed not in header:
                found = ", ".join(header[:5]) if header else "none, it is empty"
                raise MetadataError(f"{path}, line 1", f"has no column {needed}", f"its columns are: {found}")
            for row in reader:
                if row and len(row) != len(header):
                    what = f"has {len(row)} cells, the header {len(header)}"
                    raise MetadataError(f"{path}, line {reader.line_num}", what, REMEDY)
                if row:
                    yield reader.line_num, dict(zip(header, row, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            what = f"is no text of a table ({error})"
            raise MetadataError(f"{path}, line {reader.line_num + 1}", what, REMEDY) from error


def number(path: Path, line: int, row: Mapping[str, str], name: str) -> float:
    """A cell as a number; nan if it, or its column, is empty, and for what is not finite, which has no place.

    Raises:
        MetadataError: it holds something else.
    """
    text = row.get(name, "").strip()
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise MetadataError(f"{path}, line {line}", f"{name} holds {text!r}, needed is a number", REMEDY) from error
    return value if math.isfinite(value) else math.nan


def whole_number(path: Path, line: int, row: Mapping[str, str], name: str, lowest: int) -> int:
    """A cell as a whole number from ``lowest`` on.

    Raises:
        MetadataError: it is empty, or holds something else.
    """
    value = number(path, line, row, name)
    if not value.is_integer() or value < lowest:
        what = f"{name} is {row.get(name, '')!r}, needed is a whole number from {lowest}"
        raise MetadataError(f"{path}, line {line}", what, REMEDY)
    return int(value)
