"""libsndfile made safe: one stream of sound -> float32 blocks at the stream's own rate, by itself averaged to mono.

In: a path, or ranges of its bytes. Out: blocks of bounded size, whatever the header claims. Every way in which opening
or reading can fail becomes an :class:`~birdinfer.errors.AudioError` or ``Decoder.failure``; all samples that were
decoded before a failure are kept.
"""

import contextlib
import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from birdinfer.errors import AudioError, BirdinferError, InputNotFoundError
from birdinfer.typing import Float32


class ByteRange(NamedTuple):
    """Bytes of a file."""

    begin: int
    length: int


class RawFormat(NamedTuple):
    """How uncompressed samples are written, as libsndfile names it."""

    subtype: str
    sample_rate: int
    channels: int
    frame_bytes: int
    """Of a sample of all channels."""
    endian: str


class ByteRanges(io.RawIOBase):
    """A file made of ranges of another: what libsndfile reads of a damaged or chained one, or of one whose header lies.

    Where the file's own are wrong, some of the bytes may be others.
    """

    def __init__(self, path: Path, ranges: Sequence[ByteRange | bytes]) -> None:
        super().__init__()
        self._ranges = ranges
        self._ends = list(accumulate(len(one) if isinstance(one, bytes) else one.length for one in ranges))
        self._size = self._ends[-1] if self._ends else 0
        self._position = 0
        self._file = path.open("rb")

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()
        super().close()

    def tell(self) -> int:
        """Return the position in bytes from the beginning of the first range."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte; one before the beginning is the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes; 0 at the end, and where the file cannot be read."""
        view, n_filled = memoryview(buffer).cast("B"), 0
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed meanwhile
            while n_filled < len(view) and self._position < self._size:
                n_read = self._read_range(view[n_filled:])
                if not n_read:
                    break
                n_filled += n_read
        return n_filled

    def _read_range(self, view: memoryview) -> int:
        index = bisect_right(self._ends, self._position)
        left = self._ends[index] - self._position
        one = self._ranges[index]
        if isinstance(one, bytes):
            n_read = min(left, len(view))
            view[:n_read] = one[len(one) - left :][:n_read]
        else:
            self._file.seek(one.begin + one.length - left)
            n_read = self._file.readinto(view[:left])
        self._position += n_read
        return n_read


_HEAD_BYTES = 512
_CONVERT = "convert it to FLAC"


class Known(NamedTuple):
    """A kind of file that cannot be decoded: a better message than "format not recognised"."""

    what: str
    hint: str
    verb: str = "is"


