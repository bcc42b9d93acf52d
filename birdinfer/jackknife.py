"""How sure a difference of macro ROC-AUC is where the bootstrap believes too much: leave out one file after another.

In: as for :mod:`birdinfer.bootstrap`, two tables of scores on the same rows with their truth. Out: a standard error and
the interval that Student's t makes of it.

Resamples of few files vary less than files do, and a resample that draws a species' only file three times counts the
species once: where most species are heard in one file, useless steps exclude zero in 1 of 8 intervals of 95 % instead
of 1 of 20. Leaving out a file leaves out its species, too, and t knows how few files there are (Efron and Tibshirani
1993, "An Introduction to the Bootstrap", chapter 11; Hesterberg 2015, "What Teachers Should Know About the Bootstrap").
"""

import math

import numpy as np
import numpy.typing as npt

from birdinfer.bootstrap import Judged, auc_falls

Float64 = npt.NDArray[np.float64]

_MOST_GROUPS = 200
"""Of more files, some are left out together: the error is as sure, and thousands of clips cost no minutes."""
_MOST_FREEDOM = 1_000
"""Degrees of freedom; with more t hardly narrows: 1.9623 here, 1.9600 in the limit."""
_HALVINGS = 60


def jackknife_error(judged: Judged, wanted: Float64, found: Float64) -> float:
    """The standard error of the fall from ``wanted`` to ``found``: sqrt((g - 1) / g sum_i (fall_i - mean fall)^2).

    fall_i is the fall without the i-th of g groups of files; a group is one file up to 200 files.

    Args:
        judged: the rows.
        wanted: finite, any scale, [rows, labels].
        found: finite, of the same shape.

    Returns:
        0 or more; nan where without one of the groups no label can be scored.
    """
    n_groups = min(judged.n_clusters, _MOST_GROUPS)
    group = np.arange(judged.n_clusters) % n_groups
    falls = auc_falls(judged, wanted, found, (group != np.arange(n_groups)[:, np.newaxis]).astype(np.float64))
    return float(np.sqrt((n_groups - 1) * falls.var()))


def student_half_width(coverage: float, freedom: int) -> float:
    """How many standard errors lie between the middle of Student's t and the end of the interval of this coverage.

    Args:
        coverage: above 0, below 1.
        freedom: degrees of freedom, >= 1; more than 1,000 count as 1,000.
    """
    freedom = min(freedom, _MOST_FREEDOM)
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < coverage else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """The share of Student's t between -t and t, angle = atan(t / sqrt(freedom)).

    A finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    is_odd = freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for step in range(1 + is_odd, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * step / (step + 1)
    return (angle + math.sin(angle) * total) * 2 / math.pi if is_odd else math.sin(angle) * total
