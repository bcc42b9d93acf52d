"""Detections -> clips: a few short sound files for each species, cut out of the recordings.

In: a function that yields each recording with its detections, called once for each look at them. Out: a folder with one
folder for each species, whose files name recording, time and confidence, and a table of them, ``clips.csv``. Memory
grows with the number of clips, not with that of the detections.

Which detections are taken depends on them and on a seed alone, not on the order in which recordings come.
"""

import contextlib
import heapq
import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from birdinfer.audio.channels import MEAN, mix_of
from birdinfer.audio.levels import finite
from birdinfer.audio.sound_file import open_sound
from birdinfer.audio.stream import AudioStream
from birdinfer.callbacks import Callback
from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, clock_cell, file_cell, name_cell, plain_text, seconds_cell
from birdinfer.detections.formats.folders import safe_name
from birdinfer.detections.recordings import Recording
from birdinfer.errors import AudioError, BirdinferError
from birdinfer.system.files import atomic_folder, atomic_text, check_replaceable
from birdinfer.tables.csv import CsvWriter
from birdinfer.typing import Float32
from birdinfer.version import __version__

Speech = Callable[[Recording], Sequence[tuple[float, float]]]
"""The stretches of a recording with human speech, begin and end in seconds."""
Choice = Literal["highest", "random", "stratified"]
TABLE = "clips.csv"
COLUMNS = (
    "clip", "label", "scientific_name", "common_name", "confidence", "recording", "file", "start", "end", "clip_start",
    "clip_end", "clock", "site",
)  # fmt: skip
_KIND = ("clips", "name another folder for the results, or remove it", TABLE)
"""What a folder may hold that is replaced, what to do if it holds another thing, and the file that it has."""
_BANDS = 10
"""Of confidence: a stratified choice takes from each of them in turn."""
_UNKNOWN_RATE = 32_000
"""Hz, of clips whose recording's rate is not known."""
_LONGEST_NAME = 60
"""Characters of a recording's name in that of a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSettings:
    """Which clips are cut, and how."""

    per_species: int = 10
    choice: Choice = "highest"
    """The highest confidence, any, or as many from each tenth of the confidences."""
    seed: int = 0
    """Of a random or stratified choice."""
    padding_seconds: float = 1.0
    """Before and after an event."""
    longest_seconds: float = 30.0
    """Of a clip: from a longer event the part with the highest confidence is cut."""
    format: Literal["flac", "wav"] = "flac"


class Stretch(NamedTuple):
    """A part of a recording, in seconds."""

    begin: float
    end: float


def no_speech(recording: Recording) -> Sequence[tuple[float, float]]:
    """Know of no speech in a recording."""
    return ()


def check_clips(folder: Path) -> None:
    """Check before hours of work that clips can be written into a folder; OutputError as of :func:`write_clips`."""
    check_replaceable(folder, *_KIND)


def write_clips(
    found: Found, folder: Path, settings: ClipSettings, *, speech: Speech = no_speech, callback: Callback | None = None
) -> int:
    """Write clips of each species into a folder, which replaces an older one; return how many.

    No clip holds speech: its padding ends where speech begins, and events with speech are passed over.

    Raises:
        OutputError: the folder cannot be written, or holds other things than clips.
    """
    callback = callback or Callback()

    def quota(label: str) -> int:
        return settings.per_species

    def stretch_of(detection: Detection) -> Stretch | None:
        return clip_stretch(detection, settings.padding_seconds, settings.longest_seconds, speech(detection.recording))

    chosen = choose(found, quota, settings.choice, settings.seed, is_usable=lambda each: stretch_of(each) is not None)
    n_clips = 0
    with (
        atomic_folder(folder, *_KIND) as new,
        atomic_text(new / TABLE) as text,
    ):
        table, names = CsvWriter(text), set[str]()
        table.row(COLUMNS[0], COLUMNS[1:])
        for done, detections in enumerate(chosen, 1):
            recording = detections[0].recording
            parts = [(stretch, each) for each in detections if (stretch := stretch_of(each))]
            parts.sort(key=lambda part: part[0].begin)
            rate = recording.sample_rate or _UNKNOWN_RATE
            sounds = read_stretches(recording, [stretch for stretch, _ in parts], rate)
            for (stretch, detection), samples in zip(parts, sounds, strict=True):
                if not len(samples):
                    callback.on_warning(f"{recording.file}: {stretch.begin:.1f} s cannot be read again, it has no clip")
                    continue
                name = _unique(_clip_name(detection, settings.format), names)
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_bytes(_encode(samples, rate, settings.format, _tags(detection, stretch)))
                table.row(name, _cells(detection, stretch))
                n_clips += 1
            callback.on_progress("clips", done, len(chosen))
    return n_clips


def choose(
    found: Found, quota: Callable[[str], int], choice: Choice, seed: int, *, is_usable: Callable[[Detection], bool]
) -> list[list[Detection]]:
    """Choose detections of each species: of a label at most its quota, and only usable ones.

    Returns:
        For each recording that has any, in order: those of its detections, in order.
    """
    best: dict[str, dict[int, list[tuple[float, int, int, Detection]]]] = defaultdict(lambda: defaultdict(list))
    counter = itertools.count()
    for _, detections in found():
        for detection in detections:
            label, confidence = detection.species.label, detection.confidence
            size = quota(label)
            if not size or not is_usable(detection):
                continue
            # Of each band a heap whose first entry is the next to be dropped.
            heap = best[label][min(int(confidence * _BANDS), _BANDS - 1) if choice == "stratified" else 0]
            rank = confidence if choice == "highest" else 0.0
            entry = (rank, -_drawn(detection, seed), next(counter), detection)
            if len(heap) < size:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    chosen = []
    for label, bands in best.items():
        in_turn = itertools.zip_longest(*(sorted(bands[band], reverse=True) for band in sorted(bands, reverse=True)))
        taken = [entry for turn in in_turn for entry in turn if entry is not None]
        chosen += [(number, detection) for _, _, number, detection in taken[: quota(label)]]
    chosen.sort(key=lambda each: each[0])
    groups = itertools.groupby((detection for _, detection in chosen), key=lambda each: each.recording)
    return [list(group) for _, group in groups]


def _drawn(detection: Detection, seed: int) -> int:
    """A random number that depends on the detection and the seed alone."""
    key = f"{seed}\0{detection.recording.name}\0{detection.species.label}\0{detection.start_seconds:.3f}"
    return int.from_bytes(blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest())


def clip_stretch(
    detection: Detection, padding_seconds: float, longest_seconds: float, speech: Sequence[tuple[float, float]]
) -> Stretch | None:
    """Place a clip around a detection, within its recording and without speech; None if there is speech in the event.

    >>> from birdinfer.species import Species
    >>> recording = Recording(path=Path("a.wav"), name="a", file="a.wav", seconds=60.0)
    >>> event = Detection(
    ...     recording=recording, species=Species("eurbla"), start_seconds=0.0, end_seconds=5.0, confidence=0.9,
    ...     peak_seconds=0.0
    ... )
    >>> clip_stretch(event, 1.0, 30.0, speech=[(5.5, 8.0)])
    Stretch(begin=0.0, end=5.5)
    """
    first, last = detection.start_seconds, detection.end_seconds
    if last - first > longest_seconds:
        first = max(first, min(detection.peak_seconds, last - longest_seconds))
        last = first + longest_seconds
    padding = min(padding_seconds, (longest_seconds - (last - first)) / 2)
    begin, end = max(first - padding, 0.0), min(last + padding, detection.recording.seconds or last + padding)
    for speech_begin, speech_end in speech:
        if speech_begin < last and speech_end > first:
            return None
        if speech_end <= first:
            begin = max(begin, speech_end)
        else:
            end = min(end, speech_begin)
    return Stretch(begin, end)


def read_stretches(recording: Recording, stretches: Sequence[Stretch], sample_rate: int) -> Iterator[Float32]:
    """Decode parts of a recording, in the order of their beginnings, without decoding what lies between them.

    A file in which a decoder cannot go to a place, or finds less there than the prediction did (a damaged or chained
    one), is decoded forward as for a prediction.

    Yields:
        For each part mono float32 [samples] at ``sample_rate`` Hz, finite; shorter, or empty, where there is no sound.
    """
    n_done, path = 0, recording.path
    with contextlib.suppress(BirdinferError, OSError):
        with open_sound(path) as decoder:
            mix = mix_of(_channel(recording))
            for begin, end in stretches:
                first, count = round(begin * decoder.sample_rate), round((end - begin) * decoder.sample_rate)
                if not decoder.seek(first):
                    raise AudioError(path, f"cannot be decoded at {begin:.1f} s")
                samples, _ = finite(np.concatenate([np.zeros(0, np.float32), *decoder.blocks(count, mix)]))
                if len(samples) < count - 1:
                    raise AudioError(path, f"cannot be decoded at {begin:.1f} s")
                if decoder.sample_rate != sample_rate:
                    samples = soxr.resample(samples, decoder.sample_rate, sample_rate)
                n_done += 1
                yield samples
        return
    yield from _read_forward(recording, stretches[n_done:], sample_rate)


def _channel(recording: Recording) -> str:
    return MEAN if recording.channel is None else str(recording.channel)


def _read_forward(recording: Recording, stretches: Sequence[Stretch], sample_rate: int) -> Iterator[Float32]:
    held, position, blocks = np.zeros(0, np.float32), 0, _blocks(recording, sample_rate)
    for begin, end in stretches:
        first, last = round(begin * sample_rate), round(end * sample_rate)
        while position + len(held) < last and (block := next(blocks, None)) is not None:
            dropped = min(max(0, first - position), len(held))
            held, position = np.concatenate([held[dropped:], block]), position + dropped
        yield held[max(0, first - position) : max(0, last - position)]


def _blocks(recording: Recording, sample_rate: int) -> Iterator[Float32]:
    with (
        contextlib.suppress(BirdinferError, OSError),
        AudioStream(recording.path, sample_rate, _channel(recording)) as stream,
    ):
        yield from stream.blocks()


def _encode(samples: Float32, sample_rate: int, file_format: str, tags: dict[str, str]) -> bytes:
    """Encode mono sound [samples] as 16-bit FLAC or WAV with tags, which libsndfile names; louder than 1 is 1."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, "PCM_16", format=file_format.upper()) as file:
        for name, text in tags.items():
            setattr(file, name, plain_text(text))
        file.write(samples)
    return buffer.getvalue()


