"""Smoothing over time: one file's probabilities [windows, species] in time order -> the same shape."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_ROWS_AT_ONCE = 1024


def smooth(probabilities: Float32, kernel: Sequence[float]) -> Float32:
    """Weighted mean of each window with its neighbours in time; a call rarely stops where a window does.

    At a file's two ends the kernel is cut and its remaining weights scaled to sum to 1, so that a constant stays
    constant. The kernels [.1, .2, .4, .2, .1] and [.2, .6, .2] are those of BirdCLEF 2025 and 2026 winners.

    Args:
        probabilities: [windows, species], one file in time order.
        kernel: an odd number of weights >= 0, the middle one for the window itself.

    Returns:
        [windows, species], within the range of the input of each species.
    """
    reach = len(kernel) // 2
    n_windows = len(probabilities)
    total = np.zeros_like(probabilities)
    weight_sum = np.zeros((n_windows, 1), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        here = slice(max(0, -offset), n_windows - max(0, offset))
        there = slice(max(0, offset), n_windows - max(0, -offset))
        if here.start < here.stop:
            weight_sum[here] += np.float32(weight)
            # Piece by piece: a day of sound is 17,280 rows, and its products would be as large as all its scores.
            for begin in range(0, here.stop - here.start, _ROWS_AT_ONCE):
                end = begin + _ROWS_AT_ONCE
                total[here][begin:end] += np.float32(weight) * probabilities[there][begin:end]
    # A kernel whose middle is 0 leaves a lone window without any weight: it stays as it is.
    unweighted = weight_sum[:, 0] == 0
    total[unweighted] = probabilities[unweighted]
    weight_sum[unweighted] = 1
    total /= weight_sum
    return total
