"""Spectrograms as external models take them: waveforms [windows, samples] -> [windows, (channels,) rows, columns].

A model's own front end is part of its weights, so what librosa and torchaudio compute by their options is computed here
by those of :class:`~birdinfer.config.SpectrogramConfig`, each window by itself: a ``top_db``, a reference or a
normalisation never reaches beyond a window. Filters and the compiled kernel are those of
:mod:`birdinfer.features.log_mel`; the tests hold the result against librosa and torch.
"""

import functools
from typing import NamedTuple

import numpy as np

from birdinfer.config import MelConfig, SpectrogramConfig
from birdinfer.features import kernels
from birdinfer.features.log_mel import chirp, filterbank
from birdinfer.features.normalize import bilinear
from birdinfer.features.pcen import MIN_POWER
from birdinfer.typing import Float32, Float64

PCEN_SCALE = 2.0**31
"""librosa's documentation multiplies by it: magnitudes of 32-bit samples."""


class _Tables(NamedTuple):
    """Read-only."""

    window: Float32
    """[n_fft]: Hann, in the middle of zeros if it is shorter."""
    bank: Float32
    """[n_fft / 2 + 1, n_mels]."""
    kernel: kernels.LogMelKernel | None


def windows_to_input(windows: Float32, config: SpectrogramConfig) -> Float32:
    """Compute the input of a graph; a window's values are the same bits, whatever is beside it.

    ``windows``: float32 [windows, ``config.window_samples``] in [-1, 1].
    Returns [windows, ``*config.input_shape``].
    """
    found = np.empty((len(windows), *config.input_shape), np.float32)
    for window, out in zip(windows, found, strict=True):
        out[:] = _shaped(_normalised(_compressed(_mels(window, config), config), config), config)
    return found


def fingerprint(config: SpectrogramConfig) -> list[float]:
    """Summarise the input for a fixed chirp in 64 numbers, which change with this code and its settings."""
    picture = windows_to_input(chirp(config.audio.sample_rate, config.window_samples)[None], config)[0]
    flat = picture.reshape(-1, *picture.shape[-2:])[0]
    blocks = [block.mean() for row in np.array_split(flat, 8, axis=0) for block in np.array_split(row, 8, axis=1)]
    return [round(float(value), 3) for value in blocks]


@functools.cache
def _tables(config: SpectrogramConfig) -> _Tables:
    length = config.win_length or config.n_fft
    window = np.zeros(config.n_fft, np.float32)
    begin = (config.n_fft - length) // 2
    window[begin : begin + length] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    mel = MelConfig(
        n_fft=config.n_fft, n_mels=config.n_mels, f_min_hz=config.f_min_hz, f_max_hz=config.highest_hz,
        scale=config.scale, filter_norm=config.filter_norm,
    )  # fmt: skip
    bank = filterbank(mel, config.audio.sample_rate)
    window.flags.writeable = False
    is_compiled = kernels.library() is not None and config.power == 2
    scaled = window / np.float32(_scale(window))
    kernel = kernels.LogMelKernel(scaled, bank, config.hop_length, MIN_POWER) if is_compiled else None
    return _Tables(window, bank, kernel)


def _scale(window: Float32) -> float:
    """What the kernel's window is divided by, so that a full-scale sine has power 1."""
    return float(window.sum(dtype=np.float64) / 2)


