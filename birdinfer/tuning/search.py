"""A search as it is asked for, and its folder: settings -> study, begun, or found to be begun with the same question.

``runs/STUDY/`` gets the clips' folds, which all trials share, the base recipe as the first trial, and ``study.json``,
which says what the study searches.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from birdinfer.errors import BirdinferError, CheckpointError, ConfigError, MetadataError
from birdinfer.runs.layout import RECIPE_FILE, SPACE_FILE, STUDY_FILE
from birdinfer.system.files import write_atomic
from birdinfer.system.outputs import check_folder
from birdinfer.training.augment import find_background
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.data.prepare import PreparedData, prepare_data
from birdinfer.training.devices import choose_device, precision_for
from birdinfer.training.fold import check_start_weights
from birdinfer.training.losses import build_loss
from birdinfer.training.models.registry import build_model
from birdinfer.training.monitor import monitor_of
from birdinfer.training.optim import build_optimiser
from birdinfer.training.plan import check_folds, check_run_dir, debug, n_folds
from birdinfer.training.recipe.schema import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.recipe.toml import change, load_recipe, write_recipe
from birdinfer.tuning.sampling import SeededSampler, decoded, distributions
from birdinfer.tuning.space import (
    Choices,
    Space,
    is_taken,
    load_space,
    outside,
    plain,
    values_of,
    with_values,
    without,
    write_space,
)  # fmt: skip
from birdinfer.tuning.trials import (
    STORAGES,
    Steps,
    Trials,
    build_pruner,
    open_study,
    queue_default,
    storage_kind,
    study_lock,
)  # fmt: skip

FORMAT = 2  # of study.json and of how trials are stored
OTHER = "name another with --study"  # what to do where a study is not the one that is asked for
DEBUG_TRIALS = 3
MOST_SEED = 2**31 - 1
_FIXED_BY_DEBUG = frozenset({"loop.epochs", "optim.frozen_norm_epochs"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningSettings:
    """What to search, and where; the options of ``birdinfer tune``.

    >>> settings = TuningSettings(space=Path("train/space.toml"), data=Path("data"), trials=20, devices=("0", "1"))
    """

    space: Space | Path  # what each searched key may be, or its TOML file
    recipe: Recipe | Path | None = None
    """The first trial, which gives all keys that are not searched; None for the built-in defaults."""
    overrides: tuple[str, ...] = ()  # changes of the recipe, as ``optim.lr=3e-4``
    data: Path = Path("data")  # folder in BirdCLEF's layout
    runs_dir: Path = Path("runs")
    study: str | None = None  # name of the study's folder in ``runs_dir``; None for the recipe's name and ``-tune``
    folds: tuple[int, ...] | None = (0,)  # a score is the mean over these folds; None for all
    repeats: int = 1  # trainings of each trial, each with the next seed, whose mean is its score
    trials: int = 50  # how many are finished in the end, of all workers together
    sampler: str = "tpe"
    pruner: str = "halving"
    seed: int = 0  # of the values that are drawn, not of the training
    devices: tuple[str, ...] = ("auto",)
    """``auto``, ``cpu`` or ``cuda``; of several (GPU numbers, or ``cpu`` repeatedly) each has a worker of its own."""
    cache_dir: Path | None = None  # where decoded clips are kept; None for the user's cache folder
    storage: str | None = None  # ``journal`` or ``sqlite``; None: as the study is stored, else a journal
    debug: bool = False  # three trials of at most 1,000 clips and 2 epochs, to see whether everything works


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(TuningSettings):
    """A search, planned: its recipe, space, folds and number of trials are final."""

    recipe: Recipe
    space: Space
    folds: tuple[int, ...]
    study_dir: Path
    device: str = "auto"

    @property
    def kind(self) -> str:
        """How the study is stored."""
        return self.storage or storage_kind(self.study_dir) or "journal"

    @property
    def steps(self) -> Steps:
        """How far a trial may go."""
        n_folds = len(self.folds) * self.repeats
        return Steps(self._most("loop.epochs"), n_folds, self._most("optim.warmup_epochs"))

    def _most(self, key: str) -> Any:
        choice = self.space.get(key)
        return max([values_of(self.recipe, [key])[key], *(choice.ends if choice is not None else ())])

    def build_sampler(self) -> SeededSampler:
        """What draws the next trial's values."""

        def fits(params: Mapping[str, Any]) -> bool:
            return can_be_built(self.recipe, decoded(self.space, params), self.folds)

        return SeededSampler(self.sampler, self.seed, self.trials, fits).over(distributions(self.space))

    def open_trials(self) -> Trials:
        """The study's trials, after :func:`begin`; ConfigError for a study that cannot be read."""
        pruner = build_pruner(self.pruner, self.steps)
        study = open_study(self.study_dir, self.kind, self.build_sampler(), pruner)
        return Trials(self.study_dir, study, self.space, self.steps, self.trials)


