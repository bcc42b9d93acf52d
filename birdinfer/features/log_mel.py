"""The one front end: waveform [samples] with its margins -> mel spectrograms [windows, channels, rows, columns].

* Waveforms are float32 in [-1, 1], mono, at the bundle's rate (Hz).
* Frame t of a window is centred on sample ``t * hop_length`` of that window and reaches ``n_fft / 2``
  samples to either side: into the true neighbouring sound, so that slicing the spectrogram of a whole
  soundscape equals computing a window alone with its margin.
* Power is scaled so that a full-scale sine on a bin has power 1 (0 dB): ``|rfft(w x) / (sum(w) / 2)|^2``.
* Log-mel is ``10 log10(mel + 10^(floor_db / 10))`` in dB. The floor is added, not clipped: below it the
  value fades smoothly, and the float32 rounding of an FFT has no weight there.
* A model's input is made of one window's log-mel alone (:mod:`birdinfer.features.normalize`): no score may depend on
  what else is in the batch, as it would with a ``top_db`` over the batch.
* A frame's mel power is added up in one order, filter by filter, whatever frames stand beside it: its values are the
  same bits wherever it lies.

numpy's version here is the definition. :mod:`birdinfer.features.kernels` computes the same several times faster where
its library was built; the tests compare the two to 1e-3 dB. The torch front end of training is built from
:func:`hann_window` and :func:`filterbank` of this module. librosa and torchaudio are references in the tests, never a
second definition.
"""

import functools
from typing import NamedTuple

import numpy as np

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import kernels, pcen
from birdinfer.features import normalize as mel_input
from birdinfer.typing import Float32, Float64, Index

_SAMPLES_PER_FFT = 16_384
"""In one call of numpy's FFT: its results then are 64 KiB, which malloc keeps. Larger ones it takes from the system and
returns, page by page, and that can cost more than the FFT."""

