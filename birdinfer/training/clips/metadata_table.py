"""train.csv on disk -> rows of text, and a cell's text -> what it says.

In: a folder in the layout of BirdCLEF (train_metadata.csv in its first years). Out: rows, every cell as text, so that
``0012`` and ``1161364`` stay labels; then secondary labels, rating (0 to 5 stars) and site (degrees) of a cell.
"""

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from birdinfer.errors import InputNotFoundError, MetadataError

Row = dict[str, str]

_TABLES = ("train.csv", "train_metadata.csv")
_BEST_RATING = 5.0
_NO_NUMBER = frozenset({"", "nan", "none"})


def find_table(data_dir: Path) -> Path:
    """The table of a data folder.

    Raises:
        InputNotFoundError: it holds none.
    """
    for name in _TABLES:
        if (data_dir / name).is_file():
            return data_dir / name
    raise InputNotFoundError(data_dir, f"holds neither {' nor '.join(_TABLES)}", "name the data's folder with --data")


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """A table's rows, every cell as text.

    Raises:
        MetadataError: it is not a table, has no rows or lacks one of the ``needed`` columns.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise MetadataError(path, f"is not a table ({error})") from error
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise MetadataError(path, f"lacks the column {', '.join(missing)}; found are {', '.join(frame.columns)}")
    if frame.empty:
        raise MetadataError(path, "has no rows")
    rows: list[Any] = frame.to_dict("records")
    return rows


def without_repeats(path: Path, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """One row per filename, and a line on those dropped.

    Raises:
        MetadataError: two rows of one filename contradict one another.
    """
    first: dict[str, Row] = {}
    for row in rows:
        kept = first.setdefault(row["filename"], row)
        if kept["primary_label"] != row["primary_label"]:
            both = f"{kept['primary_label']!r} and {row['primary_label']!r}"
            raise MetadataError(path, f"{row['filename']} is labelled {both}", "keep one of the rows")
    dropped = len(rows) - len(first)
    note = f"{dropped} rows of {path.name} repeat a filename and are left out"
    return list(first.values()), [note] if dropped else []


def parse_secondary(text: str) -> tuple[str, ...]:
    """``"['a', 'b']"`` -> ("a", "b"): parsed as a literal, never evaluated; words between spaces also pass."""
    text = text.strip()
    try:
        values = ast.literal_eval(text) if text.startswith(("[", "(")) else text.split()
    except (ValueError, SyntaxError):
        values = text.strip("[]()").replace(",", " ").split()
    words = (str(value).strip().strip("'\"") for value in values)
    return tuple(dict.fromkeys(word for word in words if word))


def parse_rating(text: str) -> float | None:
    """``"4.5"`` -> 4.5 stars; None where nobody rated: Xeno-canto exports that as 0, as an empty cell or as nan.

    Raises:
        ValueError: it is neither a number from 0 to 5 nor nothing.
    """
    text = text.strip()
    if text.lower() in _NO_NUMBER:
        return None
    rating = float(text)
    if not 0 <= rating <= _BEST_RATING:
        raise ValueError(f"{text} is no rating from 0 to 5")
    return rating or None


def parse_site(latitude: str, longitude: str) -> str:
    """``("54.1199", "-0.5445")`` -> "54.12,-0.54": degrees to 0.01, about a kilometre.

    Returns:
        "" where either is missing, not a number ("Not specified" in 2021) or nowhere on earth.
    """
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return ""
    if not (math.isfinite(north) and math.isfinite(east) and abs(north) <= 90 and abs(east) <= 180):
        return ""
    # + 0.0 makes -0.0 and 0.0 one place.
    return f"{round(north, 2) + 0.0:.2f},{round(east, 2) + 0.0:.2f}"
