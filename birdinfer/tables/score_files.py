"""A score table -> its sound files, and back: what looks at one file at a time gets that file's rows in time order.

In: row ids ``<stem>_<end second>`` as they stand in a table, and its values [rows, labels]. Out: for each file the
indices of its rows, ordered by time; or the values of the whole table, each file's worked out from its own alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.row_ids import split_row_id

Float32 = npt.NDArray[np.float32]


class FileRows(NamedTuple):
    """The rows of one sound file."""

    stem: str
    """The file's name without its ending, as the row ids spell it."""
    rows: npt.NDArray[np.intp]
    """Indices into the table, in time order."""


def rows_by_file(row_ids: Sequence[str], where: Path) -> list[FileRows]:
    """Which rows of a table are of which sound file.

    Rows that the table lacks are not made up: those on either side of a gap are neighbours.

    Args:
        row_ids: ``<stem>_<end second>``, in any order; a stem may hold underscores.
        where: the table, as a complaint names it.

    Returns:
        One for each file, in the order of their first rows in the table. Every row is in exactly one.

    Raises:
        MetadataError: a row id does not end in a second, or two of one file end at the same.
    """
    files: dict[str, dict[int, int]] = {}
    for index, row_id in enumerate(row_ids):
        stem, end_second = split_row_id(row_id, where)
        row_at = files.setdefault(stem, {})
        if end_second in row_at:
            both = f"{row_ids[row_at[end_second]]!r} and {row_id!r}"
            raise MetadataError(where, f"rows {both} are the same second of one file", "one row for each is needed")
        row_at[end_second] = index
    return [
        FileRows(stem, np.array([row_at[end_second] for end_second in sorted(row_at)], np.intp))
        for stem, row_at in files.items()
    ]


def apply_by_file(
    values: npt.NDArray[np.floating[Any]], files: Sequence[FileRows], function: Callable[[Float32, str], Float32]
) -> Float32:
    """Do something to each file of a table by itself.

    Args:
        values: [rows, labels] of the whole table; they are left as they are.
        files: of :func:`rows_by_file`.
        function: (float32 [rows, labels] of one file in time order, its stem) -> the same shape.

    Returns:
        float32 [rows, labels], each row at its place in the table.
    """
    done = values.astype(np.float32)
    for stem, rows in files:
        done[rows] = function(done[rows], stem)
    return done
