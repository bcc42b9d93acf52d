"""``birdinfer train --cluster slurm``: the folds of runs as jobs of a cluster.

In: the running command and the runs that it would train. Out: an array of jobs for each run, a fold a task.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birdinfer.cli.cluster_jobs import check_cluster, check_options, job_array, print_all, resources_of, say, submit_all
from birdinfer.cli.cluster_options import CLUSTER_PARAMETERS, ClusterOptions
from birdinfer.cli.same_command import command_again

if TYPE_CHECKING:
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.plan import Run

_OWN = frozenset({"fold", "recipe", "finetune", "data", "run", "overrides", "weights", "debug", "resume"})
"""Parameters that stand in the run's own recipe, or that each fold's job gets anew."""


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
    check_options(context, options)
    arrays = [_folds(context, run, options) for run in runs]
    if options.print_only:
        from birdinfer.training.recipe.file import write_recipe

        print_all(arrays, [(_recipe_of(run), write_recipe(run.recipe)) for run in runs])
        return
    check_cluster(arrays, options)
    _prepare(runs, quiet=context.params["quiet"])
    say(arrays, submit_all(arrays))


def _folds(context: typer.Context, run: "Run", options: ClusterOptions) -> "JobArray":
    """The folds of a run."""
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import ARRAY, SEVERAL_PROCESSES
    from birdinfer.training.plan import wanted_folds
    from birdinfer.training.processes import Processes

    resources = resources_of(options)
    Processes(n=resources.n_processes).check_batch(run.recipe.loop)
    added = ["--recipe", str(_recipe_of(run)), "--name", run.run_dir.name, "--data", str(run.data_dir)]
    command = command_again(context, _OWN | CLUSTER_PARAMETERS, added)
    template = ARRAY if resources.n_processes == 1 else SEVERAL_PROCESSES
    return job_array(run.run_dir, "fold", wanted_folds(run), options, template, command, sbatch_options(resources))


def _recipe_of(run: "Run") -> Path:
    from birdinfer.training.plan import RECIPE_FILE

    return run.run_dir / RECIPE_FILE


def _prepare(runs: "list[Run]", quiet: bool) -> None:
    """Lay the folds and write down the recipe of each run: what cannot be trained is found out now.

    Raises:
        BirdinferError: a run cannot be trained.
    """
    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.training.plan import prepare

    with TrainingProgress(quiet) as progress:
        for run in runs:
            prepare(run, progress)
