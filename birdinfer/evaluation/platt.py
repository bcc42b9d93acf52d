"""Fit a logistic curve to right and wrong by bootstrap: logits of confidences, right or wrong -> slope and intercept.

* The curve is Platt's (1999): P(right | x) = 1 / (1 + exp(-(slope x + intercept))). How reviews were sampled by
  confidence does not move it, because it is conditional on the confidence.
* It is fitted with Firth's penalty (1993, "Bias Reduction of Maximum Likelihood Estimates"; Heinze and Schemper 2002):
  finite where right and wrong do not overlap, as they do not in many resamples of few reviews, and less biased.
* Reviews of one recording are alike, so recordings are resampled: the cluster bootstrap, see
  :mod:`birdinfer.evaluation.confidence`.
* Percentiles of few clusters are too narrow. They are taken further out, as far as Student's t lies beyond the normal
  distribution (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentiles), for the number
  of clusters of equal size that would be as certain: n^2 / sum n_i^2 (Kish 1965).
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from birdinfer.evaluation.confidence import student_half_width, times_drawn
from birdinfer.typing import Bool, Float64, Index

COVERAGE = 0.9
_CELLS_AT_ONCE = 2**13
"""Of any intermediate table: 64 kB, which stay in a core's cache."""
_LONGEST_STEP = 2.0
_SHARES = (*[1.0] * 10, *[0.5] * 20, *[0.2] * 60)
"""Of each step that is taken: where right and wrong do not overlap, whole steps swing around the solution."""
_CLOSE = 1e-7
_SINGULAR = 1e-9


class Answers(NamedTuple):
    """Reviewed detections, [reviews] each."""

    logits: Float64
    right: Bool
    clusters: Index
    """From 0: what is resampled; no number up to the highest is left out."""


def fit_curves(answers: Answers, times: Float64) -> Float64:
    """Fit a curve for each weighting of the clusters.

    ``times``: how often each cluster counts, [resamples, clusters].
    Returns slope and intercept, [resamples, 2]; nan where all that counts has one confidence.
    """
    # Newton's steps are those of a centred and scaled x, where slope and intercept hardly depend on each other.
    center, scale = answers.logits.mean(), answers.logits.std() or 1.0
    x, y = (answers.logits - center) / scale, answers.right.astype(np.float64)
    at_once = max(1, _CELLS_AT_ONCE // len(x))
    fitted = [_fit(x, y, times[rows][:, answers.clusters]) for rows in _blocks(len(times), at_once)]
    slope, intercept = np.concatenate(fitted).T
    return np.column_stack([slope / scale, intercept - slope * center / scale])


class Resampled(NamedTuple):
    """Curves of resamples of the clusters."""

    curves: Float64
    """Slope and intercept, [resamples, 2]."""
    clusters: Index
    """[reviews]"""


def resample_curves(answers: Answers, n_resamples: int, rng: np.random.Generator) -> Resampled:
    """Fit a curve to each resample of the clusters; those of one confidence alone, which have none, are left out."""
    n_clusters = int(answers.clusters.max()) + 1
    (times,) = times_drawn(n_clusters, n_resamples, n_resamples, rng)
    curves = fit_curves(answers, times)
    return Resampled(curves[~np.isnan(curves[:, 0])], answers.clusters)


def widest_interval(resampled: Sequence[Resampled], figure: Callable[[Float64], Float64]) -> tuple[float, float]:
    """Find the 90 % interval of a figure of curves ([resamples, 2] -> [resamples]), the widest of several."""
    ends = [expanded_interval(figure(curves), clusters) for curves, clusters in resampled]
    return max(ends, key=lambda end: end[1] - end[0])


def expanded_interval(values: Float64, clusters: Index) -> tuple[float, float]:
    """Find the 90 % interval of a figure, one value per resample of these clusters; infinite values are allowed."""
    effective = effective_number(clusters)
    freedom = max(1, round(effective - 1))
    inflated = student_half_width(COVERAGE, freedom) * (effective / max(effective - 1, 0.5)) ** 0.5
    tail = NormalDist().cdf(-inflated)
    # Not interpolated, because a difference of infinities is none.
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def effective_number(clusters: Index) -> float:
    """Compute how many clusters of equal size are as certain as these, 1 to the number of clusters.

    >>> effective_number(np.array([0, 0, 1, 1])), effective_number(np.array([0, 0, 0, 1]))
    (2.0, 1.6)
    """
    sizes = np.bincount(clusters)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _blocks(n_rows: int, at_once: int) -> Iterator[slice]:
    return (slice(begin, begin + at_once) for begin in range(0, n_rows, at_once))


def _fit(x: Float64, y: Float64, weights: Float64) -> Float64:
    """Slope and intercept of each weighting [resamples, reviews], by Newton's method on Firth's score."""
    curves = np.zeros((len(weights), 2))
    moving = np.arange(len(weights))
    for share in _SHARES:
        step = _step(x, y, weights[moving], curves[moving])
        longest = np.abs(step).max(axis=1)
        curves[moving] += step * (share * _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))[:, None]
        moving = moving[longest > _CLOSE]
        if not moving.size:
            break
    return curves


def _step(x: Float64, y: Float64, weights: Float64, curves: Float64) -> Float64:
    share = 0.5 + 0.5 * np.tanh(0.5 * (curves[:, :1] * x + curves[:, 1:]))  # the logistic curve, without overflow
    spread = share * (1 - share)
    information = weights * spread
    s0, s1, s2 = information.sum(axis=1), information @ x, information @ (x * x)
    determinant = s0 * s2 - s1 * s1
    determinant[determinant < _SINGULAR] = np.nan
    # What one review of weight 1 adds to its own fit: the diagonal of the hat matrix.
    a, b, c = (each[:, None] / determinant[:, None] for each in (s2, s1, s0))
    hat = spread * (a - 2 * b * x + c * x * x)
    score = weights * (y - share + hat * (0.5 - share))
    u0, u1 = score.sum(axis=1), score @ x
    step: Float64 = np.column_stack([s0 * u1 - s1 * u0, s2 * u0 - s1 * u1]) / determinant[:, None]
    return step
