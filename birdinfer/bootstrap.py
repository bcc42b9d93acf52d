"""How sure a difference of macro ROC-AUC is: two tables of scores on the same rows -> its interval.

In: truth [rows, labels], which of its cells are known, the two tables, and which cluster (file, recording) each row
belongs to. Out: the difference on resamples of the clusters, and the interval that holds most of them. Pure numpy.

Conventions
-----------
* A fall is from ``wanted`` to ``found``: above 0, ``found`` is worse.
* Rows of one file are alike, so files are resampled, not rows: the cluster bootstrap (Davison and Hinkley 1997,
  "Bootstrap Methods and their Application", section 3.8), paired, for both tables meet the same resamples.
* A cell that is not known counts nowhere. A label counts in a resample that has a positive and a negative of it.
* One generator makes one list of resamples, whatever is compared on it and however much memory there is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

_CELLS_AT_ONCE = 2**22
"""Of any table that is made on the way: 32 MB, so that memory does not grow with rows or resamples."""


class Judged(NamedTuple):
    """Rows of which the truth is known, and what they were cut from."""

    truth: Bool
    """[rows, labels]."""
    known: Bool
    """[rows, labels]; a cell that is False counts nowhere."""
    clusters: Index
    """[rows], from 0: the file or recording of each row; none of the numbers up to the highest is left out."""

    @property
    def n_clusters(self) -> int:
        """How many files or recordings there are."""
        return int(self.clusters.max()) + 1


def resampled_falls(
    judged: Judged, wanted: Float64, found: Float64, n_resamples: int, rng: np.random.Generator
) -> Float64:
    """By how much macro ROC-AUC falls from ``wanted`` to ``found``, on resamples of the clusters.

    Args:
        judged: the rows.
        wanted: finite, any scale, [rows, labels].
        found: finite, of the same shape.
        n_resamples: >= 1; each draws as many clusters as there are, with replacement.
        rng: which clusters each resample draws.

    Returns:
        A fall per resample; a resample without any label that can be scored tells nothing and is left out.
    """
    at_once = max(1, _CELLS_AT_ONCE // max(judged.n_clusters, judged.truth.shape[1]))
    blocks = _times_drawn(judged.n_clusters, n_resamples, at_once, rng)
    falls = np.concatenate([auc_falls(judged, wanted, found, times) for times in blocks])
    told: Float64 = falls[~np.isnan(falls)]
    return told


def percentile_interval(values: Float64, coverage: float = 0.95) -> tuple[float, float] | None:
    """The interval that holds this share of the values, as many of the rest below as above.

    Args:
        values: one per resample.
        coverage: above 0, below 1.

    Returns:
        Its lower and its upper end; None if there are no values.
    """
    if not len(values):
        return None
    tail_percent = 50 * (1 - coverage)
    low, high = np.percentile(values, (tail_percent, 100 - tail_percent))
    return float(low), float(high)


def auc_falls(judged: Judged, wanted: Float64, found: Float64, times: Float64) -> Float64:
    """By how much macro ROC-AUC falls from ``wanted`` to ``found``, where clusters count several times or not at all.

    ROC-AUC is the share of the pairs of a positive and a negative that are in order (Mann and Whitney 1947); a pair
    counts as often as the product of its two clusters' times. So the pairs are counted once, for each pair of clusters,
    and weighed by two products of matrices.

    Args:
        judged: the rows.
        wanted: finite, any scale, [rows, labels].
        found: finite, of the same shape.
        times: >= 0, how often each cluster counts, [resamples, clusters].

    Returns:
        [resamples]; nan where no label has a positive and a negative.
    """
    order = np.argsort(judged.clusters, kind="stable")
    clusters = judged.clusters[order]
    before, after = wanted[order], found[order]
    positive, negative = (judged.truth & judged.known)[order], (~judged.truth & judged.known)[order]
    pairs = np.prod([times @ _summed(cells.astype(np.float64), clusters) for cells in (positive, negative)], axis=0)
    fall = np.zeros(len(times))
    for label in np.flatnonzero(pairs.any(axis=0)):
        lost = _lost(before[:, label], after[:, label], positive[:, label], negative[:, label], clusters, times)
        fall += np.divide(lost, pairs[:, label], out=np.zeros_like(lost), where=pairs[:, label] > 0)
    n_scored = (pairs > 0).sum(axis=1)
    mean: Float64 = np.divide(fall, n_scored, out=np.full_like(fall, np.nan), where=n_scored > 0)
    return mean


def _lost(before: Float64, after: Float64, positive: Bool, negative: Bool, clusters: Index, times: Float64) -> Float64:
    """[resamples], of one label: pairs in order before, less those after; rows in the order of their clusters."""
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
    """[negatives, positives]: 1 where the positive is above, 1/2 where level, else 0."""
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


def _times_drawn(n_clusters: int, n_resamples: int, at_once: int, rng: np.random.Generator) -> Iterator[Float64]:
    """How often each cluster is drawn: blocks [resamples, clusters]."""
    even = np.full(n_clusters, 1.0 / n_clusters)
    for begin in range(0, n_resamples, at_once):
        yield rng.multinomial(n_clusters, even, size=min(at_once, n_resamples - begin)).astype(np.float64)
