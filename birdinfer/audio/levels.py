"""Sound of all channels, block by block -> how loud each channel is, and what is wrong with its microphone.

In: float32 [samples, channels] at the file's own rate. Out: a :class:`ChannelLevel` for each channel. Levels are in
dBFS: 0 is a mean square of 1, that of a full-scale square wave. Every sample counts for peak, RMS, zeros, clipping and
offset; the spectrum is that of a few frames a block. Memory does not grow with a file's length.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec
import numpy as np

from birdinfer.typing import Float32, Float64

LOUDEST = 1e12
"""Full scale is 1, and floats of 32-bit recorders that were never scaled reach 2e9. Greater values are no sound; their
spectrum's power would exceed float32, and so would a resampler's sum."""

_FRAME_SECONDS, _MOST_FRAME_SAMPLES = 0.064, 32_768
"""Bins are 15.6 Hz apart, at any rate up to 512 kHz."""
_SPECTRA_PER_SECOND = 0.8
_BAND_BINS = 32
"""Bins of a band: 500 Hz. The lowest band holds offset, wind and handling, and is left out."""
_EDGE_BINS = 16
"""Bins that the true bandwidth is counted in: 250 Hz."""
_RAIL = 0.999
_LEAST_CLIPPED = 1e-3
_LEAST_OFFSET = 0.05
_LEAST_ZEROS = 0.1
_STEPS_ABOVE_ZERO = 32
"""Sound of this RMS in steps of its numbers has few zeros; sound that is hardly louder than a step has many."""
_STEADY_DB = 2.0
"""Standard deviation of a band's level over time. Stationary noise has 1.1 dB, for 32 bins of a Hann window."""
_BAND_RANGE_DB = 50.0
_LEAST_SPECTRA = 16
_LOUD_NOISE_DBFS = -45.0
"""The noise of a recorder whose microphone works is far below."""
_NO_SIGNAL_DBFS = -90.0
"""RMS of one step of 16 bits."""
_DEAD_DB = 30.0
"""Below the loudest channel that has sound: settings of a recorder's channels differ by less."""
_DEAD_STEADY_DB = 10.0
"""The same for a channel that gives nothing but steady noise."""
_ABOVE_QUANTISATION = 8.0
_RANGE_BELOW_STRONGEST = 1e-9
"""In power: what a low-pass filter leaves is further down."""
_EQUALLY_LOUD_DB = 1.0


class Finding(StrEnum):
    """What may be wrong with a channel, from what harms least to what harms most."""

    clipped = "clipped"
    gaps = "gaps"
    offset = "DC-shifted"
    noise = "noise"
    dead = "dead"


class ChannelLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The level of one channel."""

    peak: float
    """Largest absolute sample; full scale is 1."""
    rms_dbfs: float | None
    """Without the offset; None: nothing but the offset."""
    zeros: float
    """Share of samples that are 0."""
    clipped: float
    """Share of samples at full scale."""
    dc: float
    """The mean of all samples."""
    bandwidth_hz: int
    """Above it there is nothing, whatever the sample rate: of a copy at a higher rate, or a lossy format."""
    usual_dbfs: float | None
    """The level above 500 Hz that is usual: short knocks and gusts of wind do not raise it."""
    findings: tuple[tuple[Finding, str], ...] = ()
    is_steady: bool = False
    """Whether it is stationary noise in all bands, loud or soft."""

    @property
    def has_sound(self) -> bool:
        """Whether the microphone is neither dead nor gives noise alone."""
        return not any(finding in (Finding.dead, Finding.noise) for finding, _ in self.findings)

    @property
    def text(self) -> str:
        """All findings in one line, "" without any."""
        return ", ".join(f"{finding}{what}" for finding, what in self.findings)


class LevelMeter:
    """Measures all channels of one file."""

    def __init__(self, spectra_per_second: float = _SPECTRA_PER_SECOND) -> None:
        self._channels: list[_Channel] = []
        self._spectra_per_second = spectra_per_second

    def add(self, frames: Float32, sample_rate: int, step: float) -> None:
        """Measure a block [samples, channels], not always finite.

        ``step`` is the least difference of two samples, 0 for floats.
        """
        if not len(frames):
            return
        while len(self._channels) < frames.shape[1]:
            self._channels.append(_Channel(sample_rate, step))
        count = max(1, round(len(frames) / sample_rate * self._spectra_per_second))
        for channel, samples in zip(self._channels, np.ascontiguousarray(frames.T), strict=False):
            usable = channel.add(samples)
            if sample_rate == channel.sample_rate:
                channel.add_spectra(usable, count)

    def levels(self) -> tuple[ChannelLevel, ...]:
        """Return the level of each channel so far."""
        levels = [channel.level() for channel in self._channels]
        fine = [level.usual_dbfs for level in levels if level.has_sound and level.usual_dbfs is not None]
        return tuple(_compared(level, max(fine, default=-math.inf)) for level in levels)


def loudest(levels: Sequence[ChannelLevel]) -> int:
    """Choose the loudest of the channels with which nothing, or least, is wrong; the first of equally loud ones.

    A microphone that is dead, shifted to the rail or gives nothing but noise may have the highest RMS of all.
    """
    worst = [max((list(Finding).index(finding) for finding, _ in level.findings), default=-1) for level in levels]
    usable = [index for index, rank in enumerate(worst) if rank == min(worst)]
    loudness = {index: -math.inf if (usual := levels[index].usual_dbfs) is None else usual for index in usable}
    most = max(loudness.values())
    return next(index for index in usable if loudness[index] >= most - _EQUALLY_LOUD_DB)


def finite(samples: Float32) -> tuple[Float32, int]:
    """Set samples that are not finite, or beyond :data:`LOUDEST`, to 0; return how many there were."""
    # The least and the greatest are NaN where any sample is.
    if not len(samples) or (samples.min() > -LOUDEST and samples.max() < LOUDEST):
        return samples, 0
    usable = np.abs(samples) < LOUDEST
    return np.where(usable, samples, np.float32(0)), len(samples) - int(usable.sum())


class _Channel:
    """Sums over one channel, from which its level follows."""

    def __init__(self, sample_rate: int, step: float) -> None:
        self.sample_rate, self._step = sample_rate, step
        self._n = self._n_zeros = self._n_clipped = 0
        self._mean = self._squares = 0.0
        """Mean, and the sum of squared distances from it (Chan, Golub and LeVeque 1983: block by block)."""
        self._low, self._high = math.inf, -math.inf
        self._frame_samples = min(round(_FRAME_SECONDS * sample_rate), _MOST_FRAME_SAMPLES)
        self._n_bands = (self._frame_samples // 2 + 1) // _BAND_BINS
        # Arrays after the first frame: a file may claim 1,024 channels, whose blocks are shorter than one.
        self._power: Float64 | float = 0.0
        self._decibels: Float64 | float = 0.0
        self._decibels_squared: Float64 | float = 0.0
        self._usual, self._n_spectra = 0.0, 0

    def add(self, samples: Float32) -> Float32:
        """Add all samples, and return them as they count: finite."""
        n, low, high = len(samples), float(samples.min()), float(samples.max())
        if not (low > -LOUDEST and high < LOUDEST):
            samples, _ = finite(samples)
            low, high = float(samples.min()), float(samples.max())
        # BLAS sums in a third of numpy's time; workers run it on one thread, so that its sums are always the same.
        mean, squares = float(samples.sum()) / n, float(samples @ samples)
        if mean * mean * n > 0.01 * squares:  # the difference of two large numbers would be inexact
            centred = samples - np.float32(mean)
            rest = float(centred.sum()) / n
            mean, squares = mean + rest, float(centred @ centred) - n * rest * rest
        else:
            squares -= n * mean * mean
        total, distance = self._n + n, mean - self._mean
        self._squares += max(0.0, squares) + distance * distance * self._n * n / total
        self._mean += distance * n / total
        self._n = total
        self._low, self._high = min(self._low, low), max(self._high, high)
        if low <= 0 <= high:
            self._n_zeros += n - int(np.count_nonzero(samples != 0))
        if max(high, -low) >= _RAIL:
            self._n_clipped += int(np.count_nonzero(np.abs(samples) >= _RAIL))
        return samples

    def add_spectra(self, samples: Float32, count: int) -> None:
        """Add the spectra of ``count`` frames that are spread evenly."""
        length = self._frame_samples
        if len(samples) < length:
            return
        begins = (number * (len(samples) - length) // (count + 1) for number in range(1, count + 1))
        frames = np.stack([samples[begin : begin + length] for begin in begins])
        power = (np.abs(np.fft.rfft(frames * _window(length))) ** 2).astype(np.float64)
        self._power = self._power + power.sum(axis=0)
        self._n_spectra += count
        bands = power[:, : self._n_bands * _BAND_BINS].reshape(count, self._n_bands, _BAND_BINS).sum(axis=2)
        decibels = _decibels(bands)
        self._decibels = self._decibels + decibels.sum(axis=0)
        self._decibels_squared = self._decibels_squared + (decibels * decibels).sum(axis=0)
        self._usual += float(_decibels(power[:, self._first_bin :].sum(axis=1)).sum())

    @property
    def _first_bin(self) -> int:
        return _BAND_BINS if self._n_bands > 1 else 0

    def level(self) -> ChannelLevel:
        variance = self._squares / self._n
        rms_dbfs = 10 * math.log10(variance) if self._low < self._high and variance > 0 else None
        is_known = self._n_spectra > 0 and rms_dbfs is not None
        # Parseval's sum over both halves of the spectrum, without the window's power.
        gain = 10 * math.log10(2 / (self._frame_samples * self._window_power))
        usual = self._usual / self._n_spectra + gain if is_known else rms_dbfs
        peak = max(self._high, -self._low, 0.0)
        level = ChannelLevel(
            peak=peak, rms_dbfs=rms_dbfs, zeros=self._n_zeros / self._n, dc=self._mean,
            # Floats that exceed full scale are not cut off there.
            clipped=0.0 if peak > 1 and not self._step else self._n_clipped / self._n,
            bandwidth_hz=self._bandwidth() if is_known else 0, usual_dbfs=usual,
        )  # fmt: skip
        return msgspec.structs.replace(
            level, is_steady=self._is_steady(), findings=tuple(self._findings(level).items())
        )

    @property
    def _window_power(self) -> float:
        return float(np.square(_window(self._frame_samples), dtype=np.float64).sum())

    def _findings(self, level: ChannelLevel) -> dict[Finding, str]:
        if level.rms_dbfs is None:
            return {Finding.dead: f" (all samples are {self._low + 0.0:g})"}
        found = {}
        if level.rms_dbfs < _NO_SIGNAL_DBFS:
            found[Finding.dead] = f" (RMS {level.rms_dbfs:.0f} dBFS)"
        elif self._is_steady() and level.rms_dbfs > _LOUD_NOISE_DBFS:
            found[Finding.noise] = f" without any other sound (RMS {level.rms_dbfs:.0f} dBFS)"
        if abs(level.dc) >= _LEAST_OFFSET and level.peak <= 1:
            found[Finding.offset] = f" by {level.dc:+.2f}"
        is_above_steps = self._squares / self._n >= (_STEPS_ABOVE_ZERO * max(self._step, 2.0**-15)) ** 2
        if level.zeros >= _LEAST_ZEROS and is_above_steps:
            found[Finding.gaps] = f" ({level.zeros:.0%} of the samples are 0)"
        if level.clipped >= _LEAST_CLIPPED:
            found[Finding.clipped] = f" ({level.clipped:.1%} of the samples)"
        return found

    def _is_steady(self) -> bool:
        if self._n_spectra < _LEAST_SPECTRA or self._n_bands < 2:
            return False
        means = np.asarray(self._decibels) / self._n_spectra
        variances = np.asarray(self._decibels_squared) / self._n_spectra - means * means
        audible = means[1:] > means[1:].max() - _BAND_RANGE_DB  # where a lossy format is silent it comes and goes
        return bool(variances[1:][audible].max() < _STEADY_DB**2)

    def _bandwidth(self) -> int:
        """Return the end of the highest 250 Hz in which there is more than the steps of the numbers."""
        power = np.asarray(self._power) / self._n_spectra
        n_groups = len(power) // _EDGE_BINS
        if not n_groups:
            return self.sample_rate // 2
        groups = power[: n_groups * _EDGE_BINS].reshape(n_groups, _EDGE_BINS)
        # The geometric mean: a line of a whistling circuit is no bandwidth.
        level: Float64 = np.exp(np.log(groups + 1e-30).mean(axis=1))
        quantisation = self._step**2 / 12 * self._window_power
        strongest = level[2:].max() if n_groups > 2 else level.max()
        there = np.flatnonzero(level > max(_ABOVE_QUANTISATION * quantisation, _RANGE_BELOW_STRONGEST * strongest))
        if not len(there):
            return 0
        edge_hz = (there[-1] + 1) * _EDGE_BINS * self.sample_rate / self._frame_samples
        return round(self.sample_rate / 2 if there[-1] == n_groups - 1 else edge_hz)


def _compared(level: ChannelLevel, best_dbfs: float) -> ChannelLevel:
    """Name a channel that is much quieter than the loudest one that has sound."""
    if any(finding is Finding.dead for finding, _ in level.findings) or level.usual_dbfs is None:
        return level
    quieter = best_dbfs - level.usual_dbfs
    if quieter < (_DEAD_STEADY_DB if level.is_steady else _DEAD_DB):
        return level
    dead = (Finding.dead, f" ({quieter:.0f} dB quieter than another channel)")
    return msgspec.structs.replace(level, findings=(dead, *level.findings))


@lru_cache(maxsize=4)
def _window(length: int) -> Float32:
    """A Hann window, periodic."""
    return np.hanning(length + 1)[:-1].astype(np.float32)


def _decibels(power: Float64) -> Float64:
    decibels: Float64 = 10 * np.log10(np.maximum(power, 1e-30))
    return decibels
