"""libsndfile, held: one stream of sound -> mono float32 blocks [samples] at its own rate, and one line where it ends.

In: a path, or a seekable stream of bytes. Out: blocks of bounded size, whatever the header claims. Every way in which
opening or reading can fail becomes an :class:`~birdinfer.errors.AudioError` or ``Decoder.failure``; the samples that
were decoded before a failure are kept to the last one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import soundfile

from birdinfer.decoding.byte_ranges import ByteRange, ByteRanges
from birdinfer.decoding.signatures import known_as
from birdinfer.errors import AudioError, BirdinferError, InputNotFoundError

Float32 = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

# libsndfile alone. Per minute of mono sound on one core it takes 27.8 ms (Vorbis) or 20.8 ms (FLAC), miniaudio 21.5 or
# 12.7, and as long for MP3. But a damaged Vorbis setup header makes miniaudio overrun its memory, a damaged FLAC frame
# is left out without a word, so that all that follows is early, and its MP3 samples differ.
BLOCK_SECONDS = 10.0
MOST_BLOCK_VALUES = 4_194_304
"""Samples x channels in a block: 16 MiB. 10 s are less, up to 8 channels at 48 kHz or 2 at 192 kHz."""
_INT16_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "AIFF"})
"""Containers whose 16-bit samples are read as they lie there: numpy scales them six times faster than libsndfile (0.7
instead of 3.9 ms), to the same floats."""
_COUNTED_FORMATS = frozenset({"FLAC", "WAV", "WAVEX", "RF64", "AIFF"})
"""Containers whose header counts samples; the length of an MP3 is an estimate, an Ogg's stands on its last page."""
_MOST_FRAMES_PER_BYTE = 16_384
"""No codec makes more of a byte (Opus 2,880, Vorbis 4,096, FLAC of one constant value about 6,000): a decoder that
gives more does not read on."""
_OPEN_LENGTH = 2**62
"""Samples; libsndfile's word for a length that the header leaves open is higher."""
_SEEK_FAILED = 39
"""libsndfile's number for it. soundfile seeks to where it is after each read, which fails at the end of a FLAC of open
length although nothing is wrong."""
_EXPECTED = "expected is Ogg, FLAC, WAV, AIFF or MP3"
_FAILURES = (soundfile.LibsndfileError, RuntimeError, OSError, ValueError, TypeError, OverflowError, MemoryError)
"""All that soundfile raises for what it finds in a file; ValueError has UnicodeError among its own."""


