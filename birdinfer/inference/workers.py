"""Worker threads: files that wait -> window batches shared out over threads -> results.

A worker is a thread on a core of its own; decoding, FFT and graphs all release Python's lock. A worker opens the next
file and takes batch after batch of windows from it. When no file is left to open, it helps with one that is still being
read, so that a single recording of 24 hours keeps every core busy, too. Batches that would not fill a call of a graph
are scored together. Only scores are kept and sound is freed batch by batch: memory grows neither with the number of
files nor with their length.

Whatever fails while a file is read or scored is that file's status. What ends the run is kept until all results are
taken: a model that has no answer for any file, a disk of sound that is gone, a sink that takes no rows. A worker whose
call does not return is abandoned; from then on nothing that it does reaches the sink.
"""

import contextlib
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from birdinfer.audio.channels import split_channel
from birdinfer.audio.status import FINE, Status
from birdinfer.audio.windows import WindowBatch
from birdinfer.errors import AudioError, BirdinferError, BundleError, InputNotFoundError
from birdinfer.inference.embeddings import EmbeddingWriter
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.open_file import OpenFile, one_line
from birdinfer.inference.predictor import join_chunks
from birdinfer.inference.results import ResultSink, Scheduler, SoundscapeResult
from birdinfer.inference.short_batches import Read, ShortBatches

_POLL_SECONDS = 0.1
"""How often ``is_stopped`` is asked while all workers are busy."""
_MAX_FAILED_FILES = 3
"""If a model fails at so many files and answers for no window, the model is broken and not the files."""
_MAX_GONE_FILES = 5
"""If so many files in a row are gone or give an error of the disk, the disk is gone and not the files."""
_PATIENCE_SECONDS = 2.0
"""How long a worker may take to end its window batch when the run stops."""


def is_gone(path: Path) -> bool:
    """Whether a file is not there any more, or its disk does not give its bytes; permissions are another matter."""
    path, _ = split_channel(path)
    try:
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            with path.open("rb") as file:
                file.read(1)
    except OSError as error:
        return not isinstance(error, PermissionError)
    return False


