"""Where a clip's sound comes from: the file, decoded as it is needed, or the cache, decoded once before.

In: a clip and a second. Out: a window with its margins, mono float32 [samples], as ``windows.py`` cuts it. A source is
handed to each worker process: it is small, and what it opens it opens there.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from birdinfer.audio.speech import VOICE_RATE
from birdinfer.audio.stream import AudioStream, read_segment
from birdinfer.audio.windows import read_window, window_of
from birdinfer.config import InputConfig
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.inference.voice import VoiceDetector, detector_version
from birdinfer.system.files import atomic_file
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.voice import remove_spans
from birdinfer.typing import Float32, Int16

# ---- A bucket: one file of the cache, with the decoded sound of about a hundred clips and what is known of each


FORMAT = 1
"""Part of every bucket's name: another layout never meets an old file."""

_TAIL = struct.Struct("<QQ8s")
"""Bytes of counts, bytes of the index, and:"""
_MAGIC, _OLD_MAGIC = b"BIRDCLP2", b"BIRDCLIP"
"""The first one's index begins with its checksum."""
_CHECKSUM = struct.Struct("<I")
_BLOCK = 1 << 16
"""Counts that share a checksum: 2 s at 32 kHz, so that a window costs little more than itself."""
_MOST, _LEAST = 32_767, -32_768


class Decoded(NamedTuple):
    """A clip on its way into a bucket."""

    name: str
    counts: Int16
    """[samples]; empty if it cannot be decoded."""
    step: float
    """What one count stands for."""
    failed: str = ""
    """Why it cannot be decoded, "" if it can."""
    note: str = ""
    """What is wrong with it although it can."""
    voice_seconds: float = 0.0
    """Speech that was cut out."""


class Entry(NamedTuple):
    """A line of the index."""

    name: str
    begin: int
    """Its first count within the bucket."""
    n_samples: int
    step: float
    failed: str
    note: str
    voice_seconds: float
    checksums: Sequence[int] = ()
    """CRC-32 of each block of its counts; none in a bucket of an older birdinfer."""


