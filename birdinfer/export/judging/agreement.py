"""Does another graph say the same as fp32? Two tables of logits and what is known of the windows -> :class:`Agreement`.

In: logits [windows, labels] of fp32 and of the other graph, on the same windows. Out: macro ROC-AUC of both, how far it
falls and between which bounds, rank correlation label by label, differences of probability. Pure numpy; no file.

Conventions
-----------
* A fall is fp32's less the other's: above 0 the other is worse.
* ROC-AUC ranks logits, or log-softmax where that is the activation: the order of the probabilities, without the ties
  that rounding makes of them near 0 and 1.
* A cell that is not known counts in no ROC-AUC. A label is scored if it has a positive window and a negative one.
* Windows of one recording are alike, so recordings are resampled, not windows (:mod:`birdinfer.bootstrap`), with both
  graphs on the same resamples.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.bootstrap import Judged, percentile_interval, resampled_falls
from birdinfer.errors import ParityError
from birdinfer.export.windows.labelled import LabelledWindows
from birdinfer.metrics import roc_auc_per_class
from birdinfer.scores import activate

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_RESAMPLES = 40
"""First element of the bootstrap's seed."""


class Agreement(NamedTuple):
    """A graph beside fp32; None where labels, or windows that differ, are too few to tell."""

    macro_auc_fp32: float | None
    macro_auc: float | None
    auc_fall: float | None
    """Macro ROC-AUC of fp32 less its own."""
    auc_fall_interval: tuple[float, float] | None
    """Of 95 %: percentiles of the fall over resampled recordings; None of a single recording."""
    least_spearman: float | None
    """Of the label where it is least."""
    least_spearman_label_index: int | None
    mean_spearman: float | None
    """Over labels."""
    max_probability_difference: float
    mean_probability_difference: float


def compare(
    wanted_logits: Float32,
    found_logits: Float32,
    labelled: LabelledWindows,
    activation: str,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Hold a graph against fp32. 500 windows of 206 labels take a second or two.

    Args:
        wanted_logits: of fp32, [windows, labels].
        found_logits: of the other graph, of the same shape.
        labelled: the windows that both have heard. Where no cell is known, there is no ROC-AUC.
        activation: ``sigmoid``, ``softmax`` or ``none``.
        n_resamples: of the bootstrap, >= 1.
        seed: of the bootstrap.

    Raises:
        ParityError: shapes disagree, or a logit is not finite.
    """
    _refuse(wanted_logits, found_logits, labelled)
    fp32, other = (_to_rank(logits, activation) for logits in (wanted_logits, found_logits))
    auc_fp32, auc = (_macro_auc(labelled, values) for values in (fp32, other))
    correlations = spearman_per_label(wanted_logits, found_logits)
    least = None if np.isnan(correlations).all() else int(np.nanargmin(correlations))
    difference = np.abs(activate(found_logits, activation) - activate(wanted_logits, activation))
    return Agreement(
        macro_auc_fp32=auc_fp32,
        macro_auc=auc,
        auc_fall=None if auc_fp32 is None or auc is None else auc_fp32 - auc,
        auc_fall_interval=_interval(labelled, fp32, other, n_resamples, seed),
        least_spearman=None if least is None else float(correlations[least]),
        least_spearman_label_index=least,
        mean_spearman=None if least is None else float(np.nanmean(correlations)),
        max_probability_difference=float(difference.max()),
        mean_probability_difference=float(difference.mean()),
    )


def spearman_per_label(wanted: Float32, found: Float32) -> Float64:
    """Spearman's rank correlation: Pearson's of the ranks, where equal values share the mean of theirs.

    Args:
        wanted: finite, [windows, labels].
        found: finite, of the same shape.

    Returns:
        [labels], -1 to 1; nan where ``wanted`` is the same in all windows, 0 where only ``found`` is.
    """
    a, b = (_average_ranks(values) for values in (wanted, found))
    a -= a.mean(axis=0)
    b -= b.mean(axis=0)
    squares_a, squares_b = (a * a).sum(axis=0), (b * b).sum(axis=0)
    # Divided by either root in turn, identical ranks would not give exactly 1.
    size = np.sqrt(squares_a * squares_b)
    correlation: Float64 = np.divide((a * b).sum(axis=0), size, out=np.zeros_like(size), where=size > 0)
    correlation = np.clip(correlation, -1.0, 1.0)
    correlation[squares_a == 0] = np.nan
    return correlation


def _interval(
    labelled: LabelledWindows, wanted: Float64, found: Float64, n_resamples: int, seed: int
) -> tuple[float, float] | None:
    """Of the fall, over resamples of the recordings."""
    _, recordings = np.unique(labelled.recordings, return_inverse=True)
    judged = Judged(labelled.truth, labelled.known, recordings)
    if judged.n_clusters == 1:
        return None  # a resample of one recording is that recording
    rng = np.random.default_rng((_RESAMPLES, seed))
    return percentile_interval(resampled_falls(judged, wanted, found, n_resamples, rng))


def _macro_auc(labelled: LabelledWindows, values: Float64) -> float | None:
    """Mean ROC-AUC of the labels that can be scored, each on the windows where it is known."""
    columns = zip(labelled.known.T, labelled.truth.T, values.T, strict=True)
    aucs = [float(roc_auc_per_class(truth[known, None], ranked[known, None])[0]) for known, truth, ranked in columns]
    scored = [auc for auc in aucs if not np.isnan(auc)]
    return float(np.mean(scored)) if scored else None


def _to_rank(logits: Float32, activation: str) -> Float64:
    """What orders windows as their probabilities do, [windows, labels]."""
    values = logits.astype(np.float64)
    if activation != "softmax":
        return values
    values -= values.max(axis=1, keepdims=True)
    log_share: Float64 = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return log_share


def _average_ranks(values: Float32) -> Float64:
    """Rank of each row within its column, from 1; equal values share the mean of theirs."""
    ranks = np.empty(values.shape, np.float64)
    for column, own in zip(ranks.T, values.T, strict=True):
        _, level, in_level = np.unique(own, return_inverse=True, return_counts=True)
        column[:] = (np.cumsum(in_level) - (in_level - 1) / 2)[level]
    return ranks


def _refuse(wanted: Float32, found: Float32, labelled: LabelledWindows) -> None:
    if not wanted.shape == found.shape == labelled.truth.shape == labelled.known.shape or not wanted.size:
        shapes = f"{wanted.shape}, {found.shape} and {labelled.truth.shape}"
        raise ParityError("logits", f"of fp32, of the other graph and truth have the shapes {shapes}", "one is needed")
    for name, logits in (("fp32", wanted), ("the other graph", found)):
        n_wrong = int((~np.isfinite(logits)).any(axis=1).sum())
        if n_wrong:
            raise ParityError("logits", f"{name} answers {n_wrong} of {len(logits)} windows with what is no number")
