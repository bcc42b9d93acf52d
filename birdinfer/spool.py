"""Scores of finished soundscapes on disk, in the order they finish, read back file by file in any order.

Memory holds an index only (a name and two numbers a file), so a survey of 100,000 files takes what ten files take.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


class _Place(NamedTuple):
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
        self.n_labels = n_labels
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._places: dict[str, _Place] = {}
        self._latest: tuple[str, Float32] | None = None

    def __enter__(self) -> "ScoreSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, stem: str, probabilities: Float32) -> None:
        """Keep a file's scores [windows, species]."""
        offset = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(probabilities, np.float32).data)  # no copy: a day is 14 MB
        self._places[stem] = _Place(offset, len(probabilities))

    def n_windows(self, stem: str) -> int | None:
        """How many windows a file has; None if it is not here."""
        place = self._places.get(stem)
        return place.n_windows if place else None

    def scores(self, stem: str) -> Float32 | None:
        """A file's scores [windows, species]; None if it is not here. The file asked for last is kept in memory."""
        if self._latest is not None and self._latest[0] == stem:
            return self._latest[1]
        place = self._places.get(stem)
        if place is None:
            return None
        self._file.seek(place.offset_bytes)
        raw = self._file.read(place.n_windows * self.n_labels * 4)
        scores = np.frombuffer(raw, np.float32).reshape(place.n_windows, self.n_labels)
        self._latest = (stem, scores)
        return scores
