"""Many soundscapes: find them, share them out over lanes, hand back each as it is finished.

A lane is a thread on a core of its own; decoding, FFT and graphs all release Python's lock. A lane opens the next
file and takes run after run of windows from it; when no file is left to open, it helps with one that is still being
read, so that a single 24-hour recording keeps every core busy too. Only scores are kept; sound is let go run by run,
so memory grows neither with the number of files nor with their length.

A failure is a value: a file that cannot be read gives a :class:`SoundscapeResult` that says why and costs no other.
Who hears a file, and whether there is time for it, is a :class:`Pace`'s to say; where rows go, a :class:`Keeper`'s.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AUDIO_SUFFIXES, AudioStream
from birdinfer.cores import one_thread_per_lane
from birdinfer.errors import AudioError, BirdinferError, BundleError, InputNotFoundError, printable
from birdinfer.file_scores import FileScores, join_pieces
from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun, SoundscapeReader
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]

BELIEVED_SECONDS = 2 * 86_400.0
"""A header may claim anything; no recorder writes longer files."""
_LOOK_UP_SECONDS = 0.1
"""How often one asks whether to stop, while all lanes are at work."""
_HOPELESS_FILES = 3
"""So many files that a model could not answer, and not a window that it could: the fault is the model's."""


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


class _Unhurried:
    """One predictor for all files, and all the time there is."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.lanes = predictor.plan.lanes

    def predictor_for(self, path: Path) -> Predictor:
        return self._predictor

    def is_over(self) -> bool:
        return False

    def level_of(self, path: Path) -> str:
        return ""

    def expected_seconds(self, path: Path) -> None:
        return None

    def note_opened(self, path: Path, seconds: float) -> None:
        pass

    def note_run(self, predictor: Predictor, heard: HeardRun, read_seconds: float, score_seconds: float) -> None:
        pass

    def note_done(self, path: Path, sound_seconds: float) -> None:
        pass


def find_soundscapes(inputs: Sequence[Path]) -> list[Path]:
    """Sound files by name: each file that is named, and those of each folder and its sub-folders, sorted.

    Raises:
        InputNotFoundError: an input is not there or may not be looked into, or a folder holds no sound file.
        AudioError: two files have one name without its ending: their rows could not be told apart.
    """
    found: list[Path] = []
    for given in inputs:
        inside = _found_at(given)
        if not inside:
            raise InputNotFoundError(given, "holds no sound file", f"looked for {', '.join(sorted(AUDIO_SUFFIXES))}")
        found += inside
    by_stem: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise AudioError(path, f"has the same name as {other}", "row ids are made of names; rename one of them")
    return list(by_stem.values())


def _found_at(given: Path) -> list[Path]:
    """The file itself, or the sound files of a folder."""
    try:
        if given.is_dir():
            return sorted(path for path in given.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
        is_there = given.exists()
    except OSError as error:  # a name that is too long, a folder of another user
        raise InputNotFoundError(given, f"cannot be looked for ({error.strerror})") from error
    if not is_there:
        raise InputNotFoundError(given, "no such file or folder")
    return [given]


def header_seconds(path: Path) -> float | None:
    """How long a file is by its header, before anything of it is decoded.

    None where it has none that can be read, and where that cannot be: 0, or more than :data:`BELIEVED_SECONDS`.
    """
    try:
        with AudioStream(path, sample_rate=1) as stream:  # nothing is resampled
            seconds = stream.expected_seconds or stream.claimed_seconds
    except (BirdinferError, OSError):
        return None
    return seconds if is_believed(seconds) else None


def is_believed(seconds: float) -> bool:
    """Whether a recording may last as long as its header says; not of NaN."""
    return 0 < seconds <= BELIEVED_SECONDS


def predict_soundscapes(
    predictor: Predictor | Pace,
    paths: Sequence[Path],
    on_progress: Callable[[float, float], None] = lambda files, seconds: None,
    keep: Keeper | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[SoundscapeResult]:
    """Predict files on all cores.

    Args:
        predictor: hears all files, shared by all lanes; or says who does, and until when.
        paths: sound files; each gives exactly one result.
        on_progress: called from the lanes after each run of windows with the share of a file that it was (0 to 1) and
            its seconds of sound.
        keep: takes each file's rows and its result; the results then come without rows. Without it each result brings
            all rows of its file.
        is_stopped: asked again and again; once it says yes, files that are being heard are left as they are, and only
            results of those that are finished still come.

    Yields:
        Results in the order in which files are finished.

    Raises:
        BundleError: a model answers with NaN, for the first files all alike, and never with anything else.
    """
    pace = _Unhurried(predictor) if isinstance(predictor, Predictor) else predictor
    desk = _Desk(pace, paths, on_progress, keep)
    with one_thread_per_lane():
        threads = [threading.Thread(target=desk.work, daemon=True) for _ in range(pace.lanes)]
        try:
            for thread in threads:
                thread.start()
            for _ in paths:
                result = desk.next_result(is_stopped)
                if result is None:
                    break
                yield result
            desk.stop(threads)
            yield from desk.rest()
        finally:
            desk.stop(threads)  # also when the caller leaves early or Ctrl-C arrives


@dataclass(slots=True)
class _OpenFile:
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


class _Desk:
    """Hands work to the lanes and gathers what they bring back."""

    def __init__(
        self,
        pace: Pace,
        paths: Sequence[Path],
        on_progress: Callable[[float, float], None],
        keep: Keeper | None,
    ) -> None:
        self.finished: queue.SimpleQueue[SoundscapeResult | BaseException] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self._pace = pace
        self._waiting = iter(paths)
        self._open: list[_OpenFile] = []
        self._opening = 0
        self._lock = threading.Condition()
        self._on_progress = on_progress
        self._keep = keep
        self._answered: set[int] = set()
        """Listeners whose models have said what is a number, once at least."""
        self._n_unanswered = 0
        """Files that were given up."""

    def next_result(self, is_stopped: Callable[[], bool]) -> SoundscapeResult | None:
        """What became of the next file that is finished; None once it is to stop.

        Raises:
            BaseException: what a lane failed with.
        """
        while not is_stopped():
            with contextlib.suppress(queue.Empty):
                result = self.finished.get(timeout=_LOOK_UP_SECONDS)
                if isinstance(result, BaseException):
                    raise result
                return result
        return None

    def stop(self, lanes: Sequence[threading.Thread]) -> None:
        """Let each lane end after the run it is at, and close what they leave open; harmless when repeated."""
        self.stopped.set()
        for lane in lanes:
            if lane.ident is not None:  # Ctrl-C may come before all are started
                lane.join()
        for file in self._open:
            file.reader.close()

    def rest(self) -> Iterator[SoundscapeResult]:
        """What lanes have finished before they ended.

        Raises:
            BaseException: what a lane failed with.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                result = self.finished.get_nowait()
                if isinstance(result, BaseException):
                    raise result
                yield result

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
        while not self.stopped.is_set():
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
        return None

    def _open_file(self, path: Path) -> _OpenFile | None:
        """Open a file for this lane; None, and its result handed in, if that fails or there is no time."""
        predictor = self._pace.predictor_for(path)
        if predictor is None:
            expected = self._pace.expected_seconds(path)
            self._hand_in(SoundscapeResult(path, Status.skipped_by_budget, expected_seconds=expected))
            return None
        if self._keep is not None:
            with self._lock:
                self._keep.note_opened(path)
        began = time.perf_counter()
        try:
            reader = predictor.open(path)
        except (BirdinferError, OSError) as error:
            self._hand_in(SoundscapeResult(path, Status.unreadable, problem=_one_line(error, path)))
            self._on_progress(1.0, 0.0)
            return None
        self._pace.note_opened(path, time.perf_counter() - began)
        return _OpenFile(path, predictor, reader, reader.runs(), predictor.gather(path), helpers=1)

    def _work_on(self, file: _OpenFile) -> None:
        """Score runs of a file until it is read to its end, or cut off, or every lane is to stop."""
        while not self.stopped.is_set():
            with file.reading:
                began = time.perf_counter()  # not before: waiting for another lane's turn is no work of this one's
                heard = self._in_time(file, self._read(file))
            if heard is None:
                break
            read = time.perf_counter()
            try:
                opinions = file.predictor.score_run(heard)
            except BundleError as error:
                self._give_up(file, heard.listener, error)
                break
            self._pace.note_run(file.predictor, heard, read - began, time.perf_counter() - read)
            with self._lock:
                self._answered.add(heard.listener)
                file.scores.add(opinions)
                file.is_heard = True
                self._hand_over(file)
            seconds = file.predictor.share_of_clock(heard)
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
            self._close(file)
        return heard

    def _in_time(self, file: _OpenFile, heard: HeardRun | None) -> HeardRun | None:
        """The run, if there is time for it; once there is not, the file is read no further.

        Asked when the run is there: a file of which nothing is left is whole, however late it is.
        """
        if heard is None or not self._pace.is_over():
            return heard
        file.cut_by = Status.skipped_by_budget
        self._close(file)
        return None

    def _give_up(self, file: _OpenFile, listener: int, error: BundleError) -> None:
        """A model has no answer to this file: other files may fare better."""
        with file.reading:
            is_given_up = file.cut_by is Status.non_finite  # by another lane, which was at its run before this one
            file.cut_by, file.error = Status.non_finite, error
            self._close(file)
        with self._lock:
            self._n_unanswered += not is_given_up
            is_hopeless = listener not in self._answered and self._n_unanswered >= _HOPELESS_FILES
        if is_hopeless:
            raise error

    def _close(self, file: _OpenFile) -> None:
        file.is_read = True
        file.reader.close()

    def _leave(self, file: _OpenFile) -> None:
        """The last lane to leave a file hands in its result."""
        with self._lock:
            file.helpers -= 1
            if file.helpers or not file.is_read or file not in self._open:
                return
            self._open.remove(file)
        if file.cut_by is not None:
            file.scores.cut()
        elif file.is_heard:
            file.scores.close(file.reader.n_rows)
        with self._lock:
            self._hand_over(file)
        self._hand_in(self._result(file))

    def _hand_over(self, file: _OpenFile) -> None:
        """Give away the rows that are finished; under the lock, so that they stay in order."""
        for piece in file.scores.take():
            file.n_rows += len(piece)
            if self._keep is None:
                file.pieces.append(piece)
            else:
                self._keep.add(file.path, piece)

    def _hand_in(self, result: SoundscapeResult) -> None:
        """A file is done with."""
        self._pace.note_done(result.path, result.seconds)
        with self._lock:
            if self._keep is not None:
                self._keep.finish(result)
        self.finished.put(result)

    def _result(self, file: _OpenFile) -> SoundscapeResult:
        status, problem = _found(file)
        stream = file.reader.stream
        expected = {Status.truncated: stream.expected_seconds, Status.damaged: stream.expected_seconds}.get(status)
        return SoundscapeResult(
            file.path,
            status,
            join_pieces(file.pieces, len(file.predictor.labels)) if file.pieces else None,
            file.n_rows,
            stream.heard_seconds,
            stream.claimed_seconds if file.cut_by else expected,
            self._pace.level_of(file.path),
            problem,
        )


def _found(file: _OpenFile) -> tuple[Status, str]:
    """What is to be said of a file that was opened."""
    stream = file.reader.stream
    if file.cut_by is Status.skipped_by_budget:
        return file.cut_by, f"time was up after {stream.heard_seconds:.1f} of {stream.claimed_seconds:.1f} s"
    if file.cut_by is not None:
        return file.cut_by, str(file.error)
    if not file.n_rows:
        return Status.unreadable, _one_line(file.error, file.path)
    if file.error is not None:
        return Status.damaged, "; ".join(filter(None, (stream.damage, _one_line(file.error, file.path))))
    least_seconds = file.predictor.rows.min_tail_seconds
    if stream.status in (Status.ok, Status.silent) and stream.heard_seconds < least_seconds:
        short = f"too short: {stream.heard_seconds:.3f} s, a row takes {least_seconds:g} s at least"
        return Status.too_short, "; ".join(filter(None, (short, stream.damage)))
    return stream.status, stream.damage


def _one_line(error: BaseException | None, path: Path) -> str:
    """The error without the path, which stands beside it in every listing."""
    if isinstance(error, BirdinferError) and error.where == printable(str(path)):
        return error.what + (f" - {error.remedy}" if error.remedy else "")
    return printable(str(error))
