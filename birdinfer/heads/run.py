"""Fit a head on embeddings, cross-validate it, pack it behind its encoder: ``birdinfer head fit``."""

from dataclasses import dataclass
from pathlib import Path

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError
from birdinfer.heads.labels import LabelledWindows, read_labels
from birdinfer.heads.linear import CrossValidation, HeadActivation, cross_validate, fit_linear, window_weights
from birdinfer.heads.pack import pack_head
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.embeddings import encoder_of, read_embeddings
from birdinfer.system.files import check_replaceable
from birdinfer.system.outputs import check_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """What a head is fitted to, and where it is written."""

    embeddings: Path
    """Of ``predict --embeddings``."""
    labels: Path
    """train.csv, or a table of reviews; :mod:`birdinfer.heads.labels`."""
    output: Path
    """The new bundle's folder."""
    encoder: Path | None = None
    """The bundle that made the embeddings; None: where it was then."""
    fold_column: str = ""
    """Of the table, for its own folds; "": split by groups."""
    activation: HeadActivation = "sigmoid"
    """``softmax``: each recording holds exactly one of the species."""
    n_folds: int = 5
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedHead:
    """A head in a bundle, and what it is worth."""

    bundle: Bundle
    labelled: LabelledWindows
    scores: CrossValidation


def fit_head(settings: HeadSettings, callback: Callback | None = None) -> FittedHead:
    """Fit a linear head to labelled embeddings and make a bundle of encoder and head.

    Raises:
        InputNotFoundError: there are no embeddings, labels, or encoder.
        MetadataError, LabelError: labels or embeddings cannot be used.
        ConfigError: the encoder is another one than that of the embeddings, or a number is out of range.
        OutputError: the folder cannot be written, or holds something.
    """
    callback = callback or Callback()
    if settings.n_folds < 2:
        raise ConfigError("--folds", f"is {settings.n_folds}, needed are at least 2")
    check_folder(settings.output, [settings.labels])
    check_replaceable(settings.output, "a bundle", "name another folder with -o")
    embeddings = read_embeddings(settings.embeddings)
    encoder, member = encoder_of(embeddings.info, settings.encoder)
    labelled = read_labels(settings.labels, embeddings, fold_column=settings.fold_column)
    for line in labelled.notes:
        callback.on_warning(line)
    if settings.activation == "softmax" and not (labelled.truth.sum(axis=1) == 1).all():
        what = "softmax needs exactly one species in each clip"
        raise ConfigError("--activation", what, "sigmoid takes any number of species")
    inputs = embeddings.values[labelled.windows].astype("float32")
    scores = cross_validate(
        inputs, labelled, n_folds=settings.n_folds, seed=settings.seed, activation=settings.activation
    )
    head = fit_linear(inputs, labelled.truth, window_weights(labelled.clips), scores.penalty, settings.activation)
    recipe = {
        "labels": settings.labels.name, "windows": len(inputs), "clips": len(labelled.groups),
        "penalty": scores.penalty, "folds": scores.n_folds, "seed": settings.seed,
    }  # fmt: skip
    bundle = pack_head(
        encoder, member.name, head, labelled.species, settings.output,
        fallback=scores.probabilities.mean(axis=0), macro_auc=scores.macro_auc.value, recipe=recipe,
    )  # fmt: skip
    return FittedHead(bundle=bundle, labelled=labelled, scores=scores)
