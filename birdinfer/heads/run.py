"""Fit a head on embeddings, cross-validate it, pack it behind its encoder: ``birdinfer head fit``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError
from birdinfer.heads.annotated import is_of_soundscapes, read_annotated
from birdinfer.heads.fitting import window_weights
from birdinfer.heads.kinds import KINDS, fit_heads
from birdinfer.heads.labels import LabelledWindows, read_labels
from birdinfer.heads.pack import FittedSequence, HeadFacts, own_logits, pack_head
from birdinfer.heads.sequence import SequenceKind, SequenceLearner
from birdinfer.heads.validation import CrossValidation, Predict, Score, assign_folds, auc_gain, cross_validate
from birdinfer.heads.window_head import HeadActivation, WindowHead
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.embeddings import Embeddings, encoder_of, read_embeddings
from birdinfer.inference.manifest import Member
from birdinfer.system.files import check_replaceable
from birdinfer.system.outputs import check_folder
from birdinfer.typing import Bool, Float32

HeadKind = Literal["linear", "mlp", "prototypes", "gru", "attention"]
ALL_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
_OF_FILES: tuple[SequenceKind, ...] = get_args(SequenceKind)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """What a head is fitted to, and where it is written."""

    embeddings: Path
    """Of ``predict --embeddings``."""
    labels: Path
    """Recordings or reviews (:mod:`birdinfer.heads.labels`), or a truth of soundscapes
    (:mod:`birdinfer.heads.annotated`)."""
    output: Path
    """The new bundle's folder."""
    kinds: tuple[HeadKind | Literal["auto"], ...] = ("linear",)
    """Of several the one with the highest cross-validated macro ROC-AUC is packed; ``auto``: all that fit the
    labels."""
    encoder: Path | None = None
    """The bundle that made the embeddings; None: where it was then."""
    fold_column: str = ""
    """Of the table, for its own folds; "": split by groups."""
    activation: HeadActivation = "sigmoid"
    """``softmax``: each recording holds exactly one of the species."""
    n_folds: int = 5
    n_windows: int = 12
    """Of a sequence, for heads over the windows of a file."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A kind of head, and what it is worth."""

    kind: HeadKind
    scores: CrossValidation
    seconds: float
    """That its cross-validation took."""
    lead: Score
    """Macro ROC-AUC of the one that was chosen minus its own; 0 for this itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedHead:
    """A head in a bundle, and what it is worth."""

    bundle: Bundle
    labelled: LabelledWindows
    kind: HeadKind
    scores: CrossValidation
    tried: tuple[Tried, ...]


class HeadCallback(Callback):
    """What happens while a head is fitted."""

    def on_kind(self, kind: HeadKind) -> None:
        """A kind of head is about to be cross-validated."""


def fit_head(settings: HeadSettings, callback: HeadCallback | None = None) -> FittedHead:
    """Fit a head to labelled embeddings and make a bundle of encoder and head.

    Raises:
        InputNotFoundError: there are no embeddings, labels, or encoder.
        MetadataError, LabelError: labels or embeddings cannot be used.
        ConfigError: the encoder is another one than that of the embeddings, or a setting is out of range.
        OutputError: the folder cannot be written, or holds something.
    """
    callback = callback or HeadCallback()
    _check(settings)
    embeddings = read_embeddings(settings.embeddings)
    encoder, member = encoder_of(embeddings.info, settings.encoder)
    labelled = _read(settings, embeddings)
    for line in labelled.notes:
        callback.on_warning(line)
    learners = _learners(settings, embeddings, labelled, encoder, member)
    folds = assign_folds(labelled, settings.n_folds, settings.seed)
    found: dict[HeadKind, tuple[CrossValidation, float]] = {}
    for kind, learner in learners.items():
        callback.on_kind(kind)
        began = time.perf_counter()
        scores = cross_validate(learner, labelled, folds, settings.seed)
        found[kind] = scores, time.perf_counter() - began
    # Of equal ones the first, which is the simplest.
    best = max(found, key=lambda kind: found[kind][0].macro_auc.value or 0.0)
    scores, _ = found[best]
    recipe = {
        "kind": best, "labels": settings.labels.name, "windows": len(labelled.windows), "clips": len(labelled.groups),
        "strength": scores.strength, "folds": scores.n_folds, "seed": settings.seed,
    }  # fmt: skip
    facts = HeadFacts(
        species=labelled.species, fallback=scores.probabilities.mean(axis=0), macro_auc=scores.macro_auc.value,
        recipe=recipe,
    )  # fmt: skip
    head = learners[best].fit_all(scores.strength)
    bundle = pack_head(encoder, member.name, head, facts, settings.output)
    tried = tuple(
        Tried(kind=kind, scores=each, seconds=seconds, lead=auc_gain(labelled, scores, each, settings.seed))
        for kind, (each, seconds) in found.items()
    )
    return FittedHead(bundle=bundle, labelled=labelled, kind=best, scores=scores, tried=tried)


class WindowLearner:
    """Fits heads for single windows."""

    def __init__(self, kind: str, inputs: Float32, labelled: LabelledWindows, settings: HeadSettings) -> None:
        """Take the embeddings [n, numbers] of the labelled windows."""
        self._kind, self._inputs, self._labelled, self._settings = kind, inputs, labelled, settings

    @property
    def strengths(self) -> Sequence[float]:
        """Of the kind's penalty, the strongest first."""
        return KINDS[self._kind].strengths

    def fit(self, windows: Bool) -> list[Predict]:
        """Fit to some of the labelled windows [n]: a head for each strength."""

        def predict_by(head: WindowHead) -> Predict:
            return lambda asked: head.predict(self._inputs[asked])

        return [predict_by(head) for head in self._fit(windows, self.strengths)]

    def fit_all(self, strength: float) -> WindowHead:
        """Fit to all labelled windows."""
        (head,) = self._fit(np.ones(len(self._inputs), np.bool_), [strength])
        return head

    def _fit(self, windows: Bool, strengths: Sequence[float]) -> list[WindowHead]:
        weights = window_weights(np.unique(self._labelled.clips[windows], return_inverse=True)[1])
        return fit_heads(
            self._kind, self._inputs[windows], self._labelled.truth[windows], weights, strengths=strengths,
            activation=self._settings.activation, seed=self._settings.seed,
        )  # fmt: skip


