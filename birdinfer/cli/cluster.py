"""``--cluster slurm``: the folds of runs, or the workers of a search, as jobs of a cluster instead of here.

In: the running command, and what it would train. Out: jobs in the queue and a few lines that say how to watch them;
with ``--print`` nothing but a shell script that would submit them. Whatever can be refused is refused here, not by a
job after a night in the queue.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birdinfer.cli.cluster_options import CLUSTER_OPTIONS, CLUSTER_PARAMETERS, ClusterOptions
from birdinfer.cli.same_command import command_again, program

if TYPE_CHECKING:
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.cluster.resources import Resources
    from birdinfer.training.run import Run

_FOLDS_OWN = frozenset({"fold", "recipe", "finetune", "data", "run", "overrides", "weights", "debug", "resume"})
"""Parameters of ``train`` that stand in the run's own recipe, or that each fold's job gets anew."""
_SEARCH_OWN = frozenset({"workers", "then_train", "devices"})
"""Parameters of ``tune`` that are no worker's business."""
BEST = "-best"
"""What the run is called that trains a study's best recipe: like the study, and this."""


def submit_folds(context: typer.Context, runs: "list[Run]", options: ClusterOptions) -> None:
    """Submit each run as an array of jobs, one a fold.

    A job trains what is written down here and now, in the run's recipe.toml: a recipe that is changed while jobs wait
    changes nothing.

    Args:
        context: of the command ``train``.
        runs: what to train.
        options: what is asked of the cluster.

    Raises:
        BirdinferError: it cannot be trained or submitted as asked; nothing is in the queue then.
    """
    _check(context, options)
    arrays = [_folds(context, run, options) for run in runs]
    if options.print_only:
        from birdinfer.training.recipe.file import write_recipe

        _print(arrays, [(_recipe_of(run), write_recipe(run.recipe)) for run in runs])
        return
    _check_cluster(arrays, options)
    _prepare(runs, quiet=context.params["quiet"])
    _say(arrays, _submit(arrays))


def submit_search(
    context: typer.Context, study_dir: Path, options: ClusterOptions, workers: int, then_train: str | None
) -> None:
    """Submit the workers of a search as one array and, if asked, the folds of its best recipe as another after it.

    Args:
        context: of the command ``tune``.
        study_dir: the study's folder, which holds the base recipe already unless only to print.
        options: what is asked of the cluster.
        workers: how many share the study.
        then_train: which folds to train when all workers have ended well, as ``train --fold`` takes it; None for none.

    Raises:
        BirdinferError: it cannot be submitted as asked; nothing is in the queue then.
    """
    _check(context, options)
    arrays = [_workers(context, study_dir, options, workers)]
    if then_train is not None:
        arrays.append(_best_folds(context, study_dir, options, then_train))
    if options.print_only:
        _print(arrays, chained=True)
        return
    _check_cluster(arrays, options)
    _say(arrays, _submit(arrays, chained=True))


def _check(context: typer.Context, options: ClusterOptions) -> None:
    """Which options go together.

    Raises:
        ConfigError: these do not.
    """
    from birdinfer.errors import ConfigError

    asked = [name for name, value in options._asdict().items() if value != ClusterOptions._field_defaults[name]]
    if options.cluster is None:
        raise ConfigError(CLUSTER_OPTIONS[asked[0]], "is for jobs of a cluster", "add --cluster slurm, or leave it out")
    if options.cluster != "slurm":
        raise ConfigError("--cluster", f"is {options.cluster!r}, allowed is slurm")
    if context.params.get("devices") is not None:
        raise ConfigError("--devices", "is for this machine, --cluster for another", "leave one of them out")


def _folds(context: typer.Context, run: "Run", options: ClusterOptions) -> "JobArray":
    """The folds of a run."""
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import ARRAY, SEVERAL_PROCESSES
    from birdinfer.training.processes import Processes
    from birdinfer.training.run import wanted_folds

    resources = _resources(options)
    Processes(n=resources.n_processes).check_batch(run.recipe.loop)
    added = ["--recipe", str(_recipe_of(run)), "--name", run.run_dir.name, "--data", str(run.data_dir)]
    command = command_again(context, _FOLDS_OWN | CLUSTER_PARAMETERS, added)
    template = ARRAY if resources.n_processes == 1 else SEVERAL_PROCESSES
    return _array(run.run_dir, "fold", wanted_folds(run), options, template, command, sbatch_options(resources))


def _workers(context: typer.Context, study_dir: Path, options: ClusterOptions, workers: int) -> "JobArray":
    """The workers of a search."""
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import SEARCH

    command = command_again(context, _SEARCH_OWN | CLUSTER_PARAMETERS)
    asked = sbatch_options(_resources(options))
    return _array(study_dir, "worker", range(workers), options, SEARCH, command, asked)


