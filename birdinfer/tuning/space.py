"""The space of a search: a TOML file with keys as in a recipe -> what each may be, checked before anything runs.

    optim.lr = {low = 1e-4, high = 1e-2, log = true}    # a range; of whole numbers for a key that takes them
    loop.batch_size = [16, 32, 64]                      # choices: numbers, words, booleans, lists

Only what several searched keys are together shows while the search runs.
"""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import msgspec.inspect

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.system.text import read_text
from birdinfer.system.toml import toml_value
from birdinfer.training.recipe.schema import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.recipe.shipped import SPACE, find_recipe
from birdinfer.training.recipe.toml import check_table, nearest_key

_CLIPS = "decides which clips the score is measured on, so scores could not be compared"
_SOUND = "decides which sound of the clips the score is measured on, so scores could not be compared"

_SCORE = "decides what the score is, so scores could not be compared"

_DECIDE_CLIPS = (
    "n_folds", "fold_column", "folds_file", "val_share", "test_share", "all_data", "group_by", "duplicates",
    "complete_fold0", "min_clips_per_species", "max_clips",
)  # fmt: skip
_NOT_SEARCHABLE: Mapping[str, str] = {
    "seed": "draws luck, not a better recipe: the luckiest trial would win",
    **{f"data.{name}": _CLIPS for name in _DECIDE_CLIPS},
    "data.max_seconds": _SOUND,
    "data.remove_voice": _SOUND,
    "data.cache": "decides how fast a clip is read, not what is learned from it",
    "loop.val_windows": _SOUND,
    "loop.monitor": _SCORE,
    "loop.f1_threshold": _SCORE,
}
"""Keys that change no result, or what is measured, and why they cannot be searched."""
Values = Mapping[str, Any]  # a key as a recipe spells it, ``optim.lr`` -> a number, text, boolean or list


def why_not_searchable(key: str) -> str:
    """Why a key cannot be searched; "" if it can."""
    if key in NOT_DECISIVE or key.startswith(("post.", "tracking.")):
        return "changes no score, there is nothing to find"
    return _NOT_SEARCHABLE.get(key, "")


def with_values(recipe: Recipe, values: Values, source: str) -> Recipe:
    """Change values of a recipe; ConfigError, which names ``source`` before the key, for one that cannot be used."""
    table = msgspec.to_builtins(recipe)
    for key, value in values.items():
        *sections, name = key.split(".")
        reduce(getitem, sections, table)[name] = value
    return check_table(table, source)


def is_taken(recipe: Recipe, values: Values) -> bool:
    """Whether :func:`with_values` makes a recipe of them."""
    try:
        with_values(recipe, values, "values")
    except ConfigError:
        return False
    return True


