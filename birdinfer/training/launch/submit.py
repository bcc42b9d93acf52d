"""Folds of runs as jobs of a cluster: settings -> an array of jobs for each run, a fold a task.

A job is ``birdinfer train`` with the recipe that lies in the run's folder: changing the user's recipe while jobs wait
changes nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import RECIPE_FILE
from birdinfer.training.callbacks import SILENT, TrainingCallback
from birdinfer.training.distributed import Distributed, from_environment
from birdinfer.training.launch import slurm
from birdinfer.training.launch.slurm import ClusterSettings, JobArray, Submitted, check_cluster, job_array, submit_all
from birdinfer.training.plan import Run, TrainingSettings, plan_runs, wanted_folds
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.training.run import prepare_run


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
