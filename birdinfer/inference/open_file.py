"""A file between its first window batch and its last score, and what is said of it at its end."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from birdinfer.audio.channels import split_channel
from birdinfer.audio.reader import SoundscapeReader
from birdinfer.audio.status import FINE, Status
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.windows import WindowBatch
from birdinfer.errors import BirdinferError, printable
from birdinfer.inference.predictor import FileScores, Predictor
from birdinfer.typing import Float32


@dataclass(slots=True, kw_only=True)
class OpenFile:
    """A file between its first window batch and its last score."""

    path: Path
    predictor: Predictor
    reader: SoundscapeReader
    batches: Iterator[WindowBatch]
    scores: FileScores
    chunks: list[Float32] = field(default_factory=list)
    """Finished rows, if no sink takes them."""
    n_rows: int = 0
    reading: threading.Lock = field(default_factory=threading.Lock)
    helpers: int = 0
    """Workers that hold a batch of this file, or wait for one."""
    is_read: bool = False
    is_scored: bool = False
    cut_by: Status | None = None
    """Why the file ends early: no time left, or something failed."""
    error: BirdinferError | None = None

    def outcome(self) -> tuple[Status, str]:
        """Status of the file, and its problem in one line."""
        stream = self.reader.stream
        if self.cut_by is Status.skipped_by_budget:
            return self.cut_by, f"time was up after {stream.decoded_seconds:.1f} of {stream.claimed_seconds:.1f} s"
        if self.cut_by is not None:
            return self.cut_by, one_line(self.error, self.path)
        if not self.n_rows:
            return Status.unreadable, one_line(self.error, self.path)
        if self.error is not None:
            return Status.damaged, "; ".join(filter(None, (stream.damage, one_line(self.error, self.path))))
        return end_status(stream, self.predictor.rows.min_tail_seconds)


def end_status(stream: AudioStream, min_seconds: float) -> tuple[Status, str]:
    """Status of sound that was read to its end, and its problem; a row takes ``min_seconds`` at least."""
    if stream.status in FINE and stream.decoded_seconds < min_seconds:
        short = f"too short: {stream.decoded_seconds:.3f} s, a row takes {min_seconds:g} s at least"
        return Status.too_short, "; ".join(filter(None, (short, stream.damage)))
    return stream.status, stream.damage


def one_line(error: BaseException | None, path: Path) -> str:
    """Format an error without the path, which stands beside it in every listing."""
    if isinstance(error, BirdinferError) and error.where == printable(str(split_channel(path)[0])):
        return error.what + (f" - {error.hint}" if error.hint else "")
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    expected = error is None or isinstance(error, BirdinferError | OSError)
    return printable(" ".join((str(error) if expected else f"{type(error).__name__}: {error}".rstrip(": ")).split()))
