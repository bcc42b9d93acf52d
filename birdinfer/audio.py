"""File -> mono float32 waveform [samples] at one rate or several, block by block, with a word on what is broken.

Decoding is libsndfile's (Ogg Vorbis, Opus and FLAC, FLAC, WAV, MP3, AIFF; it goes by content, so a wrong extension does
no harm) and resampling is soxr's, streaming: memory does not grow with a file's length. Channels are averaged.
A file is decoded once, however many rates are asked for. The links of a chained Ogg are one waveform, each resampled
from a rate of its own.

What is wrong with a file is one of two things: it yields nothing (an :class:`~birdinfer.errors.AudioError`), or it
yields sound and has a status (``AudioStream.status``, and ``damage`` says more). Sound that is there is never thrown
away, and keeps its time: what is missing within is replaced by silence.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from birdinfer.decoding.decoder import Decoder, is_constant
from birdinfer.decoding.native_sound import NativeSound
from birdinfer.errors import AudioError
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]

AUDIO_SUFFIXES = frozenset({".ogg", ".oga", ".opus", ".flac", ".wav", ".mp3", ".aif", ".aiff"})
"""Extensions, lower case, by which files are found in a folder; a file named outright is opened whatever its name."""


LOUDEST = 1e12
"""Full scale is 1, and floats of 32-bit recorders that were never scaled reach 2e9. What is beyond is no sound, and its
spectrum's power would be beyond float32, and so would a resampler's sum."""


class AudioInfo(NamedTuple):
    """What a file's header claims."""

    sample_rate: int
    """Hz, of the file itself."""
    channels: int
    frames: int
    """Samples per channel."""

    @property
    def duration_seconds(self) -> float:
        """Seconds, as the header claims."""
        return self.frames / self.sample_rate


def probe(path: Path) -> AudioInfo:
    """Read a file's header; of a chained Ogg, that of the first link.

    Raises:
        InputNotFoundError: there is no such file.
        AudioError: it is not sound.
    """
    with Decoder(path) as decoder:
        frames = decoder.frames
        if frames is None:  # a FLAC from a pipe does not know its length
            frames = sum(len(block) for block in decoder.blocks())
        return AudioInfo(decoder.sample_rate, decoder.channels, frames)


