"""Training runs: settings -> ``runs/NAME/`` with folds.csv and a folder for each fold.

:func:`train_folds` does all that ``birdinfer train`` does. A fold's folder holds best.safetensors, last.safetensors,
history.csv, oof.csv, classes.csv, taxa.csv, metrics.json and recipe.toml.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from birdinfer.errors import BirdinferError, CheckpointError, ConfigError
from birdinfer.runs.layout import LAST, LOGS_DIR, RECIPE_FILE, fold_dir
from birdinfer.system.files import write_atomic
from birdinfer.system.locks import locked
from birdinfer.system.signals import StopRequest
from birdinfer.training.augment import find_background
from birdinfer.training.augment.background import Background
from birdinfer.training.callbacks import SILENT, FoldResult, FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow, Progress, load_header, versions
from birdinfer.training.data.folds_file import FOLDS_FILE, TEST
from birdinfer.training.data.prepare import PreparedData, open_source, prepare_data
from birdinfer.training.data.sources import ClipSource
from birdinfer.training.data.teacher import (
    TeacherTargets,
    check_pseudo_labels,
    choose_teacher,
    open_bundle,
    open_teacher,
)
from birdinfer.training.devices import check_devices, choose_device, deterministic, precision_for
from birdinfer.training.distributed import Distributed, exit_if_one_is_lost, from_environment, process_group
from birdinfer.training.fold import Fold, Session, check_same_recipe, check_start_weights
from birdinfer.training.launch.local import CPU, Job, parse_devices, receive, run_side_by_side
from birdinfer.training.loop import train_fold
from birdinfer.training.losses import build_loss
from birdinfer.training.models.hub import check_hub
from birdinfer.training.models.registry import build_model
from birdinfer.training.plan import Run, TrainingSettings, plan_runs, wanted_folds
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.toml import load_recipe, write_recipe
from birdinfer.training.run_log import logged
from birdinfer.training.summary import METRICS, as_json, fold_result, origin, plain, write_summary
from birdinfer.training.tracking.reporter import tracked

__all__ = ["Run", "TrainingSettings", "prepare_run", "train_folds", "train_run", "train_runs", "train_side_by_side"]

_PATIENCE_SECONDS = 30.0
"""How long to wait for another process that is still saving the fold that this one would resume."""

# ---- Before the first fold: what can be wrong is found before clips are searched and decoded for minutes


def prepare_run(run: Run, callback: TrainingCallback = SILENT) -> tuple[int, ...]:
    """Do once what comes before the first fold, so that separate processes can train the folds.

    Args:
        run: its device is ``cpu`` or ``cuda``.
        callback: receives the progress.

    Returns:
        The folds to train.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used.
    """
    wanted = wanted_folds(run)
    check_recipe(run, wanted)
    if run.device == "cpu":  # a GPU has every precision, and asking it would take memory of it for hours
        precision_for(torch.device("cpu"), run.recipe.loop.amp)
    with StopRequest() as stop:
        _prepare_folder(run, wanted, callback, stop, Distributed())
        stop.check()
    return wanted


def check_recipe(run: Run, wanted: Sequence[int]) -> Background:
    """Check what the types of a recipe's keys cannot say, and find its background.

    Raises:
        ConfigError: network or loss are unknown, a key is of no use, or there is no such background.
        InputNotFoundError, CheckpointError: there are no such weights, or not of these folds.
    """
    recipe = run.recipe
    build_model(recipe.model, 1, recipe.input_config, start=False)
    if not (run.resume and any(run.run_dir.glob(f"fold*/{LAST}"))):
        check_hub(recipe.model)
    check_start_weights(recipe, wanted)
    build_loss(recipe.loss, [1])
    check_pseudo_labels(recipe, run.data_dir)
    if recipe.distil.teacher:
        open_bundle(recipe.distil, run.cache_dir)
    return find_background(recipe.augment.background_dir, run.data_dir)


def _prepare_folder(
    run: Run, wanted: Sequence[int], callback: TrainingCallback, stop: StopRequest, processes: Distributed
) -> PreparedData:
    """The run's clips and folds, which the first process assigns and writes down; the others read them after it."""
    if not processes.is_first:
        processes.wait()
        return prepare_data(run.recipe, run.data_dir, run.run_dir, callback)
    with locked(run.run_dir, callback.on_message, stop.check):
        _check_untouched(run, wanted)
        data = prepare_data(run.recipe, run.data_dir, run.run_dir, callback)
        write_atomic(run.run_dir / RECIPE_FILE, write_recipe(run.recipe))
    processes.wait()
    return data