class WorkerPool:
    """Gives work to the worker threads and collects their results."""

    def __init__(
        self,
        scheduler: Scheduler,
        paths: Sequence[Path],
        on_progress: Callable[[Path, float, float], None],
        sink: ResultSink | None,
        names: Mapping[Path, str] | None = None,
        has_worked: bool = False,
        embeddings: EmbeddingWriter | None = None,
    ) -> None:
        self.finished: queue.SimpleQueue[SoundscapeResult] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.failure: BaseException | None = None
        """What has ended the run; raised once all results are taken."""
        self._path_of: dict[int, Path] = {}
        """Thread -> the file that it is at."""
        self._hung: list[Path] = []
        """Files at which a call did not return when the run was stopped."""
        self._is_abandoned = False
        """Whether such calls are waited for no longer, and nothing is taken from their threads."""
        self._scheduler = scheduler
        self._waiting = iter(paths)
        self._names, self._has_worked = names or {}, has_worked
        self._open: list[OpenFile] = []
        self._short = ShortBatches()
        self._opening = 0
        self._lock = threading.Condition()
        self._on_progress = on_progress
        self._sink, self._embeddings = sink, embeddings
        self._working_groups: set[int] = set()
        """Member groups whose models have returned numbers at least once."""
        self._n_failed = 0
        """Files at which a model failed."""
        self._n_gone = 0
        """Files in a row that are gone."""

    def next_result(self, is_stopped: Callable[[], bool]) -> SoundscapeResult | None:
        """Wait for the next finished file; None once ``is_stopped`` says so, or a worker has failed."""
        while not is_stopped() and self.failure is None:
            with contextlib.suppress(queue.Empty):
                return self.finished.get(timeout=_POLL_SECONDS)
        return None

    def stop(self, workers: Sequence[threading.Thread]) -> None:
        """Let each worker end after its current batch, and close the files left open; may be repeated."""
        if self._is_abandoned:
            return
        self.stopped.set()
        until = time.monotonic() + _PATIENCE_SECONDS
        self._wake()
        for worker in workers:
            if worker.ident is not None:  # Ctrl-C may come before all are started
                worker.join(max(0.0, until - time.monotonic()))
        if hung := [worker.ident for worker in workers if worker.is_alive()]:
            self._abandon(hung)
        else:  # a file is never closed in the middle of a call that reads it
            for file in self._open:
                file.reader.close()

    def rest(self) -> Iterator[SoundscapeResult]:
        """Yield results that workers finished before they ended, and one for each file that a call did not return."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self.finished.get_nowait()
        for path in self._hung:
            status = Status.skipped_by_budget if self._scheduler.is_over() else Status.stopped
            result = SoundscapeResult(
                path,
                status,
                n_rows=next((file.n_rows for file in self._open if file.path == path), 0),
                expected_seconds=self._scheduler.expected_seconds(path),
                problem="reading or scoring it did not return",
            )
            if self._sink is not None:  # tried, so that a run that continues comes to it last
                self._sink.finish(replace(result, status=Status.failed))
            yield result

    def check(self) -> None:
        """Raise what has ended the run."""
        if self.failure is not None:
            raise self.failure

    def _wake(self) -> None:
        """Wake workers that wait for another one to open a file."""
        if self._lock.acquire(timeout=_POLL_SECONDS):
            self._lock.notify_all()
            self._lock.release()

    def _abandon(self, threads: Sequence[int | None]) -> None:
        """Take nothing more from workers that have not ended."""
        is_ours = self._lock.acquire(timeout=_PATIENCE_SECONDS)  # held while rows are passed on
        paths = (self._path_of.get(thread) for thread in threads if thread is not None)
        self._hung = list(dict.fromkeys(path for path in paths if path is not None))
        self._is_abandoned = True
        if is_ours:
            self._lock.release()

    def work(self) -> None:
        """Run a worker: process files until there are none left."""
        try:
            while not self.stopped.is_set():
                file = self._next_file()
                if file is None:
                    break
                self._work_on(file)
            self._score_together(self._short.late(0.0))
        except BaseException as error:  # raised in the caller's thread, which would else wait for ever
            self.failure = self.failure or error
            self.stopped.set()

    def _next_file(self) -> OpenFile | None:
        """The next file not yet opened, else the open one with the fewest workers on it; None when all are read."""
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
                    # Another worker is about to open the last file; there may be something to help with.
                    self._lock.wait()
                    continue
                self._opening += 1
            opened = None
            try:
                opened = self._open_file(path)
            finally:  # whatever failed, a worker that waits for this file must not wait for ever
                with self._lock:
                    self._opening -= 1
                    if opened is not None:
                        self._open.append(opened)
                    self._lock.notify_all()
            if opened is not None:
                return opened
        return None

    def _open_file(self, path: Path) -> OpenFile | None:
        """Open a file for this worker; None, and its result finished, if that fails or there is no time."""
        self._path_of[threading.get_ident()] = path
        predictor = self._scheduler.predictor_for(path)
        if predictor is None:
            expected = self._scheduler.expected_seconds(path)
            self._finish(SoundscapeResult(path, Status.skipped_by_budget, expected_seconds=expected))
            return None
        if self._sink is not None:
            self._sink.note_opened(path)
        began = time.perf_counter()
        try:
            reader = predictor.open(path)
            scores = predictor.file_scores(path, self._names.get(path))
        except Exception as error:
            status = Status.unreadable if isinstance(error, BirdinferError | OSError) else Status.failed
            self._finish(SoundscapeResult(path, status, problem=one_line(error, path)))
            self._on_progress(path, 1.0, 0.0)
            return None
        self._scheduler.note_opened(path, time.perf_counter() - began)
        return OpenFile(
            path=path, predictor=predictor, reader=reader, batches=reader.batches(), scores=scores, helpers=1
        )

    def _work_on(self, file: OpenFile) -> None:
        """Score batches of a file until it is read to its end, or cut off, or all workers are to stop."""
        self._path_of[threading.get_ident()] = file.path
        while not self.stopped.is_set():
            with file.reading:
                began = time.perf_counter()  # behind the lock: waiting for another worker is not this one's work
                batch = self._in_time(file, self._read(file))
            if batch is None:
                break
            read = Read(file, batch, time.perf_counter() - began)
            if read.is_short:
                with self._lock:
                    file.helpers += 1  # it is not finished before this batch is scored
                self._score_together(self._short.add(read))
            elif not self._score(read):
                break
            else:
                self._score_together(self._short.late())
        self._leave(file)

    def _score(self, read: Read) -> bool:
        """Score a batch and pass on the rows that are finished; whether that was possible."""
        began = time.perf_counter()
        try:
            scores = read.file.predictor.score_batch(read.batch)
        except Exception as error:
            self._fail(read.file, read.batch.member_group, error)
            return False
        return self._take(read, scores, time.perf_counter() - began)

    def _score_together(self, ready: Iterable[Sequence[Read]]) -> None:
        """Score the batches of each member group in one call; where that fails one by one, to know at which it does."""
        for reads in ready:
            if self.stopped.is_set():
                return
            began = time.perf_counter()
            try:
                scores = reads[0].file.predictor.score_batches([read.batch for read in reads])
            except Exception:
                scores = []
            seconds = (time.perf_counter() - began) / len(reads)
            for index, read in enumerate(reads):
                self._path_of[threading.get_ident()] = read.file.path
                if scores:
                    self._take(read, scores[index], seconds)
                else:
                    self._score(read)
                if read.is_last_part:
                    self._leave(read.file)

    def _take(self, read: Read, scores: Sequence[MemberScores], seconds: float) -> bool:
        if self._is_abandoned:
            return False
        file, batch = read.file, read.batch
        self._scheduler.note_batch(file.predictor, batch, read.seconds, seconds)
        if not self._add(file, batch.member_group, scores):
            return False
        sound_seconds = file.predictor.sound_seconds_of(batch)
        share = min(1.0, sound_seconds / max(sound_seconds, file.reader.stream.claimed_seconds))
        self._on_progress(file.path, share, sound_seconds)
        return True

    def _add(self, file: OpenFile, member_group: int, member_scores: Sequence[MemberScores]) -> bool:
        """Add the scores of a batch and pass on the rows that are finished; whether that was possible."""
        failure: Exception | None = None
        with self._lock:
            self._working_groups.add(member_group)
            try:
                file.scores.add(member_scores)
            except Exception as error:
                failure = error
            else:
                file.is_scored = True
                if self._embeddings is not None:
                    self._embeddings.add(file.path, member_scores)
                self._flush(file)
        if failure is not None:
            self._fail(file, member_group, failure)
        return failure is None

    def _read(self, file: OpenFile) -> WindowBatch | None:
        """The next batch, None at the end; called by one worker at a time."""
        if file.is_read:
            return None
        try:
            batch = next(file.batches, None)
        except Exception as error:
            file.error = (
                error if isinstance(error, BirdinferError) else AudioError(file.path, one_line(error, file.path))
            )
            if not isinstance(error, BirdinferError | OSError):
                file.cut_by = Status.failed
            batch = None
        if batch is None:
            self._close(file)
        return batch

    def _in_time(self, file: OpenFile, batch: WindowBatch | None) -> WindowBatch | None:
        """The batch, if there is time for it; if not, the file is read no further.

        The scheduler is asked after reading: a file of which nothing is left is complete, however late it is.
        """
        if batch is None or not self._scheduler.is_over():
            return batch
        file.cut_by = Status.skipped_by_budget
        self._close(file)
        return None

    def _fail(self, file: OpenFile, member_group: int, error: Exception) -> None:
        """End a file at which a model fails; end the run if the model has not worked for any file so far."""
        named = error if isinstance(error, BirdinferError) else BundleError("the models", one_line(error, file.path))
        with file.reading:
            has_failed = file.cut_by is Status.failed  # in another worker, at the batch before this one
            file.cut_by, file.error = Status.failed, named
            self._close(file)
        with self._lock:
            self._n_failed += not has_failed
            has_worked = self._has_worked or member_group in self._working_groups
            is_broken = not has_worked and self._n_failed >= _MAX_FAILED_FILES
        if is_broken and self.failure is None:
            what = f"{named.what} (so it was for {self._n_failed} files, and no window was scored)"
            self.failure = BundleError(named.where, what, named.hint)
            self.stopped.set()

    def _close(self, file: OpenFile) -> None:
        file.is_read = True
        file.reader.close()

    def _leave(self, file: OpenFile) -> None:
        """Leave a file; the last worker to do so finishes it."""
        with self._lock:
            file.helpers -= 1
            if self._is_abandoned or file.helpers or not file.is_read or file not in self._open:
                return
            self._open.remove(file)
        try:
            if file.cut_by is not None:
                file.scores.finish_early()
            elif file.is_scored:
                file.scores.finish(file.reader.n_rows)
        except Exception as error:
            what = f"what follows the models failed ({one_line(error, file.path)})"
            file.cut_by, file.error = Status.failed, AudioError(file.path, what)
        with self._lock:
            self._flush(file)
        self._finish(self._result(file))

    def _flush(self, file: OpenFile) -> None:
        """Pass on the rows that are finished; under the lock, so that they stay in order."""
        if self._is_abandoned:
            return
        for chunk in file.scores.take():
            file.n_rows += len(chunk)
            if self._sink is None:
                file.chunks.append(chunk)
            else:
                self._sink.add(file.path, chunk)

    def _finish(self, result: SoundscapeResult) -> None:
        self._scheduler.note_done(result.path, result.seconds)
        is_lost = result.status not in FINE and result.status is not Status.skipped_by_budget and is_gone(result.path)
        with self._lock:
            if self._is_abandoned:
                return
            self._path_of.pop(threading.get_ident(), None)
            if self._embeddings is not None:  # first: what the sink has finished is not repeated
                self._embeddings.finish(result)
            if self._sink is not None:
                self._sink.finish(result)
            self.finished.put(result)
            self._n_gone = self._n_gone + 1 if is_lost else 0
            if self._n_gone >= _MAX_GONE_FILES:
                what = f"{_MAX_GONE_FILES} files in a row are not there or cannot be read: their disk or folder is gone"
                raise InputNotFoundError(result.path.parent, what, "bring it back, then continue with --resume")

    def _result(self, file: OpenFile) -> SoundscapeResult:
        status, problem = file.outcome()
        stream = file.reader.stream
        expected = stream.expected_seconds if status in (Status.truncated, Status.damaged) else None
        return SoundscapeResult(
            file.path,
            status,
            probabilities=join_chunks(file.chunks, file.predictor.n_columns) if file.chunks else None,
            n_rows=file.n_rows,
            seconds=stream.decoded_seconds,
            expected_seconds=stream.claimed_seconds if file.cut_by else expected,
            level=self._scheduler.level_of(file.path),
            problem=problem,
            channel=stream.channel,
            levels=stream.levels,
            sample_rate=stream.native_rate,
            speech=None if file.reader.speech is None else file.reader.speech.spans,
        )