class Decoder:
    """One stream of sound, read forward. Use as a context manager, or call :meth:`close`."""

    failure: str = ""
    """After the last block: why the decoder stopped before the end, "" if it did not."""
    _ranges: ByteRanges | None = None
    is_cancelled: bool = False
    """Whether channels that differ have made a constant, as those of opposite sign make 0."""

    def __init__(self, path: Path, ranges: ByteRanges | None = None) -> None:
        """Open a stream.

        Args:
            path: the file.
            ranges: the bytes of it that are to be decoded; all of them if None. Closed together with the decoder.

        Raises:
            InputNotFoundError: there is no such file.
            AudioError: it is not sound.
        """
        self._n_bytes = _check(path)
        try:
            # soundfile takes this one ending for samples without a header, whatever the file holds.
            if ranges is None and path.suffix.lower() == ".raw":
                ranges = ByteRanges(path, [ByteRange(0, self._n_bytes)])
            self._ranges = ranges
            self._file = soundfile.SoundFile(_name(path) if ranges is None else ranges)
        except _FAILURES as error:
            self._close_ranges()
            raise _refused(path, error) from error
        self._is_over = False
        self.sample_rate: int = self._file.samplerate
        """Hz."""
        self.channels: int = self._file.channels
        if not 100 <= self.sample_rate <= 1_000_000:
            self.close()
            raise AudioError(path, f"has an impossible sample rate of {self.sample_rate} Hz")

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()
        self._close_ranges()

    @property
    def frames(self) -> int | None:
        """Samples per channel, as libsndfile expects; None where the header leaves that open."""
        return int(self._file.frames) if 0 <= self._file.frames < _OPEN_LENGTH else None

    @property
    def counts_samples(self) -> bool:
        """Whether the header counts samples, so that a file with fewer is cut."""
        return bool(self._file.format in _COUNTED_FORMATS)

    @property
    def is_flac(self) -> bool:
        """Whether frames carry their own position, so that one can go on behind a broken one."""
        return bool(self._file.format == "FLAC")

    @property
    def is_uncompressed(self) -> bool:
        """Whether each sample takes the same number of bytes."""
        return bool(self._file.subtype.startswith(("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")))

    def seek(self, frame: int) -> bool:
        """Go to a sample; whether that is possible."""
        try:
            return bool(self._file.seek(frame) == frame)
        except _FAILURES:
            return False

    def blocks(self, most: int | None = None) -> Iterator[Float32]:
        """Decode forward to the end, or to where the decoder fails.

        Args:
            most: samples to decode, of each channel; all there are if None.

        Yields:
            Mono waveforms [samples], float32: the mean of all channels, not always finite.
        """
        credible = self._n_bytes * _MOST_FRAMES_PER_BYTE
        left = credible if most is None else min(most, credible)
        while left > 0 and not self._is_over:
            block = self.read(min(self.block_frames, left))
            if not len(block):
                return
            left -= len(block)
            yield block
        if not self._is_over and most is None:
            self.failure = "it gives more sound than its bytes can hold"

    @property
    def block_frames(self) -> int:
        """Samples per channel in a block."""
        return max(1, min(round(BLOCK_SECONDS * self.sample_rate), MOST_BLOCK_VALUES // self.channels))

    def read(self, count: int) -> Float32:
        """The next ``count`` samples [samples], or as many as there are, or come before a failure."""
        dtype = np.int16 if self._file.subtype == "PCM_16" and self._file.format in _INT16_FORMATS else np.float32
        # Where the decoder stops in mid-block soundfile does not say how far it came: NaN stays where it did not.
        values = np.full((count, self.channels), np.nan if dtype == np.float32 else 0, dtype)
        try:
            values = self._file.read(count, out=values)
        except _FAILURES as error:
            is_the_end = self.frames is None and getattr(error, "code", 0) == _SEEK_FAILED
            self._is_over, self.failure = True, "" if is_the_end else reason(error)
            values = values[: _n_filled(values)]
        if dtype == np.int16:
            values = np.multiply(values, np.float32(2**-15), dtype=np.float32)
        mono = mean_of_channels(values)
        if self.channels > 1 and len(mono) and is_constant(mono) and (values != values[0]).any():
            self.is_cancelled = True
        return mono

    def _close_ranges(self) -> None:
        if self._ranges is not None:
            self._ranges.close()


def mean_of_channels(samples: Float32) -> Float32:
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


def is_constant(samples: Float32) -> bool:
    """Whether all samples [n], n > 0, have one value."""
    return bool(samples[0] == samples[-1] and (samples == samples[0]).all())


def reason(error: BaseException) -> str:
    """libsndfile's own words without its prefix, which repeats the path."""  # noqa: D403 - its name
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return text.rsplit(" : ", 1)[-1].strip().rstrip(".")


def _n_filled(values: npt.NDArray[np.float32 | np.int16]) -> int:
    """How many samples of a block were decoded before a failure; uncompressed ones do not fail in mid-block."""
    if values.dtype != np.float32:
        return 0
    filled = np.flatnonzero(~np.isnan(values).all(axis=1))
    return int(filled[-1]) + 1 if len(filled) else 0


def _check(path: Path) -> int:
    """A regular file's size in bytes: pipes, devices and folders are not opened, they might never end.

    Raises:
        InputNotFoundError: there is no such file.
        AudioError: it is none, or cannot be looked at.
    """
    try:
        if not path.exists():
            raise InputNotFoundError(path, "no such file")
        if not path.is_file():
            raise AudioError(path, "is not a file")
        with path.open("rb"):
            n_bytes = path.stat().st_size
    except BirdinferError:
        raise
    except (OSError, ValueError) as error:
        raise AudioError(path, f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if n_bytes == 0:
        raise AudioError(path, "is empty (0 bytes)", "record or copy it again")
    return n_bytes


def _name(path: Path) -> str | bytes:
    """How libsndfile is told a file's name: in bytes where names are bytes, for not all of them are UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _refused(path: Path, error: BaseException) -> AudioError:
    known = known_as(path)
    if known is not None:
        return AudioError(path, f"is {known.what}", known.remedy)
    return AudioError(path, f"cannot be decoded ({reason(error)})", f"is it sound? {_EXPECTED}")
