"""Many soundscapes: find them, share them out over lanes, hand back each as it is finished.

A lane is a thread on a core of its own; decoding, FFT and graphs all release Python's lock. A lane opens the next
file and takes run after run of windows from it; when no file is left to open, it helps with one that is still being
read, so that a single 24-hour recording keeps every core busy too. Only scores are kept; sound is let go run by run,
so memory grows neither with the number of files nor with their length.

A failure is a value: a file that cannot be read gives a :class:`SoundscapeResult` that says why and costs no other.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AUDIO_SUFFIXES
from birdinfer.cores import one_thread_per_lane
from birdinfer.errors import AudioError, BirdinferError, InputNotFoundError
from birdinfer.file_scores import FileScores, join_pieces
from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun, SoundscapeReader

Float32 = npt.NDArray[np.float32]


Status = Literal["ok", "damaged", "failed"]


@dataclass(frozen=True, slots=True)
class SoundscapeResult:
    """What became of one file."""

    path: Path
    status: Status
    """``ok``; ``damaged``: scored, with something wrong; ``failed``: nothing could be scored."""
    probabilities: Float32 | None = None
    """[windows, species], post-processed; None if the file failed, or once they are stored elsewhere."""
    seconds: float = 0.0
    """Sound that was heard."""
    problem: str = ""
    """One line: why the file failed, or how it is damaged."""


def find_soundscapes(inputs: Sequence[Path]) -> list[Path]:
    """Sound files by name: each file that is named, and those of each folder and its sub-folders, sorted.

    Raises:
        InputNotFoundError: an input is not there, or a folder holds no sound file.
        AudioError: two files have one name without its ending: their rows could not be told apart.
    """
    found: list[Path] = []
    for given in inputs:
        if given.is_dir():
            inside = sorted(
                path for path in given.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
            )
            if not inside:
                raise InputNotFoundError(
                    given, "holds no sound file", f"looked for {', '.join(sorted(AUDIO_SUFFIXES))}"
                )
            found += inside
        elif given.exists():
            found.append(given)
        else:
            raise InputNotFoundError(given, "no such file or folder")
    by_stem: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise AudioError(path, f"has the same name as {other}", "row ids are made of names; rename one of them")
    return list(by_stem.values())


def predict_soundscapes(
    predictor: Predictor,
    paths: Sequence[Path],
    on_progress: Callable[[float, float], None] = lambda files, seconds: None,
    keep: Callable[[Path, Float32], None] | None = None,
) -> Iterator[SoundscapeResult]:
    """Predict files on all cores.

    Args:
        predictor: shared by all lanes; its plan says how many there are.
        paths: sound files; each gives exactly one result.
        on_progress: called from the lanes after each run of windows with the share of a file that it was (0 to 1) and
            its seconds of sound.
        keep: takes a file's rows [rows, species] as they are finished, in the file's order, one call at a time, from
            the lanes; the results then come without them. Without it each result brings all rows of its file.

    Yields:
        Results in the order in which files are finished.
    """
    desk = _Desk(predictor, paths, on_progress, keep)
    with one_thread_per_lane():
        threads = [threading.Thread(target=desk.work, daemon=True) for _ in range(predictor.plan.lanes)]
        try:
            for thread in threads:
                thread.start()
            for _ in paths:
                result = desk.finished.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            # Also when the caller leaves early or Ctrl-C arrives: each lane ends after the run it is at.
            desk.stopped.set()
            for thread in threads:
                if thread.ident is not None:  # Ctrl-C may come before all are started
                    thread.join()
            desk.close()


@dataclass(slots=True)
class _OpenFile:
    """A file between its first run and its last score."""

    path: Path
    reader: SoundscapeReader
    runs: Iterator[HeardRun]
    scores: FileScores
    pieces: list[Float32] = field(default_factory=list)
    """Finished rows, where nobody else keeps them."""
    reading: threading.Lock = field(default_factory=threading.Lock)
    helpers: int = 0
    """Lanes that hold a run of this file, or wait for one."""
    is_read: bool = False
    is_heard: bool = False
    """Whether at least one run was scored."""
    error: BirdinferError | None = None


class _Desk:
    """Hands work to the lanes and gathers what they bring back."""

    def __init__(
        self,
        predictor: Predictor,
        paths: Sequence[Path],
        on_progress: Callable[[float, float], None],
        keep: Callable[[Path, Float32], None] | None,
    ) -> None:
        self.finished: queue.SimpleQueue[SoundscapeResult | BaseException] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self._predictor = predictor
        self._waiting = iter(paths)
        self._open: list[_OpenFile] = []
        self._opening = 0
        self._lock = threading.Condition()
        self._on_progress = on_progress
        self._keep = keep

    def close(self) -> None:
        """Close what a run that was stopped early left open."""
        for file in self._open:
            file.reader.close()

    def work(self) -> None:
        """A lane: take a file to work on until there is none."""
        try:
            while not self.stopped.is_set():
                file = self._next_file()
                if file is None:
                    return
                self._work_on(file)
        except BaseException as error:  # a lane must not die in silence: the reader would wait for ever
            self.finished.put(error)

    def _next_file(self) -> _OpenFile | None:
        """The next file not yet opened, else the open one with the fewest lanes on it; None when all are read."""
        while True:
            with self._lock:
                path = next(self._waiting, None)
                if path is None:
                    unread = [file for file in self._open if not file.is_read]
                    if unread:
                        file = min(unread, key=lambda file: file.helpers)
                        file.helpers += 1
                        return file
                    if not self._opening:
                        return None
                    # Another lane is about to open the last file; there may be something to help with.
                    self._lock.wait()
                    continue
                self._opening += 1
            opened = None
            try:
                opened = self._open_file(path)
            finally:  # whatever went wrong, a lane that waits for this file must not wait for ever
                with self._lock:
                    self._opening -= 1
                    if opened is not None:
                        self._open.append(opened)
                    self._lock.notify_all()
            if opened is not None:
                return opened

    def _open_file(self, path: Path) -> _OpenFile | None:
        """Open a file for this lane; None, and its result handed in, if that fails."""
        try:
            reader = self._predictor.open(path)
        except (BirdinferError, OSError) as error:
            self.finished.put(SoundscapeResult(path, "failed", problem=_one_line(error, path)))
            self._on_progress(1.0, 0.0)
            return None
        return _OpenFile(path, reader, reader.runs(), self._predictor.gather(path), helpers=1)

    def _work_on(self, file: _OpenFile) -> None:
        """Score runs of a file until it is read to its end or every lane is to stop."""
        while not self.stopped.is_set():
            with file.reading:
                heard = self._read(file)
            if heard is None:
                break
            opinions = self._predictor.score_run(heard)
            with self._lock:
                file.scores.add(opinions)
                file.is_heard = True
                self._hand_over(file)
            seconds = self._predictor.share_of_clock(heard)
            self._on_progress(min(1.0, seconds / max(seconds, file.reader.stream.claimed_seconds)), seconds)
        self._leave(file)

    def _read(self, file: _OpenFile) -> HeardRun | None:
        """The next run, None at the end; called by one lane at a time."""
        if file.is_read:
            return None
        try:
            heard = next(file.runs, None)
        except (BirdinferError, OSError) as error:
            file.error = error if isinstance(error, BirdinferError) else AudioError(file.path, str(error))
            heard = None
        if heard is None:
            file.is_read = True
            file.reader.close()
        return heard

    def _leave(self, file: _OpenFile) -> None:
        """The last lane to leave a file hands in its result."""
        with self._lock:
            file.helpers -= 1
            if file.helpers or not file.is_read or file not in self._open:
                return
            self._open.remove(file)
        self.finished.put(self._result(file))

    def _result(self, file: _OpenFile) -> SoundscapeResult:
        if not file.is_heard:
            return SoundscapeResult(file.path, "failed", problem=_one_line(file.error, file.path))
        stream = file.reader.stream
        file.scores.close(file.reader.n_rows)
        with self._lock:
            self._hand_over(file)
        probabilities = None if self._keep else join_pieces(file.pieces, len(self._predictor.labels))
        problem = _one_line(file.error, file.path) if file.error else stream.damage
        status: Status = "damaged" if problem else "ok"
        return SoundscapeResult(file.path, status, probabilities, stream.heard_seconds, problem)

    def _hand_over(self, file: _OpenFile) -> None:
        """Give away the rows that are finished; under the lock, so that they stay in order."""
        for piece in file.scores.take():
            if self._keep is None:
                file.pieces.append(piece)
            else:
                self._keep(file.path, piece)


def _one_line(error: BaseException | None, path: Path) -> str:
    """The error without the path, which stands beside it in every listing."""
    return str(error).removeprefix(f"{path}: ")