def plan_search(settings: TuningSettings) -> Search:
    """Read recipe and space, and check all that can be checked before data and devices are looked at."""
    given, space = settings.recipe, settings.space
    overrides = list(settings.overrides)
    recipe = change(given, overrides) if isinstance(given, Recipe) else load_recipe(given, overrides)
    recipe = debug(recipe) if settings.debug else recipe
    space = load_space(space, recipe) if isinstance(space, Path) else space
    name = f"{recipe.name}-tune" if settings.study is None else settings.study + "-debug" * settings.debug
    final = {
        "recipe": recipe,
        "space": without(space, _FIXED_BY_DEBUG) if settings.debug else space,
        "study_dir": settings.runs_dir / name,
        "folds": tuple(range(n_folds(recipe))) if settings.folds is None else settings.folds,
        "trials": DEBUG_TRIALS if settings.debug else settings.trials,
        "device": settings.devices[0],
    }
    search = Search(**{field.name: getattr(settings, field.name) for field in fields(settings)} | final)
    texts = () if (search.study_dir / STUDY_FILE).exists() else (settings.recipe, settings.space)
    if search.cache_dir is not None:
        check_folder(search.cache_dir, hint="name another folder: --cache-dir")
    check_run_dir(search.study_dir, search.recipe, [search.data], texts, OTHER)
    check(search)
    return search


def check(search: Search) -> None:
    """Check what can be checked before data and devices are looked at: recipe, options, and the study that is there."""
    check_folds(search.recipe, search.folds)
    if search.recipe.data.all_data:
        raise ConfigError("data.all_data", "is true, nothing is validated and no trial has a score", "set it to false")
    for option, value in (("--trials", search.trials), ("--repeats", search.repeats)):
        if value < 1:
            raise ConfigError(option, f"is {value}, at least 1 is needed")
    search.build_sampler()
    build_pruner(search.pruner, search.steps)
    if search.kind not in STORAGES:
        raise ConfigError("--storage", f"is {search.kind!r}, allowed are {', '.join(STORAGES)}")
    if (saved := _saved(search)) is not None:
        check_question(saved, Question.of(search), search.study_dir)


def begin(search: Search, callback: TrainingCallback) -> None:
    """Make the study's folder, or compare the one that is there with what is asked; errors as :func:`check`."""
    check(search)
    check_buildable(search.recipe, search.space, search.data, search.folds)
    data = _prepared(search, callback)
    asked = Question.of(search).on(clips_digest(data), len(data.clips))
    with study_lock(search.study_dir):
        if (saved := _saved(search)) is not None:
            check_question(saved, asked, search.study_dir)
        _write(search, asked)
    for key in outside(search.space, values_of(search.recipe, search.space)):
        has = values_of(search.recipe, [key])[key]
        callback.on_message(f"the recipe itself is no trial: its {key} = {has!r} is not in the space")
    n_points = math.prod(choice.n_values for choice in search.space.values())
    if n_points < search.trials:
        callback.on_message(f"the space has only {n_points} points: of {search.trials} trials some will be alike")


