"""Stretches of a file, read as if they were a file of their own: what libsndfile is given of a damaged or chained Ogg.

In: a path and ranges of bytes (begin, length). Out: a seekable stream of just these bytes. Nothing is loaded before it
is asked for. libsndfile calls it from C, where an exception would be printed and lost: a read that fails gives no
bytes instead, as at the end of a file.
"""

import contextlib
import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple


class ByteRange(NamedTuple):
    """Bytes of a file."""

    begin: int
    length: int


class ByteRanges(io.RawIOBase):
    """A file made of ranges of another."""

    def __init__(self, path: Path, ranges: Sequence[ByteRange]) -> None:
        """Open the file.

        Args:
            path: the file that holds the bytes.
            ranges: in the order in which they are read.

        Raises:
            OSError: it cannot be opened.
        """
        super().__init__()
        self._ranges = ranges
        self._ends = list(accumulate(one.length for one in ranges))
        self._size = self._ends[-1] if self._ends else 0
        self._position = 0
        self._file = path.open("rb")

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning of the first range."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; one before the beginning is the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes; 0 at the end, and where the file cannot be read."""
        view, n_filled = memoryview(buffer).cast("B"), 0
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed meanwhile
            while n_filled < len(view) and self._position < self._size:
                n_read = self._read_range(view[n_filled:])
                if not n_read:
                    break
                n_filled += n_read
        return n_filled

    def _read_range(self, view: memoryview) -> int:
        """Fill a buffer from the range that the position is in."""
        index = bisect_right(self._ends, self._position)
        left = self._ends[index] - self._position
        self._file.seek(self._ranges[index].begin + self._ranges[index].length - left)
        n_read = self._file.readinto(view[:left])
        self._position += n_read
        return n_read
