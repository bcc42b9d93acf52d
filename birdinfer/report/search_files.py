"""A search's folder, read for its pictures: its tables, the space and the base recipe -> :class:`Search`.

It may still be going on. What is damaged is refused with its file, line and cell; of what is merely not there yet,
only the trials are needed.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.report.table_cells import REMEDY, number, rows, whole_number

TRIALS, CURVES, IMPORTANCE, SPACE, RECIPE = "trials.csv", "curves.csv", "importance.csv", "space.toml", "recipe.toml"
State = Literal["complete", "pruned", "failed", "interrupted", "running"]
Layout = Literal["linear", "log"]
STATES: tuple[State, ...] = get_args(State)
_OF_THE_TRIAL = frozenset({"trial", "state", "score", "seconds", "worker", "started", "continues"})
"""Columns of trials.csv; each of the others is a key that was searched."""


class Curve(NamedTuple):
    """How a trial went; empty if it has said nothing."""

    steps: npt.NDArray[np.int64]
    """[steps], from 1, ascending."""
    scores: npt.NDArray[np.float64]
    """[steps], what pruning went by."""


class Trial(NamedTuple):
    """One set of values that was tried."""

    number: int
    state: State
    score: float
    """Higher is better. Of a pruned trial the last that is known of it; nan if there is none, never of a complete."""
    continues: int | None
    """The interrupted trial that it went on with."""
    values: Mapping[str, str]
    """Of each searched key, as trials.csv spells it; "" if unknown."""
    curve: Curve


class Search(NamedTuple):
    """All that pictures tell of a search."""

    name: str
    keys: tuple[str, ...]
    """As a recipe spells them: ``optim.lr``."""
    trials: tuple[Trial, ...]
    """At least one, by number."""
    importance: Mapping[str, float]
    """Of keys, from 0, their sum 1; empty where it cannot be computed."""
    layouts: Mapping[str, Layout]
    """How ranges of the space were drawn from; without keys that were chosen from a list."""
    default: Trial | None
    """The trial of the base recipe itself; None if the space leaves it out."""

    @property
    def best(self) -> Trial | None:
        """The first of the complete trials with the highest score; None if there is none yet."""
        return max((one for one in self.trials if one.state == "complete"), key=lambda one: one.score, default=None)


def is_search(folder: Path) -> bool:
    """Whether a folder is a search's, and not a run's."""
    return (folder / SPACE).is_file() or (folder / TRIALS).is_file()


def read_search(study_dir: Path) -> Search:
    """Read what a search has left so far.

    Raises:
        InputNotFoundError: there is no such folder, or no trial in it.
        MetadataError: one of its files is damaged.
    """
    if not study_dir.is_dir():
        raise InputNotFoundError(study_dir, "no such search", "name its folder, runs/NAME-tune")
    curves = _read_curves(study_dir / CURVES) if (study_dir / CURVES).is_file() else {}
    keys, trials = _read_trials(study_dir / TRIALS, curves) if (study_dir / TRIALS).is_file() else ((), ())
    if not trials:
        raise InputNotFoundError(study_dir, "holds no trial of a search yet", "birdinfer tune makes them")
    importance = _read_importance(study_dir / IMPORTANCE, keys) if (study_dir / IMPORTANCE).is_file() else {}
    layouts = _layouts(_read_toml(study_dir / SPACE), keys)
    default = _default(trials, _read_toml(study_dir / RECIPE))
    return Search(study_dir.resolve().name, keys, trials, importance, layouts, default)


def _read_trials(path: Path, curves: Mapping[int, Curve]) -> tuple[tuple[str, ...], tuple[Trial, ...]]:
    """The searched keys, and the trials by number.

    A curve without a trial is passed over: while a search goes on, one table may be newer than the other.
    """
    trials: dict[int, Trial] = {}
    keys: tuple[str, ...] = ()
    for line, row in rows(path, "trial"):
        keys = tuple(name for name in row if name not in _OF_THE_TRIAL)
        trial = _trial(path, line, row, curves)
        if trial.number in trials:
            raise MetadataError(f"{path}, line {line}", f"has trial {trial.number} once more", REMEDY)
        trials[trial.number] = trial
    return keys, tuple(trials[each] for each in sorted(trials))


def _trial(path: Path, line: int, row: Mapping[str, str], curves: Mapping[int, Curve]) -> Trial:
    which = whole_number(path, line, row, "trial", 0)
    state, score = _state(path, line, row.get("state", "")), number(path, line, row, "score")
    if state == "complete" and math.isnan(score):
        raise MetadataError(f"{path}, line {line}", f"trial {which} is complete, but has no score", REMEDY)
    curve = curves.get(which, Curve(np.zeros(0, np.int64), np.zeros(0)))
    if state == "pruned" and math.isnan(score) and len(curve.scores):
        score = float(curve.scores[-1])
    continues = whole_number(path, line, row, "continues", 0) if row.get("continues") else None
    values = {name: text for name, text in row.items() if name not in _OF_THE_TRIAL}
    return Trial(which, state, score, continues, values, curve)


def _state(path: Path, line: int, text: str) -> State:
    for known in STATES:
        if text == known:
            return known
    raise MetadataError(f"{path}, line {line}", f"state is {text!r}, needed is one of {', '.join(STATES)}", REMEDY)


def _read_curves(path: Path) -> dict[int, Curve]:
    """The curves by their trials' numbers."""
    points: dict[int, list[tuple[int, float]]] = {}
    for line, row in rows(path, "trial"):
        own = points.setdefault(whole_number(path, line, row, "trial", 0), [])
        lowest = own[-1][0] + 1 if own else 1
        step, score = whole_number(path, line, row, "step", lowest), number(path, line, row, "score")
        own.append((step, score))
    return {which: Curve(*map(np.array, zip(*own, strict=True))) for which, own in points.items()}


