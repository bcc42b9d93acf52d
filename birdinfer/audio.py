"""File -> mono float32 waveform [samples] at the bundle's rate, block by block, with a word on what is broken.

Decoding is libsndfile's (Ogg Vorbis and Opus, FLAC, WAV, MP3, AIFF; it goes by content, so a wrong extension does
no harm) and resampling is soxr's, streaming: memory does not grow with a file's length. Channels are averaged.

What is wrong with a file is one of two things: it yields nothing (an :class:`~birdinfer.errors.AudioError`), or it
yields sound and is damaged (``AudioStream.damage`` says how). Sound that is there is never thrown away.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from birdinfer.errors import AudioError, InputNotFoundError

Float32 = npt.NDArray[np.float32]

AUDIO_SUFFIXES = frozenset({".ogg", ".oga", ".opus", ".flac", ".wav", ".mp3", ".aif", ".aiff"})
"""Extensions, lower case, by which files are found in a folder; a file named outright is opened whatever its name."""

_NATIVE_BLOCK_SECONDS = 10.0
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
            samples = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
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
        """Decode forward to the end.

        Yields:
            Mono waveforms [samples], float32 and finite, at ``sample_rate``; about 10 s each.

        Raises:
            AudioError: not one sample could be decoded.
        """
        native_rate = self._file.samplerate
        resampler = (
            None
            if native_rate == self.sample_rate
            else soxr.ResampleStream(native_rate, self.sample_rate, 1, "float32")
        )
        native_read = non_finite = 0
        for native in self._native_blocks():
            native_read += len(native)
            self.heard_seconds = native_read / native_rate
            samples, bad = _finite(native)
            non_finite += bad
            if resampler is not None:
                samples = resampler.resample_chunk(samples)
            if len(samples):
                yield samples
        if resampler is not None and native_read:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
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
                block = self._file.read(count, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                self._note(f"decoder stopped: {_reason(error)}")
                return
            if not len(block):
                return
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)

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


def _finite(samples: Float32) -> tuple[Float32, int]:
    """Non-finite samples become 0; how many there were."""
    # One pass without a temporary for the usual, clean block: a sum is finite only if all its terms are.
    if np.isfinite(samples.sum(dtype=np.float64)):
        return samples, 0
    bad = ~np.isfinite(samples)
    return np.where(bad, np.float32(0), samples), int(bad.sum())


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