def check_device(search: Search, callback: TrainingCallback) -> None:
    """Check that this machine has the device, with each precision that is asked for or searched."""
    device = choose_device(search.device, callback.on_message)
    amp = search.space.get("loop.amp")
    for precision in amp.values if isinstance(amp, Choices) else (search.recipe.loop.amp,):
        precision_for(device, precision)


def _saved(search: Search) -> "Question | None":
    if (search.study_dir / STUDY_FILE).exists():
        kind = storage_kind(search.study_dir)
        if kind is None:
            raise ConfigError(search.study_dir, "has lost its trials, study.journal or study.db", OTHER)
        if search.storage is not None and kind != search.storage:
            what = f"is {search.storage}, {search.study_dir} is stored as {kind}"
            raise ConfigError("--storage", what, "leave it out")
        return load_question(search.study_dir / STUDY_FILE)
    if any(search.study_dir.glob("fold*/")):
        raise ConfigError(search.study_dir, "is a training run, no study", OTHER)
    return None


def _write(search: Search, question: "Question") -> None:
    """A study's folder; its last file says that it is whole. Workers start from these files."""
    study = open_study(search.study_dir, search.kind)
    values = values_of(search.recipe, search.space)
    if not outside(search.space, values) and not study.get_trials(deepcopy=False):
        queue_default(study, search.space, values)
    write_atomic(search.study_dir / RECIPE_FILE, write_recipe(search.recipe))
    write_atomic(search.study_dir / SPACE_FILE, write_space(search.space))
    write_atomic(search.study_dir / STUDY_FILE, question.as_json())


def _prepared(search: Search, callback: TrainingCallback) -> PreparedData:
    is_begun = (search.study_dir / STUDY_FILE).exists()
    try:
        return prepare_data(search.recipe, search.data, search.study_dir, callback)
    except (CheckpointError, MetadataError) as error:
        if not is_begun:
            raise
        raise ConfigError(search.study_dir, f"is a study of other clips ({error.what})", OTHER) from error


# ---- study.json: what a study searches. Two workers share a study only if they ask for the very same


class Question(msgspec.Struct, frozen=True):
    """What a study searches."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    folds: tuple[int, ...]
    clips: str = ""  # SHA-256 of file names, labels and folds; see :func:`clips_digest`
    n_clips: int = 0
    score: str = "mean over folds of the best epoch's macro AUC"
    format: int = 1
    repeats: int = 1

    @classmethod
    def of(cls, search: Search) -> "Question":
        """All that is known before the data has been read."""
        table = {key: choice.as_toml() for key, choice in search.space.items()}
        meaning = score_meaning(search.recipe, search.repeats)
        return cls(_decisive(search.recipe), table, search.folds, score=meaning, format=FORMAT, repeats=search.repeats)

    def on(self, clips: str, n_clips: int) -> "Question":
        """The same question of these clips."""
        return msgspec.structs.replace(self, clips=clips, n_clips=n_clips)

    def as_json(self) -> str:
        """The text of study.json."""
        return json.dumps(msgspec.to_builtins(self), indent=2) + "\n"


def score_meaning(recipe: Recipe, repeats: int) -> str:
    """What a trial's score is, in a line."""
    monitor = monitor_of(recipe.loop)
    sign = "" if monitor.sign > 0 else " with a minus sign"
    seeds = f"{repeats} seeds and " if repeats > 1 else ""
    return f"mean over {seeds}folds of the best epoch's {monitor.title}{sign}"


def clips_digest(data: PreparedData) -> str:
    """SHA-256 of all clips with their labels and folds, and of the columns of the scores, whatever the clips' order."""
    rows = sorted(
        [clip.filename, clip.primary_label, *clip.secondary_labels, str(fold)]
        for clip, fold in zip(data.clips, data.folds, strict=True)
    )
    columns = [species.label for species in data.species]
    return hashlib.sha256(json.dumps([columns, rows]).encode()).hexdigest()