# Slaney, Auditory Toolbox (1998): linear to 1 kHz in steps of 200/3 Hz, then 27 steps for each factor of 6.4.
_SLANEY_HZ_PER_MEL = 200.0 / 3
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_BREAK_MEL = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: Float64, scale: str) -> Float64:
    """Convert Hz to mel, any shape. ``htk`` is 2595 log10(1 + f / 700) (HTK book, 5.4)."""
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    log_part = _SLANEY_BREAK_MEL + np.log(np.maximum(hz, _SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz / _SLANEY_HZ_PER_MEL, log_part)


def mel_to_hz(mel: Float64, scale: str) -> Float64:
    """Convert mel to Hz, the inverse of :func:`hz_to_mel`."""
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    log_part = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (np.maximum(mel, _SLANEY_BREAK_MEL) - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * _SLANEY_HZ_PER_MEL, log_part)


@functools.cache
def filterbank(config: MelConfig, sample_rate: int) -> Float32:
    """Compute triangular mel filters [n_fft / 2 + 1, n_mels], >= 0; read-only, for they are shared."""
    bin_hz = np.arange(config.n_fft // 2 + 1) * (sample_rate / config.n_fft)
    ends = hz_to_mel(np.array([config.f_min_hz, config.f_max_hz]), config.scale)
    corner_hz = mel_to_hz(np.linspace(ends[0], ends[1], config.n_mels + 2), config.scale)
    left, centre, right = corner_hz[:-2], corner_hz[1:-1], corner_hz[2:]
    rising = (bin_hz[:, None] - left) / (centre - left)
    falling = (right - bin_hz[:, None]) / (right - centre)
    weights: Float64 = np.maximum(0.0, np.minimum(rising, falling))
    if config.filter_norm == "slaney":
        weights *= 2.0 / (right - left)
    bank: Float32 = weights.astype(np.float32)
    bank.flags.writeable = False
    return bank


@functools.cache
def hann_window(config: MelConfig) -> Float32:
    """Compute the periodic Hann window [n_fft], divided by half its sum: a full-scale sine has power 1. Read-only."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.n_fft) / config.n_fft)
    scaled: Float32 = (hann / (hann.sum() / 2.0)).astype(np.float32)
    scaled.flags.writeable = False
    return scaled


def front_end_name() -> str:
    """Return what computes log-mels here: ``compiled`` or ``numpy``."""
    return "numpy" if kernels.library() is None else "compiled"


def log_mel(samples: Float32, n_frames: int, config: MelConfig, sample_rate: int) -> Float32:
    """Compute the log-mel of consecutive frames. A frame's values are the same bits in every call.

    ``samples``: waveform; frame t covers ``samples[t * hop_length : t * hop_length + n_fft]``, that is,
    the sound begins ``n_fft / 2`` samples before the centre of the first frame.

    >>> log_mel(np.zeros(4096, np.float32), 3, MelConfig(n_fft=1024, n_mels=64), 32_000).shape
    (3, 64)
    """
    decibels = np.empty((1, config.n_mels, n_frames), np.float32)
    _write_decibels(_plain(samples), 0, _Scale(config, sample_rate, config.floor_power), decibels)
    frames_first: Float32 = decibels[0].T
    return frames_first


def _plain(samples: Float32) -> Float32:
    """The samples as C reads them; copied only where their layout is another."""
    return np.require(samples, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


class _Scale(NamedTuple):
    config: MelConfig
    sample_rate: int
    floor: float
    """Power added before the logarithm, > 0."""


def _write_decibels(samples: Float32, stride: int, scale: _Scale, decibels: Float32) -> None:
    """Fill ``decibels`` [windows, n_mels, frames]; the first frame of window i begins at ``samples[i * stride]``."""
    config = scale.config
    n_windows, _, n_frames = decibels.shape
    for index in range(n_windows):
        held = max(0, (len(samples) - index * stride - config.n_fft) // config.hop_length + 1)
        if held < n_frames:
            where = f"{len(samples)} samples hold {held} frames" + f" of window {index}" * (n_windows > 1)
            raise ValueError(f"{where}, {n_frames} were asked for")
    if kernels.library() is not None:
        _kernel(scale)(samples, stride, decibels)
    elif decibels.size:
        _write_with_numpy(samples, stride, scale, decibels)


@functools.cache
def _kernel(scale: _Scale) -> kernels.LogMelKernel:
    config = scale.config
    bank = filterbank(config, scale.sample_rate)
    return kernels.LogMelKernel(hann_window(config), bank, config.hop_length, scale.floor)


class _FilterBins(NamedTuple):
    """The bins of each filter, one filter after the other, for :func:`numpy.add.reduceat`."""

    bins: Index
    weights: Float32
    begins: Index
    """[n_mels]: where each filter's bins begin in the other two."""


@functools.cache
def _filter_bins(config: MelConfig, sample_rate: int) -> _FilterBins:
    bank = filterbank(config, sample_rate)
    is_in = bank.T > 0
    is_in[~is_in.any(axis=1), 0] = True  # a filter between two bins gets one with the weight 0
    mels, bins = np.nonzero(is_in)
    return _FilterBins(bins, bank[bins, mels], np.flatnonzero(np.diff(mels, prepend=-1)))


def _write_with_numpy(samples: Float32, stride: int, scale: _Scale, decibels: Float32) -> None:
    """Define what the kernel computes, and do its work where it was not built.

    Not with a matrix product: BLAS adds up a frame in an order that depends on the frame's place among others.
    """
    config, n_frames = scale.config, decibels.shape[2]
    own = _filter_bins(config, scale.sample_rate)
    n_at_once = max(1, _SAMPLES_PER_FFT // config.n_fft)
    windowed = np.zeros((n_at_once, config.n_fft), np.float32)
    power = np.empty((n_at_once, config.n_fft // 2 + 1), np.float32)
    products = np.empty((n_at_once, len(own.bins)), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)
    for index, window in enumerate(decibels):
        own_frames = frames[index * stride :: config.hop_length][:n_frames]
        for start in range(0, n_frames, n_at_once):
            some = own_frames[start : start + n_at_once]
            np.multiply(some, hann_window(config), out=windowed[: len(some)])
            # numpy 1 transforms in double, whatever it is given.
            squares = np.square(np.fft.rfft(windowed).astype(np.complex64, copy=False).view(np.float32))
            np.add(squares[:, ::2], squares[:, 1::2], out=power)
            power.take(own.bins, axis=1, out=products, mode="clip")
            products *= own.weights
            found = np.add.reduceat(products, own.begins, axis=1)
            found += np.float32(scale.floor)
            np.log(found, out=found)
            found *= np.float32(10.0 / np.log(10.0))
            window[:, start : start + len(some)] = found[: len(some)].T


def windows_to_input(
    samples: Float32, n_windows: int, config: FrontEndConfig, stride_samples: int | None = None
) -> Float32:
    """Compute the model input of windows. A window's values are the same bits, whatever is beside it.

    ``samples``: ``margin_samples``, a stretch in which window i begins at ``i * stride_samples`` and holds
    ``window_samples``, then ``margin_samples``. Any layout; not changed.
    ``stride_samples``: from one window's beginning to the next one's, >= 1; by default they lie side by side. Where
    windows overlap and the hop divides the stride, their common frames are computed once and sliced.
    """
    stride = config.window_samples if stride_samples is None else stride_samples
    if stride < 1:
        raise ValueError(f"stride_samples is {stride}, at least 1 is needed")
    floor = config.mel.floor_power if config.mel.compression == "log" else pcen.MIN_POWER
    scale = _Scale(config.mel, config.audio.sample_rate, floor)
    batch = np.empty((n_windows, config.mel.n_mels, config.frames_per_window), np.float32)
    if stride < config.window_samples and stride % config.mel.hop_length == 0:
        _write_overlapping(_plain(samples), scale, stride // config.mel.hop_length, batch)
    else:
        _write_decibels(_plain(samples), stride, scale, batch)
    return mel_input.to_input(batch, config)


def _write_overlapping(samples: Float32, scale: _Scale, stride_frames: int, batch: Float32) -> None:
    """Fill ``batch`` [windows, n_mels, frames] from one spectrogram of the whole stretch."""
    n_windows, n_mels, n_frames = batch.shape
    whole = np.empty((1, n_mels, max(0, n_windows - 1) * stride_frames + n_frames), np.float32)
    _write_decibels(samples, 0, scale, whole)
    for index, window in enumerate(batch):
        window[:] = whole[0, :, index * stride_frames : index * stride_frames + n_frames]


def fingerprint(config: FrontEndConfig) -> list[float]:
    """Summarise the front end's output for a fixed chirp: it changes with the front end's code and its settings.

    Returns 64 numbers: the un-normalised log-mel (dB) of a full-band exponential chirp with a decaying level, averaged
    over an 8 x 8 grid of bands and frames and rounded to 0.001, then one number: the mean absolute value of the
    normalised input. With PCEN, ``frequency`` or a resize, 64 more for each channel: the input for the chirp over a
    hiss, sampled at the middles of such a grid. Compare with a tolerance of 0.01, for processors differ.
    """
    sound = chirp(config.audio.sample_rate, config.window_samples + 2 * config.margin_samples)
    decibels = log_mel(sound, config.frames_per_window, config.mel, config.audio.sample_rate)
    grid = [band.mean() for row in np.array_split(decibels, 8, axis=0) for band in np.array_split(row, 8, axis=1)]
    level = np.abs(windows_to_input(sound, 1, config)).mean()
    compression, normalisation, resize = config.mel.compression, config.mel.normalisation, config.mel.resize
    is_in_grid = compression == "log" and normalisation != "frequency" and resize == (0, 0)
    return [round(float(value), 3) for value in (*grid, level, *([] if is_in_grid else _input_grid(sound, config)))]


def chirp(rate: int, n_samples: int) -> Float32:
    """Make the sound of fingerprints: a full-band exponential chirp with a decaying level, at a rate in Hz."""
    seconds = np.arange(n_samples) / rate
    low_hz, high_hz = 20.0, 0.98 * rate / 2
    octaves, duration = np.log(high_hz / low_hz), len(seconds) / rate
    phase = 2 * np.pi * low_hz * duration / octaves * (np.exp(seconds / duration * octaves) - 1)
    made: Float32 = (0.5 * np.exp(-seconds / duration * 3) * np.sin(phase)).astype(np.float32)
    return made


def _input_grid(sound: Float32, config: FrontEndConfig) -> Float32:
    """64 values of each channel of the input for the chirp over a hiss of -40 dB, which drowns an FFT's rounding."""
    place = np.arange(len(sound), dtype=np.uint64)
    # Not numpy's generator, whose numbers may change with its version: a hash of each place with Knuth's 2^32 / phi.
    hashed = (place * place * np.uint64(2_654_435_761) >> np.uint64(16)) & np.uint64(0xFFFF)
    pictures = windows_to_input(sound + np.float32(0.01) * (hashed / 32_767.5 - 1).astype(np.float32), 1, config)[0]
    rows, columns = ((2 * np.arange(8) + 1) * size // 16 for size in config.input_shape)
    sampled: Float32 = pictures[:, rows[:, None], columns].ravel()
    return sampled
