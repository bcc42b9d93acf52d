"""The state that a fold begins with: a fresh one, or the one that an interrupted run has saved."""

from pathlib import Path

import numpy as np
import torch

from birdinfer.errors import CheckpointError
from birdinfer.training.checkpoint import Progress, load_checkpoint
from birdinfer.training.devices import Precision
from birdinfer.training.fake_quantise import Rounded
from birdinfer.training.fold_job import LAST, FoldJob
from birdinfer.training.models import build_model
from birdinfer.training.processes import Processes
from birdinfer.training.recipe import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.report import Reporter
from birdinfer.training.start import check_species, of_fold
from birdinfer.training.state import TrainingState

_INIT = 10
"""First element of the seed of a network's first weights."""


def begin(
    job: FoldJob, device: torch.device, precision: Precision, processes: Processes, reporter: Reporter
) -> tuple[TrainingState, Progress]:
    """The state to go on from.

    Raises:
        CheckpointError: the saved state is damaged, or of another recipe or other species.
        ConfigError: the recipe's network cannot be built.
    """
    recipe, path = job.recipe, job.folder / LAST
    saved = load_checkpoint(path) if path.exists() else None
    if saved is not None:
        check_same_recipe(saved.recipe, recipe, path)
        if saved.species != job.species:
            raise CheckpointError(path, "was trained for other species", "train into another run with --run")
    else:
        check_species(recipe, job.fold, job.species)
    processes.check_batch(recipe.loop)
    torch.manual_seed(int(np.random.default_rng((_INIT, recipe.seed, job.fold)).integers(2**62)))
    model = build_model(
        of_fold(recipe.model, job.fold),
        len(job.species),
        recipe.hearing,
        start=saved is None,
        activation=recipe.loss.activation,
        note=reporter.message,
    )
    # The memory layout that convolutions of both CPU and GPU like best.
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    learner = Rounded(model) if recipe.loop.fake_quantise else None
    state = TrainingState(model, recipe.optim, scaler, processes, learner)
    if saved is None:
        return state, Progress()
    state.restore(saved)
    # No rank may still be reading while the first one already writes.
    processes.wait()
    return state, saved.header.progress


def check_same_recipe(saved: Recipe, asked: Recipe, path: Path) -> None:
    """Refuse to go on with another recipe than the run began with.

    Raises:
        CheckpointError: a key that decides the result differs; it says which.
    """
    before, after = flatten(saved), flatten(asked)
    differing = sorted(key for key in before if key not in NOT_DECISIVE and before[key] != after[key])
    if differing:
        key = differing[0]
        more = f" and {len(differing) - 1} more keys differ" if len(differing) > 1 else ""
        raise CheckpointError(
            path,
            f"was trained with {key} = {before[key]!r}, asked is {after[key]!r}{more}",
            "resume with the same recipe, or train into another run with --run",
        )
