"""Scores of soundscapes on disk, in the order in which they are finished, read back file by file in any order.

In: a file's rows [rows, species], whole or piece by piece. Memory holds an index only (a name and two numbers a piece,
which nearly always is a file), so a survey of 100,000 files takes what ten files take, and a day what a minute takes.
"""

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import OutputError

Float32 = npt.NDArray[np.float32]


class _Piece(NamedTuple):
    offset_bytes: int
    n_windows: int


class ScoreSpool:
    """A nameless temporary file of scores; gone when closed, also by kill -9.

    Use as a context manager.
    """

    def __init__(self, folder: Path, n_labels: int) -> None:
        """Open an empty spool.

        Args:
            folder: where the temporary file lives; the one of the result has the room it needs.
            n_labels: species per window.
        """
        self.n_labels, self._folder = n_labels, folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._pieces: dict[str, tuple[_Piece, ...]] = {}
        self._latest: tuple[str, Float32] | None = None

    def __enter__(self) -> "ScoreSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # of scores that nobody will read
            self._file.close()

    def add(self, stem: str, probabilities: Float32) -> None:
        """Keep a file's next scores [windows, species], behind those that it has here.

        Raises:
            OutputError: the disk does not take them.
        """
        rows = np.ascontiguousarray(probabilities, np.float32)
        try:
            offset = self._file.seek(0, 2)
            self._file.write(rows.data)
            self._file.flush()  # a full disk is to be met here, not when the scores are read
        except OSError as error:
            problem = f"does not take the scores ({error.strerror})"
            raise OutputError(self._folder, problem, "choose another place for the result") from error
        self._pieces[stem] = (*self._pieces.get(stem, ()), _Piece(offset, len(rows)))
        if self._latest is not None and self._latest[0] == stem:
            self._latest = None

    def n_windows(self, stem: str) -> int | None:
        """How many windows a file has; None if it is not here."""
        pieces = self._pieces.get(stem)
        return sum(piece.n_windows for piece in pieces) if pieces else None

    def scores(self, stem: str) -> Float32 | None:
        """A file's scores [windows, species]; None if it is not here. The file asked for last is kept in memory."""
        if self._latest is not None and self._latest[0] == stem:
            return self._latest[1]
        n_windows = self.n_windows(stem)
        if n_windows is None:
            return None
        scores, begin = np.empty((n_windows, self.n_labels), np.float32), 0
        for piece in self._pieces[stem]:
            self._file.seek(piece.offset_bytes)
            self._file.readinto(scores[begin : begin + piece.n_windows].data)
            begin += piece.n_windows
        self._latest = (stem, scores)
        return scores
