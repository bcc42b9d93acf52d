"""How loud a waveform is, and which are too quiet or too loud to be worked on: [samples] or [windows, samples] -> RMS.

Loudness is the root of the mean square, 1 being full scale. Every ratio between two sounds is one of these.
"""

import math

import numpy as np
import torch

from birdinfer.typing import Float32

SILENCE_RMS = 1e-7
"""-140 dB: nothing to measure a signal-to-noise ratio by."""

LOUDEST_RMS = 1e6
"""120 dB above full scale is no sound but a damaged file of floats. Such a window is left as it is: below this, nothing
that a recipe can ask for leaves the range of float32 (and nothing is ever clipped)."""


def rms(samples: Float32) -> float:
    """The loudness of [samples], 0 for none at all; summed in double, for squares of float32 overflow and round."""
    return math.sqrt(float(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def batch_rms(waveforms: torch.Tensor) -> torch.Tensor:
    """The loudness of each of [windows, samples], float32 [windows]; infinite where squares overflow."""
    return waveforms.square().mean(dim=1).sqrt()


def is_sound(level: float) -> bool:
    """Whether this loudness is neither silence nor damage."""
    return SILENCE_RMS <= level <= LOUDEST_RMS


def are_sounds(levels: torch.Tensor) -> torch.Tensor:
    """Which of these loudnesses are neither silence nor damage; bool, of the same shape."""
    return (levels >= SILENCE_RMS) & (levels <= LOUDEST_RMS)
