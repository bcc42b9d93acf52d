"""Recognise a windowed Fourier transform in measured weights, whatever nodes computed it.

In: weights [channels, length] of :mod:`birdinfer.export.fold.measure`. Out: :class:`Spectrum`: each channel is the real
or imaginary part of a bin, so that two small matrix products
(:func:`birdinfer.export.onnx.fourier.fourier_tables`) can replace one large one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from birdinfer.typing import Bool, Float32, Int64

TOLERANCE = 1e-4
"""Of the window's peak, between a channel's weights and those of the transform."""
_LEAST_CHANNELS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrum:
    """A windowed transform: channel c is ``signs[c]`` times one part of ``rfft(window x)[bins[c]]``."""

    window: Float32
    """[n_fft], 0 where the measured weights are."""
    lead: int
    """Samples of the window before the first of the weights."""
    bins: Int64
    is_imaginary: Bool
    signs: Float32


def match_spectrum(taps: Float32, sizes: Sequence[int]) -> Spectrum | None:
    """Find the transform that weights [channels, length] are; None if they are none.

    ``sizes``: numbers of bins to try, beside the next power of two.
    """
    if len(taps) < _LEAST_CHANNELS:
        return None
    window = taps[np.argmax(taps.sum(axis=1))]  # bin 0: the window itself
    if window.min() < -1e-5 * window.max():
        return None
    for n_fft, lead in _layouts(taps.shape[1], sizes):
        spectrum = _match(taps, window, n_fft, lead)
        if spectrum is not None:
            return spectrum
    return None


def _layouts(length: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Transform lengths, and where the weights begin within: windows often begin and end with zeros."""
    lengths = dict.fromkeys([*(2 * (size - 1) for size in sizes), 1 << (length - 1).bit_length()])
    for n_fft in lengths:
        if length <= n_fft <= 4 * length:
            middle = (n_fft - length) // 2
            for lead in dict.fromkeys((0, 1, middle, middle + 1, n_fft - length)):
                if 0 <= lead <= n_fft - length:
                    yield n_fft, lead


def _match(taps: Float32, window: Float32, n_fft: int, lead: int) -> Spectrum | None:
    few = np.linspace(0, len(taps) - 1, 7).astype(np.int64)
    if _parts(taps[few], window, n_fft, lead) is None:
        return None
    parts = _parts(taps, window, n_fft, lead)
    if parts is None:
        return None
    padded = np.zeros(n_fft, np.float32)
    padded[lead : lead + len(window)] = window
    return Spectrum(window=padded, lead=lead, bins=parts[0], is_imaginary=parts[1], signs=parts[2])


def _parts(taps: Float32, window: Float32, n_fft: int, lead: int) -> tuple[Int64, Bool, Float32] | None:
    """Bin, part and sign of each channel, if all of them are such."""
    padded = np.zeros((len(taps), n_fft))
    padded[:, lead : lead + len(window)] = taps * window.astype(np.float64)
    products = np.fft.rfft(padded)  # with the window times a cosine, and minus a sine, of every bin
    turns = 2 * np.pi * (np.outer(np.arange(n_fft // 2 + 1), lead + np.arange(len(window))) % n_fft) / n_fft
    energy = np.square(window, dtype=np.float64)
    norms = [np.sqrt(np.maximum(np.square(wave(turns)) @ energy, 1e-9 * energy.sum())) for wave in (np.cos, np.sin)]
    # By Cauchy and Schwarz the right one is the largest.
    likeness = np.concatenate([products.real / norms[0], products.imag / norms[1]], axis=1)
    best = np.abs(likeness).argmax(axis=1)
    is_silent = np.abs(taps).max(axis=1) <= TOLERANCE * window.max()  # the imaginary parts of the first and last bin
    bins = np.where(is_silent, 0, best % len(turns))
    is_imaginary = is_silent | (best >= len(turns))
    signs = np.where(likeness[np.arange(len(taps)), best] < 0, -1.0, 1.0)
    waves = np.where(is_imaginary[:, None], -np.sin(turns[bins]), np.cos(turns[bins]))
    if np.abs(signs[:, None] * waves * window - taps).max() > TOLERANCE * window.max():
        return None
    return bins.astype(np.int64), is_imaginary, signs.astype(np.float32)
