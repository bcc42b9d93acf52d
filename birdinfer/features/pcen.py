"""Per-channel energy normalisation (PCEN): decibels [windows, n_mels, frames] -> the same shape, >= 0, without a unit.

Every mel band is divided by its own running loudness, so that a steady hiss fades and onsets stand out; then a root
replaces the logarithm (Wang et al. 2017, "Trainable frontend for robust and far-field keyword
spotting", equations 1 and 2; Lostanlen et al. 2019, "Per-channel energy normalization: why and how")::

    M[t] = (1 - s) M[t - 1] + s E[t],  M[-1] = E[0]
    PCEN = (E / (epsilon + M)^gain + bias)^power - bias^power

* E is mel power in the unit of 16-bit samples squared, for which Wang's gain and bias were found: our full-scale sine
  of power 1 has 2^30 (librosa's documentation multiplies by 2^31, for it takes magnitudes of 32-bit samples).
* M begins with the window's first frame, so a window depends on nothing outside itself. ``librosa.pcen`` begins with
  M[-1] = 1 by default; with the same beginning the tests find the two equal.
* The recursion is linear: :data:`FRAMES_PER_BLOCK` frames are one product with a triangular matrix, plus the rest of
  the last frame before them. numpy here and torch in training multiply by the same two arrays.
"""

import functools
from typing import NamedTuple

import numpy as np

from birdinfer.config import FrontEndConfig
from birdinfer.typing import Float32

FULL_SCALE_POWER = 2.0**30
"""Power of a full-scale sine in 16-bit samples squared."""

MIN_POWER = 1e-24
"""Power (a full-scale sine has 1) that is added before the decibels which :func:`compress` takes, for digital silence
has none. The least epsilon that is allowed is a million times larger."""

FRAMES_PER_BLOCK = 64
"""A longer matrix multiplies more zeros, a shorter one takes more steps."""


class Smoother(NamedTuple):
    """The running loudness of a block: ``M = E @ within + M_before[..., None] * after``. Read-only."""

    within: Float32
    """[frames, frames]: what each frame of the block (rows) gives to itself and to later ones."""
    after: Float32
    """[frames]: what is left of the last frame before the block."""


def smoothing(config: FrontEndConfig) -> float:
    """Compute the weight s of the newest frame, in (0, 1].

    That of a first-order low-pass with ``pcen_time_seconds``, counted in frames (librosa 0.11, ``librosa.pcen``).
    """
    n_frames = config.mel.pcen_time_seconds * config.audio.sample_rate / config.mel.hop_length
    return float((np.sqrt(1.0 + 4.0 * n_frames**2) - 1.0) / (2.0 * n_frames**2))


@functools.cache
def smoother(config: FrontEndConfig) -> Smoother:
    """Compute the recursion over a block in closed form, in double precision."""
    s, place = smoothing(config), np.arange(FRAMES_PER_BLOCK)
    age = place - place[:, None]
    within = np.where(age >= 0, s * (1.0 - s) ** np.maximum(age, 0), 0.0).astype(np.float32)
    after = ((1.0 - s) ** (place + 1)).astype(np.float32)
    within.flags.writeable = after.flags.writeable = False
    return Smoother(within, after)


def compress(decibels: Float32, config: FrontEndConfig) -> Float32:
    """Compute the PCEN of each window by itself, in place.

    ``decibels``: ``10 log10(power + MIN_POWER)`` of mel power [windows, n_mels, frames], a full-scale sine being 0 dB.
    They give the power back to 1e-5 of itself, for a step of float32 is 1.5e-5 dB there.
    Returns the same array, >= 0 but for rounding.
    """
    # As sums and products under one exponential: numpy's float32 exp and log are vectorised, its power is not.
    scale = np.float32(np.log(10.0) / 10.0), np.float32(np.log(FULL_SCALE_POWER))
    for window in decibels:
        window *= scale[0]
        window += scale[1]
        np.exp(window, out=window)
        _compress_power(window, config)
    return decibels


def _compress_power(power: Float32, config: FrontEndConfig) -> None:
    """The second equation for one window [n_mels, frames], in place."""
    mel = config.mel
    divisor = _running_loudness(power, smoother(config))
    divisor += np.float32(mel.pcen_epsilon)
    np.log(divisor, out=divisor)
    divisor *= np.float32(-mel.pcen_gain)
    power *= np.exp(divisor, out=divisor)
    power += np.float32(mel.pcen_bias)
    np.log(power, out=power)
    power *= np.float32(mel.pcen_power)
    np.exp(power, out=power)
    power -= np.float32(mel.pcen_bias**mel.pcen_power)


def _running_loudness(power: Float32, smooth: Smoother) -> Float32:
    """M of one window's power, [n_mels, frames] both."""
    loudness = np.empty_like(power)
    before = power[:, :1]
    for start in range(0, power.shape[1], FRAMES_PER_BLOCK):
        block = power[:, start : start + FRAMES_PER_BLOCK]
        n_frames = block.shape[1]
        found = block @ smooth.within[:n_frames, :n_frames]
        found += before * smooth.after[:n_frames]
        loudness[:, start : start + n_frames] = found
        before = found[:, -1:]
    return loudness
