"""A sound file while lanes are at work on it, and what is to be said of it afterwards.

In: what the lanes note. Out: a status and one line; rows are float32 [rows, species].
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.errors import BirdinferError, printable
from birdinfer.file_scores import FileScores
from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun, SoundscapeReader
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]


@dataclass(slots=True)
class OpenFile:
    """A file between its first run and its last score."""

    path: Path
    predictor: Predictor
    reader: SoundscapeReader
    runs: Iterator[HeardRun]
    scores: FileScores
    pieces: list[Float32] = field(default_factory=list)
    """Finished rows, where nobody else keeps them."""
    n_rows: int = 0
    """Rows that were handed over."""
    reading: threading.Lock = field(default_factory=threading.Lock)
    helpers: int = 0
    """Lanes that hold a run of this file, or wait for one."""
    is_read: bool = False
    is_heard: bool = False
    """Whether at least one run was scored."""
    cut_by: Status | None = None
    """Why it was not heard to its end: time, or a model that does not answer."""
    error: BirdinferError | None = None


def found(file: OpenFile) -> tuple[Status, str]:
    """What is to be said of a file that was opened."""
    stream = file.reader.stream
    if file.cut_by is Status.skipped_by_budget:
        return file.cut_by, f"time was up after {stream.heard_seconds:.1f} of {stream.claimed_seconds:.1f} s"
    if file.cut_by is not None:
        return file.cut_by, str(file.error)
    if not file.n_rows:
        return Status.unreadable, one_line(file.error, file.path)
    if file.error is not None:
        return Status.damaged, "; ".join(filter(None, (stream.damage, one_line(file.error, file.path))))
    least_seconds = file.predictor.rows.min_tail_seconds
    if stream.status in (Status.ok, Status.silent) and stream.heard_seconds < least_seconds:
        short = f"too short: {stream.heard_seconds:.3f} s, a row takes {least_seconds:g} s at least"
        return Status.too_short, "; ".join(filter(None, (short, stream.damage)))
    return stream.status, stream.damage


def one_line(error: BaseException | None, path: Path) -> str:
    """The error without the path, which stands beside it in every listing."""
    if isinstance(error, BirdinferError) and error.where == printable(str(path)):
        return error.what + (f" - {error.remedy}" if error.remedy else "")
    return printable(str(error))
