"""File -> mono float32 waveform [samples] at one rate or several, block by block, with a status of the file.

Decoding is libsndfile's (Ogg Vorbis, Opus and FLAC, FLAC, WAV, MP3, AIFF; it goes by content, so a wrong extension does
no harm) and resampling is soxr's, streaming: memory does not grow with a file's length. Channels are averaged, or one
of them is taken. A file is decoded once, however many rates are asked for. The links of a chained Ogg are one waveform,
each resampled from a rate of its own.

A damaged file either yields nothing (an :class:`~birdinfer.errors.AudioError`), or sound and a status
(``AudioStream.status``, with details in ``damage``). Sound that can be decoded is never dropped, and keeps its time:
missing sound within is replaced by silence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from birdinfer.audio.channels import LOUDEST_CHANNEL, MEAN, Mixer, loudest_channel, mix_of, split_channel
from birdinfer.audio.decoder import is_constant
from birdinfer.audio.levels import ChannelLevel, finite
from birdinfer.audio.sound_file import NativePiece, NativeSound, open_sound
from birdinfer.audio.status import Status
from birdinfer.audio.waveform import WaveformSound
from birdinfer.errors import AudioError
from birdinfer.typing import Float32

LEAST_BLANK_SECONDS = 1.0
"""Zeros at the end of uncompressed sound that are named: a recorder that allocates the whole file and stops early
leaves them."""


class AudioInfo(NamedTuple):
    """The claims of a file's header."""

    sample_rate: int
    channels: int
    frames: int
    """Samples per channel."""

    @property
    def duration_seconds(self) -> float:
        """Seconds, as the header claims."""
        return self.frames / self.sample_rate


def probe(path: Path) -> AudioInfo:
    """Read a file's header (of a chained Ogg, that of the first link); raises InputNotFoundError or AudioError."""
    with open_sound(split_channel(path)[0]) as decoder:
        frames = decoder.frames
        if frames is None:  # a FLAC from a pipe does not know its length
            frames = sum(len(block) for block in decoder.blocks())
        return AudioInfo(decoder.sample_rate, decoder.channels, frames)


