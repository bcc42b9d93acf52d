"""Recipes on disk: TOML and ``key=value`` overrides -> ``Recipe``, and back to TOML.

A value that cannot be used is refused as one line with the file, the key, the value and what is allowed; a key that
does not exist is answered with the nearest one that does.
"""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect

from birdinfer.errors import ConfigError
from birdinfer.system.text import read_text
from birdinfer.system.toml import write_toml
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.shipped import find_recipe

Table = dict[str, Any]
_WORDS = re.compile(r"\[\s*[\w.-]+(?:\s*,\s*[\w.-]+)*\s*,?\s*\]")
"""A list of words without quotes."""


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file, or the name of a recipe that comes with birdinfer; None starts from the built-in defaults.
        overrides: ``["optim.lr=3e-4", ...]``, the values written as in TOML; a bare word is taken as text.

    Returns:
        The recipe, checked. Without a ``name`` of its own it is called like its file.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: it is not TOML, or a key or value cannot be used.
    """
    table: Table = {} if path is None else {"name": path.stem} | read_toml(path)
    # The file first, by itself, so that an error names the file or the option, whichever it is.
    recipe = check_table(table, "recipe" if path is None else str(path))
    for override in overrides:
        _set(table, override)
    return check_table(table, "--set") if overrides else recipe


def change(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with some keys changed, each written as for :func:`load_recipe`.

    Raises:
        ConfigError: a key or value cannot be used.
    """
    table = msgspec.to_builtins(recipe)
    for override in overrides:
        _set(table, override)
    return check_table(table, "--set")


def write_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, every value written out; :func:`load_recipe` reads it back equal."""
    return write_toml(msgspec.to_builtins(recipe))


def check_table(table: Table, source: str) -> Recipe:
    """The recipe that nested tables hold.

    Args:
        table: sections and their keys, as TOML has them.
        source: what an error names before the key: a file, an option.

    Raises:
        ConfigError: a key or value cannot be used.
    """
    try:
        return msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise _refusal(error, table, source) from error


def read_toml(path: Path) -> Table:
    """Read a TOML file, named as a recipe is; raise InputNotFoundError or ConfigError if it is none."""
    found = find_recipe(path)
    try:
        return tomllib.loads(read_text(found))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(path, f"is not TOML ({error})") from error


def _set(table: Table, override: str) -> None:
    key, sign, text = (part.strip() for part in override.partition("="))
    names = key.split(".")
    if not sign or not all(names):
        raise ConfigError("--set", f"{override!r} is not KEY=VALUE", "write it as optim.lr=3e-4")
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError("--set", f"{override!r}: {name} holds no further keys")
    table[names[-1]] = _value(text)


def _value(text: str) -> Any:
    """A TOML value; what is none is text, also in a list, since a shell takes the quotes away."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text[1:-1].replace(",", " ").split() if _WORDS.fullmatch(text) else text


def _refusal(error: msgspec.ValidationError, table: Table, source: str) -> ConfigError:
    """Turn msgspec's message ("Expected `float` <= 1.0 - at `$.optim.lr`") into birdinfer's."""
    what, _, place = str(error).partition(" - at `$.")
    names = [name for name in re.split(r"[.\[\]`]+", place) if name]
    unknown = re.search(r"unknown field `(.*?)`", what)
    if unknown:
        key = ".".join([*names, unknown[1]])
        return ConfigError(f"{source}: {key}", "there is no such key", nearest_key(names, unknown[1]))
    value = _lookup(table, names)
    message = what.replace("`", "")
    if isinstance(value, dict):
        return ConfigError(f"{source}: {'.'.join(names)}" if names else source, message)
    allowed = allowed_values(names)
    return ConfigError(
        f"{source}: {'.'.join(names)}",
        f"is {value!r}, {message[:1].lower()}{message[1:]}",
        allowed and f"allowed is {allowed}",
    )


def allowed_values(names: Sequence[str]) -> str:
    """A key's whole range ("0 < lr <= 1"), or its choices; "" for what has neither."""
    kind = _kind_at(names)
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(str(value) for value in kind.values)
    if not isinstance(kind, (msgspec.inspect.IntType, msgspec.inspect.FloatType)):
        return ""
    low = f"{kind.ge:g} <= " if kind.ge is not None else f"{kind.gt:g} < " if kind.gt is not None else ""
    high = f" <= {kind.le:g}" if kind.le is not None else f" < {kind.lt:g}" if kind.lt is not None else ""
    return f"{low}{names[-1]}{high}" if low or high else ""


def _kind_at(names: Sequence[str]) -> Any:
    """The type of what stands at a key, an entry of a list included; None if there is no such key."""
    kind: Any = msgspec.inspect.type_info(Recipe)
    for name in names:
        if isinstance(kind, msgspec.inspect.VarTupleType):
            kind = kind.item_type
            if name.isdigit():
                continue
        fields = {field.name: field.type for field in getattr(kind, "fields", ())}
        kind = fields.get(name)
    return kind


def _lookup(table: Any, names: Sequence[str]) -> Any:
    for name in names:
        if isinstance(table, dict):
            table = table.get(name)
        elif isinstance(table, list) and name.isdigit() and isinstance(table[int(name)], dict):
            table = table[int(name)]
    return table


def nearest_key(names: Sequence[str], unknown: str) -> str:
    """Which keys the table at ``names`` does have, the most similar first."""
    known = [field.name for field in getattr(_kind_at(names), "fields", ())]
    if not known:
        return ""
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
