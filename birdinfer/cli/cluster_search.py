"""``birdinfer tune --cluster slurm``: the workers of a search as jobs of a cluster, and its best recipe after them.

In: the running command and the search that it asks for. Out: an array of workers and, if asked, an array of folds
that waits for it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birdinfer.cli.cluster_jobs import check_cluster, check_options, job_array, print_all, resources_of, say, submit_all
from birdinfer.cli.cluster_options import CLUSTER_PARAMETERS, ClusterOptions
from birdinfer.cli.same_command import command_again, program
from birdinfer.cli.train import parse_folds

if TYPE_CHECKING:
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.tuning.search import Search

_OWN = frozenset({"workers", "then_train", "devices"})
"""Parameters that are no worker's business."""
_BEST = "-best"
"""What the run is called that trains a study's best recipe: like the study, and this."""


def submit_search(
    context: typer.Context, search: "Search", options: ClusterOptions, workers: int, then_train: str | None
) -> None:
    """Submit the workers of a search as one array and, if asked, the folds of its best recipe as another after it.

    Args:
        context: of the command ``tune``.
        search: what is searched.
        options: what is asked of the cluster.
        workers: how many share the study, at least 1.
        then_train: which folds to train when all workers have ended well, as ``train --fold`` takes it; None for none.

    Raises:
        BirdinferError: it cannot be submitted as asked; nothing is in the queue then.
    """
    check_options(context, options)
    arrays = [_workers(context, search.study_dir, options, workers)]
    if then_train is not None:
        arrays.append(_best_folds(context, search, options, then_train))
    if options.print_only:
        print_all(arrays, chained=True)
        return
    check_cluster(arrays, options)
    _begin(search, quiet=context.params["quiet"])
    say(arrays, submit_all(arrays, chained=True))


def _workers(context: typer.Context, study_dir: Path, options: ClusterOptions, workers: int) -> "JobArray":
    """The workers of a search."""
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import SEARCH

    command = command_again(context, _OWN | CLUSTER_PARAMETERS)
    asked = sbatch_options(resources_of(options))
    return job_array(study_dir, "worker", range(workers), options, SEARCH, command, asked)


def _begin(search: "Search", quiet: bool) -> None:
    """Begin the study that the workers will share: its folds are laid, its data and recipe checked.

    Raises:
        BirdinferError: it cannot be begun.
    """
    from birdinfer.cli.tuning_progress import TuningProgress
    from birdinfer.training.tuning.search import begin
    from birdinfer.training.tuning.trial_reporter import Passing

    with TuningProgress(search.n_trials, quiet) as progress:
        begin(search, Passing(progress))


def _best_folds(context: typer.Context, search: "Search", options: ClusterOptions, folds: str) -> "JobArray":
    """The folds of what a search will have found best."""
    from birdinfer.training.cluster.resources import sbatch_options
    from birdinfer.training.cluster.templates import ARRAY
    from birdinfer.training.plan import Run, wanted_folds
    from birdinfer.training.tuning.folder import BEST_FILE

    study_dir = search.study_dir
    run_dir = study_dir.with_name(study_dir.name + _BEST)
    _check_new(run_dir)
    asked = ["--recipe", str(study_dir / BEST_FILE), "--name", run_dir.name, "--runs-dir", str(run_dir.parent)]
    passed = {"--data": "data", "--cache-dir": "cache_dir", "--device": "device"}
    for option, name in passed.items():
        value = context.params.get(name)
        asked += [option, str(value)] if value is not None else []
    wanted = wanted_folds(Run(search.recipe, search.data_dir, run_dir, parse_folds(folds)))
    command = [*program(), "train", *asked]
    # A template of the user's own is one for workers: it would not say which fold.
    options = options._replace(template=None)
    return job_array(run_dir, "fold", wanted, options, ARRAY, command, sbatch_options(resources_of(options)))


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
