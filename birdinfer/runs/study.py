"""A study's tables, written, and read back for pictures.

trials.csv has a row for each trial, curves.csv one for each of a trial's epochs, importance.csv one for each key.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.runs.layout import CURVES_FILE, IMPORTANCE_FILE, RECIPE_FILE, SPACE_FILE, TRIALS_FILE
from birdinfer.system.files import write_atomic
from birdinfer.system.text import read_text
from birdinfer.system.toml import toml_value
from birdinfer.tables.cells import number, whole_number
from birdinfer.tables.csv import HINT, csv_text, rows
from birdinfer.typing import Float64, Int64

State = Literal["complete", "pruned", "failed", "interrupted", "running", "waiting"]
"""Failed: it cannot be trained. Interrupted: the next worker resumes it. Waiting: not begun, and in no table."""
STATES: tuple[State, ...] = get_args(State)[:-1]
_COLUMNS = ("trial", "state", "score", "seconds", "worker", "started")
"""Of trials.csv; each further column is a key that is searched."""


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a trial while its study runs, numbered from 0; "" and empty tables before its start."""

    number: int
    state: State
    score: float | None = None  # mean over the folds of each fold's best epoch, higher is better; None unless complete
    seconds: float | None = None  # from its first start to its end; None before its end
    worker: str = ""  # who trains it, or has trained it last; "" after an interruption
    started: str = ""  # local time, to the second
    values: Mapping[str, Any] = {}
    curve: Mapping[int, float] = {}  # the score as far as it was known after each step (epoch), from 1
    is_default: bool = False  # whether it is the base recipe itself
    problem: str = ""
    crashes: int = 0  # how many workers have died while they trained it

    @property
    def is_finished(self) -> bool:
        """Whether it counts among the trials that were asked for."""
        return self.state in {"complete", "pruned"}

    @property
    def is_over(self) -> bool:
        """Whether no worker will train it any more."""
        return self.state not in {"running", "waiting", "interrupted"}


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest score; of equal ones the recipe itself, else the earliest."""
    complete = [record for record in records if record.score is not None]
    return max(complete, key=lambda record: (record.score or 0.0, record.is_default, -record.number), default=None)


def default_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial of the base recipe, if it is complete."""
    return next((record for record in records if record.is_default and record.score is not None), None)


def cell(value: Any) -> str:
    """A value as a table shows it: text as it is, all else as TOML writes it."""
    return value if isinstance(value, str) else toml_value(value)


def write_tables(
    study_dir: Path, records: Sequence[TrialRecord], keys: Sequence[str], importance: Mapping[str, float]
) -> None:
    """Write a study's tables, each whole or not at all; waiting trials are left out."""
    started = [record for record in records if record.state != "waiting"]
    write_atomic(study_dir / TRIALS_FILE, trials_table(started, keys))
    curve = [(each.number, step, f"{score:.6f}") for each in started for step, score in each.curve.items()]
    write_atomic(study_dir / CURVES_FILE, csv_text(("trial", "step", "score"), curve))
    if importance:
        shares = [(key, f"{share:.6f}") for key, share in importance.items()]
        write_atomic(study_dir / IMPORTANCE_FILE, csv_text(("key", "importance"), shares))
    else:
        (study_dir / IMPORTANCE_FILE).unlink(missing_ok=True)


def trials_table(records: Sequence[TrialRecord], keys: Sequence[str]) -> str:
    """The text of trials.csv; a cell is empty where its value is unknown."""
    table = [
        (
            record.number,
            record.state,
            "" if record.score is None else f"{record.score:.6f}",
            "" if record.seconds is None else f"{record.seconds:.1f}",
            record.worker,
            record.started,
            *(cell(record.values[key]) if key in record.values else "" for key in keys),
        )
        for record in records
    ]
    return csv_text((*_COLUMNS, *keys), table)


# ---- Reading, for pictures. The search may still be running: only trials.csv is needed

Layout = Literal["linear", "log"]


class Curve(NamedTuple):
    """A trial's scores, which pruning compared, by step: both [steps], ascending from 1; empty if none was reported."""

    steps: Int64
    scores: Float64


class Trial(msgspec.Struct, frozen=True):
    """A row of trials.csv, with its curve."""

    number: int
    state: State
    score: float
    """Higher is better: a loss has a minus sign. Of a pruned trial the last known one; nan if there is none, never of
    a complete trial."""
    values: Mapping[str, str]  # of each searched key, as trials.csv spells it; "" if unknown
    curve: Curve


class Search(NamedTuple):
    """All that pictures show of a search."""

    name: str
    keys: tuple[str, ...]
    trials: tuple[Trial, ...]  # at least one, by number
    importance: Mapping[str, float]
    """Of keys, from 0, their sum 1, the highest first; empty where it cannot be computed."""
    layouts: Mapping[str, Layout]  # how the space's ranges are drawn from; keys that are chosen from a list are missing
    score: str  # what a score is: loop.monitor of the base recipe
    default: Trial | None  # the trial of the base recipe itself; None if the space leaves it out

    @property
    def best(self) -> Trial | None:
        """The first of the complete trials with the highest score; None if there is none yet."""
        return max((one for one in self.trials if one.state == "complete"), key=lambda one: one.score, default=None)