class Counts:
    """A clip's sound where it lies; a slice of it is float32 [samples], checked when it is first read."""

    def __init__(self, counts: Int16, entry: Entry, path: Path, verified: set[tuple[int, int]]) -> None:
        self.counts, self.step = counts, entry.step
        self._entry, self._path, self._verified = entry, path, verified

    def __getitem__(self, stretch: slice, /) -> Float32:
        return np.multiply(self.raw(stretch), np.float32(self.step), dtype=np.float32)

    def raw(self, stretch: slice) -> Int16:
        """The counts themselves, checked when they are first read."""
        end = min(stretch.stop, len(self.counts))
        for block in range(stretch.start // _BLOCK, -(-end // _BLOCK)) if self._entry.checksums else ():
            self._check(block)
        return self.counts[stretch]

    def _check(self, block: int) -> None:
        place = self._entry.begin, block
        if place in self._verified:
            return
        if _checksum(self.counts[block * _BLOCK : (block + 1) * _BLOCK]) != self._entry.checksums[block]:
            what = f"its sound in the cache is damaged: delete {self._path}, it is made again"
            raise AudioError(self._entry.name, what)
        self._verified.add(place)


class Bucket:
    """A bucket to read from. The file is mapped when its sound is first asked for."""

    def __init__(self, path: Path) -> None:
        """Read the index.

        Raises:
            InputNotFoundError: there is no such bucket, or it is not whole.
        """
        self._path = path
        self.entries = {entry.name: entry for entry in _read_index(path)}
        self._verified: set[tuple[int, int]] = set()

    def sound(self, entry: Entry) -> Counts:
        """A clip's sound."""
        counts = self._counts[entry.begin : entry.begin + entry.n_samples]
        return Counts(counts, entry, self._path, self._verified)

    @cached_property
    def _counts(self) -> Int16:
        n_counts = sum(entry.n_samples for entry in self.entries.values())
        # A map of nothing is refused by the system; asarray, for slices of np.memmap are slow to make.
        return np.asarray(np.memmap(self._path, "<i2", "r", 0, (n_counts,))) if n_counts else np.zeros(0, np.int16)


def write_bucket(path: Path, clips: Iterable[Decoded]) -> None:
    """Write a bucket clip by clip; nothing bears its name before it is whole.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    entries: list[Entry] = []
    n_counts = 0
    with atomic_file(path) as file:
        for clip in clips:
            file.write(clip.counts.astype("<i2", copy=False).tobytes())
            blocks = range(0, len(clip.counts), _BLOCK)
            checksums = [_checksum(clip.counts[begin : begin + _BLOCK]) for begin in blocks]
            entries.append(Entry(clip.name, n_counts, len(clip.counts), *clip[2:], checksums))
            n_counts += len(clip.counts)
        index = json.dumps(entries).encode()
        index = _CHECKSUM.pack(zlib.crc32(index)) + index
        file.write(index)
        file.write(_TAIL.pack(2 * n_counts, len(index), _MAGIC))


def is_whole(path: Path) -> bool:
    """Whether there is a bucket, as long as it says it is, with an index that can be read."""
    try:
        _read_index(path)
    except InputNotFoundError:
        return False
    return True


def to_counts(samples: Float32) -> tuple[Int16, float]:
    """A waveform as 16-bit counts, and what one count stands for.

    The step is the smallest power of two that lets the loudest sample fit. So what was 16-bit sound before stays what
    it was, bit by bit; Vorbis may overshoot 1; and quiet clips lose nothing.
    """
    if not len(samples):
        return np.zeros(0, np.int16), 1.0
    needed = max(float(samples.max()) / _MOST, float(samples.min()) / _LEAST)
    step = 2.0 ** math.ceil(math.log2(needed)) if needed > 0 else 1.0
    # In float64: the step of a clip that is almost silent may be too small for float32's reciprocal.
    counts = np.rint(samples / np.float64(step))
    return np.clip(counts, _LEAST, _MOST).astype(np.int16), step


def _checksum(counts: Int16) -> int:
    return zlib.crc32(counts.astype("<i2", copy=False).tobytes())


def _read_lengths(path: Path) -> tuple[int, int, bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL.size))
            tail = file.read()
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})", "start again: it is made again") from error
    n_counts, n_index, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, 0, b"")
    if magic not in {_MAGIC, _OLD_MAGIC} or n_counts + n_index + _TAIL.size != size:
        raise InputNotFoundError(path, "is no whole part of the cache", "start again: it is made again")
    return n_counts, n_index, magic


def _read_index(path: Path) -> list[Entry]:
    n_counts, n_index, magic = _read_lengths(path)
    with path.open("rb") as file:
        file.seek(n_counts)
        index = file.read(n_index)
    if magic == _MAGIC:
        checksum, index = index[: _CHECKSUM.size], index[_CHECKSUM.size :]
        if checksum != _CHECKSUM.pack(zlib.crc32(index)):
            raise InputNotFoundError(path, "is damaged: its index has changed", "start again: it is made again")
    try:
        return [Entry(*row) for row in json.loads(index)]
    except (ValueError, TypeError) as error:
        raise InputNotFoundError(path, f"is damaged ({error})", "delete it: it is made again") from error


class ClipSource(Protocol):
    """Sound of clips, cut for one model."""

    @property
    def input_config(self) -> InputConfig:
        """Window length, margins and rate."""
        ...

    def duration_seconds(self, clip: Clip) -> float:
        """How long a clip is, up to ``data.max_seconds``; damaged files may hold less."""
        ...

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """A window with its margins [samples].

        Raises:
            InputNotFoundError: the file is gone.
            AudioError: the clip cannot be decoded, or holds no sound there.
        """
        ...


class DecodedSource:
    """Decodes each window out of the clip's file."""

    def __init__(self, input_config: InputConfig, max_seconds: float = 0.0) -> None:
        """Read windows as ``input_config`` says, of each clip's first ``max_seconds``; 0 for all of it."""
        self.input_config, self._most_seconds = input_config, max_seconds or math.inf

    def duration_seconds(self, clip: Clip) -> float:
        """As its header claims."""
        return min(clip.duration_seconds, self._most_seconds)

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """See :class:`ClipSource`."""
        begin = clip.begin_seconds
        end = min(clip.end_seconds, begin + self._most_seconds)
        return read_window(clip.path, start_seconds, self.input_config, end, begin)


class CachedSource:
    """Reads windows out of the cache that :func:`~birdinfer.training.data.cache.build_cache` has built."""

    def __init__(self, input_config: InputConfig, folder: Path, buckets: Sequence[str]) -> None:
        """Read a cache.

        Args:
            input_config: window length and margins; its rate is the cache's.
            folder: where the buckets lie.
            buckets: the name of each; a clip's name says in which of them it is.
        """
        self.input_config, self._folder, self._names = input_config, folder, tuple(buckets)
        self._open: dict[int, Bucket] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: 50,000 clips travel to a worker as the names of at most 128 buckets."""
        return {**self.__dict__, "_open": {}}

    def duration_seconds(self, clip: Clip) -> float:
        """As long as it really is, people's voices left out; 0 if it could not be decoded."""
        return self._find(clip)[1].n_samples / self.input_config.audio.sample_rate

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """See :class:`ClipSource`."""
        bucket, entry = self._find(clip)
        if entry.failed:
            raise AudioError(clip.path, entry.failed)
        begin = round(start_seconds * self.input_config.audio.sample_rate)
        return window_of(bucket.sound(entry), begin, self.input_config, clip.path)

    def stored(self, clip: Clip) -> Callable[[slice], Int16] | None:
        """What gives counts of a clip as they lie in the cache; None if it could not be decoded."""
        bucket, entry = self._find(clip)
        return None if entry.failed else bucket.sound(entry).raw

    def blocks(self) -> Iterator[Int16]:
        """All counts as they lie in the cache, clip by clip, in an order that depends on the clips alone."""
        for index in range(len(self._names)):
            bucket = self._bucket(index)
            for name in sorted(bucket.entries):
                entry = bucket.entries[name]
                yield bucket.sound(entry).raw(slice(0, entry.n_samples))

    @property
    def bytes(self) -> int:
        """How much of the disk it takes."""
        return sum((self._folder / name).stat().st_size for name in self._names)

    @property
    def failed(self) -> tuple[str, ...]:
        """Clips that could not be decoded, a line each."""
        return tuple(f"{entry.name} ({entry.failed})" for entry in self._entries() if entry.failed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Clips with which something is wrong although they are used, a line each."""
        return tuple(f"{entry.name} ({entry.note})" for entry in self._entries() if entry.note)

    @property
    def voice_seconds(self) -> float:
        """Speech that was cut out of all clips."""
        return math.fsum(entry.voice_seconds for entry in self._entries())

    def _entries(self) -> list[Entry]:
        found = [entry for index in range(len(self._names)) for entry in self._bucket(index).entries.values()]
        return sorted(found)

    def _bucket(self, index: int) -> Bucket:
        if index not in self._open:
            self._open[index] = Bucket(self._folder / self._names[index])
        return self._open[index]

    def _find(self, clip: Clip) -> tuple[Bucket, Entry]:
        bucket = self._bucket(bucket_of(clip.filename, len(self._names)))
        entry = bucket.entries.get(clip.filename)
        if entry is None:
            raise AudioError(clip.path, "is not in the cache")
        return bucket, entry


def bucket_of(filename: str, n_buckets: int) -> int:
    """In which bucket a clip lies; even over the buckets, the same on every machine."""
    digest = hashlib.sha256(filename.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") % n_buckets


# ---- A clip -> all of its sound as it goes into the cache: at one rate, cut to a length, without people's voices


class CacheSettings(NamedTuple):
    """What cached sound depends on, besides the files."""

    input_config: InputConfig
    """Gives the rate; and the window, less than which is not left when voices are cut out."""
    max_seconds: float = 0.0
    """``data.max_seconds``; 0 for all of a clip."""
    remove_voice: bool = False
    """``data.remove_voice``."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for settings that give the same sound."""
        voice = (self.input_config.window.window_seconds, detector_version()) if self.remove_voice else ()
        return FORMAT, self.input_config.audio.sample_rate, float(self.max_seconds), *voice

    @property
    def folder_name(self) -> str:
        """What a person reads who wonders what fills the disk: "32000hz-60s-without-voice"."""
        length = f"-{self.max_seconds:g}s" if self.max_seconds else ""
        return f"{self.input_config.audio.sample_rate}hz{length}{'-without-voice' if self.remove_voice else ''}"

    def decoded_seconds(self, duration_seconds: float) -> float:
        """What is used of a clip."""
        return min(duration_seconds, self.max_seconds) if self.max_seconds else duration_seconds


class ClipDecoder:
    """Decodes clips; may be called from several threads at once."""

    def __init__(self, settings: CacheSettings) -> None:
        """Load what the settings need.

        Raises:
            ConfigError, MissingExtraError: voices are to be removed and cannot be found here.
        """
        self._settings = settings
        self._voice = VoiceDetector("data.remove_voice") if settings.remove_voice else None

    def __call__(self, clip: Clip) -> Decoded:
        """Decode all of a clip's sound that is used."""
        try:
            return self._decode(clip)
        except (AudioError, InputNotFoundError) as error:
            return _failed(clip, error.what)
        except OSError as error:
            return _failed(clip, f"cannot be read ({error.strerror})")

    def _decode(self, clip: Clip) -> Decoded:
        rate, note, removed = self._settings.input_config.audio.sample_rate, "", 0.0
        sound, damage = self._read(clip)
        samples = sound[rate]
        if not len(samples):
            raise AudioError(clip.path, "holds no sound")
        if self._voice is not None:
            spans = self._voice.speech_spans(sound[VOICE_RATE])
            samples, removed, note = remove_spans(
                samples, spans, rate, self._settings.input_config.window.window_seconds
            )
        notes = "; ".join(filter(None, (damage, note)))
        return Decoded(clip.filename, *to_counts(samples), note=notes, voice_seconds=round(removed, 3))

    def _read(self, clip: Clip) -> tuple[dict[int, Float32], str]:
        """The sound at each rate that is needed, and what is wrong with the file, as far as it was read."""
        rate, most_seconds = self._settings.input_config.audio.sample_rate, self._settings.max_seconds
        rates = [rate, VOICE_RATE] if self._voice is not None else [rate]
        if clip.is_part:
            seconds = self._settings.decoded_seconds(clip.duration_seconds)
            return {one: read_segment(clip.path, clip.begin_seconds, round(seconds * one), one) for one in rates}, ""
        pieces: dict[int, list[Float32]] = {one: [np.zeros(0, np.float32)] for one in rates}
        with AudioStream(clip.path, rate) as stream:
            for block in stream.blocks_at(rates):
                for one, samples in block.items():
                    pieces[one].append(samples)
                if most_seconds and all(sum(map(len, pieces[one])) >= most_seconds * one for one in pieces):
                    break
        ends = {one: round(most_seconds * one) if most_seconds else None for one in rates}
        return {one: np.concatenate(pieces[one])[: ends[one]] for one in rates}, stream.damage


def _failed(clip: Clip, why: str) -> Decoded:
    return Decoded(clip.filename, np.zeros(0, np.int16), 1.0, failed=why)
