"""``birdinfer train --devices 0,1``: folds side by side, each trained by a process as the command line would start it.

In: the runs that were asked for. Out: their folds' results, read back from what the processes have left.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birdinfer.cli.same_command import command_again

if TYPE_CHECKING:
    from collections.abc import Mapping

    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.training.plan import Run
    from birdinfer.training.report import FoldResult
    from birdinfer.training.side_by_side import Job

LOGS_DIR = "logs"
_NOT_AGAIN = frozenset({"fold", "devices", "device", "quiet", "recipe"})
"""Of the command's parameters: those that each fold's own command gets anew, or not at all."""


def train_side_by_side(
    context: typer.Context, runs: "list[Run]", devices: str, quiet: bool
) -> "dict[Path, list[FoldResult]]":
    """Train all folds of all runs, as many at once as there are devices.

    Args:
        context: of the command ``train``; its options are handed on.
        runs: what to train; one for each recipe, in their order.
        devices: as ``--devices`` takes them.
        quiet: whether to show failures only.

    Returns:
        Of each run's folder the results of its folds. What fails stops nothing else.

    Raises:
        BirdinferError: it cannot be begun as asked; nothing was.
        KeyboardInterrupt, SystemExit: a signal came; what ran was saved.
    """
    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.training.devices import check_devices
    from birdinfer.training.side_by_side import parse_devices, run_side_by_side

    _check_alone(context)
    names = parse_devices(devices)
    check_devices(names)
    kind = "cpu" if "cpu" in names else "cuda"
    with TrainingProgress(quiet) as progress:
        outcomes: dict[Path, list[FoldResult]] = {}
        jobs: dict[tuple[Path, int], Job] = {}
        for index, run in enumerate(runs):
            outcomes[run.run_dir], folds = _prepared(run._replace(device=kind), len(runs) == 1, progress)
            jobs |= {(run.run_dir, fold): _job(context, runs, index, fold, kind) for fold in folds}
        codes = run_side_by_side(list(jobs.values()), names, progress.message)
        for (run_dir, fold), job in jobs.items():
            outcomes[run_dir].append(_result(run_dir, fold, job, codes[job.name]))
            progress.finish(outcomes[run_dir][-1], run_dir.name if len(runs) > 1 else "")
    _sum_up({run_dir: outcomes[run_dir] for run_dir, _ in jobs})
    return outcomes


def _check_alone(context: typer.Context) -> None:
    """``--devices`` says itself what runs where.

    Raises:
        ConfigError: something else was asked to, too.
    """
    from birdinfer.errors import ConfigError
    from birdinfer.training.processes import from_environment

    if from_environment().n > 1:
        what = "was given to torchrun, which starts processes for one fold"
        raise ConfigError("--devices", what, "leave it out, or start birdinfer train without torchrun")
    source = context.get_parameter_source("device")
    if source is not None and source.name == "COMMANDLINE":
        raise ConfigError("--device", "was given with --devices", "leave it out")


def _prepared(run: "Run", is_only: bool, progress: "TrainingProgress") -> "tuple[list[FoldResult], tuple[int, ...]]":
    """The failures of a run that cannot be trained, and its folds otherwise.

    Raises:
        BirdinferError: it cannot be trained, and is the only one.
    """
    from birdinfer.errors import BirdinferError
    from birdinfer.training.plan import prepare
    from birdinfer.training.report import FoldResult

    try:
        return [], prepare(run, progress)
    except BirdinferError as error:
        if is_only:
            raise
        failures = [FoldResult(fold, str(error)) for fold in run.folds or (0,)]
        progress.finish(failures[0], run.run_dir.name)
        return failures, ()


def _job(context: typer.Context, runs: "list[Run]", index: int, fold: int, kind: str) -> "Job":
    """A fold's own command."""
    from birdinfer.training.side_by_side import Job

    run, recipes = runs[index], context.params["recipe"] or []
    recipe = ["--recipe", str(recipes[index])] if recipes else []
    command = command_again(context, _NOT_AGAIN, [*recipe, "--fold", str(fold), "--device", kind])
    name = f"fold{fold}" if len(runs) == 1 else f"{run.run_dir.name}/fold{fold}"
    return Job(name, tuple(command), run.run_dir / LOGS_DIR / f"fold{fold}.log")


def _result(run_dir: Path, fold: int, job: "Job", code: int) -> "FoldResult":
    """What a fold's process has left."""
    from birdinfer.errors import BirdinferError
    from birdinfer.training.checkpoint import load_header
    from birdinfer.training.fold_job import LAST, fold_dir
    from birdinfer.training.report import FoldResult
    from birdinfer.training.side_by_side import why_failed
    from birdinfer.training.summary import fold_result

    if code:
        return FoldResult(fold, why_failed(job, code))
    try:
        return fold_result(fold, load_header(fold_dir(run_dir, fold) / LAST).progress)
    except BirdinferError as error:
        return FoldResult(fold, str(error))


def _sum_up(outcomes: "Mapping[Path, list[FoldResult]]") -> None:
    """Each fold's process has summed up those that were finished; only here is known which failed."""
    from birdinfer.training.summary import write_summary

    for run_dir, results in outcomes.items():
        if any(result.problem for result in results):
            write_summary(run_dir, results)
