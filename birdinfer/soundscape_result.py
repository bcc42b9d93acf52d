"""What becomes of a soundscape, and whom the lanes ask and tell: who hears it, for how long, who keeps its rows.

In: nothing but paths, runs and seconds. Out: values and protocols; rows are float32 [rows, species].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SoundscapeResult:
    """What became of one file."""

    path: Path
    status: Status
    probabilities: Float32 | None = None
    """[rows, species], post-processed; None if nothing was scored, or once they are stored elsewhere."""
    n_rows: int = 0
    """Rows that were scored."""
    seconds: float = 0.0
    """Sound that was heard."""
    expected_seconds: float | None = None
    """What the header claims, where more was expected than was heard; None: nothing is missing, or nobody knows."""
    level: str = ""
    """How it was heard where that was not as asked: ``without overlap`` ... ("" otherwise)."""
    problem: str = ""
    """One line: what is wrong with it."""


class Keeper(Protocol):
    """Takes rows as they are finished, and what became of each file; from the lanes, one call at a time."""

    def note_opened(self, path: Path) -> None:
        """This file is about to be opened; a file that there is no time for never is."""

    def add(self, path: Path, rows: Float32) -> None:
        """A file's next rows [n, species], in the file's order."""

    def finish(self, result: SoundscapeResult) -> None:
        """No more rows of this file come."""


class Pace(Protocol):
    """Who hears the next file, and whether there is time for it; asked by the lanes, from any thread."""

    @property
    def lanes(self) -> int:
        """How many files are worked on at a time."""

    def predictor_for(self, path: Path) -> Predictor | None:
        """Who hears this file; None: there is no time for it, nor for any that would be opened after it."""

    def is_over(self) -> bool:
        """Whether files are to be cut off where they are; asked between runs of windows."""

    def level_of(self, path: Path) -> str:
        """How a file is heard, "" where it is as asked."""

    def expected_seconds(self, path: Path) -> float | None:
        """How long a file is by its header, where that is known without opening it."""

    def note_opened(self, path: Path, seconds: float) -> None:
        """Opening took a lane this long."""

    def note_run(self, predictor: Predictor, heard: HeardRun, read_seconds: float, score_seconds: float) -> None:
        """A run took a lane this long to read, and to score."""

    def note_done(self, path: Path, sound_seconds: float) -> None:
        """A file is finished, so much sound was heard."""
