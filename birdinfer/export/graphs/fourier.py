"""A real Fourier transform as two small matrix products, and a filterbank for what it gives: tables for graphs.

In: a window [n] and a filterbank [n / 2 + 1, bands]. Out: three arrays. Graphs have no fast Fourier transform that
every runtime is quick at, but all multiply matrices. With n = n_strided * n_steps, sample t = n_steps * a + b and
frequency k = c + n_strided * d, the sum over t splits in two (Cooley and Tukey 1965)::

    Y[b, c] = sum over a of x[t] window[t] exp(-2 pi i c t / n)        a product for each of the n_steps rests b
    X[k]    = sum over b of Y[b, c] exp(-2 pi i b d / n_steps)         the same product for each c

A real sound's c and n_strided - c hold the same, conjugated, so half of them are enough. 2048 = 64 * 32 takes 0.27
million products a frame where the whole matrix takes 4.2.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class FourierTables(NamedTuple):
    """``|rfft(x window)|^2 @ filterbank`` of frames x in four products; all float32."""

    strided: Float32
    """[n_steps, n_strided, 2 * (n_strided // 2 + 1)]: the first sum, for each c its real and its imaginary part. Frames
    are cut into [n_strided, n_steps], whose columns it multiplies. The window is in it."""
    real: Float32
    """[2 * n_steps, n_steps]: the second sum's real part over d, of real and then imaginary parts over b."""
    imaginary: Float32
    """[2 * n_steps, n_steps]: likewise the imaginary part."""
    bank: Float32
    """[(n_strided // 2 + 1) * n_steps, bands]: the filters on the power of that, c by c."""


def fourier_tables(window: Float32, filterbank: Float32) -> FourierTables:
    """Tables for frames as long as the window.

    Args:
        window: [n], n even.
        filterbank: [n / 2 + 1, bands].
    """
    n_samples = len(window)
    n_strided = strided_length(n_samples)
    n_steps, n_kept = n_samples // n_strided, n_strided // 2 + 1
    time = n_steps * np.arange(n_strided) + np.arange(n_steps)[:, None]
    strided = _rotations(time[..., None] * np.arange(n_kept), n_samples) * window[time][..., None, None]
    turned = _rotations(np.outer(np.arange(n_steps), np.arange(n_steps)), n_steps)
    cos, sin = turned[..., 0], turned[..., 1]
    return FourierTables(
        strided.reshape(n_steps, n_strided, 2 * n_kept).astype(np.float32),
        np.concatenate([cos, -sin]).astype(np.float32),
        np.concatenate([sin, cos]).astype(np.float32),
        _laid_out(filterbank, n_strided, n_steps),
    )


def strided_length(n_samples: int) -> int:
    """The divisor of n_samples, above 1, with the fewest products a frame."""
    divisors = [length for length in range(2, n_samples + 1) if n_samples % length == 0]
    return min(divisors, key=lambda length: _products(length, n_samples // length))


def _products(n_strided: int, n_steps: int) -> int:
    n_kept = n_strided // 2 + 1
    return n_steps * n_strided * 2 * n_kept + n_kept * (2 * n_steps) ** 2


def _rotations(turns: npt.NDArray[np.intp], length: int) -> Float64:
    """exp(-2 pi i turns / length) as real and imaginary parts on a new last axis, computed in double."""
    angle = -2.0 * np.pi * (turns % length) / length
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _laid_out(filterbank: Float32, n_strided: int, n_steps: int) -> Float32:
    """The filterbank's rows where the second sum puts their bins, each once; its other places weigh nothing."""
    n_kept, n_samples = n_strided // 2 + 1, n_strided * n_steps
    bins = np.arange(n_kept)[:, None] + n_strided * np.arange(n_steps)
    # A bin above n / 2 is the mirror image of one below.
    _, first = np.unique(np.minimum(bins, n_samples - bins), return_index=True)
    weights = np.zeros((n_kept * n_steps, filterbank.shape[1]), np.float32)
    weights[first] = filterbank
    return weights