def _check_untouched(run: Run, wanted: Sequence[int]) -> None:
    """Refuse a folder that holds another recipe's run, or trained folds that shall not be resumed."""
    started = sorted(run.run_dir.glob(f"fold*/{LAST}"))
    own = {fold_dir(run.run_dir, fold) for fold in wanted}
    for path in started:
        header = load_header(path)
        # A run may be given more epochs, fold by fold.
        epochs_done = header.progress.epoch if path.parent in own else 0
        check_same_recipe(header.recipe, run.recipe, path, epochs_done if run.resume else None)
    over = [path for path in started if path.parent in own]
    if over and not run.resume:
        raise CheckpointError(over[0], "is already there", "continue with --resume, or name another run with --run")
    if not started and not _is_recipe_of(run):
        # Folds of another recipe's run, which was never trained.
        (run.run_dir / FOLDS_FILE).unlink(missing_ok=True)


def _is_recipe_of(run: Run) -> bool:
    """Whether the run's folder has the same recipe; another process may be preparing it just now."""
    path = run.run_dir / RECIPE_FILE
    try:
        check_same_recipe(load_recipe(path), run.recipe, path)
    except BirdinferError:
        return False
    return True


# ---- Training


def train_folds(
    settings: TrainingSettings | Sequence[TrainingSettings],
    callback: TrainingCallback = SILENT,
) -> dict[Path, list[FoldResult]]:
    """Train the folds of one run, or of several runs one after another.

    Args:
        settings: what to train; of several, the first one's devices count.
        callback: receives the progress.

    Returns:
        A result for each fold, by the run's folder. A fold that fails does not stop other folds or runs.

    Raises:
        BirdinferError: nothing can be trained as asked; or the only run, or its only fold, failed.
        KeyboardInterrupt, SystemExit: a stop was requested; what was trained is saved.
    """
    every = [settings] if isinstance(settings, TrainingSettings) else list(settings)
    runs, devices = plan_runs(every), every[0].devices
    for run in runs:
        if run.note:
            callback.on_warning(run.note)
    if len(devices) == 1 and not devices[0].isdecimal():
        return train_runs(runs, callback)
    return train_side_by_side(runs, devices, callback)


def train_side_by_side(
    runs: Sequence[Run], devices: Sequence[str], callback: TrainingCallback = SILENT
) -> dict[Path, list[FoldResult]]:
    """Train the folds of planned runs, each in a process of its own, one at a time on each device.

    Args:
        runs: what to train.
        devices: GPU numbers, or ``cpu`` repeatedly.
        callback: receives the progress; :meth:`TrainingCallback.of_fold` that of each fold.

    Returns, raises: as :func:`train_folds`.
    """
    names = parse_devices(",".join(devices))
    check_devices(names)
    if from_environment().n > 1:
        what = "was given to torchrun, which starts processes for one fold"
        raise ConfigError("--devices", what, "leave it out, or start birdinfer train without torchrun")
    outcomes: dict[Path, list[FoldResult]] = {}
    folds: dict[str, tuple[Run, int]] = {}
    for run in (replace(each, device=CPU if CPU in names else "cuda") for each in runs):
        prefix = f"{run.run_dir.name}/" if len(runs) > 1 else ""
        outcomes[run.run_dir] = []
        try:
            folds |= {f"{prefix}fold{fold}": (run, fold) for fold in prepare_run(run, callback)}
        except BirdinferError as error:
            if len(runs) == 1:
                raise
            outcomes[run.run_dir] = [FoldResult(fold=fold, problem=str(error)) for fold in run.folds or (0,)]
            callback.on_fold_end(outcomes[run.run_dir][0], run.run_dir.name)
    callbacks = {name: callback.of_fold(name) for name in folds}
    problems = run_side_by_side(
        [
            Job(name, _fold_command(*each), each[0].run_dir / LOGS_DIR / f"fold{each[1]}.log")
            for name, each in folds.items()
        ],
        names,
        callback,
        lambda name, event, arguments: receive(callbacks[name], event, arguments, _EVENTS),
    )
    for name, (run, fold) in folds.items():
        result = _result_of(run.run_dir, fold, problems[name])
        outcomes[run.run_dir].append(result)
        callback.on_fold_end(result, run.run_dir.name if len(runs) > 1 else "")
    # Each process has summed up the folds that were finished; only here is known which failed.
    for run_dir in {run.run_dir for run, _ in folds.values()}:
        if any(result.problem for result in outcomes[run_dir]):
            write_summary(run_dir, outcomes[run_dir])
    return outcomes


