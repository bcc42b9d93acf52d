"""Sound in memory -> what an :class:`~birdinfer.audio.stream.AudioStream` reads, as of a file.

In: arrays as soundfile, scipy, sounddevice or torchaudio give them, whole or block by block, at a rate of their own.
Out: mono float32 [samples]. The samples of a WAV file and the same in an array become the same bits. A sound file that
was read or opened becomes a file again, so that all that may be wrong with it is found.
"""

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from birdinfer.audio.channels import LOUDEST_CHANNEL, MEAN, Mixer
from birdinfer.audio.decoder import BLOCK_SECONDS
from birdinfer.audio.sound_file import Damage, NativePiece
from birdinfer.errors import AudioError, ConfigError
from birdinfer.typing import Float32

MOST_CHANNELS = 64
"""More are an array whose axes are the other way round."""
_SCALES = {np.dtype(np.int16): np.float32(2**-15), np.dtype(np.int32): np.float32(2**-31)}
_STEPS = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-23}
"""As of files with so many bits, see :attr:`Decoder.step`."""
_COPIED_BYTES = 1 << 20
_NEEDED = "needed is [samples] or [samples, channels]"
AnyArray = npt.NDArray[Any]


@runtime_checkable
class Readable(Protocol):
    """A file that is open for reading in binary mode."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to so many bytes, b"" at the end."""
        ...


EncodedSound = bytes | bytearray | memoryview | Readable
"""A sound file that was read or opened."""


class WaveformSound:
    """Sound in memory, read forward once; stands for :class:`~birdinfer.audio.sound_file.NativeSound`."""

    blank = None
    expected_seconds = None
    estimated_seconds = math.inf

    def __init__(self, blocks: Iterable[npt.ArrayLike], sample_rate: float, name: str, *, channel: str = MEAN) -> None:
        """Hold blocks as :func:`to_floats` takes them; ConfigError for no sample rate.

        ``name`` stands in messages; ``channel`` is ``mean``, the number of one from 1, or ``loudest``, which only
        sound of one channel has.
        """
        self.damage, self.sample_rate = Damage(), check_sample_rate(sample_rate)
        self.channel = "1" if channel == LOUDEST_CHANNEL else channel
        self.mixer = Mixer(self.channel)
        self._blocks, self._name, self._is_loudest = blocks, name, channel == LOUDEST_CHANNEL

    def close(self) -> None:
        """Do nothing: memory is not closed."""

    def pieces(self) -> Iterator[NativePiece]:
        """Yield the blocks; AudioError for one that is no sound, and at the end if there was none."""
        n_samples = 0
        for block in self._blocks:
            array = check_array(block, self._name)
            frames = to_floats(array, self._name)
            self._check_channels(frames.shape[1])
            mono = self.mixer.measured(self.sample_rate, _STEPS.get(_native(array), 0.0))(frames)
            n_samples += len(mono)
            yield NativePiece(link=0, sample_rate=self.sample_rate, samples=mono, is_decoded=True)
        if not n_samples:
            raise AudioError(self._name, "holds no samples")

    def _check_channels(self, n_channels: int) -> None:
        if self._is_loudest and n_channels > 1:
            what = "is loudest, which is chosen by a look at a whole file"
            raise ConfigError("channel", what, "pass the one that you want: samples[:, 0]")
        if self.channel != MEAN and int(self.channel) > n_channels:
            there = "one channel" if n_channels == 1 else f"{n_channels} channels"
            raise AudioError(self._name, f"has {there}, {self.channel} is not among them")


def blocks_of(samples: AnyArray, sample_rate: float) -> Iterator[AnyArray]:
    """Cut an array along its first axis into blocks of 10 s, views of it."""
    length = round(BLOCK_SECONDS * check_sample_rate(sample_rate))
    for begin in range(0, len(samples), length):
        yield samples[begin : begin + length]


def check_sample_rate(sample_rate: float) -> int:
    """Return a rate in Hz as a whole number; ConfigError unless it is one from 100 to 1,000,000.

    >>> check_sample_rate(48_000.0)
    48000
    """
    try:
        if 100 <= sample_rate <= 1_000_000 and sample_rate == int(sample_rate):
            return int(sample_rate)
    except TypeError:
        pass
    raise ConfigError("sample_rate", f"is {sample_rate!r}, allowed are whole numbers of Hz from 100 to 1,000,000")


def check_array(samples: npt.ArrayLike, name: str) -> AnyArray:
    """Return samples as an array; AudioError unless it is [samples] or [samples, channels] of a type that is sound."""
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise AudioError(name, "is no array: its parts differ in length", _NEEDED) from error
    if array.dtype.kind != "f" and _native(array) not in _SCALES:
        raise AudioError(name, f"holds {array.dtype}", "needed are floats in -1 to 1, int16 or int32")
    if array.ndim not in (1, 2):
        raise AudioError(name, f"has {array.ndim} axes", _NEEDED)
    if array.ndim == 2 and not 1 <= array.shape[1] <= MOST_CHANNELS:
        is_turned = 1 <= array.shape[0] <= MOST_CHANNELS
        raise AudioError(name, f"has the shape {array.shape}", _NEEDED + (": pass samples.T" if is_turned else ""))
    return array


def to_floats(samples: npt.ArrayLike, name: str = "samples") -> Float32:
    """Scale an array [samples] or [samples, channels] to float32 [samples, channels], full scale being 1.

    Floats are taken as they are; int16 and int32 become what they would be in a WAV file. AudioError as of
    :func:`check_array`.

    >>> to_floats(np.array([16384, -32768], np.int16)).tolist()
    [[0.5], [-1.0]]
    """
    array = check_array(samples, name)
    scale = _SCALES.get(_native(array))
    with np.errstate(over="ignore"):  # what is not finite is counted later
        floats = np.asarray(array if scale is None else array * scale, np.float32)
    return floats if floats.ndim == 2 else floats[:, np.newaxis]


def _native(array: AnyArray) -> np.dtype[Any]:
    return array.dtype.newbyteorder("=")


def write_encoded(sound: EncodedSound, path: Path) -> None:
    """Write a sound file that was read or opened; ConfigError if it was opened as text."""
    if isinstance(sound, bytes | bytearray | memoryview):
        path.write_bytes(sound)
        return
    begin = sound.read(_COPIED_BYTES)
    if not isinstance(begin, bytes):
        raise ConfigError("sound", "is a file that was opened as text", 'open it with "rb"')
    with path.open("wb") as copy:
        copy.write(begin)
        shutil.copyfileobj(sound, copy)