def _mels(window: Float32, config: SpectrogramConfig) -> Float32:
    """Mel power or magnitude of one window [n_mels, n_frames], as librosa scales it; >= 0."""
    tables, half = _tables(config), config.n_fft // 2
    if config.padding != "none":
        window = np.pad(window, half, mode=config.padding)
    mels = np.zeros((config.n_mels, max(config.n_frames, config.n_computed)), np.float32)
    computed = mels[:, : config.n_computed]
    if tables.kernel is not None:
        decibels = np.empty((1, *computed.shape), np.float32)
        tables.kernel(np.ascontiguousarray(window, np.float32), 0, decibels)
        # 10^(x / 10) as a power of e; what MIN_POWER adds is 14 orders below any floor.
        np.exp(decibels[0] * np.float32(np.log(10.0) / 10.0), out=computed)
        computed *= np.float32(_scale(tables.window) ** 2)
    else:
        frames = np.lib.stride_tricks.sliding_window_view(window, config.n_fft)[:: config.hop_length]
        spectrum = np.abs(np.fft.rfft(frames * tables.window)).astype(np.float32)
        computed[:] = ((spectrum if config.power == 1 else np.square(spectrum)) @ tables.bank).T
    return mels[:, : config.n_frames]


def _compressed(mels: Float32, config: SpectrogramConfig) -> Float32:
    match config.compression:
        case "none":
            return mels
        case "log1p":
            return np.log1p(mels)
        case "pcen":
            return _pcen(mels, config)
    floor = np.float32(config.floor)
    raised = mels + floor if config.is_floor_added else np.maximum(mels, floor)
    if config.compression == "ln":
        return np.log(raised)
    decibels = np.log10(raised) * np.float32(20 / config.power)
    if config.reference == "max":
        decibels -= decibels.max()
    return np.maximum(decibels, decibels.max() - np.float32(config.top_db)) if config.top_db else decibels


def _pcen(mels: Float32, config: SpectrogramConfig) -> Float32:
    """librosa.pcen (0.11): the running loudness begins with 1."""
    n_frames = config.pcen_time_seconds * config.audio.sample_rate / config.hop_length
    newest = (np.sqrt(1.0 + 4.0 * n_frames**2) - 1.0) / (2.0 * n_frames**2)
    energy = mels.astype(np.float64) * PCEN_SCALE
    loudness = np.empty_like(energy)
    state = np.ones(len(energy)) * (1.0 - newest)  # scipy.signal.lfilter_zi of this filter
    for frame in range(energy.shape[1]):
        loudness[:, frame] = newest * energy[:, frame] + state
        state = (1.0 - newest) * loudness[:, frame]
    levelled = energy * (config.pcen_epsilon + loudness) ** -config.pcen_gain
    root = (levelled + config.pcen_bias) ** config.pcen_power - config.pcen_bias**config.pcen_power
    return np.asarray(root, np.float32)


def _normalised(values: Float32, config: SpectrogramConfig) -> Float32:
    """To 0 .. 1, or to mean 0 and standard deviation 1; zeros for a window without any spread."""
    if config.normalisation == "none":
        return values
    least = values.min() if config.normalisation == "minmax" else values.mean(dtype=np.float64)
    centred: Float64 = values.astype(np.float64) - least
    spread = float(centred.max()) if config.normalisation == "minmax" else float(np.sqrt(np.square(centred).mean()))
    # Equal numbers differ from their mean by rounding, which is no spread.
    is_flat = spread <= 1e-6 * np.abs(values).max()
    return np.zeros_like(values) if is_flat else np.asarray(centred / (spread + config.epsilon), np.float32)


def _shaped(picture: Float32, config: SpectrogramConfig) -> Float32:
    """[n_mels, n_frames] -> ``config.input_shape``."""
    if config.resize != (0, 0):
        rows, columns = _stretch(config)
        picture = np.matmul(rows, np.matmul(picture, columns), dtype=np.float32)
    if config.is_flipped:
        picture = picture[::-1]
    if config.is_frames_first:
        picture = picture.T
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (config.mean, config.std))
    shifted: Float32 = (picture - mean) / std
    return shifted if config.channels else shifted[0]


@functools.cache
def _stretch(config: SpectrogramConfig) -> tuple[Float32, Float32]:
    n_rows, n_columns = config.resize
    return bilinear(config.n_mels, n_rows), np.ascontiguousarray(bilinear(config.n_frames, n_columns).T)
