"""The table of a data folder, train.csv, as rows of text."""

from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.csv import rows as table_rows

Row = dict[str, str]
NumberedRow = tuple[int, Row]
"""A row's number in its table, where the header is row 1, and its cells by column."""
TABLES = ("train.csv", "train_metadata.csv")
NEEDED = ("primary_label", "filename")


def find_table(data_dir: Path) -> Path:
    """The table of a data folder.

    Raises:
        InputNotFoundError: it holds none.
    """
    for name in TABLES:
        if (data_dir / name).is_file():
            return data_dir / name
    raise InputNotFoundError(data_dir, f"holds neither {' nor '.join(TABLES)}", "name the data's folder with --data")


def read_rows(path: Path, needed: Sequence[str]) -> list[NumberedRow]:
    """A table's rows, every cell as text.

    Raises:
        MetadataError: it is not a table, has no rows or lacks one of the ``needed`` columns.
    """
    found = list(table_rows(path, needed))
    if not found:
        raise MetadataError(path, "has no rows")
    return found
