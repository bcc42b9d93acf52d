"""All keys of a recipe, with default, range and meaning, read from the schema and its docstrings."""

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from birdinfer.system.toml import toml_value
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.toml import allowed_values

_SOURCES = ("data", "sources")
"""A list of tables, whose keys are listed as those of one."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe."""

    name: str
    """With its section, as ``optim.lr``."""
    default: str
    """As a recipe would write it."""
    allowed: str
    """Its whole range, its choices, or ""."""
    meaning: str


def recipe_keys(part: str = "") -> list[Key]:
    """List the keys whose name or meaning holds ``part``, in the order of the schema.

    >>> [key.name for key in recipe_keys("optim.lr")][0]
    'optim.lr'
    """
    keys = _keys(Recipe(), ())
    return [key for key in keys if part.lower() in key.name or part.lower() in key.meaning.lower()]


def _keys(config: Any, section: tuple[str, ...]) -> Iterator[Key]:
    meanings = _meanings(type(config))
    for field in msgspec.structs.fields(config):
        value, names = getattr(config, field.name), (*section, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _keys(value, names)
        elif names == _SOURCES:
            yield from _keys(SourceConfig(path="DIR"), names)
        else:
            default = toml_value(msgspec.to_builtins(value)) if value is not None else "not set"
            meaning = meanings.get(field.name, "")
            yield Key(name=".".join(names), default=default, allowed=allowed_values(names), meaning=meaning)


def _meanings(struct: type) -> dict[str, str]:
    """Field -> its docstring, the text that follows it in the source; of base classes, too."""
    found: dict[str, str] = {}
    for base in reversed([each for each in struct.__mro__ if each.__module__.startswith("birdinfer.")]):
        (body,) = (
            node.body
            for node in ast.walk(ast.parse(inspect.getsource(sys.modules[base.__module__])))
            if isinstance(node, ast.ClassDef) and node.name == base.__name__
        )
        for field, text in itertools.pairwise(body):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[attr-defined]
    return found
