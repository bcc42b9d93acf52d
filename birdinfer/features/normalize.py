"""Decibels of windows [windows, n_mels, frames] -> model input [windows, channels, rows, columns], float32.

Three steps, each window by itself, so that no score depends on what else is in the batch: PCEN if the settings ask for
it (:mod:`birdinfer.features.pcen`), in the place of decibels or as a second channel, normalisation, and a bilinear
resize to a picture of fixed size. The torch front end of training does the same computations with the same tables.
"""

import functools
from typing import NamedTuple

import numpy as np

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import pcen
from birdinfer.typing import Float32

NORMALISATION_EPSILON = 1e-5
"""Added to a window's spread (dB), so that digital silence becomes zeros instead of NaN."""

ROUNDING_OF_MEAN = 2.0**-19
"""Share of a window's mean that its spread must exceed (1.5e-4 dB at -80 dB) to count. The mean of equal numbers is
rounded (measured: off by up to 6e-7 of it), and the remainder, divided by a spread as small, would be loud."""


def least_band_spread(config: MelConfig) -> float:
    """Return the least spread that a band is divided by where each is normalised by itself: that of 1 dB.

    A band that a clip's MP3 has cut off, or one without a bin, holds the floor and the rounding of an FFT: divided by
    its own spread, rounding would be as loud as birds. In dB the spread is 1; in PCEN the change that 1 dB makes in a
    steady band, whose power over running loudness is 1.
    """
    if config.compression == "log":
        return 1.0
    return float((10.0**0.1 - 1.0) * config.pcen_power * (1.0 + config.pcen_bias) ** (config.pcen_power - 1.0))


def to_input(decibels: Float32, config: FrontEndConfig) -> Float32:
    """Apply all three steps.

    ``decibels``: contiguous [windows, n_mels, frames], overwritten: log-mel as :mod:`birdinfer.features.log_mel`
    defines it, or, where PCEN is among the channels, what :func:`birdinfer.features.pcen.compress` takes.
    Returns contiguous [windows, ``*config.sample_shape``]. A window's values are the same bits, whatever is beside it.
    """
    if len(config.channels) == 1:
        values = pcen.compress(decibels, config) if config.mel.compression == "pcen" else decibels
        return resize(normalise(values, config.mel), config)[:, None]
    log, own = config.channels
    found = np.empty((len(decibels), *config.sample_shape), np.float32)
    found[:, 0] = resize(normalise(with_floor(decibels, log.mel), log.mel), log)
    found[:, 1] = resize(normalise(pcen.compress(decibels, own), own.mel), own)
    return found


def with_floor(decibels: Float32, config: MelConfig) -> Float32:
    """Compute the log-mel of decibels that have no floor yet but ``pcen.MIN_POWER``, the same shape.

    Equal to log-mel as :mod:`birdinfer.features.log_mel` computes it but for the rounding of float32, 1e-5 dB.
    """
    lifted = decibels * np.float32(np.log(10.0) / 10.0)
    for window in lifted:
        np.exp(window, out=window)
        window += np.float32(config.floor_power)
        np.log(window, out=window)
        window *= np.float32(10.0 / np.log(10.0))
    return lifted


def normalise(values: Float32, config: MelConfig) -> Float32:
    """Normalise each window by itself, in place.

    ``values`` are log-mel in dB, or PCEN, [windows, n_mels, frames]. ``config`` says how: ``zscore`` (mean 0, standard
    deviation 1), ``minmax`` (0 to 1), ``frequency`` (each band by itself as zscore, over time) or ``none``.
    Returns the same array; all zeros for a window, or a band, without any spread.
    """
    for window in values if config.normalisation != "none" else ():
        # Window by window: its 330 KB stay in the core's cache over all passes.
        if config.normalisation == "minmax":
            window -= window.min()
            spread = window.max() + np.float32(NORMALISATION_EPSILON)
        elif config.normalisation == "frequency":
            window -= window.mean(axis=1, keepdims=True)
            spread = np.sqrt(np.square(window).mean(axis=1, keepdims=True))
            spread = np.maximum(spread, np.float32(least_band_spread(config)))
        else:
            mean = window.mean()
            window -= mean
            spread = np.sqrt(np.square(window).mean())
            has_spread = spread > np.abs(mean) * np.float32(ROUNDING_OF_MEAN)
            spread = spread + np.float32(NORMALISATION_EPSILON) if has_spread else np.float32(np.inf)
        window *= np.float32(1.0) / spread
    return values


class Stretch(NamedTuple):
    """A bilinear resize as two products: ``rows @ (picture @ columns)``. Read-only."""

    rows: Float32
    """[rows, n_mels]."""
    columns: Float32
    """[frames, columns]."""


@functools.cache
def stretch(config: FrontEndConfig) -> Stretch:
    """Compute the two matrices that resize n_mels x frames to ``config.input_shape``."""
    n_rows, n_columns = config.input_shape
    columns = np.ascontiguousarray(bilinear(config.frames_per_window, n_columns).T)
    found = Stretch(bilinear(config.mel.n_mels, n_rows), columns)
    for matrix in found:
        matrix.flags.writeable = False
    return found


def bilinear(n_from: int, n_to: int) -> Float32:
    """Compute the weights [n_to, n_from] of a bilinear resize, each row summing to 1.

    Pixels are areas with their centres at a half, and the outermost ones extend beyond the edge, as in
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``; none are averaged when shrinking.
    """
    centres = np.clip((np.arange(n_to) + 0.5) * n_from / n_to - 0.5, 0, n_from - 1)
    weights: Float32 = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(n_from))).astype(np.float32)
    return weights


def resize(pictures: Float32, config: FrontEndConfig) -> Float32:
    """Resize each picture of [windows, n_mels, frames] to [rows, columns]; (0, 0) returns the same array."""
    if config.mel.resize == (0, 0):
        return pictures
    matrices = stretch(config)
    stretched = np.empty((len(pictures), *config.mel.resize), np.float32)
    for picture, out in zip(pictures, stretched, strict=True):
        # One product for each window: all at once would be summed in another order.
        np.matmul(matrices.rows, picture @ matrices.columns, out=out)
    return stretched
