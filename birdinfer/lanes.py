"""The lanes' desk: files that wait in, runs of windows shared out over threads, results out.

A lane is a thread on a core of its own; decoding, FFT and graphs all release Python's lock. A lane opens the next
file and takes run after run of windows from it; when no file is left to open, it helps with one that is still being
read, so that a single 24-hour recording keeps every core busy too. Only scores are kept; sound is let go run by run,
so memory grows neither with the number of files nor with their length.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from birdinfer.errors import AudioError, BirdinferError, BundleError
from birdinfer.file_scores import join_pieces
from birdinfer.open_file import OpenFile, found, one_line
from birdinfer.reader import HeardRun
from birdinfer.soundscape_result import Keeper, Pace, SoundscapeResult
from birdinfer.status import Status

_LOOK_UP_SECONDS = 0.1
"""How often one asks whether to stop, while all lanes are at work."""
_HOPELESS_FILES = 3
"""So many files that a model could not answer, and not a window that it could: the fault is the model's."""


class Desk:
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
        self._open: list[OpenFile] = []
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

    def _next_file(self) -> OpenFile | None:
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

    def _open_file(self, path: Path) -> OpenFile | None:
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
            self._hand_in(SoundscapeResult(path, Status.unreadable, problem=one_line(error, path)))
            self._on_progress(1.0, 0.0)
            return None
        self._pace.note_opened(path, time.perf_counter() - began)
        return OpenFile(path, predictor, reader, reader.runs(), predictor.gather(path), helpers=1)

    def _work_on(self, file: OpenFile) -> None:
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

    def _read(self, file: OpenFile) -> HeardRun | None:
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

    def _in_time(self, file: OpenFile, heard: HeardRun | None) -> HeardRun | None:
        """The run, if there is time for it; once there is not, the file is read no further.

        Asked when the run is there: a file of which nothing is left is whole, however late it is.
        """
        if heard is None or not self._pace.is_over():
            return heard
        file.cut_by = Status.skipped_by_budget
        self._close(file)
        return None

    def _give_up(self, file: OpenFile, listener: int, error: BundleError) -> None:
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

    def _close(self, file: OpenFile) -> None:
        file.is_read = True
        file.reader.close()

    def _leave(self, file: OpenFile) -> None:
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

    def _hand_over(self, file: OpenFile) -> None:
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

    def _result(self, file: OpenFile) -> SoundscapeResult:
        status, problem = found(file)
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