def _read_importance(path: Path, keys: Sequence[str]) -> dict[str, float]:
    """The importance of keys, the highest first."""
    found: dict[str, float] = {}
    for line, row in rows(path, "key"):
        share = number(path, line, row, "importance")
        if row["key"] not in keys:
            raise MetadataError(f"{path}, line {line}", f"{row['key']!r} is no key that {TRIALS} holds", REMEDY)
        if not share >= 0:
            what = f"importance is {row.get('importance', '')!r}, needed is a number from 0"
            raise MetadataError(f"{path}, line {line}", what, REMEDY)
        found[row["key"]] = share
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _read_toml(path: Path) -> dict[str, Any]:
    """Its tables; none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # tomllib's own, and what is no UTF-8
        raise MetadataError(path, f"is not TOML ({error})", REMEDY) from error


def _layouts(space: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Layout]:
    ranges = {key: found for key in keys if isinstance(found := _of_key(space, key), Mapping)}
    return {key: "log" if found.get("log") else "linear" for key, found in ranges.items() if "low" in found}


def _default(trials: Sequence[Trial], base: Mapping[str, Any]) -> Trial | None:
    """The trial of the base recipe: the first where it has the base's values, or the one that went on with it."""
    first = trials[0]
    if first.number != 0 or not all(_is_spelled(text, _of_key(base, key)) for key, text in first.values.items()):
        return None
    went_on = {one.continues: one for one in trials if one.continues is not None and one.continues < one.number}
    while first.number in went_on:
        first = went_on[first.number]
    return first


def _of_key(table: Any, key: str) -> Any:
    """What a recipe, or a space, holds under ``optim.lr``; None if nothing."""
    for name in key.split("."):
        table = table.get(name) if isinstance(table, Mapping) else None
    return table


def _is_spelled(text: str, value: Any) -> bool:
    """Whether a cell means a recipe's value: text as it is, all else as TOML and JSON write it."""
    if value is None or isinstance(value, str):
        return value is None or text == value
    try:
        told = json.loads(text)
    except ValueError:
        return False
    numbers = (int, float)
    if type(value) in numbers and type(told) in numbers:
        return math.isclose(told, value, rel_tol=1e-9)
    return bool(told == value)