_AT_THE_BEGINNING = {
    b"version https://git-lfs": Known("a Git LFS pointer, not the sound itself", "run git lfs pull"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Known("WMA, which cannot be decoded here", _CONVERT),
    b"\x1a\x45\xdf\xa3": Known("Matroska or WebM, which cannot be decoded here", _CONVERT),
    b"MAC ": Known("Monkey's Audio, which cannot be decoded here", _CONVERT),
    b"WAac": Known("WAC (Wildlife Acoustics), which cannot be decoded here", "convert it to WAV with Kaleidoscope"),
    b"wvpk": Known("WavPack, which cannot be decoded here", _CONVERT),
    b"PK\x03\x04": Known("a ZIP archive", "unpack it"),
    b"\x1f\x8b": Known("packed with gzip", "unpack it"),
    b"<!DOCTYPE": Known("a web page, not sound", "download it again"),
    b"<html": Known("a web page, not sound", "download it again"),
}
_ANYWHERE = {
    b"Speex   ": Known("Speex, which cannot be decoded here", _CONVERT),
    b"\x80theora": Known("a film (Theora)", "take its sound out of it"),
}


def known_as(path: Path) -> Known | None:
    """Recognise a file by its first bytes; None where they are unknown or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return Known("MP4 (AAC or ALAC), which cannot be decoded here", _CONVERT)
    if head and head[0] == 0 and (zeros := _of_zeros(path)):
        return zeros
    beginnings = (known for magic, known in _AT_THE_BEGINNING.items() if head.startswith(magic))
    inner = (known for magic, known in _ANYWHERE.items() if head.startswith(b"OggS") and magic in head)
    return next(beginnings, None) or next(inner, None)


_LEAST_ZEROS = 44
"""A WAV's shortest header: as many zero bytes and more at the beginning are one that was never written."""
_MOST_ZEROS = 1 << 24


def _of_zeros(path: Path) -> Known | None:
    with path.open("rb") as file:
        head = file.read(_MOST_ZEROS)
        n_bytes = file.seek(0, 2)
    n_zeros = len(head) - len(head.lstrip(b"\0"))
    if n_zeros == len(head):
        return Known(
            f"no sound: {'its' if n_zeros == n_bytes else 'its first'} {n_zeros} bytes are zeros", "copy it again"
        )
    if n_zeros < _LEAST_ZEROS:
        return None
    what = f"no header, {n_bytes - n_zeros} bytes that may be 16-bit samples behind {n_zeros} zeros"
    return Known(what, "give them a header (Audacity: File > Import > Raw Data)", "has")


# Why libsndfile: per minute of mono sound on one core it takes 27.8 ms (Vorbis) or 20.8 ms (FLAC), miniaudio 21.5 or
# 12.7, and as long for MP3. But a damaged Vorbis setup header makes miniaudio overrun its memory, it drops a damaged
# FLAC frame silently, so that all that follows is early, and its MP3 samples differ.
BLOCK_SECONDS = 10.0
MOST_BLOCK_VALUES = 4_194_304
"""Samples x channels in a block: 16 MiB. 10 s are less, up to 8 channels at 48 kHz or 2 at 192 kHz."""
_INT16_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "RAW"})
"""Containers whose 16-bit samples are read unscaled: numpy scales them six times faster than libsndfile (0.7
instead of 3.9 ms), to the same floats."""
_STEPS = {"PCM_S8": 2.0**-7, "PCM_U8": 2.0**-7, "PCM_16": 2.0**-15, "ULAW": 2.0**-14, "ALAW": 2.0**-12}
"""The least difference of two samples; others have 24 bits and more."""
_COUNTED_FORMATS = _INT16_FORMATS | {"FLAC"}
"""Containers whose header counts samples; the length of an MP3 is an estimate, an Ogg's stands on its last page."""
_MOST_FRAMES_PER_BYTE = 16_384
"""No codec makes more of a byte (Opus 2,880, Vorbis 4,096, FLAC of one constant value about 6,000): a decoder that
gives more is no longer reading the file."""
_PROBED_FRAMES = 4_096
_OPEN_LENGTH = 2**62
"""Samples; libsndfile's word for a length that the header leaves open is higher."""
_SEEK_FAILED = 39
"""libsndfile's error number. soundfile seeks to where it is after each read, which fails at the end of a FLAC of open
length although nothing is wrong."""
_EXPECTED = "expected is Ogg, FLAC, WAV, AIFF or MP3"
_FAILURES = (soundfile.LibsndfileError, RuntimeError, OSError, ValueError, TypeError, OverflowError, MemoryError)
"""All that soundfile raises for what it finds in a file; ValueError has UnicodeError among its own."""


