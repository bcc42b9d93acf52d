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
_LONGEST_STEP = 5.0
_MOST_STEPS, _MOST_HALVINGS = 200, 20
_CLOSE = 1e-7
_ROUNDING = 1e-12
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
    likelihood = _likelihood(x, y, weights, curves)
    moving = np.arange(len(weights))
    for _ in range(_MOST_STEPS):
        step = _step(x, y, weights[moving], curves[moving])
        is_defined = ~np.isnan(step[:, 0])
        curves[moving[~is_defined]] = np.nan
        moving, step = moving[is_defined], step[is_defined]
        longest = np.abs(step).max(axis=1)
        step *= (_LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))[:, None]
        # Where right and wrong do not overlap, whole steps swing around the solution: a step that loses is halved.
        losing = np.arange(len(moving))
        for _ in range(_MOST_HALVINGS):
            rows = moving[losing]
            reached = _likelihood(x, y, weights[rows], curves[rows] + step[losing])
            losing = losing[reached < likelihood[rows] - _ROUNDING * (1 + np.abs(likelihood[rows]))]
            if not losing.size:
                break
            step[losing] *= 0.5
        curves[moving] += step
        likelihood[moving] = _likelihood(x, y, weights[moving], curves[moving])
        moving = moving[longest > _CLOSE]
        if not moving.size:
            break
    return curves


def _likelihood(x: Float64, y: Float64, weights: Float64, curves: Float64) -> Float64:
    """Firth's penalised log likelihood, up to a constant, [resamples]; minus infinity where the penalty is."""
    line = curves[:, :1] * x + curves[:, 1:]
    share = 0.5 + 0.5 * np.tanh(0.5 * line)
    information = weights * share * (1 - share)
    s0, s1, s2 = information.sum(axis=1), information @ x, information @ (x * x)
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = 0.5 * np.log(np.maximum(s0 * s2 - s1 * s1, 0.0))
    likelihood: Float64 = (weights * (y * line - np.logaddexp(0.0, line))).sum(axis=1) + penalty
    return likelihood


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
