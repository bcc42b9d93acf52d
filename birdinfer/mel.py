"""THE front end: waveform [samples] with its margins -> normalised log-mel [windows, 1, n_mels, frames].

Conventions
-----------
* Waveforms are float32 in [-1, 1], mono, at the bundle's rate (Hz).
* Frame t of a window is centred on sample ``t * hop_length`` of that window and reaches ``n_fft / 2``
  samples to either side: into the true neighbouring sound, so that slicing the spectrogram of a whole
  soundscape equals computing a window alone with its margin.
* Power is scaled so that a full-scale sine on a bin has power 1 (0 dB): ``|rfft(w x) / (sum(w) / 2)|^2``.
* Log-mel is ``10 log10(mel + 10^(floor_db / 10))`` in dB. The floor is added, not clipped: below it the
  value fades smoothly, and float32 rounding of an FFT cannot shout there.
* Normalisation is per window: no score may depend on what else is in the batch (a ``top_db`` taken over
  a batch makes it so).

The torch front end of training is built from :func:`hann_window` and :func:`filterbank` of this module.
librosa and torchaudio are references in the tests, never a second definition.
"""

import functools

import numpy as np
import numpy.typing as npt

from birdinfer.config import FrontEndConfig, MelConfig

Float32 = npt.NDArray[np.float32]

NORMALISATION_EPSILON = 1e-5
"""Added to a window's spread (dB), so that digital silence becomes zeros instead of NaN."""

_FRAMES_PER_BLOCK = 64
"""64 frames x 2048 samples x 4 bytes = 512 KiB: frames, spectrum and mel of a block stay in one core's L2 cache."""

