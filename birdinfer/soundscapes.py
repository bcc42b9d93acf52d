"""Many soundscapes: find them, have lanes hear them, hand back each as it is finished.

A failure is a value: a file that cannot be read gives a :class:`SoundscapeResult` that says why and costs no other.
Who hears a file, and whether there is time for it, is a :class:`Pace`'s to say; where rows go, a :class:`Keeper`'s.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from birdinfer.audio import AUDIO_SUFFIXES, AudioStream
from birdinfer.cores import one_thread_per_lane
from birdinfer.errors import AudioError, BirdinferError, InputNotFoundError
from birdinfer.lanes import Desk
from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun
from birdinfer.soundscape_result import Keeper, Pace, SoundscapeResult

__all__ = [
    "BELIEVED_SECONDS",
    "Keeper",
    "Pace",
    "SoundscapeResult",
    "find_soundscapes",
    "header_seconds",
    "is_believed",
    "predict_soundscapes",
]

BELIEVED_SECONDS = 2 * 86_400.0
"""A header may claim anything; no recorder writes longer files."""


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


_APPLE_DOUBLE = bytes.fromhex("00051607")


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
            named = (path for path in given.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
            return sorted(path for path in named if not _is_apple_double(path))
        is_there = given.exists()
    except OSError as error:  # a name that is too long, a folder of another user
        raise InputNotFoundError(given, f"cannot be looked for ({error.strerror})") from error
    if not is_there:
        raise InputNotFoundError(given, "no such file or folder")
    return [given]


def _is_apple_double(path: Path) -> bool:
    """Whether macOS has laid it beside a file on a foreign disk: ``._a.wav`` with attributes of ``a.wav`` and no sound.

    By name and by the first bytes of the format (RFC 1740, appendix A): no recording may vanish for its name.
    """
    if not path.name.startswith("._"):
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    return False


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
    desk = Desk(pace, paths, on_progress, keep)
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
