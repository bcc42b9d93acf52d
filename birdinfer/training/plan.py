"""What a run is asked to do, checked and laid before its first fold is trained.

In: :class:`Run`, data and recipe. Out: the folds that are wanted, and ``runs/NAME/`` with recipe.toml and folds.csv,
begun by one process for all that train along, side by side or on other machines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from birdinfer.errors import BirdinferError, CheckpointError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.interrupt import StopRequest
from birdinfer.training.augment import find_background
from birdinfer.training.augment.background import Background
from birdinfer.training.checkpoint import load_header
from birdinfer.training.devices import precision_for
from birdinfer.training.fold_job import LAST, fold_dir
from birdinfer.training.folds.file import FOLDS_FILE
from birdinfer.training.losses import build_loss
from birdinfer.training.models import build_model
from birdinfer.training.preparation import Laid, lay
from birdinfer.training.processes import Processes
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import load_recipe, write_recipe
from birdinfer.training.report import Reporter
from birdinfer.training.resume import check_same_recipe
from birdinfer.training.start import check_start
from birdinfer.training.turns import one_at_a_time

DEBUG_CLIPS, DEBUG_EPOCHS = 1_000, 2
RECIPE_FILE = "recipe.toml"


class Run(NamedTuple):
    """What to train, and where."""

    recipe: Recipe
    data_dir: Path
    """In the layout of BirdCLEF, see ``metadata``."""
    run_dir: Path
    """Where the run is written."""
    folds: tuple[int, ...] | None = None
    """Which, from 0; None for all."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    resume: bool = False
    """Go on with what is there, instead of refusing to touch it."""
    cache_dir: Path | None = None
    """Where decoded clips are kept (``data.cache``); None for the user's own cache folder."""


def debug(recipe: Recipe) -> Recipe:
    """The same recipe on at most 1,000 clips for 2 epochs: all code runs, nothing is learned."""
    n_clips = min(recipe.data.max_clips or DEBUG_CLIPS, DEBUG_CLIPS)
    # Where norms hold still only at the end, there is an epoch of either kind.
    n_free = min(1, recipe.first_frozen_epoch - 1)
    n_frozen = DEBUG_EPOCHS - n_free if recipe.optim.frozen_norm_epochs else 0
    return msgspec.structs.replace(
        recipe,
        name=f"{recipe.name}-debug",
        data=msgspec.structs.replace(recipe.data, max_clips=n_clips),
        optim=msgspec.structs.replace(recipe.optim, frozen_norm_epochs=n_frozen),
        loop=msgspec.structs.replace(recipe.loop, epochs=DEBUG_EPOCHS),
    )


def n_folds(recipe: Recipe) -> int:
    """How many folds a recipe has: one where it asks for a single split, or for none."""
    return 1 if recipe.data.val_share or recipe.data.all_data else recipe.data.n_folds


def wanted_folds(run: Run) -> tuple[int, ...]:
    """Which folds a run is asked to train.

    Raises:
        ConfigError: the recipe has no such fold.
    """
    wanted = tuple(range(n_folds(run.recipe))) if run.folds is None else run.folds
    check_folds(run.recipe, wanted)
    return wanted


def check_folds(recipe: Recipe, wanted: Sequence[int]) -> None:
    """Whether the recipe has these folds.

    Raises:
        ConfigError: it has not.
    """
    there = n_folds(recipe)
    outside = [fold for fold in wanted if not 0 <= fold < there]
    if outside:
        known = f"folds 0 to {there - 1}" if there > 1 else "one split, fold 0"
        raise ConfigError("--fold", f"is {outside[0]}, the recipe has {known}")


def prepare(run: Run, reporter: Reporter) -> tuple[int, ...]:
    """All that comes before the first fold, once, so that its folds can be trained by processes of their own.

    Args:
        run: what and where; its device is ``cpu`` or ``cuda``.
        reporter: is told how it goes.

    Returns:
        The folds that are wanted.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used.
    """
    wanted = wanted_folds(run)
    check_recipe(run, wanted)
    if run.device == "cpu":  # a GPU has every precision, and asking it would take memory of it for hours
        precision_for(torch.device("cpu"), run.recipe.loop.amp)
    with StopRequest() as stop:
        begin_run(run, wanted, reporter, stop, Processes())
        stop.check()
    return wanted


def check_recipe(run: Run, wanted: Sequence[int]) -> Background:
    """What the structs of a recipe cannot know; asked before clips are searched and decoded for minutes.

    Returns:
        The background to mix in, if any.

    Raises:
        ConfigError: network or loss are unknown, a key is of no use, or there is no such background.
        InputNotFoundError, CheckpointError: there are no such weights, or not of these folds.
    """
    recipe = run.recipe
    build_model(recipe.model, 1, recipe.hearing, start=False)
    check_start(recipe, wanted)
    build_loss(recipe.loss, [1])
    return find_background(recipe.augment.background_dir, run.data_dir)


def begin_run(run: Run, wanted: Sequence[int], reporter: Reporter, stop: StopRequest, processes: Processes) -> Laid:
    """The run's clips and folds. Of several processes, on several machines, too, the first lays them for all.

    Raises:
        BirdinferError: the data or the run's folder cannot be used.
    """
    if not processes.is_first:
        processes.wait()
        return lay(run.recipe, run.data_dir, run.run_dir, reporter)
    with one_at_a_time(run.run_dir, reporter.message, stop.check):
        _check_untouched(run, wanted)
        laid = lay(run.recipe, run.data_dir, run.run_dir, reporter)
        write_atomic(run.run_dir / RECIPE_FILE, write_recipe(run.recipe))
    processes.wait()
    return laid


def _check_untouched(run: Run, wanted: Sequence[int]) -> None:
    """Before anything is trained: a run is of one recipe, and is not trained over.

    Raises:
        CheckpointError: a fold is there already, or another recipe's.
    """
    started = sorted(run.run_dir.glob(f"fold*/{LAST}"))
    for path in started:
        check_same_recipe(load_header(path).recipe, run.recipe, path)
    over = [path for path in started if path.parent in {fold_dir(run.run_dir, fold) for fold in wanted}]
    if over and not run.resume:
        raise CheckpointError(over[0], "is already there", "go on with --resume, or name another run with --run")
    if not started and not _is_recipe_of(run):
        # Folds of a run that never came to train, of another recipe.
        (run.run_dir / FOLDS_FILE).unlink(missing_ok=True)


def _is_recipe_of(run: Run) -> bool:
    """Whether the run's folder was begun with the same recipe; another process may be beginning it just now."""
    path = run.run_dir / RECIPE_FILE
    try:
        check_same_recipe(load_recipe(path), run.recipe, path)
    except BirdinferError:
        return False
    return True