def values_of(recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """A recipe's values of some keys, with a list for each tuple."""
    table = msgspec.to_builtins(recipe)
    return {key: plain(reduce(getitem, key.split("."), table)) for key in keys}


def plain(value: Any) -> Any:
    """The value with a list for each tuple, as JSON and TOML read it back."""
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


Number = int | float
_FORMS = "write {low = .., high = ..} (and log = true or step = ..) or [choice, choice]"


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``, both included."""

    low: Number
    high: Number
    log: bool = False  # drawn evenly on a logarithmic scale
    step: Number | None = None  # only low, low + step, ...; None: any number, or any whole one
    is_whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether this value lies in the range."""
        if isinstance(value, bool) or not isinstance(value, Number) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_multiple(value - self.low, self.step)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are checked for all of them."""
        return self.low, self.high

    @property
    def n_values(self) -> float:
        """How many values there are; infinite without steps."""
        step = self.step or (1 if self.is_whole else None)
        return math.inf if step is None else round((self.high - self.low) / step) + 1

    def as_toml(self) -> dict[str, Any]:
        """As the space's file has it."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


class Choices(NamedTuple):
    """One of these, of which no two are equal."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether this is one of the choices; true is not 1, but 1 is 1.0."""
        return _mark(value) in {_mark(each) for each in self.values}

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are checked for all of them."""
        return self.values

    @property
    def n_values(self) -> float:
        """How many values there are."""
        return len(self.values)

    def as_toml(self) -> list[Any]:
        """As the space's file has it."""
        return list(self.values)


Space = Mapping[str, Range | Choices]  # what each searched key may be, in the file's order


def load_space(path: Path, recipe: Recipe) -> Space:
    """Read a space and check it with the recipe that gives all other keys; ConfigError names file and key."""
    entries = list(_entries(path, _read(path), ()))
    if not entries:
        raise ConfigError(path, "searches nothing", "name a key, as optim.lr = {low = 1e-4, high = 1e-2, log = true}")
    space: dict[str, Range | Choices] = {}
    for key, entry in entries:
        if key in space:
            raise ConfigError(f"{path}: {key}", "stands twice", "keep one of them")
        space[key] = _parsed(f"{path}: {key}", key, entry)
    _check_taken(path, space, recipe)
    return space


def outside(space: Space, values: Values) -> list[str]:
    """The keys whose value is not in the space."""
    return [key for key, choice in space.items() if not choice.holds(values[key])]


def without(space: Space, keys: frozenset[str]) -> Space:
    """The space without some of its keys."""
    return {key: choice for key, choice in space.items() if key not in keys}


def write_space(space: Space) -> str:
    """The space as TOML; :func:`load_space` reads it back equal."""

    def form(choice: Range | Choices) -> str:
        table = choice.as_toml()
        return toml_value({k: v for k, v in table.items() if v is not None} if isinstance(table, dict) else table)

    return "".join(f"{key} = {form(choice)}\n" for key, choice in space.items())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() and path != Path(SPACE):
        raise InputNotFoundError(path, "no such space", "leave it out for the one that comes with birdinfer")
    try:
        return tomllib.loads(read_text(find_recipe(path)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(path, f"is not TOML ({error})") from error


def _entries(path: Path, table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    leaves = flatten(Recipe())
    for spelled, entry in table.items():
        names = (*above, *spelled.split("."))
        key = ".".join(names)
        if key in leaves:
            yield key, entry
        elif any(leaf.startswith(f"{key}.") for leaf in leaves):
            if not isinstance(entry, dict):
                raise ConfigError(f"{path}: {key}", "is a section of the recipe", f"name a key in it, as {key}.KEY")
            yield from _entries(path, entry, names)
        else:
            raise ConfigError(f"{path}: {key}", "there is no such key", _nearest(names))


def _nearest(names: tuple[str, ...]) -> str:
    value: Any = Recipe()
    for depth, name in enumerate(names):
        if not isinstance(value, msgspec.Struct):
            return f"{'.'.join(names[:depth])} holds no further keys"
        if not hasattr(value, name):
            return nearest_key(names[:depth], name)
        value = getattr(value, name)
    return ""


def _parsed(where: str, key: str, entry: Any) -> Range | Choices:
    reason = why_not_searchable(key)
    if reason:
        raise ConfigError(where, reason, "take it out of the space")
    if isinstance(entry, list):
        return _choices(where, entry)
    if isinstance(entry, dict):
        return _range(where, entry, _kind(key))
    raise ConfigError(where, f"is {entry!r}, one value is no space", f"{_FORMS}; fix a value with --set")


def _choices(where: str, entry: list[Any]) -> Choices:
    if not entry:
        raise ConfigError(where, "has no choices", _FORMS)
    marks = [_mark(value) for value in entry]
    twice = next((value for index, value in enumerate(entry) if marks[index] in marks[:index]), None)
    if twice is not None:
        raise ConfigError(where, f"names the choice {toml_value(twice)} twice", "keep one of them")
    return Choices(tuple(plain(value) for value in entry))


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    low: Number
    high: Number
    log: bool = False
    step: Number | None = None


def _range(where: str, entry: dict[str, Any], kind: msgspec.inspect.Type) -> Range:
    try:
        low, high, log, step = msgspec.structs.astuple(msgspec.convert(entry, _Entry))
    except msgspec.ValidationError as error:
        raise ConfigError(where, f"is no range ({str(error).replace('`', '')})", _FORMS) from error
    if not isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        raise ConfigError(where, "is no number, it has no range", "write [choice, choice]")
    numbers = [number for number in (low, high, step) if number is not None]
    if isinstance(kind, msgspec.inspect.IntType) and not all(isinstance(number, int) for number in numbers):
        raise ConfigError(where, f"takes whole numbers, {low} to {high} is a range of others", "write 8, not 8.0")
    _check_bounds(where, low, high, log, step)
    return Range(low, high, log, step, isinstance(kind, msgspec.inspect.IntType))


def _check_bounds(where: str, low: Number, high: Number, log: bool, step: Number | None) -> None:
    if not all(math.isfinite(number) for number in (low, high, step or 0)):
        raise ConfigError(where, f"goes from {low} to {high}, needed are finite numbers")
    if low >= high:
        raise ConfigError(where, f"goes from low = {low} to high = {high}, low must be the smaller one")
    if log and low <= 0:
        raise ConfigError(where, f"is log with low = {low}, a logarithm needs low > 0", "raise low, or leave log out")
    if log and step is not None:
        raise ConfigError(where, "has log and step, only one can be", "leave one of them out")
    if step is not None and (step <= 0 or not _is_multiple(high - low, step)):
        raise ConfigError(where, f"has step = {step}, which does not lead from {low} to {high}", "change one of them")


def _is_multiple(length: Number, step: Number) -> bool:
    n_steps = length / step
    return math.isclose(n_steps, round(n_steps), abs_tol=1e-9)


def _kind(key: str) -> msgspec.inspect.Type:
    kind: Any = msgspec.inspect.type_info(Recipe)
    for name in key.split("."):
        kind = next(field.type for field in kind.fields if field.name == name)
    return cast(msgspec.inspect.Type, kind)


def _mark(value: Any) -> str:
    """Equal for values that are the same for a recipe: 1 and 1.0, but not true."""
    return toml_value(float(value) if isinstance(value, int) and not isinstance(value, bool) else plain(value))


def _check_taken(path: Path, space: Space, recipe: Recipe) -> None:
    """Put each choice, and each end of a range, into the recipe, if need be with a value of another searched key."""
    for key, choice in space.items():
        for value in choice.ends:
            try:
                with_values(recipe, {key: value}, str(path))
            except ConfigError as refusal:
                others = ({other: end} for other, its in space.items() if other != key for end in its.ends)
                if not any(is_taken(recipe, {key: value, **other}) for other in others):
                    raise refusal
