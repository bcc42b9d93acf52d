"""Validation: a model and the clips it was not trained on -> out-of-fold probabilities and what they are worth.

Predicting clips and scoring them are two steps: several processes may each predict a share before one of them scores.
A clip's probability is the mean over its windows. Truth counts a clip's secondary labels as present: the recordist
noted them, so a model that finds them is not wrong.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from birdinfer.errors import ConfigError
from birdinfer.evaluation.metrics import (
    average_precision_per_class,
    macro_f1,
    macro_roc_auc,
    padded_cmap,
    roc_auc_per_class,
)
from birdinfer.species import Species
from birdinfer.submission.formats import number_cells
from birdinfer.tables.csv import csv_text
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import ClipWindows
from birdinfer.training.data.targets import truth
from birdinfer.training.models.base import Logits
from birdinfer.typing import Float32, Int8

Predict = Callable[[torch.Tensor], Logits]

_SMALLEST = 1e-7
"""Keeps the logarithm of a probability finite."""


class ClipScores(NamedTuple):
    """A model's probabilities for clips, all of them or one process's share."""

    probabilities: dict[int, Float32]
    """The clip's index -> float32 [labels], 0 to 1."""
    failed: tuple[str, ...]
    """Clips that could not be decoded, a line each."""

    @classmethod
    def together(cls, shares: Iterable["ClipScores"]) -> "ClipScores":
        """The shares of several processes as one."""
        probabilities: dict[int, Float32] = {}
        failed: tuple[str, ...] = ()
        for share in shares:
            probabilities |= share.probabilities
            failed += share.failed
        return cls(probabilities, failed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """Probabilities of the clips that could be decoded; a score is None where it cannot be computed."""

    clips: tuple[Clip, ...]
    probabilities: Float32
    """[clips, labels], 0 to 1."""
    failed: tuple[str, ...]
    """Clips that could not be decoded, a line each; they are not in ``clips``."""
    loss: float | None
    """Binary cross-entropy of the probabilities, the same for all training losses."""
    macro_auc: float | None
    """The metric of BirdCLEF 2024 to 2026, 0 to 1."""
    padded_cmap: float | None
    """The metric of BirdCLEF 2023, 0 to 1."""
    top1: float | None
    """Share of the clips with a species whose most probable one is their primary label."""
    f1: float | None = None
    """Mean over the species that occur, at ``loop.f1_threshold``, 0 to 1."""


def predict_clips(
    predict: Predict,
    loader: Iterable[Sequence[ClipWindows]],
    activation: Literal["sigmoid", "softmax"],
    between: Callable[[], None] = lambda: None,
) -> ClipScores:
    """Predict clips.

    Args:
        predict: waveforms [windows, samples] -> logits; its model is in eval mode.
        loader: batches of the clips' windows.
        activation: what makes the clip's logits into probabilities.
        between: called between batches; may raise to stop.
    """
    probabilities: dict[int, Float32] = {}
    failed: list[str] = []
    for batch in loader:
        between()
        failed += [item.failed for item in batch if item.failed]
        probabilities |= _clip_probabilities(predict, [item for item in batch if len(item.waveforms)], activation)
    return ClipScores(probabilities, tuple(failed))


def score(
    clips: Sequence[Clip], scores: ClipScores, species: Sequence[Species], f1_threshold: float = 0.5
) -> Validation:
    """Score predictions.

    Args:
        clips: the validation clips, which the indices of ``scores`` refer to.
        scores: of all of them, or of those that could be decoded.
        species: columns of the probabilities.
        f1_threshold: from which probability on a clip has a species, for F1.

    Raises:
        ConfigError: the model's probabilities are not finite.
    """
    labels = [one.label for one in species]
    kept = tuple(clips[index] for index in sorted(scores.probabilities))
    rows = [scores.probabilities[index] for index in sorted(scores.probabilities)]
    probabilities = np.stack(rows) if rows else np.zeros((0, len(labels)), np.float32)
    _check_finite(probabilities)
    if not kept:
        return Validation(
            clips=kept,
            probabilities=probabilities,
            failed=scores.failed,
            loss=None,
            macro_auc=None,
            padded_cmap=None,
            top1=None,
        )
    present = truth(kept, labels)
    return Validation(
        clips=kept,
        probabilities=probabilities,
        failed=scores.failed,
        loss=_cross_entropy(present, probabilities),
        macro_auc=_or_none(macro_roc_auc(present, probabilities)),
        padded_cmap=_or_none(padded_cmap(present, probabilities)),
        top1=_or_none(_top1(kept, probabilities, labels)),
        f1=_or_none(macro_f1(present, probabilities, f1_threshold)),
    )


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model in eval mode, without gradients; afterwards in the mode it was in.

    In training mode BatchNorm would use the batch's own statistics, so that a clip's score would depend on its
    neighbours, and would keep learning from the validation clips.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)


