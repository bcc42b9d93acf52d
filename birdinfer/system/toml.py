"""TOML of nested tables of numbers, text, booleans and lists: all that a recipe holds."""

import json
from collections.abc import Mapping
from typing import Any


def write_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested tables; the keys of a table come before the tables in it.

    >>> print(write_toml({"name": "a", "optim": {"lr": 0.001, "betas": [0.9, 0.99]}}), end="")
    name = "a"
    <BLANKLINE>
    [optim]
    lr = 0.001
    betas = [0.9, 0.99]
    """
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in plain.items())
    for key, value in table.items():
        if isinstance(value, dict):
            inner = write_toml(value, f"{prefix}{key}.")
            text += f"\n[{prefix}{key}]\n{inner}" if not inner.startswith("\n[") else inner
    return text


def toml_value(value: Any) -> str:
    """Write a value within a line; JSON writes numbers, text and booleans alike."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)