_EVENTS: dict[str, tuple[Any, ...]] = {
    "on_message": (str,),
    "on_warning": (str,),
    "on_progress": (str, float, float),
    "on_fold_start": (FoldStart,),
    "on_step": (int, float),
    "on_epoch_end": (EpochRow, bool),
}
"""What the process of a fold reports, with the types of its arguments; its result lies on disk."""


def _fold_command(run: Run, fold: int) -> tuple[str, ...]:
    cache = ("--cache-dir", str(run.cache_dir)) if run.cache_dir is not None else ()
    module = (sys.executable, "-m", "birdinfer.training.launch.worker", str(run.run_dir))
    return (*module, "--fold", str(fold), "--data", str(run.data_dir), "--device", run.device, *cache)


def _result_of(run_dir: Path, fold: int, problem: str) -> FoldResult:
    try:
        return (
            FoldResult(fold=fold, problem=problem)
            if problem
            else fold_result(fold, load_header(fold_dir(run_dir, fold) / LAST).progress)
        )
    except BirdinferError as error:
        return FoldResult(fold=fold, problem=str(error))


def train_runs(runs: Sequence[Run], callback: TrainingCallback = SILENT) -> dict[Path, list[FoldResult]]:
    """Train planned runs in this process, one after another; see :func:`train_folds`."""
    outcomes: dict[Path, list[FoldResult]] = {}
    for run in runs:
        name = run.run_dir.name if len(runs) > 1 else ""
        if name:
            callback.on_message(f"== {run.run_dir}")
        try:
            outcomes[run.run_dir] = train_run(run, callback, name)
        except BirdinferError as error:
            if not name:
                raise
            outcomes[run.run_dir] = [FoldResult(fold=fold, problem=str(error)) for fold in run.folds or (0,)]
            callback.on_fold_end(outcomes[run.run_dir][0], name)
    return outcomes


def train_run(run: Run, callback: TrainingCallback = SILENT, name: str = "") -> list[FoldResult]:
    """Train the folds of one run in this process.

    Args:
        run: what and where.
        callback: receives the progress.
        name: the run's, where results of several runs are reported.

    Returns:
        A result per fold. With more than one fold, one that fails does not stop the others.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used; or the only fold failed.
    """
    processes = from_environment()
    # Of several processes that train one network, the first one reports.
    callback = callback if processes.is_first else SILENT
    has_log = run.has_log or not processes.is_first
    with (
        nullcontext(callback) if has_log else logged(run.run_dir, callback) as callback,
        deterministic(run.recipe.loop.deterministic),
    ):
        return _train_run(run, callback, name, processes)