def oof_table(validation: Validation, labels: Sequence[str]) -> str:
    """Out-of-fold probabilities as CSV: filename, primary_label, then one column per label."""
    rows = zip(validation.clips, validation.probabilities, strict=True)
    header = ("filename", "primary_label", *labels)
    return csv_text(header, ([clip.filename, clip.primary_label, *number_cells(values)] for clip, values in rows))


def _clip_probabilities(predict: Predict, items: Sequence[ClipWindows], activation: str) -> dict[int, Float32]:
    if not items:
        return {}
    logits = predict(torch.from_numpy(np.concatenate([item.waveforms for item in items]))).clip.float()
    activated = torch.softmax(logits, dim=1) if activation == "softmax" else torch.sigmoid(logits)
    ends = np.cumsum([len(item.waveforms) for item in items])
    per_clip = np.split(activated.cpu().numpy(), ends[:-1])
    return {item.clip_index: rows.mean(axis=0) for item, rows in zip(items, per_clip, strict=True)}


def _check_finite(probabilities: Float32) -> None:
    """A network whose weights or statistics overflowed answers nan; fp16 does that to some (pitfall 12)."""
    n_wrong = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if n_wrong:
        raise ConfigError(
            "optim.lr",
            f"the model's probabilities for {n_wrong} of {len(probabilities)} validation clips are not finite",
            "lower it, or set loop.amp=off",
        )


def _cross_entropy(present: Int8, probabilities: Float32) -> float:
    sure = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST).astype(np.float64)
    return float(-np.mean(np.log(np.where(present, sure, 1 - sure))))


def _top1(clips: Sequence[Clip], probabilities: Float32, labels: Sequence[str]) -> float:
    guessed = [labels[index] for index in probabilities.argmax(axis=1)]
    right = [clip.primary_label == label for clip, label in zip(clips, guessed, strict=True) if clip.primary_label]
    return float(np.mean(right)) if right else np.nan


def _or_none(score: float) -> float | None:
    return None if np.isnan(score) else score


# ---- Scores by species and by taxon

CLASS_COLUMNS = ("label", "scientific_name", "common_name", "class_name", "n_clips", "roc_auc", "average_precision")
TAXON_COLUMNS = ("class_name", "n_species", "n_clips", "macro_auc", "padded_cmap")


def classes_table(validation: Validation, species: Sequence[Species]) -> str:
    """Each species in the order of the columns: its names, clips it occurs in, ROC-AUC and average precision.

    Both are 0 to 1; ROC-AUC wants clips with and without the species, average precision wants one with it.
    """
    present = truth(validation.clips, [one.label for one in species])
    scores = zip(
        present.sum(axis=0, dtype=int),
        roc_auc_per_class(present, validation.probabilities),
        average_precision_per_class(present, validation.probabilities),
        strict=True,
    )
    rows = (
        (one.label, one.scientific_name, one.common_name, one.class_name, n_clips, _cell(auc), _cell(precision))
        for one, (n_clips, auc, precision) in zip(species, scores, strict=True)
    )
    return csv_text(CLASS_COLUMNS, rows)


def taxa_table(validation: Validation, species: Sequence[Species]) -> str:
    """Each taxon (class_name, "" for species of none), in the order of its first species, scored by itself.

    Columns: its species; clips in which one of them occurs; macro ROC-AUC and padded cmAP over its species, 0 to 1.
    """
    present = truth(validation.clips, [one.label for one in species])
    taxa = np.array([one.class_name for one in species], dtype=np.str_)
    rows = []
    for taxon in dict.fromkeys(taxa.tolist()):
        own = taxa == taxon
        wanted, given = present[:, own], validation.probabilities[:, own]
        cmap = padded_cmap(wanted, given) if len(wanted) else np.nan
        n_clips = int(wanted.any(axis=1).sum())
        rows.append((taxon, int(own.sum()), n_clips, _cell(macro_roc_auc(wanted, given)), _cell(cmap)))
    return csv_text(TAXON_COLUMNS, rows)


def _cell(score: float) -> str:
    return "" if np.isnan(score) else f"{score:.6f}"
