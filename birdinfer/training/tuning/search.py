"""A search, asked for; its folder begun, or found to be begun by the same question.

In: recipe, space, clips and folds. Out: ``runs/STUDY/`` with the clips' folds laid once for all trials, the base recipe
queued as the first trial, and ``study.json``, by which a study of anything else is told.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from birdinfer.errors import CheckpointError, ConfigError, MetadataError
from birdinfer.files import write_atomic
from birdinfer.training.devices import choose_device, precision_for
from birdinfer.training.plan import check_folds
from birdinfer.training.preparation import Laid, lay
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.report import Reporter
from birdinfer.training.tuning.buildable import can_be_built, check_buildable
from birdinfer.training.tuning.folder import RECIPE_FILE, SPACE_FILE, STUDY_FILE
from birdinfer.training.tuning.identity import OTHER, Question, check_clips, check_question, clips_digest, load_question
from birdinfer.training.tuning.ledger import queue_default
from birdinfer.training.tuning.lock import locked
from birdinfer.training.tuning.pruning import Steps, build_pruner
from birdinfer.training.tuning.sampling import SeededSampler, decoded, distributions
from birdinfer.training.tuning.space import Choices, Space, outside, write_space
from birdinfer.training.tuning.storage import STORAGES, open_study, storage_kind
from birdinfer.training.tuning.values import values_of


class Search(NamedTuple):
    """What is searched, and how."""

    recipe: Recipe
    """Gives all keys that the space does not."""
    space: Space
    data_dir: Path
    study_dir: Path
    folds: tuple[int, ...]
    """Each trial trains all of these."""
    n_trials: int = 50
    """Finished ones of the whole study, whoever had them."""
    sampler: str = "tpe"
    pruner: str = "halving"
    seed: int = 0
    device: str = "auto"
    cache_dir: Path | None = None
    storage: str | None = None
    """``journal`` or ``sqlite``; None: as it is there, else a journal."""

    @property
    def kind(self) -> str:
        """How the study is kept."""
        return self.storage or storage_kind(self.study_dir) or "journal"

    @property
    def steps(self) -> Steps:
        """How far a trial may go."""
        return Steps(self._most("loop.epochs"), len(self.folds), self._most("optim.warmup_epochs"))

    def _most(self, key: str) -> Any:
        """The highest number that any trial may have for a key."""
        choice = self.space.get(key)
        return max([values_of(self.recipe, [key])[key], *(choice.ends if choice is not None else ())])

    def build_sampler(self) -> SeededSampler:
        """Who draws what is tried next.

        Raises:
            ConfigError: there is no such sampler.
        """

        def goes(params: Mapping[str, Any]) -> bool:
            return can_be_built(self.recipe, decoded(self.space, params), self.folds)

        return SeededSampler(self.sampler, self.seed, self.n_trials, goes).over(distributions(self.space))


def check(search: Search) -> None:
    """What can be told before data and devices are looked at.

    Raises:
        ConfigError: the recipe has no score, or not such folds; options are unknown; the study is another one's.
    """
    _check_scored(search)
    search.build_sampler()
    build_pruner(search.pruner, search.steps)
    if search.kind not in STORAGES:
        raise ConfigError("--storage", f"is {search.kind!r}, allowed are {', '.join(STORAGES)}")
    saved = _saved(search)
    if saved is not None:
        check_question(saved, Question.of(search.recipe, search.space, search.folds), search.study_dir)


def begin(search: Search, reporter: Reporter) -> None:
    """Make the study's folder, or hold the one that is there against the question.

    Raises:
        ConfigError: as :func:`check`.
        BirdinferError: recipe or data cannot be used.
    """
    check(search)
    check_buildable(search.recipe, search.space, search.data_dir, search.folds)
    laid = _laid(search, reporter)
    asked = Question.of(search.recipe, search.space, search.folds).on(clips_digest(laid), len(laid.clips))
    with locked(search.study_dir):
        saved = _saved(search)
        if saved is None:
            _write(search, asked)
        else:
            check_question(saved, asked, search.study_dir)
            check_clips(saved, asked, search.study_dir)
    for key in outside(search.space, values_of(search.recipe, search.space)):
        has = values_of(search.recipe, [key])[key]
        reporter.message(f"the recipe itself is no trial: its {key} = {has!r} is not in the space")
    n_points = math.prod(choice.n_values for choice in search.space.values())
    if n_points < search.n_trials:
        reporter.message(f"the space has only {n_points} points: of {search.n_trials} trials some will be alike")


def check_device(search: Search, reporter: Reporter) -> None:
    """Whether trials can be trained on this machine.

    Raises:
        ConfigError: it has no such device, or the device has no precision that is asked for or searched.
    """
    device = choose_device(search.device, reporter.message)
    amp = search.space.get("loop.amp")
    for precision in amp.values if isinstance(amp, Choices) else (search.recipe.loop.amp,):
        precision_for(device, precision)


def _saved(search: Search) -> Question | None:
    """What the study that is there is of.

    Raises:
        ConfigError: it is kept otherwise, or what is there is no study.
    """
    if (search.study_dir / STUDY_FILE).exists():
        kind = storage_kind(search.study_dir)
        if kind is None:
            raise ConfigError(search.study_dir, "has lost its trials, study.journal or study.db", OTHER)
        if search.storage is not None and kind != search.storage:
            raise ConfigError("--storage", f"is {search.storage}, {search.study_dir} is kept as {kind}", "leave it out")
        return load_question(search.study_dir / STUDY_FILE)
    if any(search.study_dir.glob("fold*/")):
        raise ConfigError(search.study_dir, "is a training run, no study", OTHER)
    return None


def _write(search: Search, question: Question) -> None:
    """A study's folder; its last file says that it is whole."""
    study = open_study(search.study_dir, search.kind)
    values = values_of(search.recipe, search.space)
    if not outside(search.space, values) and not study.get_trials(deepcopy=False):
        queue_default(study, search.space, values)
    write_atomic(search.study_dir / RECIPE_FILE, write_recipe(search.recipe))
    write_atomic(search.study_dir / SPACE_FILE, write_space(search.space))
    write_atomic(search.study_dir / STUDY_FILE, question.as_json())


def _check_scored(search: Search) -> None:
    check_folds(search.recipe, search.folds)
    if search.recipe.data.all_data:
        raise ConfigError("data.all_data", "is true, nothing is validated and no trial has a score", "set it to false")
    if search.n_trials < 1:
        raise ConfigError("--trials", f"is {search.n_trials}, at least 1 is needed")


def _laid(search: Search, reporter: Reporter) -> Laid:
    is_begun = (search.study_dir / STUDY_FILE).exists()
    try:
        return lay(search.recipe, search.data_dir, search.study_dir, reporter)
    except (CheckpointError, MetadataError) as error:
        if not is_begun:
            raise
        what = f"is a study of other clips ({error.what})"
        raise ConfigError(search.study_dir, what, OTHER) from error