def load_question(path: Path) -> Question:
    """Read study.json; ConfigError if it is damaged or an older birdinfer wrote it."""
    try:
        question = msgspec.json.decode(path.read_bytes(), type=Question)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(path, f"cannot be read ({error})", OTHER) from error
    if question.format != FORMAT:
        raise ConfigError(path, "is of another version of birdinfer, which stores trials in another way", OTHER)
    return question


def check_question(saved: Question, asked: Question, study_dir: Path) -> None:
    """Refuse a study of another recipe, space, folds or, if the asked ones are known, clips: ConfigError."""
    defaults = _decisive(Recipe())
    _compare(study_dir, "recipe", defaults | saved.recipe, defaults | asked.recipe)
    _compare(study_dir, "space", saved.space, asked.space)
    if saved.folds != asked.folds:
        there, here = (",".join(map(str, folds)) for folds in (saved.folds, asked.folds))
        raise ConfigError(study_dir, f"is a study of folds {there}, asked is {here}", OTHER)
    if saved.repeats != asked.repeats:
        what = f"is a study whose trials are trained {saved.repeats} times, asked is {asked.repeats}"
        raise ConfigError(study_dir, what, OTHER)
    if asked.clips and saved.clips != asked.clips:
        what = f"is a study of {saved.n_clips} clips, here are {asked.n_clips}"
        same = " with other labels or folds" if saved.n_clips == asked.n_clips else ""
        raise ConfigError(study_dir, what + same, OTHER)


def _compare(study_dir: Path, kind: str, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for key in [*asked, *(key for key in saved if key not in asked)]:
        if saved.get(key) != asked.get(key):
            there, here = (json.dumps(table[key]) if key in table else "absent" for table in (saved, asked))
            raise ConfigError(study_dir, f"is a study of another {kind}: {key} is {there} there, here {here}", OTHER)


def _decisive(recipe: Recipe) -> dict[str, Any]:
    return {
        key: plain(value)
        for key, value in flatten(recipe).items()
        if key not in NOT_DECISIVE and not key.startswith("tracking.")
    }


# ---- What a recipe's types cannot say: whether network, optimiser, loss and background can be built of it

_DECISIVE = ("model.", "frontend.", "loss.", "optim.name")
"""Keys with these beginnings decide whether anything can be built."""
_BACKGROUND = "augment.background_dir"


def check_buildable(recipe: Recipe, space: Space, data_dir: Path, folds: Sequence[int]) -> None:
    """Build all that a trial needs, of the base recipe and with each choice of a searched key.

    A choice that cannot be built with the base recipe's other values may still work with other choices; ConfigError
    for one that works with none.
    """
    _build(recipe, folds)
    find_background(recipe.augment.background_dir, data_dir)
    for key, value in _choices(space):
        try:
            if key == _BACKGROUND:
                find_background(value, data_dir)
            elif is_taken(recipe, {key: value}):
                _build(with_values(recipe, {key: value}, key), folds)
        except BirdinferError as refusal:
            pairs = ({key: value, other: its} for other, its in _choices(space) if other != key)
            if not any(can_be_built(recipe, values, folds) for values in pairs):
                raise ConfigError(f"in the space, {refusal.where}", refusal.what, refusal.hint) from refusal


def can_be_built(recipe: Recipe, values: dict[str, Any], folds: Sequence[int]) -> bool:
    """Whether the recipe takes these values, and can be trained with them."""
    if not is_taken(recipe, values):
        return False
    if not any(key.startswith(_DECISIVE) for key in values):
        return True
    try:
        _build(with_values(recipe, values, "values"), folds)
    except BirdinferError:
        return False
    return True


def _build(recipe: Recipe, folds: Sequence[int]) -> None:
    build_optimiser(build_model(recipe.model, 1, recipe.input_config, start=False), recipe.optim)
    check_start_weights(recipe, folds)
    build_loss(recipe.loss, [1])


def _choices(space: Space) -> Iterator[tuple[str, Any]]:
    for key, choice in space.items():
        if isinstance(choice, Choices) and key.startswith((*_DECISIVE, _BACKGROUND)):
            yield from ((key, value) for value in choice.values)
