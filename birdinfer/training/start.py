"""What a fold starts from: the recipe's ``model.weights`` and a fold's number -> that fold's own file, checked."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from birdinfer.errors import CheckpointError
from birdinfer.labels import Species
from birdinfer.training.checkpoint import Header, load_header
from birdinfer.training.models.weights import check_weights
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.learning import ModelConfig

FOLD = "{fold}"
"""Stands in ``model.weights`` for the fold's number."""


def of_fold(config: ModelConfig, fold: int) -> ModelConfig:
    """The network of a fold: its weights, if there are any to start from, are the fold's own."""
    return msgspec.structs.replace(config, weights=config.weights.replace(FOLD, str(fold)))


def check_start(recipe: Recipe, folds: Sequence[int]) -> None:
    """Whether each fold has what the recipe lets it start from; asked before clips are read.

    Raises:
        InputNotFoundError: there are no such weights.
        CheckpointError: what should be a checkpoint of the fold is none, or of another fold.
    """
    for fold in folds:
        path = Path(of_fold(recipe.model, fold).weights)
        if recipe.model.weights:
            check_weights(path)
        if _goes_on(recipe):
            _check_fold(load_header(path), path, fold)


def check_species(recipe: Recipe, fold: int, species: Sequence[Species]) -> None:
    """Whether a fold that goes on from an earlier run's has that run's columns.

    Raises:
        CheckpointError: it has others.
    """
    if not _goes_on(recipe):
        return
    path = Path(of_fold(recipe.model, fold).weights)
    if load_header(path).species != tuple(species):
        what = f"was trained for other species than the {len(species)} of the data"
        raise CheckpointError(path, what, "name its own data with --data")


def _goes_on(recipe: Recipe) -> bool:
    """Whether a fold continues that very fold of an earlier run, instead of borrowing weights."""
    return FOLD in recipe.model.weights or recipe.loss.teacher_share > 0


def _check_fold(header: Header, path: Path, fold: int) -> None:
    if header.fold != fold:
        what = f"is of fold {header.fold}: it has heard clips that fold {fold} holds out"
        raise CheckpointError(path, what, f"write model.weights with {FOLD} for the fold's number")