def _tags(detection: Detection, stretch: Stretch) -> dict[str, str]:
    """Describe a clip: as INFO of a WAV, as Vorbis comments of a FLAC."""
    species, recording = detection.species, detection.recording
    clock = recording.clock(stretch.begin)
    parts = {
        "label": species.label,
        "confidence": f"{detection.confidence:.6f}",
        "recording": recording.file,
        "seconds": f"{stretch.begin:.3f} to {stretch.end:.3f}",
        "site": recording.site,
        "clock": clock.isoformat(timespec="milliseconds") if clock else "",
    }
    names = f"{species.scientific_name} ({species.common_name})" if species.common_name else species.scientific_name
    return {
        "title": names or species.label,
        "comment": "; ".join(f"{name}: {text}" for name, text in parts.items() if text),
        "software": f"birdinfer {__version__}",
    } | ({"date": clock.isoformat(timespec="seconds")} if clock else {})


def _clip_name(detection: Detection, ending: str) -> str:
    """Name a clip: ``eurbla/0.912_20250227_060012_siteA_12.0s.flac``, which a folder lists by confidence."""
    clock = detection.recording.clock(detection.start_seconds)
    parts = [
        f"{detection.confidence:.3f}",
        *([f"{clock:%Y%m%d_%H%M%S}"] if clock else []),
        detection.recording.name[-_LONGEST_NAME:].replace("/", "_"),
        f"{detection.start_seconds:.1f}s",
    ]
    label = detection.species.label[:_LONGEST_NAME].replace("/", "_")
    return f"{safe_name(label)}/{safe_name('_'.join(parts))}.{ending}"


def _unique(name: str, names: set[str]) -> str:
    stem, _, ending = name.rpartition(".")
    number = 1
    while name.casefold() in names:  # two recordings may differ in what no name of a file keeps
        number += 1
        name = f"{stem}~{number}.{ending}"
    names.add(name.casefold())
    return name


def _cells(detection: Detection, stretch: Stretch) -> list[str]:
    species, recording = detection.species, detection.recording
    return [
        *map(name_cell, (species.label, species.scientific_name, species.common_name)),
        f"{detection.confidence:.6f}",
        *map(file_cell, (recording.name, recording.file)),
        *map(seconds_cell, (detection.start_seconds, detection.end_seconds, *stretch)),
        clock_cell(detection),
        name_cell(recording.site),
    ]
