"""File -> mono float32 waveform [samples] at one rate or several, block by block, with a word on what is broken.

Decoding is libsndfile's (Ogg Vorbis and Opus, FLAC, WAV, MP3, AIFF; it goes by content, so a wrong extension does
no harm) and resampling is soxr's, streaming: memory does not grow with a file's length. Channels are averaged.
A file is decoded once, however many rates are asked for.

What is wrong with a file is one of two things: it yields nothing (an :class:`~birdinfer.errors.AudioError`), or it
yields sound and is damaged (``AudioStream.damage`` says how). Sound that is there is never thrown away.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from birdinfer.errors import AudioError, InputNotFoundError

Float32 = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

AUDIO_SUFFIXES = frozenset({".ogg", ".oga", ".opus", ".flac", ".wav", ".mp3", ".aif", ".aiff"})
"""Extensions, lower case, by which files are found in a folder; a file named outright is opened whatever its name."""

# libsndfile alone. Per minute of mono sound on one core it takes 27.8 ms (Vorbis) or 20.8 ms (FLAC), miniaudio 21.5 or
# 12.7, and as long for MP3. But a damaged Vorbis setup header makes miniaudio overrun its memory, a damaged FLAC frame
# is left out without a word, so that all that follows is early, and its MP3 samples differ.
_NATIVE_BLOCK_SECONDS = 10.0
_INT16_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "AIFF"})
"""Containers whose 16-bit samples are read as they lie there: numpy scales them six times faster than libsndfile (0.7
instead of 3.9 ms), to the same floats."""
_OGG_TAIL_BYTES = 65_536 + 27 + 255
"""An Ogg page has at most 27 + 255 + 255 * 255 bytes: the last one's header begins within this many of the end."""


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
    """Read a file's header.

    Raises:
        InputNotFoundError: there is no such file.
        AudioError: it is not sound.
    """
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def read_segment(path: Path, start_seconds: float, n_samples: int, sample_rate: int) -> Float32:
    """Decode one stretch of a file without decoding what lies before it.

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
    with _open(path) as file:
        begin = min(round(start_seconds * file.samplerate), file.frames)
        count = -(-n_samples * file.samplerate // sample_rate)
        try:
            if begin:  # not every format can seek, and none needs to for its beginning
                file.seek(begin)
            samples = _read_mono(file, count)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(path, f"cannot be decoded at {start_seconds:.1f} s ({_reason(error)})") from error
        if file.samplerate != sample_rate:
            samples = soxr.resample(samples, file.samplerate, sample_rate)
    samples, _ = _finite(samples[:n_samples])
    return samples


class AudioStream:
    """One sound file, read forward once.

    Use as a context manager::

        with AudioStream(path, sample_rate=32_000) as stream:
            for block in stream.blocks():
                ...
            print(stream.damage)
    """

    damage: str = ""
    """After the last block: what is wrong with the file although it was read, "" if nothing is."""

    heard_seconds: float = 0.0
    """Sound decoded so far."""

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
        self._file = _open(path)
        self.claimed_seconds = self._file.frames / self._file.samplerate
        """What the header claims; damaged files hold less."""

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()

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
        native_rate = self._file.samplerate
        resamplers = {
            rate: None if rate == native_rate else soxr.ResampleStream(native_rate, rate, 1, "float32")
            for rate in sample_rates
        }
        for native in self._finite_blocks():
            resampled = {
                rate: native if resampler is None else resampler.resample_chunk(native)
                for rate, resampler in resamplers.items()
            }
            if block := {rate: samples for rate, samples in resampled.items() if len(samples)}:
                yield block
        nothing = np.zeros(0, np.float32)
        rest = {rate: each.resample_chunk(nothing, last=True) for rate, each in resamplers.items() if each is not None}
        if rest:
            yield rest

    def _finite_blocks(self) -> Iterator[Float32]:
        """Mono blocks at the file's own rate; after the last, ``damage`` is known.

        Raises:
            AudioError: not one sample could be decoded.
        """
        native_rate = self._file.samplerate
        native_read = non_finite = 0
        for native in self._native_blocks():
            native_read += len(native)
            self.heard_seconds = native_read / native_rate
            samples, bad = _finite(native)
            non_finite += bad
            yield samples
        if not native_read:
            raise AudioError(
                self.path,
                f"holds no sound ({self.damage or 'its header is there, samples are not'})",
                "record or copy it again",
            )
        if non_finite:
            self._note(f"{non_finite} samples are not finite, taken as 0")
        missing = self._missing(native_read)
        if missing is not None:
            self._note(f"truncated after {self.heard_seconds:.1f} s{missing}")

    def _native_blocks(self) -> Iterator[Float32]:
        """Mono blocks at the file's own rate; ends early, with a note, where the decoder fails."""
        count = round(_NATIVE_BLOCK_SECONDS * self._file.samplerate)
        while True:
            try:
                block = _read_mono(self._file, count)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                self._note(f"decoder stopped: {_reason(error)}")
                return
            if not len(block):
                return
            yield block

    def _missing(self, native_read: int) -> str | None:
        """None where the file is whole, else what is known about the part that is missing ("" if nothing is)."""
        # MP3 lengths are estimates, so only formats whose header counts samples are held to it.
        if self._file.format in {"FLAC", "WAV", "WAVEX", "RF64", "AIFF"} and native_read < self._file.frames:
            return f" of {self.claimed_seconds:.1f} s"
        if self._file.format == "OGG" and _ogg_is_cut(self.path):
            return ""
        claimed = _wav_claimed_bytes(self.path) if self._file.format in {"WAV", "WAVEX"} else 0
        size = self.path.stat().st_size
        return f", {claimed - size} bytes are missing" if claimed > size else None

    def _note(self, what: str) -> None:
        self.damage = f"{self.damage}; {what}" if self.damage else what


