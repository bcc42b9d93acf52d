"""Two ways to move probabilities that several steps share: towards other values, and along the logit axis.

In: float32 probabilities [rows, species]. Out: the same shape, float32 in [0, 1]. Both reckon in double precision and
round once, at the end: rounded on the way, equal values would come out unequal in their last bit, and a rank metric
counts that as an order.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_ROWS_AT_ONCE = 1024
"""A day of sound is 17,280 rows."""


def row_blocks(n_rows: int) -> Iterator[slice]:
    """All rows in order, a bounded number at a time: what is reckoned in double precision stays small."""
    return (slice(begin, begin + _ROWS_AT_ONCE) for begin in range(0, n_rows, _ROWS_AT_ONCE))


def towards(own: Float32, target: Float32 | Float64, share: float | Float64) -> Float32:
    """Each value moves towards its target: p' = (1 - share) p + share target.

    Args:
        own: [rows, species], in [0, 1].
        target: the same shape, in [0, 1].
        share: 0 to 1, one or [rows, 1].

    Returns:
        [rows, species], between own and target; at share 0, and where they are equal, own to the bit, at share 1 the
        target as float32.
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

    Args:
        probabilities: [rows, species], in [0, 1].
        shifts: [species], finite, within -100 and 100.

    Returns:
        [rows, species], in [0, 1]; where a shift is 0 the same bits.
    """
    moved = np.flatnonzero(shifts)
    factors, shifted = np.exp(shifts[moved]), probabilities.copy()
    for rows in row_blocks(len(probabilities)):
        wide = probabilities[rows, moved].astype(np.float64)
        with np.errstate(divide="ignore"):  # p = 0 becomes 1 / (1 + infinity) = 0
            shifted[rows, moved] = 1 / (1 + (1 - wide) / (wide * factors))
    return shifted
