"""A run: data folder and recipe -> ``runs/NAME/`` with folds.csv and a folder of results for each fold.

A fold's folder holds best.safetensors, last.safetensors, history.csv, oof.csv, classes.csv, taxa.csv, metrics.json
and recipe.toml.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from birdinfer.errors import BirdinferError, CheckpointError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.interrupt import StopRequest
from birdinfer.training.augment import find_background
from birdinfer.training.augment.background import Background
from birdinfer.training.checkpoint import Progress, load_header, versions
from birdinfer.training.clips.sources import ClipSource
from birdinfer.training.devices import choose_device, precision_for
from birdinfer.training.fold_job import LAST, FoldJob
from birdinfer.training.folds.file import FOLDS_FILE
from birdinfer.training.folds.laying import TEST
from birdinfer.training.loop import train_fold
from birdinfer.training.losses import build_loss
from birdinfer.training.models import build_model
from birdinfer.training.preparation import Laid, lay, open_source
from birdinfer.training.processes import Processes, ending_together, from_environment, joined
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import load_recipe, write_recipe
from birdinfer.training.report import FoldResult, Reporter, Silent
from birdinfer.training.resume import check_same_recipe
from birdinfer.training.start import check_start
from birdinfer.training.summary import METRICS, as_json, fold_result, plain, write_summary
from birdinfer.training.tracking.reporter import tracked
from birdinfer.training.turns import one_at_a_time

DEBUG_CLIPS, DEBUG_EPOCHS = 1_000, 2
_PATIENCE_SECONDS = 30.0
"""For a process that still saves a fold which this one would go on with."""
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


def train(run: Run, reporter: Reporter) -> list[FoldResult]:
    """Train one fold, several, or all.

    Args:
        run: what and where.
        reporter: is told how it goes.

    Returns:
        A result per fold. With more than one fold, one that fails does not stop the others.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used; or the only fold failed.
    """
    processes = from_environment()
    # What several processes have to say, one says.
    reporter = reporter if processes.is_first else Silent()
    wanted = wanted_folds(run)
    device = choose_device(run.device, reporter.message, processes.local_rank)
    background = _check_recipe(run, wanted)
    precision_for(device, run.recipe.loop.amp)
    for line in background.failed:
        reporter.message(f"background left out, cannot be decoded: {line}")
    tracking = tracked(run.recipe, run.data_dir, run.run_dir, reporter) if processes.is_first else nullcontext(reporter)
    with (
        joined(processes, device, str(run.run_dir)),
        StopRequest() as stop,
        ending_together(processes, stop),
        tracking as reporter,
    ):
        laid = _begin(run, wanted, reporter, stop, processes)
        source = open_source(run.recipe, laid.clips, run.cache_dir, reporter, stop.check)
        trainer = _Trainer(run, laid, source, background.files, device, reporter, stop, processes)
        results = [trainer.train_or_fail(fold, is_only=len(wanted) == 1) for fold in wanted]
    if processes.is_first:
        write_summary(run.run_dir, results)
    return results


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
    _check_recipe(run, wanted)
    if run.device == "cpu":  # a GPU has every precision, and asking it would take memory of it for hours
        precision_for(torch.device("cpu"), run.recipe.loop.amp)
    with StopRequest() as stop:
        _begin(run, wanted, reporter, stop, Processes())
        stop.check()
    return wanted


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
    there = n_folds(run.recipe)
    wanted = tuple(range(there)) if run.folds is None else run.folds
    outside = [fold for fold in wanted if not 0 <= fold < there]
    if outside:
        known = f"folds 0 to {there - 1}" if there > 1 else "one split, fold 0"
        raise ConfigError("--fold", f"is {outside[0]}, the recipe has {known}")
    return wanted


def _check_recipe(run: Run, wanted: Sequence[int]) -> Background:
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


def _begin(run: Run, wanted: Sequence[int], reporter: Reporter, stop: StopRequest, processes: Processes) -> Laid:
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
    over = [path for path in started if path.parent in {_folder(run.run_dir, fold) for fold in wanted}]
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


class _Trainer:
    """Trains the folds of one run."""

    def __init__(
        self, run: Run, laid: Laid, source: ClipSource, background: tuple[Path, ...], device: torch.device,
        reporter: Reporter, stop: StopRequest, processes: Processes,
    ) -> None:  # fmt: skip
        self._run, self._laid, self._source, self._background = run, laid, source, background
        self._device, self._reporter, self._stop, self._processes = device, reporter, stop, processes

    def train_or_fail(self, fold: int, is_only: bool) -> FoldResult:
        """A fold's result; with several folds, a failure is a result, too."""
        try:
            result = self._train(fold)
        except (BirdinferError, RuntimeError) as error:
            # Other processes would wait for ever for one that goes on with another fold.
            if is_only or self._processes.n > 1:
                raise
            result = FoldResult(fold, problem=" ".join(str(error).split()))
        self._reporter.finish(result)
        return result

    def _train(self, fold: int) -> FoldResult:
        job = self._job(fold)
        if not job.training or not (job.validation or job.recipe.data.all_data):
            side = "train" if job.validation else "validate"
            raise ConfigError("--fold", f"{fold} has no clips to {side} with", "lower data.n_folds")
        with self._alone_in(job.folder):
            progress = self._finished(job.folder / LAST)
            if progress is None:
                if self._processes.is_first:
                    write_atomic(job.folder / RECIPE_FILE, write_recipe(job.recipe))
                progress = train_fold(job, self._device, self._reporter, self._stop, self._processes)
            result = fold_result(fold, progress)
            if self._processes.is_first:
                write_atomic(job.folder / METRICS, as_json(plain(result) | self._facts(job)))
        return result

    def _alone_in(self, folder: Path) -> AbstractContextManager[None]:
        """While entered, no other run trains this fold: two that write to one folder would lose both."""
        if not self._processes.is_first:
            return nullcontext()
        return one_at_a_time(folder, self._reporter.message, self._stop.check, _PATIENCE_SECONDS)

    def _finished(self, path: Path) -> Progress | None:
        progress = load_header(path).progress if path.exists() else None
        if progress is None or not progress.is_complete:
            return None
        self._reporter.message(f"{path.parent} is finished already")
        return progress

    def _facts(self, job: FoldJob) -> dict[str, object]:
        return {
            "n_training_clips": len(job.training),
            "n_validation_clips": len(job.validation),
            "n_test_clips": len(job.test),
            "device": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            "processes": self._processes.n,
            "versions": versions(),
        }

    def _job(self, fold: int) -> FoldJob:
        return FoldJob(
            recipe=self._run.recipe,
            species=self._laid.species,
            fold=fold,
            training=self._laid.training(fold),
            validation=self._laid.held_out(fold),
            test=self._laid.held_out(TEST),
            source=self._source,
            background=self._background,
            data_dir=self._run.data_dir,
            folder=_folder(self._run.run_dir, fold),
        )


def _folder(run_dir: Path, fold: int) -> Path:
    return run_dir / f"fold{fold}"
