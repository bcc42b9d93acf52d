"""A finished run -> the recipe of a short second one that makes its network cheap in INT8.

Each fold starts from its own best weights, on the folds of the run: what a fold held out stays held out. ReLU replaces
costly activations, norms are frozen as in prediction, and half of the loss is the distance to the network before
(distillation).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from birdinfer.errors import CheckpointError, ConfigError, InputNotFoundError
from birdinfer.runs.layout import BEST, LAST, fold_dir
from birdinfer.training.checkpoint import Header, load_header
from birdinfer.training.data.folds_file import FOLDS_FILE
from birdinfer.training.fold import FOLD
from birdinfer.training.models.activation import count_costly
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.data_config import DataConfig
from birdinfer.training.recipe.schema import FEATURE_MAPS, DistilConfig, LoopConfig, OptimConfig, Recipe
from birdinfer.training.recipe.toml import change

OPTION = "--finetune-for-int8"

_FEWER_EPOCHS, _FEWEST_EPOCHS = 5, 2
"""A fifth of the epochs, at least two."""
_RATE_SHARE = 0.1
_WARMUP_SHARE = 0.1
"""Of all epochs: the optimiser's memory starts empty."""
_TEACHER_SHARE = 0.5
_FROZEN = "optim.frozen_norm_epochs"


class Finetune(NamedTuple):
    """What to train."""

    recipe: Recipe
    data_dir: Path
    """Where the run's clips were."""
    folds: tuple[int, ...]


def plan_int8(run_dir: Path, folds: Sequence[int] | None, overrides: Sequence[str] = ()) -> Finetune:
    """Plan the fine-tune of a finished run.

    Args:
        run_dir: the run's folder.
        folds: which, from 0; None for all that the run has.
        overrides: ``["optim.lr=1e-4", ...]``, changes of the new recipe.

    Raises:
        InputNotFoundError: there is no such run, or it lacks a fold.
        CheckpointError: a fold is not finished, or damaged.
        ConfigError: an override cannot be used, or the network has nothing to make cheap.
    """
    last = [_finished(run_dir, fold) for fold in (_all_folds(run_dir) if folds is None else folds)]
    if not (run_dir / FOLDS_FILE).is_file():
        raise InputNotFoundError(run_dir / FOLDS_FILE, "the run's folds are gone", "without it nothing stays held out")
    _check_network(last[0].recipe, run_dir)
    recipe = _changed(for_int8(last[0].recipe, run_dir), overrides)
    return Finetune(recipe, Path(last[0].data_dir), tuple(header.fold for header in last))


def for_int8(recipe: Recipe, run_dir: Path) -> Recipe:
    """The recipe of the fine-tune."""
    epochs = max(_FEWEST_EPOCHS, round(recipe.loop.epochs / _FEWER_EPOCHS))
    weights = str(run_dir / f"fold{FOLD}" / BEST)
    return replace(
        recipe,
        name=f"{Path(os.path.realpath(run_dir)).name}-int8",
        data=_same_folds(recipe.data, run_dir),
        model=replace(recipe.model, activation="relu", weights=weights, pretrained=False),
        loss=replace(recipe.loss, teacher_share=_TEACHER_SHARE),
        distil=DistilConfig(),  # the network before is the teacher now
        optim=_gentle(recipe.optim, recipe.loop, epochs),
        loop=replace(recipe.loop, epochs=epochs, patience=0),
    )


def _same_folds(config: DataConfig, run_dir: Path) -> DataConfig:
    """The run's folds as they are in its file; nothing that would assign, search or complete them again."""
    return replace(
        config,
        folds_file=str(run_dir / FOLDS_FILE),
        fold_column="",
        val_share=0.0,
        complete_fold0=False,
        duplicates="keep",
        sources=tuple(source for source in config.sources if source.kind != "unlabelled"),
    )


def _gentle(config: OptimConfig, loop: LoopConfig, epochs: int) -> OptimConfig:
    """A tenth of the rate along one cosine; an average that looks back over the same share of the run.

    Norms hold still throughout: what is trained is to be what is rounded.
    """
    shorter = loop.epochs / epochs
    return replace(
        config,
        lr=config.lr * _RATE_SHARE,
        schedule="cosine",
        warmup_epochs=epochs * _WARMUP_SHARE,
        ema_decay=max(0.0, 1 - shorter * (1 - config.ema_decay)) if config.ema_decay else 0.0,
        frozen_norm_epochs=epochs,
    )


def _changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Overridden; norms hold still through however many epochs are asked for, unless that is asked for, too."""
    if any(override.partition("=")[0].strip() == _FROZEN for override in overrides):
        return change(recipe, overrides)
    free = replace(recipe, optim=replace(recipe.optim, frozen_norm_epochs=0))
    changed = change(free, overrides)
    return change(changed, [f"{_FROZEN}={changed.loop.epochs}"])


def _all_folds(run_dir: Path) -> list[int]:
    if not run_dir.is_dir():
        raise InputNotFoundError(run_dir, "no such run", "name the folder of a finished one, runs/NAME")
    folds = sorted(load_header(path).fold for path in run_dir.glob(f"fold*/{LAST}"))
    if not folds:
        raise InputNotFoundError(run_dir, "holds no trained fold", "birdinfer train makes one")
    return folds


def _finished(run_dir: Path, fold: int) -> Header:
    there = _all_folds(run_dir)
    if fold not in there:
        known = ", ".join(map(str, there))
        raise InputNotFoundError(run_dir, f"has no fold {fold}", f"trained are {known}: choose with --fold, or all")
    header = load_header(fold_dir(run_dir, fold) / LAST)
    if not header.progress.is_complete:
        raise CheckpointError(fold_dir(run_dir, fold), "is not finished", "continue with its own recipe and --resume")
    return header


def _check_network(recipe: Recipe, run_dir: Path) -> None:
    if recipe.model.family not in FEATURE_MAPS:
        what = f"{run_dir} is of family {recipe.model.family}, only cnn and sed have feature maps to make cheap"
        raise ConfigError(OPTION, what, "export it as it is")
    if not count_costly(build_model(recipe.model, 1, recipe.input_config, start=False)):
        what = f"{recipe.model.backbone} of {run_dir} has no activation that INT8 would wait for"
        raise ConfigError(OPTION, what, "export it as it is")