def is_search(folder: Path) -> bool:
    """Whether a folder is a study's, and not a run's."""
    return (folder / SPACE_FILE).is_file() or (folder / TRIALS_FILE).is_file()


def read_search(study_dir: Path) -> Search:
    """Read what a search has written so far; MetadataError names line and cell of a damaged file."""
    if not study_dir.is_dir():
        raise InputNotFoundError(study_dir, "no such search", "name its folder, runs/NAME-tune")
    curves = _read_curves(study_dir / CURVES_FILE)
    keys, trials = _read_trials(study_dir / TRIALS_FILE, curves)
    if not trials:
        raise InputNotFoundError(study_dir, "holds no trial of a search yet", "birdinfer tune makes them")
    importance, space = _read_importance(study_dir / IMPORTANCE_FILE, keys), _read_toml(study_dir / SPACE_FILE)
    base = _read_toml(study_dir / RECIPE_FILE)
    first = trials[0]
    is_default = first.number == 0 and all(_equals(text, _get(base, key)) for key, text in first.values.items())
    return Search(
        study_dir.resolve().name,
        keys,
        trials,
        importance,
        _layouts(space, keys),
        str(_get(base, "loop.monitor") or "macro_auc"),
        first if is_default else None,
    )


def _read_trials(path: Path, curves: Mapping[int, Curve]) -> tuple[tuple[str, ...], tuple[Trial, ...]]:
    """The searched keys, and the trials by number; while a search runs, curves may be newer than trials."""
    trials: dict[int, Trial] = {}
    keys: tuple[str, ...] = ()
    for line, row in rows(path, "trial") if path.is_file() else ():
        if "continues" in row:
            raise MetadataError(path, "is of an older birdinfer, which kept trials in another way", "search again")
        keys = tuple(name for name in row if name not in _COLUMNS)
        trial = _trial(path, line, row, curves)
        if trial.number in trials:
            raise MetadataError(f"{path}, line {line}", f"has trial {trial.number} once more", HINT)
        trials[trial.number] = trial
    return keys, tuple(trials[each] for each in sorted(trials))


def _trial(path: Path, line: int, row: Mapping[str, str], curves: Mapping[int, Curve]) -> Trial:
    which, score = whole_number(path, line, row, "trial", 0), number(path, line, row, "score")
    text = row.get("state", "")
    state = next((known for known in STATES if known == text), None)
    if state is None:
        raise MetadataError(f"{path}, line {line}", f"state is {text!r}, needed is one of {', '.join(STATES)}", HINT)
    if state == "complete" and math.isnan(score):
        raise MetadataError(f"{path}, line {line}", f"trial {which} is complete, but has no score", HINT)
    curve = curves.get(which, Curve(np.zeros(0, np.int64), np.zeros(0)))
    if state == "pruned" and math.isnan(score) and len(curve.scores):
        score = float(curve.scores[-1])
    return Trial(which, state, score, {name: text for name, text in row.items() if name not in _COLUMNS}, curve)


def _read_curves(path: Path) -> dict[int, Curve]:
    points: dict[int, list[tuple[int, float]]] = {}
    for line, row in rows(path, "trial") if path.is_file() else ():
        own = points.setdefault(whole_number(path, line, row, "trial", 0), [])
        step = whole_number(path, line, row, "step", own[-1][0] + 1 if own else 1)
        own.append((step, number(path, line, row, "score")))
    return {which: Curve(*map(np.array, zip(*own, strict=True))) for which, own in points.items()}


def _read_importance(path: Path, keys: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for line, row in rows(path, "key") if path.is_file() else ():
        share = number(path, line, row, "importance")
        if row["key"] not in keys:
            raise MetadataError(f"{path}, line {line}", f"{row['key']!r} is no key that {TRIALS_FILE} holds", HINT)
        if not share >= 0:
            what = f"importance is {row.get('importance', '')!r}, needed is a number from 0"
            raise MetadataError(f"{path}, line {line}", what, HINT)
        found[row["key"]] = share
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # tomllib's own, and what is no UTF-8
        raise MetadataError(path, f"is not TOML ({error})", HINT) from error


def _layouts(space: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Layout]:
    ranges = {key: found for key in keys if isinstance(found := _get(space, key), Mapping)}
    return {key: "log" if found.get("log") else "linear" for key, found in ranges.items() if "low" in found}


def _get(table: Any, key: str) -> Any:
    """What a recipe, or a space, holds under ``optim.lr``; None if nothing."""
    for name in key.split("."):
        table = table.get(name) if isinstance(table, Mapping) else None
    return table


def _equals(text: str, value: Any) -> bool:
    """Whether a cell means a recipe's value: text as it is, all else as TOML and JSON write it."""
    if value is None or isinstance(value, str):
        return value is None or text == value
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if {type(value), type(parsed)} <= {int, float}:
        return math.isclose(parsed, value, rel_tol=1e-9)
    return bool(parsed == value)
