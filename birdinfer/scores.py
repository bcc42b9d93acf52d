"""Logits -> probabilities [windows, species], float32 in [0, 1]."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def sigmoid(logits: Float32) -> Float32:
    """Independent probability per species: 1 / (1 + exp(-x)).

    Computed as (1 + tanh(x / 2)) / 2, which neither overflows for large |x| nor warns.

    Args:
        logits: any shape, finite or not; NaN stays NaN.

    Returns:
        The same shape, in [0, 1].
    """
    half: Float32 = np.tanh(np.float32(0.5) * logits)
    half *= np.float32(0.5)
    half += np.float32(0.5)
    return half