def _best_folds(context: typer.Context, study_dir: Path, options: ClusterOptions, folds: str) -> "JobArray":
    """The folds of what a search will have found best."""
    from birdinfer.cli.train import DEFAULT_RECIPE, parse_folds
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import ARRAY
    from birdinfer.training.recipe.file import load_recipe
    from birdinfer.training.run import Run, wanted_folds
    from birdinfer.training.tuning.folder import BEST_FILE, RECIPE_FILE

    written = study_dir / RECIPE_FILE
    given = context.params["recipe"] or (DEFAULT_RECIPE if DEFAULT_RECIPE.is_file() else None)
    recipe = load_recipe(written) if written.is_file() else load_recipe(given, context.params["overrides"] or [])
    run_dir = study_dir.with_name(study_dir.name + BEST)
    _check_new(run_dir)
    asked = ["--recipe", str(study_dir / BEST_FILE), "--name", run_dir.name, "--runs-dir", str(run_dir.parent)]
    passed = {"--data": "data", "--cache-dir": "cache_dir", "--device": "device"}
    for option, name in passed.items():
        value = context.params.get(name)
        asked += [option, str(value)] if value is not None else []
    wanted = wanted_folds(Run(recipe, Path(), run_dir, parse_folds(folds)))
    command = [*program(), "train", *asked]
    return _array(run_dir, "fold", wanted, options, ARRAY, command, sbatch_options(_resources(options)))


def _array(
    folder: Path, kind: str, tasks: Sequence[int], options: ClusterOptions, template: str, command: list[str],
    asked: tuple[str, ...],
) -> "JobArray":  # fmt: skip
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.cluster.templates import script, shipped

    text = script(options.template or shipped(template), options.setup)
    return JobArray(folder.name, folder, kind, tuple(tasks), text, tuple(command), asked)


def _resources(options: ClusterOptions) -> "Resources":
    from birdinfer.training.cluster.resources import Resources

    return Resources(
        options.partition, options.gres, options.time_limit, options.memory, options.cpus, options.nodes,
        options.processes, options.sbatch,
    )  # fmt: skip


def _recipe_of(run: "Run") -> Path:
    from birdinfer.training.run import RECIPE_FILE

    return run.run_dir / RECIPE_FILE


def _check_new(run_dir: Path) -> None:
    """Refuse to train a search's best recipe into a run of another one.

    Raises:
        CheckpointError: there is such a run.
    """
    from birdinfer.errors import CheckpointError
    from birdinfer.training.fold_job import LAST

    there = sorted(run_dir.glob(f"fold*/{LAST}"))
    if there:
        raise CheckpointError(there[0], "is already there, of an earlier search", "move it, or name another --study")


def _check_cluster(arrays: "Sequence[JobArray]", options: ClusterOptions) -> None:
    """Whether there is SLURM, with such a partition, and none of the jobs is in its queue already.

    Raises:
        ConfigError: it is not so.
    """
    from birdinfer.training.cluster.slurm import check_not_queued, check_partition, check_there

    check_there()
    if options.partition is not None:
        check_partition(options.partition)
    for array in arrays:
        check_not_queued(array)


def _prepare(runs: "list[Run]", quiet: bool) -> None:
    """Lay the folds and write down the recipe of each run: what cannot be trained is found out now.

    Raises:
        BirdinferError: a run cannot be trained.
    """
    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.training.run import prepare

    with TrainingProgress(quiet) as progress:
        for run in runs:
            prepare(run, progress)


def _submit(arrays: "Sequence[JobArray]", chained: bool = False) -> list[str]:
    """All arrays, or none of them.

    Returns:
        The number of each one's job.

    Raises:
        ConfigError: SLURM refuses one; those before it are taken back.
    """
    from birdinfer.errors import BirdinferError
    from birdinfer.training.cluster.slurm import cancel, submit

    jobs: list[str] = []
    try:
        for array in arrays:
            jobs.append(submit(array, jobs[-1] if chained and jobs else None))
    except BirdinferError:
        cancel(jobs)
        raise
    return jobs


def _print(arrays: "Sequence[JobArray]", files: Sequence[tuple[Path, str]] = (), chained: bool = False) -> None:
    from birdinfer.training.cluster.arrays import as_shell

    typer.echo(as_shell(arrays, files, chained), nl=False)


def _say(arrays: "Sequence[JobArray]", jobs: list[str]) -> None:
    """What is in the queue, and how to watch it."""
    from birdinfer.cli.console import shown, stdout

    console = stdout()
    for array, job in zip(arrays, jobs, strict=True):
        numbers = ", ".join(map(str, array.tasks))
        console.print(f"{shown(str(array.folder))}: job {job}, {array.kind}{'s'[: len(array.tasks) > 1]} {numbers}")
        console.print(f"  logs   {shown(str(array.log('*', job)))}")
        console.print(f"  watch  {shown(shlex.join(['tail', '-F', str(array.log(str(array.tasks[0]), job))]))}")
    console.print(f"squeue -j {','.join(jobs)} shows them, scancel {' '.join(jobs)} ends them")
