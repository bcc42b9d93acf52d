"""Move probabilities, as several steps do: towards other values, or along the logit axis.

In: float32 probabilities [rows, species]. Out: the same shape, float32 in [0, 1]. Both compute in double precision and
round once: with intermediate rounding, equal values could differ in their last bit, which a rank metric counts as an
order.
"""

from collections.abc import Iterator

import numpy as np

from birdinfer.typing import Float32, Float64

_ROWS_AT_ONCE = 1024
"""A day of sound is 17,280 rows."""


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Yield slices of a bounded number of rows: arrays in double precision stay small."""
    return (slice(begin, begin + _ROWS_AT_ONCE) for begin in range(0, n_rows, _ROWS_AT_ONCE))


def lerp(own: Float32, target: Float32 | Float64, share: float | Float64) -> Float32:
    """Move each value towards its target: p' = (1 - share) p + share target; share 0 to 1, one or [rows, 1].

    Returns [rows, species], between own and target; at share 0, and where they are equal, the same bits as own, at
    share 1 the target as float32.

    >>> lerp(np.array([[0.0]], np.float32), np.array([[1.0]], np.float32), 0.25).tolist()
    [[0.25]]
    """
    moved, shares = np.empty_like(own), np.broadcast_to(share, own.shape)
    for rows in row_blocks(len(own)):
        # Not p + share * (target - p), which loses a target that is tiny beside p.
        share_here = shares[rows].astype(np.float64)
        moved[rows] = (1 - share_here) * own[rows] + share_here * target[rows]
    return moved


def shift_logits(probabilities: Float32, shifts: Float64) -> Float32:
    """Add to each logit: logit p' = logit p + shift.

    Computed as p' = 1 / (1 + (1 - p) / (p e^shift)), which is the same and holds at 0 and 1, too.
    Returns [rows, species], in [0, 1]; where a shift is 0 the same bits.
    """
    moved = np.flatnonzero(shifts)
    factors, shifted = np.exp(shifts[moved]), probabilities.copy()
    for rows in row_blocks(len(probabilities)):
        wide = probabilities[rows, moved].astype(np.float64)
        with np.errstate(divide="ignore"):  # p = 0 becomes 1 / (1 + infinity) = 0
            shifted[rows, moved] = 1 / (1 + (1 - wide) / (wide * factors))
    return shifted
