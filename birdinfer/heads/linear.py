"""A linear head: logistic regression on the embeddings of windows, and its cross-validation.

In: embeddings [windows, numbers] and their truth. Out: weights and offsets whose sigmoid, or softmax, is a probability.
The sigmoid is for recordings with any number of species; the softmax for sounds that are each one of the species.

Present and absent windows of a species count alike, however few it has, and so do recordings, however long they are.
That makes every species as likely as not; the mean prior of all species is added to the offsets, so that probabilities
of a sigmoid are of a usable size while a rare species is not ranked below a common one. (King and Zeng 2001, "Logistic
Regression in Rare Events Data", section 4.1, with one prior for all species.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from birdinfer.errors import MetadataError
from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops, times_drawn
from birdinfer.evaluation.metrics import macro_roc_auc, padded_cmap
from birdinfer.heads.labels import LabelledWindows
from birdinfer.inference.activation import activate
from birdinfer.typing import Bool, Float32, Float64, Index

PENALTIES = (1.0, 0.3, 0.1, 0.03)
"""Of the squared weights of standardised numbers: the one with the highest macro ROC-AUC is taken."""
HeadActivation = Literal["sigmoid", "softmax"]
_ITERATIONS = 100
_NEVER = -15.0
"""Logit of a species without a window to learn from."""
_N_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearHead:
    """Logits are ``embeddings @ weights + offsets``."""

    weights: Float32
    """[numbers, species]."""
    offsets: Float32
    """[species]."""
    activation: HeadActivation = "sigmoid"

    def predict(self, embeddings: Float32) -> Float32:
        """Predict the probabilities [windows, species] of windows [windows, numbers]."""
        return activate(embeddings.astype(np.float32) @ self.weights + self.offsets, self.activation)


class Score(NamedTuple):
    """A figure and its 95 % interval, by bootstrap over groups; both None where it cannot be computed."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidation:
    """What a head is worth on recordings that it was not fitted to."""

    penalty: float
    probabilities: Float32
    """[clips, species], each clip by the head of the other folds."""
    n_folds: int
    macro_auc: Score
    top1: Score
    """Share of the clips with one species whose highest probability is that species'."""
    cmap: float | None
    """Padded, as BirdCLEF 2023."""
    n_scored: int
    """Species that stand in more than one fold; the others cannot be scored."""


def fit_linear(
    embeddings: Float32, truth: Float32, weights: Float32, penalty: float, activation: HeadActivation = "sigmoid"
) -> LinearHead:
    """Fit a head.

    Args:
        embeddings: [windows, numbers].
        truth: 1 present, 0 absent, NaN unknown, [windows, species].
        weights: of the windows, above 0, [windows].
        penalty: of the squared weights of standardised numbers, above 0.
        activation: ``softmax`` needs one species in each window, and no cell unknown.
    """
    return fit_path(embeddings, truth, weights, [penalty], activation)[0]


def fit_path(
    embeddings: Float32,
    truth: Float32,
    weights: Float32,
    penalties: Sequence[float],
    activation: HeadActivation = "sigmoid",
) -> list[LinearHead]:
    """Fit a head for each of several penalties, each from the one before it: the highest first is the fastest."""
    mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
    # What never changes says nothing.
    spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, np.inf)
    inputs = torch.from_numpy(((embeddings - mean) / spread).astype(np.float32))
    shares, positive = _balanced(truth, weights)
    target, costs = torch.from_numpy(np.nan_to_num(truth)), torch.from_numpy(shares)
    slopes = torch.zeros((inputs.shape[1], truth.shape[1]), requires_grad=True)
    offsets = torch.zeros(truth.shape[1], requires_grad=True)

    def cost() -> torch.Tensor:
        logits = inputs @ slopes + offsets
        if activation == "softmax":
            present = target * costs
            return -(torch.nn.functional.log_softmax(logits, dim=1) * present).sum() / present.sum()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, costs, reduction="sum")

    is_known = (positive > 0) & (positive < 1)
    has_prior = activation == "sigmoid" and is_known.any()
    prior = np.log(positive[is_known] / (1 - positive[is_known])).mean() if has_prior else 0.0
    heads = []
    for penalty in penalties:
        _minimise(lambda penalty=penalty: cost() + penalty / 2 * slopes.square().sum(), [slopes, offsets])  # type: ignore[misc]
        found = np.where(positive > 0, slopes.detach().numpy() / spread[:, np.newaxis], 0.0).astype(np.float32)
        base = np.where(positive > 0, offsets.detach().numpy() + prior - mean @ found, _NEVER).astype(np.float32)
        heads.append(LinearHead(weights=found, offsets=base, activation=activation))
    return heads


