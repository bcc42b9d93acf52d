"""What a recipe's structs cannot know: whether network, optimiser, loss and background can be built of it.

Asked of the base recipe and of each choice before the first trial, and of what is drawn before it becomes one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.training.augment import find_background
from birdinfer.training.losses import build_loss
from birdinfer.training.models import build_model
from birdinfer.training.optimiser import build_optimiser
from birdinfer.training.recipe import Recipe
from birdinfer.training.start import check_start
from birdinfer.training.tuning.space import Choices, Space
from birdinfer.training.tuning.values import is_taken, with_values

_DECISIVE = ("model.", "frontend.", "loss.", "optim.name")
"""What these keys begin with decides whether anything can be built."""
_BACKGROUND = "augment.background_dir"


def check_buildable(recipe: Recipe, space: Space, data_dir: Path, folds: Sequence[int]) -> None:
    """Build all that a trial needs, of the base recipe and with each choice of a searched key.

    A choice that cannot be built of the base recipe's other values may still be fine with other choices.

    Raises:
        BirdinferError: the base recipe cannot be trained.
        ConfigError: a choice can be trained in no company.
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
            company = ({key: value, other: its} for other, its in _choices(space) if other != key)
            if not any(can_be_built(recipe, values, folds) for values in company):
                raise ConfigError(f"in the space, {refusal.where}", refusal.what, refusal.remedy) from refusal


def can_be_built(recipe: Recipe, values: dict[str, Any], folds: Sequence[int]) -> bool:
    """Whether the recipe takes these values, and a trial can be made of it."""
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
    build_optimiser(build_model(recipe.model, 1, recipe.hearing, start=False), recipe.optim)
    check_start(recipe, folds)
    build_loss(recipe.loss, [1])


def _choices(space: Space) -> Iterator[tuple[str, Any]]:
    """Each choice of each key that decides whether something can be built."""
    for key, choice in space.items():
        if isinstance(choice, Choices) and key.startswith((*_DECISIVE, _BACKGROUND)):
            yield from ((key, value) for value in choice.values)
