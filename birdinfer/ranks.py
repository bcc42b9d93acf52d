"""Scores -> ranks per class over all rows of all files: what is left of models whose scores are not comparable.

In: [rows, classes], any finite numbers. Out: the same shape, 0 <= rank < 1. Ranks need every row of every file at
once, and so are made of whole tables (:mod:`birdinfer.table_blend`), never while a run is going on.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def rank_per_class(values: npt.NDArray[np.floating[Any]]) -> Float64:
    """Each class's scores by their order alone: (average rank - 1) / rows.

    The least begins at 0, rows of one score share the mean of the ranks that they take up, and the greatest stays below
    1, so that the rows of ones that padded cmAP adds (BirdCLEF 2023) still stand above it. Neither a monotone function
    of a class's scores nor the order of rows changes it.

    Args:
        values: [rows, classes], finite.

    Returns:
        [rows, classes], in [0, 1).
    """
    ranks = np.empty(values.shape, np.float64)
    for column in range(values.shape[1]):
        _, level, in_level = np.unique(values[:, column], return_inverse=True, return_counts=True)
        below = np.cumsum(in_level) - in_level
        ranks[:, column] = (below + (in_level - 1) / 2)[level] / len(values)
    return ranks