def read_segment(path: Path, start_seconds: float, n_samples: int, sample_rate: int, *, channel: str = MEAN) -> Float32:
    """Decode a stretch of a file without decoding what lies before it; of a chained Ogg, of the first link.

    ``channel`` is ``mean``, or the number of one from 1, as :attr:`AudioStream.channel` states it.
    Returns ``n_samples`` of mono float32 at ``sample_rate``, finite, fewer where the file ends. Raises AudioError.
    """
    path, own = split_channel(path)
    with open_sound(path) as decoder:
        begin = round(start_seconds * decoder.sample_rate)
        count = -(-n_samples * decoder.sample_rate // sample_rate)
        if decoder.frames is not None:
            begin = min(begin, decoder.frames)
            # Behind the last sample that a header counts a decoder may fail on a tag: it is not read.
            count = min(count, decoder.frames - begin) if decoder.counts_samples else count
        # Not every format can seek.
        if begin and not decoder.seek(begin):
            raise AudioError(path, f"cannot be decoded at {start_seconds:.1f} s")
        samples, _ = finite(np.concatenate([np.zeros(0, np.float32), *decoder.blocks(count, mix_of(own or channel))]))
        if decoder.failure:
            raise AudioError(path, f"cannot be decoded at {start_seconds:.1f} s ({decoder.failure})")
        if decoder.sample_rate != sample_rate:
            samples = soxr.resample(samples, decoder.sample_rate, sample_rate)
    return samples[:n_samples]


class AudioStream:
    """One sound file, or sound in memory, read forward once.

    A context manager::

        with AudioStream(path, sample_rate=32_000) as stream:
            for block in stream.blocks():
                ...
            print(stream.status, stream.damage)
    """

    status: Status = Status.ok
    """After the last block, the worst finding: ``silent``, ``non_finite``, ``truncated`` or ``damaged``."""

    damage: str = ""
    """After the last block: all findings in one line, "" if there is none."""

    _blank_seconds = 0.0

    decoded_seconds: float = 0.0
    """Sound decoded so far, without the silence in place of missing sound."""

    def __init__(
        self, path: Path, sample_rate: int, channel: str = MEAN, *, sound: WaveformSound | None = None
    ) -> None:
        """Open a file to be read at ``sample_rate`` Hz; raises InputNotFoundError or AudioError.

        ``channel`` is one of :func:`birdinfer.audio.channels.check_channel`, unless the path names it; AudioError if
        the file has no such one. ``sound`` is sound in memory, read in place of a file.
        """
        self.sample_rate = sample_rate
        self._sound: NativeSound | WaveformSound
        if sound is None:
            self.path, own = split_channel(path)
            self._sound, self.channel = _open(self.path, own or channel)
            """``mean``, or the number of the channel that is read, from 1."""
        else:
            self.path, self._sound, self.channel = path, sound, sound.channel
        self.native_rate: int = self._sound.sample_rate
        """The file's own rate in Hz, that of its beginning."""
        self.expected_seconds: float | None = self._sound.expected_seconds
        """What the header claims, where it counts samples (WAV, AIFF, FLAC); else None."""
        self.claimed_seconds: float = self._sound.estimated_seconds
        """How long the file seems to be, for progress: by its header, or estimated from its size."""

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._sound.close()

    @property
    def levels(self) -> tuple[ChannelLevel, ...]:
        """The level of each channel of the file, whichever is read; of what was decoded so far."""
        return self._sound.mixer.meter.levels()

    def blocks(self) -> Iterator[Float32]:
        """Yield mono float32 [samples], finite, about 10 s each, at ``sample_rate``; AudioError if there are none."""
        for block in self.blocks_at([self.sample_rate]):
            yield block[self.sample_rate]

    def blocks_at(self, sample_rates: Sequence[int]) -> Iterator[dict[int, Float32]]:
        """Decode forward to the end once, at several rates; each is bit for bit what :meth:`blocks` gives.

        Yields:
            Rate -> mono waveform [samples], float32 and finite, about 10 s. A rate is missing where its resampler
            keeps everything for the next block.
        """
        resamplers, link = _Resamplers(sample_rates), 0
        for native in self._finite_blocks():
            if native.link != link:
                link = native.link
                yield from resamplers.rest()
            yield from resamplers.push(native.sample_rate, native.samples)
        yield from resamplers.rest()

    def _finite_blocks(self) -> Iterator[NativePiece]:
        """Yield finite pieces; after the last, ``status`` and ``damage`` are known."""
        n_bad, level = 0, _Level(self._sound.blank)
        for piece in self._sound.pieces():
            samples, bad = finite(piece.samples)
            n_bad += bad
            if piece.is_decoded:
                level.add(samples)
                self._blank_seconds = level.n_blank / piece.sample_rate
                self.decoded_seconds += len(samples) / piece.sample_rate
            yield replace(piece, samples=samples)
        self._set_status(n_bad, level)

    def _set_status(self, n_bad: int, level: "_Level") -> None:
        damage = self._sound.damage
        if level.value is None:
            raise AudioError(
                self.path,
                f"holds no sound ({damage.text or 'its header is there, samples are not'})",
                "record or copy it again",
            )
        if n_bad:
            damage.note(Status.non_finite, f"{n_bad} samples are not finite, taken as 0")
        if not level.is_constant and self._blank_seconds >= LEAST_BLANK_SECONDS:
            blank = f"its last {self._blank_seconds:.1f} s are zeros, as in a file that was allocated and never filled"
            damage.note(Status.length_unknown, blank)
        if level.is_constant:
            cancelled = "its channels cancel each other" if self._sound.mixer.is_cancelled else ""
            damage.note(Status.silent, f"silent: {cancelled or f'all samples are {level.value:g}'}")
        self.status, self.damage = damage.status, damage.text


def _open(path: Path, channel: str) -> tuple[NativeSound, str]:
    """Open a file to read a channel, and find out which one that is."""
    sound = NativeSound(path)
    try:
        found = _channel_of(path, channel, sound.channels)
    except BaseException:
        sound.close()
        raise
    sound.mixer = Mixer(found)
    return sound, found


def _channel_of(path: Path, channel: str, n_channels: int) -> str:
    if channel == MEAN:
        return channel
    if channel == LOUDEST_CHANNEL:
        if n_channels == 1:
            return "1"
        with open_sound(path) as decoder:
            return loudest_channel(decoder)
    if int(channel) > n_channels:
        there = "one channel" if n_channels == 1 else f"{n_channels} channels"
        raise AudioError(path, f"has {there}, --channel {channel} is not among them")
    return channel


class _Resamplers:
    def __init__(self, sample_rates: Sequence[int]) -> None:
        self._rates = list(dict.fromkeys(sample_rates))
        self._streams: dict[int, soxr.ResampleStream | None] | None = None

    def push(self, native_rate: int, samples: Float32) -> Iterator[dict[int, Float32]]:
        """Resample a block; yield nothing where all resamplers keep everything."""
        if self._streams is None:
            self._streams = {
                rate: None if rate == native_rate else soxr.ResampleStream(native_rate, rate, 1, "float32")
                for rate in self._rates
            }
        resampled = {
            rate: samples if stream is None else stream.resample_chunk(samples)
            for rate, stream in self._streams.items()
        }
        if block := {rate: part for rate, part in resampled.items() if len(part)}:
            yield block

    def rest(self) -> Iterator[dict[int, Float32]]:
        streams = {rate: stream for rate, stream in (self._streams or {}).items() if stream is not None}
        self._streams = None
        if streams:
            nothing = np.zeros(0, np.float32)
            yield {rate: stream.resample_chunk(nothing, last=True) for rate, stream in streams.items()}


class _Level:
    value: float | None = None
    is_constant: bool = True
    n_blank = 0
    """Samples at the end that were never written."""

    def __init__(self, blank: float | None) -> None:
        self._blank = blank

    def add(self, samples: Float32) -> None:
        if not len(samples):
            return
        if samples[-1] == self._blank:
            written = samples[::-1] != self._blank
            self.n_blank = int(written.argmax()) if written.any() else self.n_blank + len(samples)
        else:
            self.n_blank = 0
        if self.value is None:
            self.value = float(samples[0]) + 0.0  # -0 becomes 0
        self.is_constant = self.is_constant and samples[0] == self.value and is_constant(samples)
