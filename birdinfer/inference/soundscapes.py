"""Predict many soundscapes: find the files, share them out over worker threads, yield each result as it is finished.

A failure is a value: a file that cannot be read yields a :class:`~birdinfer.inference.results.SoundscapeResult` with
the reason and affects no other file. A :class:`~birdinfer.inference.results.Scheduler` decides which predictor takes a
file and whether there is time for it; a :class:`~birdinfer.inference.results.ResultSink` takes the rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from birdinfer.audio.channels import channel_path
from birdinfer.audio.find import find_recordings
from birdinfer.audio.sound_file import open_sound
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import BirdinferError
from birdinfer.inference.embeddings import EmbeddingWriter
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.results import ResultSink, Scheduler, SoundscapeResult
from birdinfer.inference.workers import WorkerPool
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.system.threads import worker_thread

MAX_PLAUSIBLE_SECONDS = 2 * 86_400.0
"""A header may claim anything; no recorder writes longer files."""


def predict_soundscapes(
    predictor: Predictor | Scheduler,
    paths: Sequence[Path],
    on_progress: Callable[[Path, float, float], None] = lambda path, share, seconds: None,
    sink: ResultSink | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    names: Mapping[Path, str] | None = None,
    has_worked: bool = False,
    embeddings: EmbeddingWriter | None = None,
) -> Iterator[SoundscapeResult]:
    """Predict files on all cores.

    Args:
        predictor: predicts all files, shared by all workers; or a scheduler that decides which one does.
        paths: sound files; each yields exactly one result.
        on_progress: called by the workers after each batch of windows with the file, the share of it that it was (0 to
            1) and its seconds of sound.
        sink: takes each file's rows and its result; results are then yielded without rows. Without a sink each result
            holds all rows of its file.
        is_stopped: polled; once it is true, files in work are abandoned and only finished results are still yielded.
        names: of the recordings, from which post-processing reads site and hour; each file's own name if left out.
        has_worked: whether the models have scored files before, in a run that continues: then none is given up.
        embeddings: takes those that the predictor was asked for.

    Yields:
        Results in the order in which files are finished.

    Raises:
        BundleError: a model failed at each of the first files, and never scored a window.
        InputNotFoundError: many files in a row are gone, and so is the disk that they are on.

    Both come after the results of all files that are finished. A call that does not return is waited for no longer than
    two seconds once ``is_stopped`` says so: its thread stays behind, and its file is ``stopped``.

    >>> from birdinfer.inference.bundle import Bundle, demo_bundle_path
    >>> from birdinfer.synthetic.soundscapes import write_soundscapes
    >>> truth = write_soundscapes(Path("demo"), n_files=2, duration_seconds=10)
    >>> predictor = Predictor(Bundle.load(demo_bundle_path()))
    >>> for result in sorted(predict_soundscapes(predictor, find_soundscapes([Path("demo")])), key=lambda r: r.path):
    ...     print(result.path.name, result.status, result.probabilities.shape)
    synthetic_S01_20260501_053000.ogg ok (2, 8)
    synthetic_S02_20260501_053000.ogg ok (2, 8)
    """
    scheduler = Scheduler(predictor) if isinstance(predictor, Predictor) else predictor
    pool = WorkerPool(scheduler, paths, on_progress, sink, names, has_worked, embeddings)
    with one_thread_per_worker():
        threads = [worker_thread(pool.work) for _ in range(scheduler.workers)]
        try:
            for thread in threads:
                thread.start()
            for _ in paths:
                result = pool.next_result(is_stopped)
                if result is None:
                    break
                yield result
            pool.stop(threads)
            yield from pool.rest()
            pool.check()
        finally:
            pool.stop(threads)  # also when the caller leaves early or Ctrl-C arrives


def find_soundscapes(inputs: Sequence[Path]) -> list[Path]:
    """List the recordings of files and folders, as :func:`birdinfer.audio.find.find_recordings` finds them.

    Raises:
        InputNotFoundError: an input does not exist or cannot be looked for, or there is no recording at all.
    """
    found = find_recordings(inputs)
    found.require()
    return list(found.names)


def recordings_of_channels(names: Mapping[Path, str]) -> dict[Path, str]:
    """Make a recording of each channel of files with several: ``a.wav`` named ``a`` -> ``a.wav/1`` named ``a_ch1`` ...

    Names stay different. A file that cannot be opened stays as it is, its problem is reported when it is predicted.
    """
    numbers = {path: _channel_numbers(path) for path in names}
    single = {name for path, name in names.items() if not numbers[path]}
    mark = "_ch"
    while any(f"{names[path]}{mark}{number}" in single for path in names for number in numbers[path]):
        mark = f"_{mark}"
    expanded: dict[Path, str] = {}
    for path, name in names.items():
        channels = {channel_path(path, number): f"{name}{mark}{number}" for number in numbers[path]}
        expanded |= channels or {path: name}
    return expanded


def _channel_numbers(path: Path) -> range:
    """The channels of a file with several, from 1; empty for others."""
    try:
        with open_sound(path) as decoder:
            return range(1, decoder.channels + 1) if decoder.channels > 1 else range(0)
    except (BirdinferError, OSError):
        return range(0)


def header_seconds(path: Path) -> float | None:
    """Read how long a file is by its header, as far as its bytes go, without decoding it.

    None if it has no readable header, or one that cannot be right: 0, or more than :data:`MAX_PLAUSIBLE_SECONDS`.
    """
    try:
        with AudioStream(path, sample_rate=1) as stream:  # nothing is resampled
            seconds = stream.claimed_seconds
    except (BirdinferError, OSError):
        return None
    return seconds if is_plausible(seconds) else None


def is_plausible(seconds: float) -> bool:
    """Whether a recording can last as long as its header says; False for NaN."""
    return 0 < seconds <= MAX_PLAUSIBLE_SECONDS
