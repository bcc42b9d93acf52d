"""The space of a search: a TOML file with keys as in a recipe -> what each may be, checked before anything runs.

    optim.lr = {low = 1e-4, high = 1e-2, log = true}    # a range; of whole numbers for a key that takes them
    loop.batch_size = [16, 32, 64]                      # choices: numbers, words, booleans, lists

In: the file and the recipe that gives all other keys. Out: :class:`Space`. What a recipe would refuse is refused here,
in the recipe's own words; only what several searched keys are together shows while the search runs.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import msgspec.inspect

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.training.recipe import Recipe, flatten
from birdinfer.training.recipe.file import nearest_key, toml_value
from birdinfer.training.tuning.barred import why_barred
from birdinfer.training.tuning.values import Values, is_taken, plain, with_values

Number = int | float
_FORMS = "write {low = .., high = ..} (and log = true or step = ..) or [choice, choice]"


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``, both included."""

    low: Number
    high: Number
    log: bool = False
    """Drawn evenly on a logarithmic scale."""
    step: Number | None = None
    """Only low, low + step, ...; None: any number, or any whole one."""
    is_whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether it may be this value."""
        if isinstance(value, bool) or not isinstance(value, Number) or not self.low <= value <= self.high:
            return False
        return self.step is None or _is_multiple(value - self.low, self.step)

    @property
    def ends(self) -> tuple[Any, ...]:
        """What stands for all of it when it is checked."""
        return self.low, self.high

    @property
    def n_values(self) -> float:
        """How many values it may be; infinite without steps."""
        step = self.step or (1 if self.is_whole else None)
        return math.inf if step is None else round((self.high - self.low) / step) + 1

    def told(self) -> dict[str, Any]:
        """For a file, and for comparing."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


class Choices(NamedTuple):
    """One of these, of which no two are equal."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether it may be this value; true is not 1, but 1 is 1.0."""
        return _mark(value) in {_mark(each) for each in self.values}

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of it."""
        return self.values

    @property
    def n_values(self) -> float:
        """How many values it may be."""
        return len(self.values)

    def told(self) -> list[Any]:
        """For a file, and for comparing."""
        return list(self.values)


Space = Mapping[str, Range | Choices]
"""What each searched key may be, in the file's order."""


def load_space(path: Path, recipe: Recipe) -> Space:
    """Read a space and hold it against the recipe that it is searched around.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: it is not TOML, it is empty, or a key or what it may be cannot be used.
    """
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
        told = choice.told()
        return toml_value({k: v for k, v in told.items() if v is not None} if isinstance(told, dict) else told)

    return "".join(f"{key} = {form(choice)}\n" for key, choice in space.items())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputNotFoundError(path, "no such space", "train/space.toml is one to begin with")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not TOML ({error})") from error


def _entries(path: Path, table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Each key with what the file says of it; sections may be tables, or stand before a dot."""
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
    """A remedy for the first name that leads nowhere."""
    value: Any = Recipe()
    for depth, name in enumerate(names):
        if not isinstance(value, msgspec.Struct):
            return f"{'.'.join(names[:depth])} holds no further keys"
        if not hasattr(value, name):
            return nearest_key(names[:depth], name)
        value = getattr(value, name)
    return ""


def _parsed(where: str, key: str, entry: Any) -> Range | Choices:
    reason = why_barred(key)
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
    """What type a recipe's key has."""
    kind: Any = msgspec.inspect.type_info(Recipe)
    for name in key.split("."):
        kind = {field.name: field.type for field in kind.fields}[name]
    found: msgspec.inspect.Type = kind
    return found


def _mark(value: Any) -> str:
    """Equal for what a recipe takes for the same: 1 and 1.0, but not true."""
    return toml_value(float(value) if isinstance(value, int) and not isinstance(value, bool) else plain(value))


def _check_taken(path: Path, space: Space, recipe: Recipe) -> None:
    """Put each choice, and each end of a range, into the recipe.

    One that the recipe refuses only together with its own value of another searched key may still be fine.

    Raises:
        ConfigError: the recipe takes it in no company, or as something else than it says.
    """
    for key, choice in space.items():
        for value in choice.ends:
            try:
                with_values(recipe, {key: value}, str(path))
            except ConfigError as refusal:
                if not any(is_taken(recipe, {key: value, **company}) for company in _companies(space, key)):
                    raise refusal


def _companies(space: Space, key: str) -> Iterator[dict[str, Any]]:
    """Each end of each other key."""
    for other, choice in space.items():
        if other != key:
            yield from ({other: value} for value in choice.ends)