# Slaney, Auditory Toolbox (1998): linear to 1 kHz in steps of 200/3 Hz, then 27 steps for each factor of 6.4.
_SLANEY_HZ_PER_MEL = 200.0 / 3
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_BREAK_MEL = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: npt.NDArray[np.float64], scale: str) -> npt.NDArray[np.float64]:
    """Frequency in Hz -> mel, any shape. ``htk`` is 2595 log10(1 + f / 700) (HTK book, 5.4)."""
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    log_part = _SLANEY_BREAK_MEL + np.log(np.maximum(hz, _SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz / _SLANEY_HZ_PER_MEL, log_part)


def mel_to_hz(mel: npt.NDArray[np.float64], scale: str) -> npt.NDArray[np.float64]:
    """Mel -> frequency in Hz, the inverse of :func:`hz_to_mel`."""
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    log_part = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (np.maximum(mel, _SLANEY_BREAK_MEL) - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * _SLANEY_HZ_PER_MEL, log_part)


@functools.cache
def filterbank(config: MelConfig, sample_rate: int) -> Float32:
    """Triangular mel filters.

    Returns:
        Weights [n_fft / 2 + 1, n_mels], >= 0; power [frames, n_fft / 2 + 1] @ weights is mel power.
        Read-only, for it is shared.
    """
    bin_hz = np.arange(config.n_fft // 2 + 1) * (sample_rate / config.n_fft)
    ends = hz_to_mel(np.array([config.f_min_hz, config.f_max_hz]), config.scale)
    corner_hz = mel_to_hz(np.linspace(ends[0], ends[1], config.n_mels + 2), config.scale)
    left, centre, right = corner_hz[:-2], corner_hz[1:-1], corner_hz[2:]
    rising = (bin_hz[:, None] - left) / (centre - left)
    falling = (right - bin_hz[:, None]) / (right - centre)
    weights: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    if config.filter_norm == "slaney":
        weights *= 2.0 / (right - left)
    bank: Float32 = weights.astype(np.float32)
    bank.flags.writeable = False
    return bank


@functools.cache
def hann_window(config: MelConfig) -> Float32:
    """Periodic Hann window [n_fft], divided by half its sum so that a full-scale sine has power 1. Read-only."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.n_fft) / config.n_fft)
    scaled: Float32 = (hann / (hann.sum() / 2.0)).astype(np.float32)
    scaled.flags.writeable = False
    return scaled


def floor_power(config: MelConfig) -> float:
    """The power added before the logarithm: -100 dB is 1e-10 of a full-scale sine."""
    return float(10.0 ** (config.floor_db / 10.0))


@functools.cache
def _heard_bins(config: MelConfig, sample_rate: int) -> tuple[slice, Float32]:
    """The bins that any filter hears and their rows of the filterbank: the others cost FLOPs and add zero."""
    bank = filterbank(config, sample_rate)
    heard = np.flatnonzero(bank.any(axis=1))
    bins = slice(int(heard[0]), int(heard[-1]) + 1) if heard.size else slice(0, 1)
    return bins, np.ascontiguousarray(bank[bins])


def log_mel(samples: Float32, n_frames: int, config: MelConfig, sample_rate: int) -> Float32:
    """Log-mel of consecutive frames.

    Args:
        samples: waveform; frame t covers ``samples[t * hop_length : t * hop_length + n_fft]``, that is,
            the sound begins ``n_fft / 2`` samples before the centre of the first frame.
        n_frames: how many frames to compute; ``samples`` must reach to the end of the last.
        config: the spectrogram's settings.
        sample_rate: Hz.

    Returns:
        dB relative to a full-scale sine, [n_frames, n_mels], >= ``floor_db``.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length][:n_frames]
    if len(frames) < n_frames:
        raise ValueError(f"{len(samples)} samples hold {len(frames)} frames, {n_frames} were asked for")
    window, floor = hann_window(config), np.float32(floor_power(config))
    bins, bank = _heard_bins(config, sample_rate)
    decibels = np.empty((n_frames, config.n_mels), np.float32)
    # Block by block: one FFT call over a whole minute spills 60 MB through memory and takes twice as long.
    for start in range(0, n_frames, _FRAMES_PER_BLOCK):
        spectrum = np.fft.rfft(frames[start : start + _FRAMES_PER_BLOCK] * window)[:, bins]
        power = spectrum.real**2
        power += spectrum.imag**2
        block = decibels[start : start + _FRAMES_PER_BLOCK]
        np.matmul(power, bank, out=block)
        block += floor
        np.log(block, out=block)
    decibels *= np.float32(10.0 / np.log(10.0))
    return decibels


def normalise(decibels: Float32, config: MelConfig) -> Float32:
    """Normalise each window by itself, in place where it can.

    Args:
        decibels: log-mel [windows, n_mels, frames] in dB.
        config: says how: ``zscore`` (mean 0, standard deviation 1), ``minmax`` (0 to 1) or ``none``.

    Returns:
        The same shape; all zeros for a window without any spread.
    """
    if config.normalisation == "none":
        return decibels
    if config.normalisation == "minmax":
        low = decibels.min(axis=(1, 2), keepdims=True)
        spread = decibels.max(axis=(1, 2), keepdims=True) - low
    else:
        low = decibels.mean(axis=(1, 2), keepdims=True)
        spread = decibels.std(axis=(1, 2), keepdims=True)
    decibels -= low
    decibels /= spread + np.float32(NORMALISATION_EPSILON)
    return decibels


def windows_to_input(samples: Float32, n_windows: int, config: FrontEndConfig) -> Float32:
    """Neighbouring windows -> model input; the spectrogram is computed once and sliced.

    Args:
        samples: ``margin_samples``, then ``n_windows`` windows, then ``margin_samples``.
        n_windows: how many windows.
        config: the front end's settings.

    Returns:
        Normalised log-mel [n_windows, 1, n_mels, frames_per_window], contiguous.
    """
    frames, rate = config.frames_per_window, config.audio.sample_rate
    if config.window_samples % config.mel.hop_length == 0:
        decibels = log_mel(samples, n_windows * frames, config.mel, rate).reshape(n_windows, frames, -1)
    else:
        # A hop that does not divide the window: each window has a framing of its own, exact instead of rounded.
        begins = range(0, n_windows * config.window_samples, config.window_samples)
        decibels = np.stack([log_mel(samples[begin:], frames, config.mel, rate) for begin in begins])
    bands_first = np.ascontiguousarray(decibels.transpose(0, 2, 1))
    return normalise(bands_first, config.mel)[:, None]


def fingerprint(config: FrontEndConfig) -> list[float]:
    """The front end's answer to a fixed chirp: changes when anything in this module or its settings does.

    Returns:
        64 numbers: the un-normalised log-mel (dB) of a full-band exponential chirp with a decaying level,
        averaged over an 8 x 8 grid of bands and frames and rounded to 0.001, then one number: the mean
        absolute value of the normalised input. Compare with a tolerance of 0.01, for processors differ.
    """
    rate, length = config.audio.sample_rate, config.window_samples + 2 * config.margin_samples
    seconds = np.arange(length) / rate
    low_hz, high_hz = 20.0, 0.98 * rate / 2
    octaves = np.log(high_hz / low_hz)
    duration = length / rate
    phase = 2 * np.pi * low_hz * duration / octaves * (np.exp(seconds / duration * octaves) - 1)
    chirp = (0.5 * np.exp(-seconds / duration * 3) * np.sin(phase)).astype(np.float32)
    decibels = log_mel(chirp, config.frames_per_window, config.mel, rate)
    grid = [band.mean() for row in np.array_split(decibels, 8, axis=0) for band in np.array_split(row, 8, axis=1)]
    level = np.abs(windows_to_input(chirp, 1, config)).mean()
    return [round(float(value), 3) for value in (*grid, level)]