def _train_run(run: Run, callback: TrainingCallback, name: str, processes: Distributed) -> list[FoldResult]:
    wanted = wanted_folds(run)
    device = choose_device(run.device, callback.on_message, processes.local_rank)
    background = check_recipe(run, wanted)
    precision_for(device, run.recipe.loop.amp)
    for line in background.failed:
        callback.on_message(f"background left out, cannot be decoded: {line}")
    tracking = partial(tracked, run.recipe, run.data_dir, run.run_dir) if processes.is_first else nullcontext
    with (
        process_group(processes, device, str(run.run_dir)),
        StopRequest() as stop,
        exit_if_one_is_lost(processes, stop),
        tracking(callback) as callback,
    ):
        data = _prepare_folder(run, wanted, callback, stop, processes)
        session = Session(device=device, processes=processes, stop=stop, callback=callback)
        source = open_source(run.recipe, data.clips, run.cache_dir, callback, stop.check)
        results = []
        for number in wanted:
            fold = Fold(
                recipe=run.recipe,
                species=data.species,
                number=number,
                training=data.training(number),
                validation=data.held_out(number),
                test=data.held_out(TEST),
                source=source,
                sources=data.sources,
                taxa=data.taxa,
                background=background.files,
                data_dir=run.data_dir,
                folder=fold_dir(run.run_dir, number),
            )
            try:
                fold = replace(fold, teacher=_teacher(run, data, number, source, session))
                result = _train_or_read(fold, session)
            except (BirdinferError, RuntimeError) as error:
                # Other processes would wait for ever for one that continues with another fold.
                if len(wanted) == 1 or processes.n > 1:
                    raise
                result = FoldResult(fold=number, problem=" ".join(str(error).split()))
            callback.on_fold_end(result, name)
            results.append(result)
    if processes.is_first:
        write_summary(run.run_dir, results)
    return results


def _teacher(run: Run, data: PreparedData, number: int, source: ClipSource, session: Session) -> TeacherTargets | None:
    """What a fold learns besides the labels, all of it in the cache; None if the recipe has no teacher."""
    recipe, callback = run.recipe, session.callback
    if not recipe.distil.teacher:
        return None
    held_out = (*data.held_out(number), *data.held_out(TEST))
    teacher = choose_teacher(recipe, data.species, held_out, run.cache_dir, callback.on_message)
    return open_teacher(teacher, data.clips, recipe, source, run.cache_dir, callback.on_progress, session.stop.check)


def _train_or_read(fold: Fold, session: Session) -> FoldResult:
    """Train a fold, unless it is complete already, and write what it is worth."""
    if not fold.training or not (fold.validation or fold.recipe.data.all_data):
        side = "train" if fold.validation else "validate"
        raise ConfigError("--fold", f"{fold.number} has no clips to {side} with", "train another fold")
    # Two runs that write to one folder would lose both.
    alone: AbstractContextManager[None] = nullcontext()
    writes, callback = session.processes.is_first, session.callback
    if writes:
        alone = locked(fold.folder, callback.on_message, session.stop.check, _PATIENCE_SECONDS)
    with alone:
        progress = _complete(fold.folder / LAST, fold.recipe)
        if progress is None:
            if writes:
                (fold.folder / METRICS).unlink(missing_ok=True)  # of a run that was given more epochs
                write_atomic(fold.folder / RECIPE_FILE, write_recipe(fold.recipe))
            progress = train_fold(fold, session)
        else:
            callback.on_message(f"{fold.folder} is finished already")
        result = fold_result(fold.number, progress)
        if writes:
            facts = {
                "n_training_clips": len(fold.training),
                "n_validation_clips": len(fold.validation),
                "n_training_species": len({clip.primary_label for clip in fold.training} - {""}),
                "n_validation_species": len({clip.primary_label for clip in fold.validation} - {""}),
                "n_test_clips": len(fold.test),
                "device": torch.cuda.get_device_name(session.device) if session.device.type == "cuda" else "cpu",
                "processes": session.processes.n,
                "versions": versions(),
            }
            origins = origin(fold.folder.parent, [fold.number])
            write_atomic(fold.folder / METRICS, as_json(plain(result) | facts | origins))
    return result


def _complete(path: Path, recipe: Recipe) -> Progress | None:
    """What a fold has come to, if nothing of it is left to train."""
    header = load_header(path) if path.exists() else None
    is_whole = header is not None and header.progress.is_complete and header.recipe.loop.epochs == recipe.loop.epochs
    return header.progress if header is not None and is_whole else None
