"""Channels of a file -> the one waveform that models process: their mean, one of them, or the loudest that works.

In: float32 [samples, channels]. Out: mono [samples], and the level of each channel. The loudest is chosen before the
file is processed, by some seconds spread over it: equal files give equal choices.
"""

from pathlib import Path

import numpy as np

from birdinfer.audio.decoder import Decoder, Mix, is_constant, mean_of_channels
from birdinfer.audio.levels import LevelMeter, loudest
from birdinfer.errors import ConfigError
from birdinfer.typing import Float32

MEAN, LOUDEST_CHANNEL, EACH = "mean", "loudest", "each"
_MOST_CHANNELS = 1_024
_STRETCHES = 16
"""Seconds of a file by which its loudest channel is chosen."""
_SPECTRA_PER_SECOND = 8.0


def check_channel(channel: str, *more: str) -> str:
    """Return what may be asked for: ``mean``, ``loudest``, one of ``more``, or a channel's number from 1.

    Raises ConfigError.

    >>> check_channel("02")
    '2'
    """
    if channel.isdecimal() and 1 <= int(channel) <= _MOST_CHANNELS:
        return str(int(channel))
    names = (MEAN, LOUDEST_CHANNEL, *more)
    if channel not in names:
        raise ConfigError("--channel", f"is {channel!r}, allowed are {', '.join(names)}, and numbers from 1")
    return channel


def channel_path(path: Path, number: int) -> Path:
    """Name a channel of a file as a recording of its own: ``a.wav/2``, which no file can be called."""
    return path / str(number)


def split_channel(path: Path) -> tuple[Path, str | None]:
    """Return the file that a path means, and the channel that :func:`channel_path` has named, else None."""
    return (path.parent, path.name) if path.name.isdecimal() and path.parent.is_file() else (path, None)


def mix_of(channel: str) -> Mix:
    """Return what makes one channel of all: ``mean``, or the number of one; where there are fewer, the last."""
    if channel == MEAN:
        return mean_of_channels
    index = int(channel) - 1
    return lambda frames: np.ascontiguousarray(frames[:, min(index, frames.shape[1] - 1)])


class Mixer:
    """Makes one channel of all of a file, and measures each of them on the way."""

    is_cancelled: bool = False
    """Whether channels that differ have averaged to a constant, as those of opposite sign average to 0."""

    def __init__(self, channel: str) -> None:
        self.meter = LevelMeter()
        self.mix = mix_of(channel)

    def measured(self, sample_rate: int, step: float) -> Mix:
        """Return the mix for blocks at this rate that measures them as well; ``step`` as of :attr:`Decoder.step`."""

        def mix(frames: Float32) -> Float32:
            mono = self.mix(frames)
            self.meter.add(frames, sample_rate, step)
            # A channel alone that is constant has not been cancelled by another one.
            if self.mix is mean_of_channels and len(mono) and is_constant(mono) and (frames != frames[0]).any():
                self.is_cancelled = True
            return mono

        return mix


def loudest_channel(decoder: Decoder) -> str:
    """Choose the loudest channel by a second of each sixteenth of a file, or by its beginning where it cannot seek."""
    meter, second = LevelMeter(_SPECTRA_PER_SECOND), decoder.sample_rate
    spare = max(0, (decoder.frames or 0) - _STRETCHES * second)
    for index in range(_STRETCHES):
        if spare and index and not decoder.seek(index * second + index * spare // (_STRETCHES - 1)):
            break
        frames = decoder.read(second)
        if not len(frames):
            break
        meter.add(frames, second, decoder.step)
    levels = meter.levels()
    return str(1 + loudest(levels)) if levels else "1"
