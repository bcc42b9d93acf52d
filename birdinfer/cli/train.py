"""``birdinfer train``: recipes and clips -> fold checkpoints, out-of-fold probabilities and what they are worth."""

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
    Nodes,
    Partition,
    PrintOnly,
    ProcessesPerNode,
    Setup,
    Template,
    TimeLimit,
)

if TYPE_CHECKING:
    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.training.finetune import Finetune
    from birdinfer.training.plan import Run
    from birdinfer.training.recipe import Recipe
    from birdinfer.training.report import FoldResult

EXIT_WITH_FAILURES = 3
DEFAULT_RECIPE, DEFAULT_DATA = Path("train/efficientnet_b0.toml"), Path("data")


def train(
    context: typer.Context,
    fold: Annotated[str, typer.Option(help="Which fold to hold out: 0, 1, ...; several as 0,2; or all.")] = "0",
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"A recipe; repeat it to train several, one after another. {DEFAULT_RECIPE} if it is there, else "
            "built-in defaults."
        ),
    ] = None,
    finetune: Annotated[
        Path | None,
        typer.Option(
            "--finetune-for-int8",
            help="Instead of a recipe: a finished run, runs/NAME, whose folds are trained on into NAME-int8 for a "
            "network that is faster in INT8, ReLU for SiLU.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train.csv, taxonomy.csv and train_audio/, as BirdCLEF lays it out; data if left out, "
            "and of a fine-tune, where its run had it.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        # torchrun takes --run for a beginning of options of its own.
        typer.Option("--run", "--name", help="Name of the run; the recipe's if left out. (Under torchrun: --name.)"),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe, as optim.lr=3e-4; repeatable.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from this .safetensors file instead of timm's hub.")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where decoded clips are kept (data.cache); your cache folder if left out.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="At most 1,000 clips, 2 epochs, fold 0: does all of it run?")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[
        str | None,
        typer.Option(help="Train folds side by side, one on each: 0,1 are GPUs, cpu,cpu two halves of the cores."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only complaints and the result.")] = False,
    cluster: ClusterName = None,
    partition: Partition = None,
    gres: Gres = None,
    time_limit: TimeLimit = None,
    memory: Memory = None,
    cpus: Cpus = None,
    sbatch: Further = None,
    setup: Setup = None,
    nodes: Nodes = None,
    processes: ProcessesPerNode = None,
    template: Template = None,
    print_only: PrintOnly = False,
) -> None:
    """Train a fold, or all of them, of one recipe or of several; or train a run on, for INT8.

    The run's folder gets folds.csv and, per fold, best.safetensors, oof.csv, history.csv, classes.csv and
    metrics.json. An interrupted run goes on with --resume and ends as if it had not been. Several GPUs: --devices for
    folds side by side, torchrun for one fold (train/README.md). Exit code 3: something failed, the rest did not.
    """
    _need_the_extra()
    from birdinfer.cli.training_progress import TrainingProgress
    from birdinfer.cli.training_result import compare, draw, say
    from birdinfer.training.plan import Run
    from birdinfer.training.processes import from_environment

    folds = parse_folds("0" if debug else fold)
    if finetune is None:
        asked = [*(overrides or []), *_start_from(weights)]
        recipes, data = [_chosen(path, asked) for path in recipe or _default()], data or DEFAULT_DATA
    else:
        _check_alone(recipe, weights)
        plan = _planned(finetune, folds, overrides or [])
        recipes, data, folds = [plan.recipe], data or plan.data_dir, plan.folds
    recipes = [_made_small(one) if debug else one for one in recipes]
    names = _names([one.name for one in recipes], run)

    runs = [
        Run(one, data, runs_dir / name, folds, device, resume, cache_dir)
        for one, name in zip(recipes, names, strict=True)
    ]
    options = ClusterOptions(
        cluster, partition, gres, time_limit, memory, cpus, tuple(sbatch or ()), tuple(setup or ()), print_only,
        nodes, processes, template,
    )  # fmt: skip
    if options != ClusterOptions():
        from birdinfer.cli.cluster import submit_folds

        submit_folds(context, runs, options)
        return
    if devices is not None:
        from birdinfer.cli.side_by_side import train_side_by_side

        outcomes = train_side_by_side(context, runs, devices, quiet)
    else:
        with TrainingProgress(quiet) as progress:
            outcomes = _train_all(runs, progress)
    if from_environment().is_first:
        draw([each.run_dir for each in runs])
        say(outcomes)
        if finetune is not None:
            compare(finetune, outcomes[runs[0].run_dir])
    if any(result.problem for results in outcomes.values() for result in results):
        raise typer.Exit(EXIT_WITH_FAILURES)


def check_name(run: str, option: str = "--run") -> str:
    """A run's name, or a study's, which becomes a folder in the runs' folder and nowhere else.

    Raises:
        ConfigError: it cannot be one.
    """
    from birdinfer.errors import ConfigError

    if run in {"", ".", ".."} or Path(run).name != run:
        raise ConfigError(option, f"{run!r} is no name for a folder", "choose its parent with --runs-dir")
    return run


def parse_folds(text: str) -> tuple[int, ...] | None:
    """``"2"`` -> (2,); ``"0,3"`` -> (0, 3); ``"all"`` -> None.

    Raises:
        ConfigError: it is none of them.
    """
    from birdinfer.errors import ConfigError

    if text == "all":
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError("--fold", f"is {text!r}, allowed are 0, 1, ..., several as 0,2, and all")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _default() -> list[Path | None]:
    return [DEFAULT_RECIPE if DEFAULT_RECIPE.is_file() else None]


def _chosen(path: Path | None, overrides: list[str]) -> "Recipe":
    from birdinfer.training.recipe.file import load_recipe

    return load_recipe(path, overrides)


def _made_small(recipe: "Recipe") -> "Recipe":
    from birdinfer.training.plan import debug

    return debug(recipe)


def _planned(run_dir: Path, folds: tuple[int, ...] | None, overrides: list[str]) -> "Finetune":
    from birdinfer.training.finetune import plan_int8

    return plan_int8(run_dir, folds, overrides)


def _check_alone(recipes: list[Path] | None, weights: Path | None) -> None:
    """A fine-tune has its recipe and its weights from its run.

    Raises:
        ConfigError: it was given others.
    """
    from birdinfer.errors import ConfigError

    for option, value in (("--recipe", recipes), ("--weights", weights)):
        if value:
            what = f"takes recipe and weights from its run, {option} was given, too"
            raise ConfigError("--finetune-for-int8", what, "leave it out, and change keys with --set")


def _start_from(weights: Path | None) -> list[str]:
    """``--weights`` as keys of the recipe: a local file instead of the hub."""
    import json

    return [f"model.weights={json.dumps(str(weights))}", "model.pretrained=false"] if weights else []


def _names(recipes: list[str], run: str | None) -> list[str]:
    """The runs' names: the recipes', or the one that was given.

    Raises:
        ConfigError: two runs would have one name.
    """
    from birdinfer.errors import ConfigError

    if run is not None and len(recipes) > 1:
        raise ConfigError("--run", f"is {run!r}, {len(recipes)} recipes need a name each", "leave it out")
    names = [check_name(run or recipe) for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("--recipe", f"two recipes are called {twice!r}", "give one another name in its file")
    return names


def _train_all(runs: "list[Run]", progress: "TrainingProgress") -> "dict[Path, list[FoldResult]]":
    """Each run's results. With several runs, one that cannot be trained does not stop the others."""
    from birdinfer.errors import BirdinferError
    from birdinfer.training.report import FoldResult
    from birdinfer.training.run import train as train_run

    outcomes: dict[Path, list[FoldResult]] = {}
    for run in runs:
        if len(runs) > 1:
            progress.message(f"== {run.run_dir}")
            progress.run = run.run_dir.name
        try:
            outcomes[run.run_dir] = train_run(run, progress)
        except BirdinferError as error:
            if len(runs) == 1:
                raise
            outcomes[run.run_dir] = [FoldResult(fold, str(error)) for fold in run.folds or (0,)]
            progress.finish(outcomes[run.run_dir][0])
    return outcomes


def _need_the_extra() -> None:
    from importlib.util import find_spec

    from birdinfer.errors import MissingExtraError

    for module in ("torch", "timm", "safetensors", "pandas"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "train")
