"""A search as jobs of a cluster: its workers are one array, the folds of its best recipe another one after it."""

from collections.abc import Sequence
from dataclasses import replace

from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.runs.layout import BEST_FILE, LAST, RECIPE_FILE, SPACE_FILE
from birdinfer.training.launch.slurm import (
    SEARCH,
    ClusterSettings,
    JobArray,
    Submitted,
    as_shell,
    check_cluster,
    job_array,
    submit_all,
)
from birdinfer.training.launch.submit import check_place, fold_array, machine_options
from birdinfer.training.plan import Run, n_folds
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.tuning.callbacks import TuningCallback
from birdinfer.tuning.search import Search, TuningSettings, begin, plan_search
from birdinfer.tuning.space import write_space
from birdinfer.tuning.worker import Forward


def submit_search(
    settings: TuningSettings,
    cluster: ClusterSettings,
    workers: int = 1,
    then_train: Sequence[int] = (),
    callback: TuningCallback | None = None,
) -> list[Submitted]:
    """Submit the workers of a search to SLURM, and perhaps the training of the best recipe's folds ``then_train``.

    ``callback`` receives the progress of what is prepared here: folds are assigned, recipe and data checked. After a
    BirdinferError nothing is in the queue.
    """
    search = _planned(settings)
    arrays = _arrays(search, cluster, workers, then_train)
    check_cluster(arrays, cluster)
    begin(search, Forward(callback or TuningCallback()))
    return submit_all(arrays, chained=True)


def search_script(
    settings: TuningSettings, cluster: ClusterSettings, workers: int = 1, then_train: Sequence[int] = ()
) -> str:
    """The shell script that does what :func:`submit_search` would; nothing is written, and no SLURM needed."""
    search = _planned(settings)
    files = [
        (search.study_dir / RECIPE_FILE, write_recipe(search.recipe)),
        (search.study_dir / SPACE_FILE, write_space(search.space)),
    ]
    return as_shell(_arrays(search, cluster, workers, then_train), files, chained=True)


def all_folds(settings: TuningSettings) -> tuple[int, ...]:
    """The folds of a search's recipe."""
    return tuple(range(n_folds(plan_search(settings).recipe)))


def _planned(settings: TuningSettings) -> Search:
    check_place(settings.devices)
    return plan_search(settings)


def _arrays(search: Search, cluster: ClusterSettings, workers: int, then_train: Sequence[int]) -> list[JobArray]:
    if workers < 1:
        raise ConfigError("--workers", f"is {workers}, at least 1 is needed")
    study_dir = search.study_dir
    options = {
        "recipe": study_dir / RECIPE_FILE, "space": study_dir / SPACE_FILE, "study": study_dir.name,
        "runs-dir": study_dir.parent, "data": search.data, "fold": ",".join(map(str, search.folds)),
        "trials": search.trials, "repeats": search.repeats, "sampler": search.sampler, "pruner": search.pruner,
        "seed": search.seed, "storage": search.kind,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = ("tune", *words, *machine_options(search.device, search.cache_dir))
    arrays = [job_array(study_dir, "worker", tasks=range(workers), cluster=cluster, template=SEARCH, command=command)]
    if then_train:
        run_dir = study_dir.with_name(f"{study_dir.name}-best")
        if there := sorted(run_dir.glob(f"fold*/{LAST}")):
            raise CheckpointError(
                there[0], "is already there, of an earlier search", "move it, or name another --study"
            )
        run = Run(
            recipe=search.recipe, data_dir=search.data, run_dir=run_dir, folds=tuple(then_train),
            device=search.device, cache_dir=search.cache_dir,
        )  # fmt: skip
        # A template of the user's own is one for workers: it would not say which fold.
        arrays.append(fold_array(run, replace(cluster, template=None), study_dir / BEST_FILE))
    return arrays