def read_segment(path: Path, start_seconds: float, n_samples: int, sample_rate: int) -> Float32:
    """Decode one stretch of a file without decoding what lies before it; of a chained Ogg, of the first link.

    Args:
        path: the sound file.
        start_seconds: where the stretch begins, >= 0.
        n_samples: how long it is, in samples at ``sample_rate``.
        sample_rate: Hz, of the result.

    Returns:
        Mono waveform, float32, finite, at most ``n_samples`` long: shorter where the file ends.

    Raises:
        AudioError: the file cannot be decoded there.
    """
    with Decoder(path) as decoder:
        begin = round(start_seconds * decoder.sample_rate)
        count = -(-n_samples * decoder.sample_rate // sample_rate)
        if decoder.frames is not None:
            begin = min(begin, decoder.frames)
            # Behind the last sample that a header counts a decoder may stumble over a tag: it is not asked for.
            count = min(count, decoder.frames - begin) if decoder.counts_samples else count
        # Not every format can seek, and none needs to for its beginning.
        if begin and not decoder.seek(begin):
            raise AudioError(path, f"cannot be decoded at {start_seconds:.1f} s")
        samples, _ = _finite(np.concatenate([np.zeros(0, np.float32), *decoder.blocks(count)]))
        if decoder.failure:
            raise AudioError(path, f"cannot be decoded at {start_seconds:.1f} s ({decoder.failure})")
        if decoder.sample_rate != sample_rate:
            samples = soxr.resample(samples, decoder.sample_rate, sample_rate)
    return samples[:n_samples]


class AudioStream:
    """One sound file, read forward once.

    Use as a context manager::

        with AudioStream(path, sample_rate=32_000) as stream:
            for block in stream.blocks():
                ...
            print(stream.status, stream.damage)
    """

    status: Status = Status.ok
    """After the last block: the worst of what was found wrong; ``silent``, ``non_finite``, ``truncated`` or
    ``damaged``."""

    damage: str = ""
    """After the last block: all that is wrong with the file although it was read, "" if nothing is."""

    heard_seconds: float = 0.0
    """Sound decoded so far; silence in place of missing sound is none."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        """Open a file.

        Args:
            path: the sound file.
            sample_rate: Hz, of the waveform wanted.

        Raises:
            InputNotFoundError: there is no such file.
            AudioError: it is not sound.
        """
        self.path = path
        self.sample_rate = sample_rate
        self._sound = NativeSound(path)
        self.expected_seconds: float | None = self._sound.expected_seconds
        """What the header claims, where it counts samples (WAV, AIFF, FLAC); else None."""
        self.claimed_seconds: float = self._sound.estimated_seconds
        """How long the file seems to be, for progress: by its header, or estimated from its size."""

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._sound.close()

    def blocks(self) -> Iterator[Float32]:
        """Decode forward to the end, at ``sample_rate``.

        Yields:
            Mono waveforms [samples], float32 and finite, at ``sample_rate``; about 10 s each.

        Raises:
            AudioError: not one sample could be decoded.
        """
        for block in self.blocks_at([self.sample_rate]):
            yield block[self.sample_rate]

    def blocks_at(self, sample_rates: Sequence[int]) -> Iterator[dict[int, Float32]]:
        """Decode forward to the end once, at several rates; at each of them what :meth:`blocks` gives, bit by bit.

        Args:
            sample_rates: Hz, > 0; one named twice counts once. The stream's own ``sample_rate`` plays no part.

        Yields:
            Rate -> mono waveform [samples], float32 and finite, about 10 s. A rate is left out where its resampler
            keeps all it has for the next block.

        Raises:
            AudioError: not one sample could be decoded.
        """
        resamplers, link = _Resamplers(sample_rates), 0
        for native in self._finite_blocks():
            if native.link != link:
                link = native.link
                yield from resamplers.rest()
            yield from resamplers.push(native.sample_rate, native.samples)
        yield from resamplers.rest()

    def _finite_blocks(self) -> Iterator["_Native"]:
        """Mono blocks at the file's own rates; after the last, ``status`` and ``damage`` are known.

        Raises:
            AudioError: not one sample could be decoded.
        """
        n_bad, level = 0, _Level()
        for link, rate, native, is_heard in self._sound.pieces():
            samples, bad = _finite(native)
            n_bad += bad
            if is_heard:
                level.add(samples)
                self.heard_seconds += len(samples) / rate
            yield _Native(link, rate, samples)
        self._judge(n_bad, level)

    def _judge(self, n_bad: int, level: "_Level") -> None:
        damage = self._sound.damage
        if level.value is None:
            raise AudioError(
                self.path,
                f"holds no sound ({damage.text or 'its header is there, samples are not'})",
                "record or copy it again",
            )
        if n_bad:
            damage.note(Status.non_finite, f"{n_bad} samples are not finite, taken as 0")
        if level.is_constant:
            cancelled = "its channels cancel each other" if self._sound.is_cancelled else ""
            damage.note(Status.silent, f"silent: {cancelled or f'all samples are {level.value:g}'}")
        self.status, self.damage = damage.status, damage.text


class _Native(NamedTuple):
    """A block of finite sound at the file's own rate."""

    link: int
    sample_rate: int
    samples: Float32


class _Resamplers:
    """One resampler for each rate asked for; made anew for each link of a chain."""

    def __init__(self, sample_rates: Sequence[int]) -> None:
        self._rates = list(dict.fromkeys(sample_rates))
        self._streams: dict[int, soxr.ResampleStream | None] | None = None

    def push(self, native_rate: int, samples: Float32) -> Iterator[dict[int, Float32]]:
        """Resample a block; nothing comes where all resamplers keep all they have."""
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
        """What the resamplers hold still; the next block begins a new waveform."""
        streams = {rate: stream for rate, stream in (self._streams or {}).items() if stream is not None}
        self._streams = None
        if streams:
            nothing = np.zeros(0, np.float32)
            yield {rate: stream.resample_chunk(nothing, last=True) for rate, stream in streams.items()}


class _Level:
    """Whether all samples of a file have one value."""

    value: float | None = None
    """The first sample; None before it."""
    is_constant: bool = True

    def add(self, samples: Float32) -> None:
        if not len(samples):
            return
        if self.value is None:
            self.value = float(samples[0]) + 0.0  # -0 becomes 0
        self.is_constant = self.is_constant and samples[0] == self.value and is_constant(samples)


def _finite(samples: Float32) -> tuple[Float32, int]:
    """Samples that are not finite, or beyond :data:`LOUDEST`, become 0; how many there were."""
    # The least and the greatest are NaN where any sample is.
    if not len(samples) or (samples.min() > -LOUDEST and samples.max() < LOUDEST):
        return samples, 0
    usable = np.abs(samples) < LOUDEST
    return np.where(usable, samples, np.float32(0)), len(samples) - int(usable.sum())
