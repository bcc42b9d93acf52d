"""Folds of runs as jobs of a cluster: settings -> an array of jobs for each run, a fold a task.

A job is ``birdinfer train`` with the recipe that lies in the run's folder: changing the user's recipe while jobs wait
changes nothing.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.runs.layout import RECIPE_FILE
from birdinfer.system.locks import locked
from birdinfer.training.callbacks import SILENT, TrainingCallback
from birdinfer.training.distributed import Distributed, from_environment
from birdinfer.training.launch import slurm
from birdinfer.training.launch.slurm import ClusterSettings, JobArray
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.training.run import Run, TrainingSettings, plan_runs, prepare_run, wanted_folds


@dataclass(frozen=True, slots=True)
class Submitted:
    """An array of jobs in the queue, and its number there."""

    array: JobArray
    job: str


def submit_folds(
    settings: TrainingSettings | Sequence[TrainingSettings],
    cluster: ClusterSettings,
    callback: TrainingCallback = SILENT,
) -> list[Submitted]:
    """Submit the folds of runs to SLURM, an array for each run.

    ``callback`` receives the progress of what is prepared here: folds are assigned, recipes written down. After a
    BirdinferError nothing is in the queue.
    """
    runs = _planned(settings)
    arrays = [fold_array(run, cluster) for run in runs]
    check_cluster(arrays, cluster)
    for run in runs:
        prepare_run(run, callback)
    return submit_all(arrays)


def folds_script(settings: TrainingSettings | Sequence[TrainingSettings], cluster: ClusterSettings) -> str:
    """The shell script that does what :func:`submit_folds` would; nothing is written, and no SLURM needed."""
    runs = _planned(settings)
    recipes = [(run.run_dir / RECIPE_FILE, write_recipe(run.recipe)) for run in runs]
    return slurm.as_shell([fold_array(run, cluster) for run in runs], recipes)


def _planned(settings: TrainingSettings | Sequence[TrainingSettings]) -> list[Run]:
    every = [settings] if isinstance(settings, TrainingSettings) else list(settings)
    check_place(every[0].devices)
    return plan_runs(every)


def check_place(devices: Sequence[str]) -> None:
    """Refuse to submit what is to run here: on named devices, or in a process of torchrun."""
    if len(devices) > 1 or devices[0].isdecimal():
        raise ConfigError("--devices", "is for this machine, --cluster for another", "leave one of them out")
    if from_environment().n > 1:
        raise ConfigError("--cluster", "was given to torchrun, each process would submit", "use --processes instead")


def fold_array(run: Run, cluster: ClusterSettings, recipe: Path | None = None) -> JobArray:
    """The folds of a run as one array, with its recipe from the run's folder, or from another file."""
    Distributed(n=cluster.n_processes).check_batch(run.recipe.loop)
    template = slurm.ARRAY if cluster.n_processes == 1 else slurm.SEVERAL_PROCESSES
    command = (
        "train", "--recipe", str(recipe or run.run_dir / RECIPE_FILE), "--name", run.run_dir.name,
        "--runs-dir", str(run.run_dir.parent), "--data", str(run.data_dir), *machine_options(run.device, run.cache_dir),
    )  # fmt: skip
    return job_array(run.run_dir, "fold", tasks=wanted_folds(run), cluster=cluster, template=template, command=command)


def machine_options(device: str, cache_dir: Path | None) -> tuple[str, ...]:
    """The options of ``train`` and ``tune`` that say where a job works, as far as they are not the default."""
    cache = ("--cache-dir", str(cache_dir)) if cache_dir is not None else ()
    return (*(("--device", device) if device != "auto" else ()), *cache)


def job_array(
    folder: Path, kind: str, *, tasks: Sequence[int], cluster: ClusterSettings, template: str, command: Sequence[str]
) -> JobArray:
    """One command of birdinfer, given without the program, as several tasks.

    ``template`` names the script that comes with birdinfer, if the user has none.
    """
    return JobArray(
        name=folder.name, folder=folder, kind=kind, tasks=tuple(tasks),
        script=slurm.script(cluster.template or slurm.shipped(template), cluster.setup),
        command=(sys.executable, "-m", "birdinfer", *command), options=slurm.sbatch_options(cluster),
    )  # fmt: skip


def check_cluster(arrays: Sequence[JobArray], cluster: ClusterSettings) -> None:
    """Check that there is SLURM, with such a partition, and that none of the jobs is in its queue."""
    slurm.check_there()
    if cluster.partition is not None:
        slurm.check_partition(cluster.partition)
    for array in arrays:
        slurm.check_not_queued(array)


def submit_all(arrays: Sequence[JobArray], chained: bool = False) -> list[Submitted]:
    """Submit all arrays in this order, or none of them; ``chained`` ones wait for the one before.

    ConfigError if SLURM refuses one, or another process was quicker; those before it are cancelled.
    """
    jobs: list[str] = []
    with contextlib.ExitStack() as held:
        for folder in sorted(array.folder for array in arrays):  # in one order, or two would wait for each other
            held.enter_context(locked(folder))
        try:
            for array in arrays:
                slurm.check_not_queued(array)
                jobs.append(slurm.submit(array, jobs[-1] if chained and jobs else None))
        except BirdinferError:
            slurm.cancel(jobs)
            raise
    return [Submitted(array, job) for array, job in zip(arrays, jobs, strict=True)]
