"""Files -> what decoding them shows: levels, damage, speech, and a fingerprint for duplicates. Each is decoded once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from birdinfer.audio.levels import ChannelLevel, Finding
from birdinfer.audio.speech import SpeechFinder, speech_seconds
from birdinfer.audio.status import FINE, Status
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import BirdinferError
from birdinfer.inference.voice import VoiceDetector
from birdinfer.system.cpu import available_cores, one_thread_per_worker
from birdinfer.training.data.duplicates import SAMPLE_RATE, Fingerprint, of_blocks
from birdinfer.typing import Float32


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundFacts:
    """A file by its sound."""

    path: Path
    seconds: float = 0.0
    """Decoded."""
    speech_seconds: float | None = None
    """None where speech was not looked for."""
    rms_dbfs: float | None = None
    """Of the loudest channel; None: nothing but one value."""
    clipped: float = 0.0
    """Share of the samples at full scale, of the channel with most."""
    bandwidth_hz: int = 0
    is_silent: bool = False
    is_clipped: bool = False
    problem: str = ""
    """What is damaged or missing, or why nothing can be decoded; also what is wrong with a microphone."""
    is_damaged: bool = False
    fingerprint: Fingerprint | None = None


def examine(
    paths: Sequence[Path],
    detector: VoiceDetector | None,
    on_progress: Callable[[int, int], None],
    on_file: Callable[[SoundFacts], None] = lambda facts: None,
) -> dict[Path, SoundFacts]:
    """Decode files on all cores.

    Args:
        paths: of files, each decoded once.
        detector: finds speech; None looks for none.
        on_progress: called with the number of files done and of all; what it raises ends the work.
        on_file: called with the facts of each file as they are known.
    """
    distinct, found = list(dict.fromkeys(paths)), dict[Path, SoundFacts]()
    pool = ThreadPoolExecutor(available_cores())
    try:
        with one_thread_per_worker():
            for done, facts in enumerate(pool.map(lambda path: examine_file(path, detector), distinct), start=1):
                found[facts.path] = facts
                on_file(facts)
                on_progress(done, len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def examine_file(path: Path, detector: VoiceDetector | None) -> SoundFacts:
    """Decode one file to its end; a fault is a fact."""
    finder = None if detector is None else SpeechFinder(detector.stream())
    try:
        with AudioStream(path, SAMPLE_RATE) as stream:
            blocks = _through(stream.blocks(), finder)
            print_of = of_blocks(blocks)
            for _ in blocks:  # what lies beyond the fingerprint
                continue
    except (BirdinferError, OSError) as error:
        reason = error.what if isinstance(error, BirdinferError) else str(error.strerror)
        return SoundFacts(path=path, problem=reason, is_damaged=True)
    if finder is not None:
        finder.rest()
    levels = stream.levels
    is_damaged = stream.status not in FINE
    is_silent = stream.status is Status.silent
    microphone = "" if is_damaged or is_silent else "; ".join(filter(None, (one.text for one in levels)))
    speech = None if finder is None else speech_seconds(finder.spans)
    return SoundFacts(
        path=path, seconds=stream.decoded_seconds, speech_seconds=speech,
        rms_dbfs=max((one.rms_dbfs for one in levels if one.rms_dbfs is not None), default=None),
        clipped=max((one.clipped for one in levels), default=0.0),
        bandwidth_hz=max((one.bandwidth_hz for one in levels), default=0),
        is_silent=is_silent or all(_has(one, Finding.dead) for one in levels),
        is_clipped=any(_has(one, Finding.clipped) for one in levels),
        problem="; ".join(filter(None, (stream.damage, microphone))), is_damaged=is_damaged, fingerprint=print_of,
    )  # fmt: skip


def _has(level: ChannelLevel, finding: Finding) -> bool:
    return any(found is finding for found, _ in level.findings)


def _through(blocks: Iterator[Float32], finder: SpeechFinder | None) -> Iterator[Float32]:
    for block in blocks:
        if finder is not None:
            finder.push({SAMPLE_RATE: block})
        yield block