def _minimise(cost: Callable[[], torch.Tensor], values: list[torch.Tensor]) -> None:
    """Change the values until the cost is least, by all windows at once (L-BFGS)."""
    optimiser = torch.optim.LBFGS(
        values, max_iter=_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        total = cost()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(step)  # type: ignore[no-untyped-call]


def _balanced(truth: Float32, weights: Float32) -> tuple[Float32, Float64]:
    """The share of each cell in its species' cost [windows, species], and how much of a species is present [species].

    Present and absent ones sum to a half each; a species without either costs nothing.
    """
    known = np.isfinite(truth)
    shares = np.where(known, weights[:, np.newaxis], 0.0)
    present, absent = np.where(truth == 1, shares, 0.0), np.where(truth == 0, shares, 0.0)
    sums = present.sum(axis=0), absent.sum(axis=0)
    each = sum(0.5 * np.divide(part, total, out=np.zeros_like(part), where=total > 0)
               for part, total in zip((present, absent), sums, strict=True))  # fmt: skip
    total = sums[0] + sums[1]
    positive = np.divide(sums[0], total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(each, np.float32), positive


def window_weights(clips: Index) -> Float32:
    """Weigh the windows [n] of clips so that each clip counts alike; their mean is 1."""
    weights = 1.0 / np.bincount(clips)[clips]
    return np.asarray(weights / weights.mean(), np.float32)


def split_groups(truth: Float32, groups: Index, n_folds: int, seed: int) -> Index:
    """Assign clips to folds, [clips]: a group lies in one, and a species is spread over all folds, where that can be.

    Groups come by the rarest of their species, in an order of chance within it; each goes where that species has the
    fewest clips, then where the fewest clips are.
    """
    present = truth == 1
    counts = present.sum(axis=0)
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    members = [np.flatnonzero(groups == group) for group in range(n_groups)]
    per_fold, size = np.zeros((n_folds, truth.shape[1])), np.zeros(n_folds)
    rarest = [_rarest(present[clips], counts) for clips in members]
    folds = np.zeros(len(groups), np.intp)
    for group in sorted(rng.permutation(n_groups), key=lambda each: counts[rarest[each]]):
        clips = members[group]
        fold = int(np.lexsort((size, per_fold[:, rarest[group]]))[0])
        folds[clips] = fold
        per_fold[fold] += present[clips].sum(axis=0)
        size[fold] += len(clips)
    return folds


def _rarest(present: Bool, counts: Index) -> int:
    own = np.flatnonzero(present.any(axis=0))
    return int(own[counts[own].argmin()]) if len(own) else int(counts.argmax())


def cross_validate(
    embeddings: Float32,
    labelled: LabelledWindows,
    *,
    n_folds: int,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    activation: HeadActivation = "sigmoid",
) -> CrossValidation:
    """Choose the penalty by cross-validation over groups, and score the head with it.

    ``embeddings``: of the labelled windows, [n, numbers].
    Raises MetadataError for fewer than two groups.
    """
    clip_truth = labelled.clip_truth
    if labelled.folds is not None:
        folds = labelled.folds
    else:
        n_folds = min(n_folds, int(labelled.groups.max()) + 1)
        folds = split_groups(clip_truth, labelled.groups, n_folds, seed) if n_folds > 1 else labelled.groups
    if folds.max() < 1:
        raise MetadataError("the labels", "are of one group of recordings", "two groups are needed to compare them")
    known: Bool = np.isfinite(clip_truth) & _is_in_several(clip_truth == 1, folds)
    tried = _out_of_fold(embeddings, labelled, folds, penalties, activation)
    aucs = [_macro_auc(clip_truth, known, each) for each in tried]
    # Of equal ones the greatest, which is the simplest.
    best = max(range(len(tried)), key=lambda index: (-1.0 if aucs[index] is None else aucs[index], penalties[index]))
    probabilities = tried[best]
    rng = np.random.default_rng(seed)
    return CrossValidation(
        penalty=penalties[best],
        probabilities=probabilities,
        n_folds=int(folds.max()) + 1,
        macro_auc=Score(aucs[best], _auc_interval(clip_truth, known, labelled.groups, probabilities, rng)),
        top1=_top1(clip_truth, probabilities, labelled.groups, rng),
        cmap=padded_cmap(clip_truth, probabilities) if np.isfinite(clip_truth).all() else None,
        n_scored=int(known.any(axis=0).sum()),
    )


def _out_of_fold(
    embeddings: Float32, labelled: LabelledWindows, folds: Index, penalties: Sequence[float], activation: HeadActivation
) -> list[Float32]:
    """Probabilities [clips, species] for each penalty, each clip by the head of the other folds."""
    fold_of_window, weights = folds[labelled.clips], window_weights(labelled.clips)
    found = [np.zeros_like(labelled.truth) for _ in penalties]
    for fold in range(int(folds.max()) + 1):
        rest, own = fold_of_window != fold, fold_of_window == fold
        heads = fit_path(embeddings[rest], labelled.truth[rest], weights[rest], penalties, activation)
        for probabilities, head in zip(found, heads, strict=True):
            probabilities[own] = head.predict(embeddings[own])
    return [labelled.mean_per_clip(probabilities) for probabilities in found]


def _is_in_several(present: Bool, folds: Index) -> Bool:
    n_folds = sum(present[folds == fold].any(axis=0).astype(np.intp) for fold in range(int(folds.max()) + 1))
    return np.asarray(n_folds) > 1


def _macro_auc(truth: Float32, known: Bool, probabilities: Float32) -> float | None:
    """Macro ROC-AUC over the known cells; None if no species can be scored."""
    if known.all():
        value = macro_roc_auc(truth, probabilities)
    else:
        columns = zip(truth.T, known.T, probabilities.T, strict=True)
        each = [macro_roc_auc(t[k, None], p[k, None]) for t, k, p in columns if k.any()]
        scored = [auc for auc in each if np.isfinite(auc)]
        value = float(np.mean(scored)) if scored else float("nan")
    return value if np.isfinite(value) else None


def _auc_interval(
    truth: Float32, known: Bool, groups: Index, probabilities: Float32, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Of the macro ROC-AUC: by how much it drops to a half, that of equal scores."""
    labelled = LabelledRows(truth == 1, known, groups)
    nothing = np.zeros(probabilities.shape)
    drops = resampled_drops(labelled, probabilities.astype(np.float64), nothing, _N_RESAMPLES, rng)
    return percentile_interval(drops + 0.5)


def _top1(truth: Float32, probabilities: Float32, groups: Index, rng: np.random.Generator) -> Score:
    single = (truth == 1).sum(axis=1) == 1
    single &= np.isfinite(truth).all(axis=1)
    if not single.any():
        return Score(None, None)
    right = (truth[single].argmax(axis=1) == probabilities[single].argmax(axis=1)).astype(np.float64)
    n_groups = int(groups.max()) + 1
    n, n_right = (np.bincount(groups[single], each, n_groups) for each in (None, right))
    (times,) = times_drawn(n_groups, _N_RESAMPLES, _N_RESAMPLES, rng)
    with np.errstate(invalid="ignore"):
        shares = (times @ n_right) / (times @ n)
    return Score(float(right.mean()), percentile_interval(shares[np.isfinite(shares)]))