class FileLearner(SequenceLearner):
    """Fits heads over the windows of files."""

    def fit_all(self, strength: float) -> FittedSequence:
        """Fit to all labelled windows."""
        return FittedSequence(
            network=self.network(np.ones(len(self.labelled.windows), np.bool_)), n_windows=self.n_windows,
            sites=self.sites, stride_seconds=self.embeddings.info.stride_seconds,
        )  # fmt: skip


def _check(settings: HeadSettings) -> None:
    if settings.n_folds < 2:
        raise ConfigError("--folds", f"is {settings.n_folds}, needed are at least 2")
    if not settings.kinds:
        raise ConfigError("--kind", "names none", f"choose of {', '.join(ALL_KINDS)}, auto")
    if settings.n_windows < 2:
        raise ConfigError("--sequence", f"is {settings.n_windows} windows, needed are at least 2")
    check_folder(settings.output, [settings.labels])
    check_replaceable(settings.output, "a bundle", "name another folder with -o")


def _read(settings: HeadSettings, embeddings: Embeddings) -> LabelledWindows:
    if not is_of_soundscapes(settings.labels):
        labelled = read_labels(settings.labels, embeddings, fold_column=settings.fold_column)
    elif settings.fold_column:
        raise ConfigError("--fold-column", "is one of a table of recordings or reviews", "leave it out")
    else:
        labelled = read_annotated(settings.labels, embeddings)
    if settings.activation == "softmax" and not (labelled.truth.sum(axis=1) == 1).all():
        what = "softmax needs exactly one species in each clip"
        raise ConfigError("--activation", what, "sigmoid takes any number of species")
    return labelled


def _learners(
    settings: HeadSettings, embeddings: Embeddings, labelled: LabelledWindows, encoder: Bundle, member: Member
) -> Mapping[HeadKind, WindowLearner | FileLearner]:
    asked = [kind for kind in settings.kinds if kind != "auto"]
    if "auto" in settings.kinds:
        of_files = labelled.unit == "window" and settings.activation == "sigmoid"
        asked = [kind for kind in ALL_KINDS if kind in KINDS or kind in asked or of_files]
    if settings.activation == "softmax" and any(kind in _OF_FILES for kind in asked):
        raise ConfigError("--activation", "softmax is for heads of single windows", "leave it out, or change --kind")
    inputs = embeddings.values[labelled.windows].astype("float32")
    own = None
    if any(kind in _OF_FILES for kind in asked):
        own = own_logits(encoder, member, labelled.species)
    return {
        kind: FileLearner(kind, embeddings, labelled, own, n_windows=settings.n_windows, seed=settings.seed)
        if kind in _OF_FILES
        else WindowLearner(kind, inputs, labelled, settings)
        for kind in dict.fromkeys(asked)
    }
