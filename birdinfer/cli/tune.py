"""``birdinfer tune``: a recipe, a space and clips -> trials, what they are worth, and the best recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdinfer.cli.cluster_options import (
    ClusterName,
    ClusterOptions,
    Cpus,
    Further,
    Gres,
    Memory,
    Partition,
    PrintOnly,
    Setup,
    Template,
    TimeLimit,
)
from birdinfer.cli.train import DEFAULT_DATA, DEFAULT_RECIPE, check_name, parse_folds

if TYPE_CHECKING:
    from birdinfer.cli.tuning_progress import TuningProgress
    from birdinfer.training.recipe import Recipe
    from birdinfer.training.tuning.search import Search
    from birdinfer.training.tuning.worker import Outcome

EXIT_UNFINISHED = 3
DEFAULT_SPACE = Path("train/space.toml")
DEBUG_TRIALS = 3
_FIXED_BY_DEBUG = frozenset({"loop.epochs", "optim.frozen_norm_epochs"})


def tune(
    context: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help=f"The recipe to begin with, which is the first trial; {DEFAULT_RECIPE} if it is there, else built-in "
            "defaults.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[Path, typer.Option(help="TOML: what each searched key may be.")] = DEFAULT_SPACE,
    trials: Annotated[int, typer.Option(help="Finished trials of the whole study, all workers together.")] = 50,
    fold: Annotated[str, typer.Option(help="Which folds a score is the mean of: 0, 0,1 or all.")] = "0",
    data: Annotated[
        Path, typer.Option(help="Folder with train.csv, taxonomy.csv and train_audio/, as BirdCLEF lays it out.")
    ] = DEFAULT_DATA,
    study: Annotated[
        str | None, typer.Option(help="Name of the study's folder; the recipe's with -tune if left out.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs and studies are kept.")] = Path("runs"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe, as loop.epochs=10; repeatable.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe learns from the trials so far, random does not.")] = "tpe",
    pruner: Annotated[
        str, typer.Option(help="Who gives up trials that lag behind: halving, hyperband, median or none.")
    ] = "halving",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of what is tried, not of the training.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the study: here, or jobs of a cluster.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="A worker on each: 0,1 are GPUs, cpu,cpu two halves of the cores.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where decoded clips are kept (data.cache); your cache folder if left out.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="journal (safe on network disks) or sqlite; as the study is, else journal."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="3 trials of at most 1,000 clips and 2 epochs: does all of it run?")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    cluster: ClusterName = None,
    partition: Partition = None,
    gres: Gres = None,
    time_limit: TimeLimit = None,
    memory: Memory = None,
    cpus: Cpus = None,
    sbatch: Further = None,
    setup: Setup = None,
    template: Template = None,
    print_only: PrintOnly = False,
    then_train: Annotated[
        str | None,
        typer.Option(help="Then train these folds of the best recipe: all, 0, ...", rich_help_panel="Cluster"),
    ] = None,
) -> None:
    """Search for a recipe's best values, trial by trial, each a run of train.

    The study's folder, runs/STUDY, gets trials.csv, curves.csv, importance.csv, best.toml, pictures and each trial's
    run; weights of the best trial only. The same command once more, here or on another machine, is one more worker of
    the study, or goes on with it. Exit code 3: the study is not finished.
    """
    _need_the_extras()
    from birdinfer.cli.tuning_progress import TuningProgress
    from birdinfer.cli.tuning_result import draw, say
    from birdinfer.training.tuning.search import Search, check
    from birdinfer.training.tuning.space import load_space, without

    chosen = _chosen(recipe, overrides or [], debug)
    wanted = load_space(space, chosen)
    search = Search(
        recipe=chosen,
        space=without(wanted, _FIXED_BY_DEBUG) if debug else wanted,
        data_dir=data,
        study_dir=runs_dir / _study_name(study, chosen.name, debug),
        folds=_folds(fold, chosen),
        n_trials=DEBUG_TRIALS if debug else trials,
        sampler=sampler, pruner=pruner, seed=seed, device=device, cache_dir=cache_dir, storage=storage,
    )  # fmt: skip
    check(search)
    options = ClusterOptions(
        cluster, partition, gres, time_limit, memory, cpus, tuple(sbatch or ()), tuple(setup or ()), print_only,
        template=template,
    )  # fmt: skip
    if options != ClusterOptions():
        from birdinfer.cli.cluster_search import submit_search

        _check_workers(workers)
        submit_search(context, search, options, workers or 1, then_train)
        return
    _check_here(then_train, search)
    with TuningProgress(search.n_trials, quiet) as progress:
        if workers is None and devices is None:
            outcome = _search_alone(search, progress)
        else:
            from birdinfer.cli.tuning_workers import search_side_by_side

            outcome = search_side_by_side(context, search, workers, devices, progress)
    draw(search.study_dir)
    say(search, outcome)
    if not outcome.is_done:
        raise typer.Exit(EXIT_UNFINISHED)


def _search_alone(search: "Search", progress: "TuningProgress") -> "Outcome":
    from birdinfer.training.tuning.worker import work

    return work(search, progress)


def _check_workers(workers: int | None) -> None:
    from birdinfer.errors import ConfigError

    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"is {workers}, at least 1 is needed")


def _chosen(path: Path | None, overrides: list[str], debug: bool) -> "Recipe":
    from birdinfer.training.plan import debug as made_small
    from birdinfer.training.recipe.file import load_recipe

    if path is None and DEFAULT_RECIPE.is_file():
        path = DEFAULT_RECIPE
    recipe = load_recipe(path, overrides)
    return made_small(recipe) if debug else recipe


def _folds(text: str, recipe: "Recipe") -> tuple[int, ...]:
    from birdinfer.training.plan import n_folds

    folds = parse_folds(text)
    return tuple(range(n_folds(recipe))) if folds is None else folds


def _study_name(given: str | None, recipe: str, debug: bool) -> str:
    """A study's name, which becomes a folder; with ``--debug`` never that of a real one.

    Raises:
        ConfigError: it cannot be one.
    """
    if given is None:
        return f"{recipe}-tune"
    return check_name(given, "--study") + ("-debug" if debug else "")


def _check_here(then_train: str | None, search: "Search") -> None:
    """What goes without a cluster.

    Raises:
        ConfigError: it does not.
    """
    from birdinfer.errors import ConfigError
    from birdinfer.training.processes import from_environment

    if then_train is not None:
        train = f"birdinfer train --recipe {search.study_dir / 'best.toml'} --fold {then_train}"
        raise ConfigError("--then-train", "is of jobs of a cluster (--cluster slurm)", f"afterwards run {train}")
    if from_environment().n > 1:
        raise ConfigError("torchrun", "starts several processes of one trial", "use --devices or --workers instead")


def _need_the_extras() -> None:
    from importlib.util import find_spec

    from birdinfer.errors import MissingExtraError

    for module in ("optuna", "torch", "timm", "safetensors", "pandas"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "tune")
