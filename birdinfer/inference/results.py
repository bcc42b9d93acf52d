"""What workers exchange with their surroundings: a file's result, the sink that takes its rows, the scheduler.

In: paths, window batches and seconds. Out: values and interfaces; rows are float32 [rows, species].
"""

import math
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Protocol

from birdinfer.audio.levels import ChannelLevel, Finding
from birdinfer.audio.speech import Span
from birdinfer.audio.status import Status
from birdinfer.audio.windows import WindowBatch
from birdinfer.inference.predictor import Predictor
from birdinfer.typing import Float32


@dataclass(frozen=True, slots=True)
class SoundscapeResult:
    """The outcome of one file."""

    path: Path
    status: Status
    _: KW_ONLY
    probabilities: Float32 | None = None
    """[rows, species], post-processed; None if nothing was scored, or if a :class:`ResultSink` took the rows."""
    n_rows: int = 0
    seconds: float = 0.0
    """Sound that was processed."""
    expected_seconds: float | None = None
    """What the header claims, if more was expected than was processed; None: nothing is missing, or it is unknown."""
    level: str = ""
    """The fallback level used for the file, such as ``without overlap``; "" if it was predicted as requested."""
    problem: str = ""
    """What is wrong with the file, in one line."""
    channel: str = ""
    """What was processed: ``mean``, or the number of a channel from 1; "" if the file was not opened."""
    levels: tuple[ChannelLevel, ...] = ()
    """Of each channel of the file, whichever was processed."""
    sample_rate: int = 0
    """Of the file, in Hz; 0 if it was not opened."""
    speech: tuple[Span, ...] | None = None
    """Where people speak, in seconds and in order; None: it was not looked for."""

    @property
    def findings(self) -> set[Finding]:
        """What is wrong with any of its channels."""
        return {finding for level in self.levels for finding, _ in level.findings}

    @property
    def is_dead(self) -> bool:
        """Whether no sound was processed: the one channel that was, or each of those whose mean was, is dead."""
        used = self.levels[int(self.channel) - 1 :][:1] if self.channel.isdecimal() else self.levels
        is_dead = bool(used) and all(any(each is Finding.dead for each, _ in level.findings) for level in used)
        return is_dead or self.status is Status.silent

    @property
    def microphone(self) -> str:
        """What is wrong with which channel, in one line; "" if nothing is."""
        found = [(number, level.text) for number, level in enumerate(self.levels, start=1) if level.findings]
        is_alone = len(self.levels) == 1
        return "; ".join(text if is_alone else f"channel {number}: {text}" for number, text in found)


class ResultSink(Protocol):
    """Takes rows as they are finished, and the result of each file; called by workers, one call at a time."""

    def note_opened(self, path: Path) -> None:
        """A file is about to be opened; never for one that there is no time for. Several workers may call at once."""

    def add(self, path: Path, rows: Float32) -> None:
        """Take a file's next rows [n, species], in the file's order."""

    def finish(self, result: SoundscapeResult) -> None:
        """Take the result of a file; no more of its rows come."""


class Scheduler:
    """Gives every file to one predictor, without a time limit; the base of other schedulers. Thread-safe."""

    def __init__(self, predictor: Predictor) -> None:
        self._default = predictor
        self.workers = predictor.plan.workers
        """Number of files that are processed at a time."""

    def predictor_for(self, path: Path) -> Predictor | None:
        """Return the predictor for a file; None if there is no time for it, nor for any file opened later."""
        return self._default

    def is_over(self) -> bool:
        """Whether files are to be cut off where they are; called between window batches."""
        return False

    def seconds_left(self) -> float:
        """Return the seconds until only finishing the result is left to do."""
        return math.inf

    def level_of(self, path: Path) -> str:
        """Return the fallback level of a file, "" if it is predicted as requested."""
        return ""

    def expected_seconds(self, path: Path) -> float | None:
        """Return a file's length by its header, if that is known without opening it."""
        return None

    def news(self) -> list[str]:
        """Take what happened since the last call, each in one line; called while files are processed."""
        return []

    def note_opened(self, path: Path, seconds: float) -> None:
        """Record how long a worker took to open a file."""

    def note_batch(self, predictor: Predictor, batch: WindowBatch, read_seconds: float, score_seconds: float) -> None:
        """Record how long a worker took to read and to score a window batch."""

    def note_done(self, path: Path, sound_seconds: float) -> None:
        """Record that a file is finished, and how much of its sound was processed."""
