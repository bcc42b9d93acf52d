"""What to train, decided before anything runs: settings -> planned runs, whose recipes are final."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.system.outputs import check_folder
from birdinfer.training.finetune import OPTION as FINETUNE_OPTION
from birdinfer.training.finetune import plan_int8
from birdinfer.training.models.hub import check_hub
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.toml import change, load_recipe, write_recipe

DEBUG_CLIPS, DEBUG_EPOCHS = 1_000, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """What to train, and where; the options of ``birdinfer train`` for one recipe.

    >>> settings = TrainingSettings(recipe=Path("train/esc10.toml"), data=Path("data"), folds=(0, 1), resume=True)
    >>> outcomes = train_folds(settings)  # doctest: +SKIP
    """

    recipe: Recipe | Path | None = None
    """A recipe or its TOML file; None for the built-in defaults."""
    data: Path | None = None
    """Folder in BirdCLEF's layout (``data/metadata.py``); None for ``data``, or where the run to fine-tune had it."""
    run_dir: Path | None = None
    """Where the run is written; None for a folder called like the recipe in ``runs_dir``."""
    runs_dir: Path = Path("runs")
    folds: tuple[int, ...] | None = None
    """Which folds, from 0; None for all."""
    devices: tuple[str, ...] = ("auto",)
    """``auto``, ``cpu`` or ``cuda``; of several (GPU numbers, or ``cpu`` repeatedly) each trains folds of its own."""
    resume: bool = False
    """Continue what is there, instead of refusing to touch it."""
    overrides: tuple[str, ...] = ()
    """Changes of the recipe, as ``optim.lr=3e-4``."""
    weights: Path | None = None
    """Start from this .safetensors file."""
    finetune: Path | None = None
    """Instead of a recipe: a finished run, whose folds are fine-tuned for INT8."""
    debug: bool = False
    """Train fold 0 on at most 1,000 clips for 2 epochs, to see whether everything works."""
    cache_dir: Path | None = None
    """Where decoded clips are kept (``data.cache``); None for the user's cache folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run, planned: its recipe is final. Fields as in :class:`TrainingSettings`."""

    recipe: Recipe
    data_dir: Path
    run_dir: Path
    folds: tuple[int, ...] | None = None
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    resume: bool = False
    cache_dir: Path | None = None
    has_log: bool = False
    """Whether another process writes logs/fold*.log already."""
    note: str = ""
    """What was changed in the recipe so that it can be trained here."""


def plan_runs(settings: Sequence[TrainingSettings]) -> list[Run]:
    """Read recipes, apply changes to them, and decide where each run is written.

    Raises:
        BirdinferError: a recipe or the run to fine-tune cannot be used.
        ConfigError: two runs would have one name, or settings contradict one another.
    """
    runs = [_plan(each) for each in settings]
    # Jobs, logs and results go by the name of a run's folder, wherever that lies.
    names = [run.run_dir.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("--recipe", f"two runs would be called {twice!r}", "give one recipe another name in its file")
    return runs


def _plan(settings: TrainingSettings) -> Run:
    folds, data = (0,) if settings.debug else settings.folds, settings.data
    if settings.finetune is not None:
        for option, value in (("--recipe", settings.recipe), ("--weights", settings.weights)):
            if value is not None:
                what = f"takes recipe and weights from its run, {option} was given, too"
                raise ConfigError(FINETUNE_OPTION, what, "leave it out, and change keys with --set")
        plan = plan_int8(settings.finetune, folds, settings.overrides)
        recipe, data, folds = plan.recipe, data or plan.data_dir, plan.folds
    else:
        changes = list(settings.overrides)
        if settings.weights is not None:
            changes += [f"model.weights={json.dumps(str(settings.weights))}", "model.pretrained=false"]
        given = settings.recipe
        recipe = change(given, changes) if isinstance(given, Recipe) else load_recipe(given, changes)
    note = ""
    if settings.debug:
        recipe, note = without_hub(debug(recipe))
    run = Run(
        recipe=recipe,
        data_dir=data or Path("data"),
        run_dir=settings.run_dir or settings.runs_dir / recipe.name,
        folds=folds,
        device=settings.devices[0],
        resume=settings.resume,
        cache_dir=settings.cache_dir,
        note=note,
    )
    check_run_dir(run.run_dir, recipe, [run.data_dir], [settings.recipe], "name another run with --run")
    if run.cache_dir is not None:
        check_folder(run.cache_dir, hint="name another folder: --cache-dir")
    return run


def check_run_dir(run_dir: Path, recipe: Recipe, inputs: Sequence[Path], texts: Sequence[object], hint: str) -> None:
    """Check that a run's folder, whose files are written again, holds nothing that the run reads; OutputError if so.

    ``texts`` are the files among which a recipe may lie there, just as it is written.
    """
    of_sources = [name for source in recipe.data.sources for name in (source.path, source.table, source.site_table)]
    given = (recipe.model.weights, recipe.data.folds_file, recipe.distil.teacher, *of_sources)
    named = [Path(name) for name in given if name]
    kept = write_recipe(recipe).encode()
    changed = [each for each in texts if isinstance(each, Path) and each.is_file() and each.read_bytes() != kept]
    check_folder(run_dir.parent, hint="name another folder: --runs-dir")
    check_folder(run_dir, [*inputs, *named, *changed], hint=hint)


def debug(recipe: Recipe) -> Recipe:
    """The same recipe on at most 1,000 clips for 2 epochs: all code runs, nothing is learned."""
    n_clips = min(recipe.data.max_clips or DEBUG_CLIPS, DEBUG_CLIPS)
    # Where norms are frozen only at the end, one epoch of either kind.
    n_free = min(1, recipe.first_frozen_epoch - 1)
    n_frozen = DEBUG_EPOCHS - n_free if recipe.optim.frozen_norm_epochs else 0
    return msgspec.structs.replace(
        recipe,
        name=f"{recipe.name}-debug",
        data=msgspec.structs.replace(recipe.data, max_clips=n_clips),
        optim=msgspec.structs.replace(recipe.optim, frozen_norm_epochs=n_frozen),
        loop=msgspec.structs.replace(recipe.loop, epochs=DEBUG_EPOCHS),
    )


def without_hub(recipe: Recipe) -> tuple[Recipe, str]:
    """A recipe to debug, with random weights where timm's cannot be had, and a line about it."""
    try:
        check_hub(recipe.model)
    except ConfigError as error:
        model = msgspec.structs.replace(recipe.model, pretrained=False)
        return msgspec.structs.replace(recipe, model=model), f"random weights, for {error.what}"
    return recipe, ""


def n_folds(recipe: Recipe) -> int:
    """How many folds a recipe has: one where it asks for a single split, or for none."""
    return 1 if recipe.data.val_share or recipe.data.all_data else recipe.data.n_folds


def wanted_folds(run: Run) -> tuple[int, ...]:
    """Which folds a run trains.

    Raises:
        ConfigError: the recipe has no such fold.
    """
    wanted = tuple(range(n_folds(run.recipe))) if run.folds is None else run.folds
    check_folds(run.recipe, wanted)
    return wanted


def check_folds(recipe: Recipe, wanted: Sequence[int]) -> None:
    """Check that the recipe has these folds.

    Raises:
        ConfigError: it has not.
    """
    there = n_folds(recipe)
    outside = [fold for fold in wanted if not 0 <= fold < there]
    if outside:
        known = f"folds 0 to {there - 1}" if there > 1 else "one split, fold 0"
        raise ConfigError("--fold", f"is {outside[0]}, the recipe has {known}")