def _open(path: Path) -> soundfile.SoundFile:
    """Open with libsndfile; every reason to fail becomes one line."""
    if not path.exists():
        raise InputNotFoundError(path, "no such file")
    if not path.is_file():
        raise AudioError(path, "is not a file")
    if path.stat().st_size == 0:
        raise AudioError(path, "is empty (0 bytes)", "record or copy it again")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, PermissionError) as error:
        raise AudioError(
            path, f"cannot be decoded ({_reason(error)})", "is it sound? expected is Ogg, FLAC, WAV or MP3"
        ) from error
    if not 100 <= file.samplerate <= 1_000_000:
        file.close()
        raise AudioError(path, f"has an impossible sample rate of {file.samplerate} Hz")
    return file


def _reason(error: BaseException) -> str:
    """Libsndfile's own words without its prefix, which repeats the path."""
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")


def _read_mono(file: soundfile.SoundFile, count: int) -> Float32:
    """The next ``count`` samples, or as many as there are: the mean of all channels."""
    if file.subtype == "PCM_16" and file.format in _INT16_FORMATS:
        counts: Int16 = file.read(count, dtype="int16", always_2d=True)
        return _mean_of_channels(np.multiply(counts, np.float32(2**-15), dtype=np.float32))
    return _mean_of_channels(file.read(count, dtype="float32", always_2d=True))


def _mean_of_channels(samples: Float32) -> Float32:
    """[samples, channels] -> [samples]; a view of the one channel there is."""
    total = samples[:, 0]
    if samples.shape[1] == 1:
        return total
    # Channel by channel: numpy's own mean over an axis that short takes forty times as long.
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is counted later
        total = total + samples[:, 1]
        for channel in range(2, samples.shape[1]):
            total += samples[:, channel]
        total /= samples.shape[1]
    return total


def _finite(samples: Float32) -> tuple[Float32, int]:
    """Non-finite samples become 0; how many there were."""
    finite = np.isfinite(samples)
    if finite.all():
        return samples, 0
    return np.where(finite, samples, np.float32(0)), len(samples) - int(finite.sum())


def _ogg_is_cut(path: Path) -> bool:
    """Whether an Ogg file's last page is incomplete or lacks the end-of-stream flag (RFC 3533, section 6)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _OGG_TAIL_BYTES))
        tail = file.read()
    begin = tail.rfind(b"OggS")
    header = tail[begin : begin + 27]
    if begin < 0 or len(header) < 27:
        return True
    n_segments = header[26]
    segments = tail[begin + 27 : begin + 27 + n_segments]
    is_whole = len(segments) == n_segments and begin + 27 + n_segments + sum(segments) <= len(tail)
    return not (is_whole and header[5] & 0x04)


def _wav_claimed_bytes(path: Path) -> int:
    """How many bytes a RIFF header claims for the whole file; 0 where it leaves that open, as streaming writers do."""
    with path.open("rb") as file:
        header = file.read(8)
    if header[:4] != b"RIFF" or len(header) < 8:
        return 0
    (riff_bytes,) = struct.unpack("<I", header[4:8])
    return 0 if riff_bytes >= 0xFFFFFF00 else int(riff_bytes) + 8
