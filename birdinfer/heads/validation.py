"""What a head is worth on recordings that it was not fitted to: cross-validation over groups, and heads compared by it.

In: a :class:`Learner`, which fits heads to some of the labelled windows and predicts others. Out:
:class:`CrossValidation`. Where a learner has several strengths to choose from, that of each fold is chosen by the other
folds alone (nested), so that the figures do not gain by the choice. All intervals are of 95 %, over groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from birdinfer.errors import MetadataError
from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops, times_drawn
from birdinfer.evaluation.metrics import macro_roc_auc, padded_cmap
from birdinfer.heads.labels import LabelledWindows
from birdinfer.typing import Bool, Float32, Float64, Index

_N_RESAMPLES = 500
_TAIL = 0.025

Interval = tuple[float, float]
Predict = Callable[[Bool], Float32]
"""Some of the labelled windows [n] -> their probabilities [m, species]."""


class Learner(Protocol):
    """Fits heads to labelled windows."""

    @property
    def strengths(self) -> Sequence[float]:
        """What it has to choose from, the simplest first."""
        ...

    def fit(self, windows: Bool) -> list[Predict]:
        """Fit to some of the labelled windows [n]: a head for each strength."""
        ...


class Score(NamedTuple):
    """A figure and its 95 % interval, by bootstrap over groups; both None where it cannot be computed."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidation:
    """What a head is worth on recordings that it was not fitted to."""

    strength: float
    """Of all strengths the one with the highest macro ROC-AUC over all folds: for the head that is fitted to all."""
    probabilities: Float32
    """[clips, species], each clip by a head of the other folds, with the strength that is best in these."""
    n_folds: int
    macro_auc: Score
    top1: Score
    """Share of the clips with one species, of those scored, whose highest probability is that species'."""
    cmap: float | None
    """Padded, as BirdCLEF 2023."""
    unscored: tuple[str, ...]
    """Labels of species that stand in one fold alone, and so cannot be scored."""
    known: Bool
    """[clips, species]: the cells that are scored."""


def assign_folds(labelled: LabelledWindows, n_folds: int, seed: int) -> Index:
    """Take the table's folds [clips], or split groups; MetadataError for fewer than two groups."""
    if labelled.folds is not None:
        folds = labelled.folds
    else:
        n_folds = min(n_folds, int(labelled.groups.max()) + 1)
        folds = split_groups(labelled.clip_truth, labelled.groups, n_folds, seed) if n_folds > 1 else labelled.groups
    if folds.max() < 1:
        raise MetadataError("the labels", "are of one group of recordings", "two groups are needed to compare them")
    return folds


def cross_validate(learner: Learner, labelled: LabelledWindows, folds: Index, seed: int) -> CrossValidation:
    """Score a learner's heads on the clips of each fold ([clips], from 0), fitted to those of the others."""
    truth = labelled.clip_truth
    present = truth == 1
    known: Bool = np.isfinite(truth) & _is_in_several(present, folds)
    fits = _Fits(learner, labelled)
    every = range(int(folds.max()) + 1)
    tried = np.zeros((len(learner.strengths), *truth.shape), np.float32)
    probabilities = np.zeros_like(truth)
    for fold in every:
        own = folds == fold
        tried[:, own] = fits.predict(~own, own)
        if len(learner.strengths) > 1:
            probabilities[own] = tried[_best_without(fits, labelled, folds, fold, seed)][own]
    best = _best(truth, known, tried)
    if len(learner.strengths) == 1:
        probabilities = tried[best]
    rng = np.random.default_rng(seed)
    return CrossValidation(
        strength=learner.strengths[best],
        probabilities=probabilities,
        n_folds=len(every),
        macro_auc=_auc_score(truth, known, labelled.groups, probabilities, rng),
        top1=_top1(truth, known, probabilities, labelled.groups, rng),
        cmap=padded_cmap(truth, probabilities) if np.isfinite(truth).all() else None,
        unscored=tuple(labelled.species[column].label for column in np.flatnonzero(~known.any(axis=0))),
        known=known,
    )


def auc_gain(labelled: LabelledWindows, of: CrossValidation, over: CrossValidation, seed: int) -> Score:
    """Compute how much higher the macro ROC-AUC of one is than of the other, on the same resamples of groups."""
    if of.macro_auc.value is None or over.macro_auc.value is None:
        return Score(None, None)
    rows = LabelledRows(labelled.clip_truth == 1, of.known, labelled.groups)
    reference, candidate = (each.probabilities.astype(np.float64) for each in (over, of))
    drops = resampled_drops(rows, reference, candidate, _N_RESAMPLES, np.random.default_rng(seed))
    return Score(of.macro_auc.value - over.macro_auc.value, percentile_interval(-drops))


