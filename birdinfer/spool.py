"""Scores of soundscapes on disk, in the order in which they are finished, read back file by file in any order.

In: a file's rows [rows, species], whole or piece by piece. Memory holds an index only (a name and two numbers a piece,
which nearly always is a file): some 20 MB for a survey of 100,000 files, and for a day what a minute takes.
Lanes may add while another thread reads.
"""

import contextlib
import os
import tempfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from birdinfer.errors import OutputError

Float32 = npt.NDArray[np.float32]


class Piece(NamedTuple):
    """Neighbouring rows of one file."""

    offset_bytes: int
    n_rows: int


class ScoreSpool:
    """A file of scores.

    Use as a context manager.
    """

    def __init__(self, place: Path, n_labels: int) -> None:
        """Open a spool.

        Args:
            place: a file that keeps the scores, made if need be; or a folder: then the file is nameless and gone when
                closed, also by kill -9. The folder of the result has the room it needs.
            n_labels: species per row.

        Raises:
            OutputError: the file cannot be made.
        """
        self.n_labels, self._place = n_labels, place
        self._file = _opened(place)
        self._lock = threading.Lock()
        self._pieces: dict[str, tuple[Piece, ...]] = {}
        self._checksums: dict[str, int] = {}
        self._latest: tuple[str, Float32] | None = None

    def __enter__(self) -> "ScoreSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        with contextlib.suppress(OSError):  # of scores that nobody will read
            self._file.close()

    def add(self, stem: str, probabilities: Float32) -> None:
        """Keep a file's next scores [rows, species], behind those that it has here.

        Raises:
            OutputError: the disk does not take them.
        """
        rows = np.ascontiguousarray(probabilities, np.float32)
        with self._lock:
            try:
                offset = self._file.seek(0, os.SEEK_END)
                self._file.write(rows.data)
                self._file.flush()  # a full disk is to be met here, not when the scores are read
            except OSError as error:
                problem = f"does not take the scores ({error.strerror})"
                raise OutputError(self._place, problem, "choose another place for the result") from error
            self._pieces[stem] = (*self._pieces.get(stem, ()), Piece(offset, len(rows)))
            self._checksums[stem] = zlib.crc32(rows.data, self._checksums.get(stem, 0))
            if self._latest is not None and self._latest[0] == stem:
                self._latest = None

    def pieces(self, stem: str) -> tuple[Piece, ...]:
        """Where a file's rows lie, in their order; none if it is not here."""
        return self._pieces.get(stem, ())

    def checksum(self, stem: str) -> int:
        """CRC-32 of a file's rows; 0 if it is not here."""
        return self._checksums.get(stem, 0)

    def recall(self, stem: str, pieces: Sequence[Piece], checksum: int) -> bool:
        """Take over rows that an earlier process left in this file.

        Returns:
            Whether they are all there and as they were.
        """
        found, size = 0, os.fstat(self._file.fileno()).st_size
        for piece in pieces:
            n_bytes = piece.n_rows * self.n_labels * 4
            if min(piece) < 0 or piece.offset_bytes + n_bytes > size:
                return False
            with self._lock:
                self._file.seek(piece.offset_bytes)
                found = zlib.crc32(self._file.read(n_bytes), found)
        if found != checksum:
            return False
        self._pieces[stem], self._checksums[stem] = tuple(pieces), checksum
        return True

    def sync(self) -> None:
        """Have on the disk what was added, so that not even a power cut loses it."""
        os.fsync(self._file.fileno())

    def n_windows(self, stem: str) -> int | None:
        """How many rows a file has; None if it is not here."""
        pieces = self._pieces.get(stem)
        return sum(piece.n_rows for piece in pieces) if pieces else None

    def scores(self, stem: str) -> Float32 | None:
        """A file's scores [rows, species]; None if it is not here. The file asked for last is kept in memory."""
        if self._latest is not None and self._latest[0] == stem:
            return self._latest[1]
        pieces = self._pieces.get(stem)
        if not pieces:
            return None
        scores, begin = np.empty((sum(piece.n_rows for piece in pieces), self.n_labels), np.float32), 0
        with self._lock:
            for piece in pieces:
                self._file.seek(piece.offset_bytes)
                self._file.readinto(scores[begin : begin + piece.n_rows].data)  # type: ignore[attr-defined]
                begin += piece.n_rows
            if self._pieces[stem] == pieces:
                self._latest = (stem, scores)
        return scores


def _opened(place: Path) -> BinaryIO:
    try:
        if place.is_dir():
            return cast(BinaryIO, tempfile.TemporaryFile(dir=place))
        place.touch()
        return place.open("r+b")
    except OSError as error:
        raise OutputError(
            place, f"cannot be written ({error.strerror})", "choose another place for the result"
        ) from error
