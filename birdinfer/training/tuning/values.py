"""Values of a recipe's keys, ``{"optim.lr": 0.001}``: put into a recipe, taken out of one, written in a table."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import check_table, toml_value

Values = Mapping[str, Any]
"""A key as a recipe spells it with its sections -> a number, text, boolean or list."""


def with_values(recipe: Recipe, values: Values, source: str) -> Recipe:
    """The recipe with other values.

    Args:
        recipe: gives all other keys.
        values: of keys that recipes have.
        source: what an error names before the key.

    Raises:
        ConfigError: a value, or what several are together, cannot be used.
    """
    table = msgspec.to_builtins(recipe)
    for key, value in values.items():
        *sections, name = key.split(".")
        section = table
        for each in sections:
            section = section[each]
        section[name] = value
    return check_table(table, source)


def is_taken(recipe: Recipe, values: Values) -> bool:
    """Whether :func:`with_values` makes a recipe of them."""
    try:
        with_values(recipe, values, "values")
    except ConfigError:
        return False
    return True


def values_of(recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """What a recipe has for each of the keys, a list where it holds a tuple."""
    table = msgspec.to_builtins(recipe)

    def found(key: str) -> Any:
        value: Any = table
        for name in key.split("."):
            value = value[name]
        return plain(value)

    return {key: found(key) for key in keys}


def plain(value: Any) -> Any:
    """The value with a list for each tuple, as JSON and TOML read it back."""
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def cell(value: Any) -> str:
    """The value as a table shows it: text as it is, all else as TOML writes it."""
    return value if isinstance(value, str) else toml_value(value)