class _Fits:
    """Predicts clips by heads that were fitted to others, each fitted once."""

    def __init__(self, learner: Learner, labelled: LabelledWindows) -> None:
        self._learner, self._labelled = learner, labelled
        self._done: dict[bytes, list[Predict]] = {}

    def predict(self, fitted: Bool, asked: Bool) -> Float32:
        """Probabilities [strengths, asked clips, species] by heads of the clips ``fitted``."""
        key = np.packbits(fitted).tobytes()
        if key not in self._done:
            self._done[key] = self._learner.fit(fitted[self._labelled.clips])
        windows = asked[self._labelled.clips]
        clips = np.unique(self._labelled.clips[windows], return_inverse=True)[1]
        return np.stack([_mean_per_clip(predict(windows), clips) for predict in self._done[key]])


def _mean_per_clip(values: Float32, clips: Index) -> Float32:
    total = np.zeros((int(clips.max()) + 1, values.shape[1]))
    np.add.at(total, clips, values)
    return (total / np.bincount(clips)[:, np.newaxis]).astype(np.float32)


def _best_without(fits: _Fits, labelled: LabelledWindows, folds: Index, fold: int, seed: int) -> int:
    """The strength that is best in the clips of all folds but one, by the same cross-validation among these."""
    rest = np.flatnonzero(folds != fold)
    inner = np.unique(folds[rest], return_inverse=True)[1]
    truth = labelled.clip_truth[rest]
    if inner.max() < 1:
        groups = np.unique(labelled.groups[rest], return_inverse=True)[1]
        inner = split_groups(truth, groups, 2, seed)
    if inner.max() < 1:
        return 0
    found: list[Float32] = []
    order: list[Index] = []
    for each in range(int(inner.max()) + 1):
        asked, fitted = np.zeros(len(folds), np.bool_), np.zeros(len(folds), np.bool_)
        asked[rest[inner == each]], fitted[rest[inner != each]] = True, True
        found.append(fits.predict(fitted, asked))
        order.append(np.flatnonzero(inner == each))
    tried = np.concatenate(found, axis=1)
    truth = truth[np.concatenate(order)]
    return _best(truth, np.isfinite(truth) & _is_in_several(truth == 1, inner[np.concatenate(order)]), tried)


def _best(truth: Float32, known: Bool, tried: Float32) -> int:
    """Of equal ones the first, which is the simplest."""
    aucs = [_macro_auc(truth, known, each) for each in tried]
    return max(range(len(tried)), key=lambda index: (-1.0 if aucs[index] is None else aucs[index], -index))


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


def _is_in_several(present: Bool, folds: Index) -> Bool:
    n_folds = sum(present[folds == fold].any(axis=0).astype(np.intp) for fold in range(int(folds.max()) + 1))
    return np.asarray(n_folds) > 1


# ---- Figures


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


def _auc_score(truth: Float32, known: Bool, groups: Index, probabilities: Float32, rng: np.random.Generator) -> Score:
    """Of the macro ROC-AUC: by how much it drops to a half, that of equal scores."""
    value = _macro_auc(truth, known, probabilities)
    if value is None:
        return Score(None, None)
    labelled = LabelledRows(truth == 1, known, groups)
    drops = resampled_drops(
        labelled, probabilities.astype(np.float64), np.zeros(probabilities.shape), _N_RESAMPLES, rng
    )
    return Score(value, _not_certain(percentile_interval(drops + 0.5), groups[(labelled.truth & known).any(axis=1)]))


def _top1(truth: Float32, known: Bool, probabilities: Float32, groups: Index, rng: np.random.Generator) -> Score:
    single = (truth == 1).sum(axis=1) == 1
    # A species that no head of another fold was fitted to cannot be right.
    single &= np.isfinite(truth).all(axis=1) & ((truth == 1) & known).any(axis=1)
    if not single.any():
        return Score(None, None)
    right = (truth[single].argmax(axis=1) == probabilities[single].argmax(axis=1)).astype(np.float64)
    n_groups = int(groups.max()) + 1
    n, n_right = (np.bincount(groups[single], each, n_groups) for each in (None, right))
    (times,) = times_drawn(n_groups, _N_RESAMPLES, _N_RESAMPLES, rng)
    with np.errstate(invalid="ignore"):
        shares: Float64 = (times @ n_right) / (times @ n)
    return Score(float(right.mean()), _not_certain(percentile_interval(shares[np.isfinite(shares)]), groups[single]))


def _not_certain(interval: Interval | None, groups: Index) -> Interval | None:
    """Widen the interval of a figure that no resample changes: n groups without an error do not show that it is 1.

    A share with no failure in n trials is at least 0.025^(1/n) (Clopper and Pearson 1934), one with no success at most
    1 minus that.
    """
    if interval is None or interval[0] < interval[1]:
        return interval
    least = _TAIL ** (1 / max(1, len(np.unique(groups))))
    return min(interval[0], least), max(interval[1], 1 - least)