class Decoder:
    """One stream of sound, read forward. A context manager."""

    _is_over = False
    _position: int = 0
    failure: str = ""
    """After the last block: why the decoder stopped before the end; "" if it did not."""
    _ranges: ByteRanges | None = None

    def __init__(self, path: Path, ranges: ByteRanges | None = None, raw: RawFormat | None = None) -> None:
        """Open a file, or these bytes of it, closed with the decoder; raises InputNotFoundError or AudioError.

        ``raw`` says how they are written, where they are samples without a header.
        """
        self._n_bytes, head = _check(path)
        self._descriptor: int | None = None
        try:
            # soundfile takes this one ending for samples without a header, whatever the file holds.
            if ranges is None and path.suffix.lower() == ".raw":
                ranges = ByteRanges(path, [ByteRange(0, self._n_bytes)])
            self._ranges = ranges
            self._file = self._opened(
                path, raw, is_mp3=head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
            )
        except _FAILURES as error:
            self._close_ranges()
            raise _refused(path, error) from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self._format: str = self._file.format  # each look at these calls libsndfile
        self._subtype: str = self._file.subtype
        if not 100 <= self.sample_rate <= 1_000_000:
            self.close()
            raise AudioError(path, f"has an impossible sample rate of {self.sample_rate} Hz")

    def _opened(self, path: Path, raw: RawFormat | None, is_mp3: bool) -> soundfile.SoundFile:
        if self._ranges is not None:
            return soundfile.SoundFile(self._ranges, **_raw_options(raw))
        if is_mp3:  # by its descriptor it can be asked how far it was read; libsndfile closes it
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            with contextlib.suppress(*_FAILURES):
                return soundfile.SoundFile(self._descriptor)
            self._descriptor = None  # by its name the reason is better
        return soundfile.SoundFile(_name(path))

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *error: object) -> None:
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
        """Whether the header counts samples, so that a file with fewer is truncated."""
        return self._format in _COUNTED_FORMATS

    @property
    def n_bytes_read(self) -> int | None:
        """Return how many bytes of an MP3 are read; None for other files."""
        return None if self._descriptor is None else os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @property
    def is_flac(self) -> bool:
        """Whether frames carry their own position, so that decoding can continue behind a broken one."""
        return self._format == "FLAC"

    @property
    def is_uncompressed(self) -> bool:
        """Whether each sample takes the same number of bytes."""
        is_plain = self._subtype.startswith(("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
        return is_plain and self._format != "FLAC"

    @property
    def blank(self) -> float | None:
        """The value of an uncompressed sample whose bytes are zeros; None where there are none."""
        if not self.is_uncompressed or self._subtype.endswith("LAW"):
            return None
        return -1.0 if self._subtype == "PCM_U8" else 0.0

    @property
    def step(self) -> float:
        """The least difference of two samples; 0 where they are floats."""
        return 0.0 if self._subtype in ("FLOAT", "DOUBLE") else _STEPS.get(self._subtype, 2.0**-23)

    def seek(self, frame: int) -> bool:
        """Go to a sample; return whether that was possible."""
        try:
            self._position = self._file.seek(frame)
        except _FAILURES:
            return False
        return self._position == frame

    def blocks(self, most: int | None = None, mix: "Mix | None" = None) -> Iterator[Float32]:
        """Decode at most ``most`` samples, to the end or where the decoder fails: mono [samples], not always finite.

        ``mix`` makes one channel of all of them; their mean if left out.
        """
        credible = self._n_bytes * _MOST_FRAMES_PER_BYTE
        left = credible if most is None else min(most, credible)
        while left > 0 and not self._is_over:
            block = (mix or mean_of_channels)(self.read(min(self._next_frames(), left)))
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

    def _next_frames(self) -> int:
        """A block's samples; of a short file those that are expected, then few: memory for two blocks costs time."""
        expected = -1 if self.frames is None else self.frames - self._position
        if expected < 0 or self._format == "MP3":  # unknown, or wrong, or an estimate
            return self.block_frames
        return min(self.block_frames, expected or _PROBED_FRAMES)

    def read(self, count: int) -> Float32:
        """Decode the next ``count`` samples [samples, channels]; fewer at the end or before a failure."""
        dtype = np.int16 if self._subtype == "PCM_16" and self._format in _INT16_FORMATS else np.float32
        # Where the decoder stops in mid-block soundfile does not say how far it came: NaN stays where it did not.
        values = np.full((count, self.channels), np.nan if dtype == np.float32 else 0, dtype)
        try:
            values = self._file.read(count, out=values)
        except _FAILURES as error:
            is_the_end = self.frames is None and getattr(error, "code", 0) == _SEEK_FAILED
            self._is_over, self.failure = True, "" if is_the_end else reason(error)
            # Behind the length that libsndfile expects it fills up with zeros.
            expected = len(values) if self.frames is None else max(0, self.frames - self._position)
            values = values[: min(_n_filled(values), expected)]
        self._position += len(values)
        if dtype == np.int16:
            values = np.multiply(values, np.float32(2**-15), dtype=np.float32)
        return values

    def _close_ranges(self) -> None:
        if self._ranges is not None:
            self._ranges.close()


Mix = Callable[[Float32], Float32]
"""[samples, channels] -> [samples]."""


def mean_of_channels(samples: Float32) -> Float32:
    """Average the channels, [samples, channels] -> [samples]; a view where there is one."""
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
    """Return libsndfile's message without its prefix, which repeats the path."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return text.rsplit(" : ", 1)[-1].strip().rstrip(".")


def _n_filled(values: npt.NDArray[np.float32 | np.int16]) -> int:
    """Count the samples of a block that were decoded before a failure; uncompressed ones do not fail in mid-block."""
    if values.dtype != np.float32:
        return 0
    filled = np.flatnonzero(~np.isnan(values).all(axis=1))
    return int(filled[-1]) + 1 if len(filled) else 0


def _check(path: Path) -> tuple[int, bytes]:
    """Return a regular file's size and first bytes; pipes, devices and folders are refused: they might never end."""
    try:
        if not path.exists():
            raise InputNotFoundError(path, "no such file")
        if not path.is_file():
            raise AudioError(path, "is not a file")
        with path.open("rb") as file:
            n_bytes, head = path.stat().st_size, file.read(3)
    except BirdinferError:
        raise
    except (OSError, ValueError) as error:
        raise AudioError(path, f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if n_bytes == 0:
        raise AudioError(path, "is empty (0 bytes)", "record or copy it again")
    return n_bytes, head


def _raw_options(raw: RawFormat | None) -> dict[str, Any]:
    if raw is None:
        return {}
    kind = {"format": "RAW", "subtype": raw.subtype, "endian": raw.endian}
    return kind | {"samplerate": raw.sample_rate, "channels": raw.channels}


def _name(path: Path) -> str | bytes:
    """Spell a file's name for libsndfile: in bytes where names are bytes, for not all of them are UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _refused(path: Path, error: BaseException) -> AudioError:
    known = known_as(path)
    if known is not None:
        return AudioError(path, f"{known.verb} {known.what}", known.hint)
    return AudioError(path, f"cannot be decoded ({reason(error)})", f"is it sound? {_EXPECTED}")
