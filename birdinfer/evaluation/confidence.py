"""Confidence of a difference of macro ROC-AUC: two tables of scores on the same rows -> its interval.

* A drop is from ``reference`` to ``candidate``: above 0, ``candidate`` is worse.
* Rows of one file are similar, so files are resampled, not rows: the cluster bootstrap (Davison and Hinkley 1997,
  "Bootstrap Methods and their Application", section 3.8), paired: both tables are evaluated on the same resamples.
* A cell that is not known counts nowhere. A label counts in a resample that has a positive and a negative of it.
* One generator makes one list of resamples, whatever is compared on it and however much memory there is.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from birdinfer.typing import Bool, Float64, Index

_CELLS_AT_ONCE = 2**22
"""Of any intermediate table: 32 MB, so that memory does not grow with rows or resamples."""


class LabelledRows(NamedTuple):
    """Rows with known truth, and the files they come from."""

    truth: Bool
    known: Bool
    """[rows, labels]; a cell that is False counts nowhere."""
    clusters: Index
    """[rows], from 0: the file or recording of each row; no number up to the highest is left out."""

    @property
    def n_clusters(self) -> int:
        """Number of files or recordings."""
        return int(self.clusters.max()) + 1


def resampled_drops(
    labelled: LabelledRows, reference: Float64, candidate: Float64, n_resamples: int, rng: np.random.Generator
) -> Float64:
    """Compute how much macro ROC-AUC drops from ``reference`` to ``candidate``, on resamples of the clusters.

    ``reference``: finite, any scale, [rows, labels].
    ``n_resamples``: >= 1; each draws ``n_clusters`` clusters with replacement.
    Returns a drop per resample; resamples without any label that can be scored are left out.
    """
    at_once = max(1, _CELLS_AT_ONCE // max(labelled.n_clusters, labelled.truth.shape[1]))
    blocks = times_drawn(labelled.n_clusters, n_resamples, at_once, rng)
    drops = np.concatenate([auc_drops(labelled, reference, candidate, times) for times in blocks])
    defined: Float64 = drops[~np.isnan(drops)]
    return defined


def percentile_interval(values: Float64, coverage: float = 0.95) -> tuple[float, float] | None:
    """Find the central interval that holds this share of the values, one per resample; None if there are none.

    >>> percentile_interval(np.arange(101.0), 0.5)
    (25.0, 75.0)
    """
    if not len(values):
        return None
    tail_percent = 50 * (1 - coverage)
    low, high = np.percentile(values, (tail_percent, 100 - tail_percent))
    return float(low), float(high)


def auc_drops(labelled: LabelledRows, reference: Float64, candidate: Float64, times: Float64) -> Float64:
    """Compute how much macro ROC-AUC drops from ``reference`` to ``candidate``, with a weight for each cluster.

    ROC-AUC is the share of the pairs of a positive and a negative that are in order (Mann and Whitney 1947); the weight
    of a pair is the product of its two clusters' weights. So the pairs are counted once, for each pair of clusters, and
    weighted by two matrix products.

    ``reference``: finite, any scale, [rows, labels].
    ``times``: >= 0, weight of each cluster (how often it was drawn), [resamples, clusters].
    Returns [resamples]; nan where no label has a positive and a negative.
    """
    order = np.argsort(labelled.clusters, kind="stable")
    clusters = labelled.clusters[order]
    before, after = reference[order], candidate[order]
    positive, negative = (labelled.truth & labelled.known)[order], (~labelled.truth & labelled.known)[order]
    pairs = np.prod([times @ _summed(cells.astype(np.float64), clusters) for cells in (positive, negative)], axis=0)
    drop = np.zeros(len(times))
    for label in np.flatnonzero(pairs.any(axis=0)):
        lost = _lost(before[:, label], after[:, label], positive[:, label], negative[:, label], clusters, times)
        drop += np.divide(lost, pairs[:, label], out=np.zeros_like(lost), where=pairs[:, label] > 0)
    n_scored = (pairs > 0).sum(axis=1)
    mean: Float64 = np.divide(drop, n_scored, out=np.full_like(drop, np.nan), where=n_scored > 0)
    return mean


def _lost(before: Float64, after: Float64, positive: Bool, negative: Bool, clusters: Index, times: Float64) -> Float64:
    """[resamples], of one label: pairs in order before, minus those after; rows in the order of their clusters."""
    lost = np.zeros(len(times))
    rivals, places = clusters[negative], np.flatnonzero(positive)
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(rivals), len(times)))
    for begin in range(0, len(places), at_once):
        some = places[begin : begin + at_once]
        change = _won(before[some], before[negative]) - _won(after[some], after[negative])
        if change.any():
            own, between = _between_clusters(change, rivals, clusters[some])
            lost += np.einsum("rc,rc->r", times[:, np.unique(rivals)] @ between, times[:, own])
    return lost


def _won(positives: Float64, negatives: Float64) -> Float64:
    """[negatives, positives]: 1 where the positive is higher, 1/2 where equal, else 0."""
    above, beside = positives[np.newaxis], negatives[:, np.newaxis]
    won: Float64 = (above > beside) + 0.5 * (above == beside)
    return won


def _between_clusters(change: Float64, rivals: Index, owners: Index) -> tuple[Index, Float64]:
    """The clusters of the positives, and ``change`` summed to [clusters of negatives, clusters of positives]."""
    own, begins = np.unique(owners, return_index=True)
    summed = np.add.reduceat(_summed(change, rivals), begins, axis=1)
    return own, summed


def _summed(values: Float64, clusters: Index) -> Float64:
    """Rows in the order of their clusters, summed to one row for each cluster that has any."""
    _, begins = np.unique(clusters, return_index=True)
    summed: Float64 = np.add.reduceat(values, begins, axis=0)
    return summed


def times_drawn(n_clusters: int, n_resamples: int, at_once: int, rng: np.random.Generator) -> Iterator[Float64]:
    """How often each cluster is drawn: blocks [resamples, clusters]."""
    even = np.full(n_clusters, 1.0 / n_clusters)
    for begin in range(0, n_resamples, at_once):
        yield rng.multinomial(n_clusters, even, size=min(at_once, n_resamples - begin)).astype(np.float64)


# ---- Jackknife

_MAX_GROUPS = 200
"""Of more files, some are left out together: the error is as reliable, and thousands of clips take no minutes."""
_MAX_FREEDOM = 1_000
"""Degrees of freedom; beyond, t hardly narrows: 1.9623 here, 1.9600 in the limit."""
_HALVINGS = 60


def jackknife_error(labelled: LabelledRows, reference: Float64, candidate: Float64) -> float:
    """Compute the standard error of the drop: sqrt((g - 1) / g sum_i (drop_i - mean drop)^2).

    drop_i is the drop without the i-th of g groups of files; a group is one file up to 200 files.
    Returns 0 or more; nan if no label can be scored without one of the groups.
    """
    n_groups = min(labelled.n_clusters, _MAX_GROUPS)
    group = np.arange(labelled.n_clusters) % n_groups
    drops = auc_drops(labelled, reference, candidate, (group != np.arange(n_groups)[:, np.newaxis]).astype(np.float64))
    return float(np.sqrt((n_groups - 1) * drops.var()))


def student_half_width(coverage: float, freedom: int) -> float:
    """Compute half the width of Student's t interval, in standard errors.

    More than 1,000 degrees of ``freedom`` count as 1,000.

    >>> round(student_half_width(0.95, 10), 3)
    2.228
    """
    freedom = min(freedom, _MAX_FREEDOM)
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
