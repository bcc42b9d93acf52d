"""A folder of runs -> what each has come to, and in which settings they differ; scores of the leaderboard beside them.

Read from what training leaves: recipe.toml, fold*/history.csv, fold*/metrics.json and summary.json, and from
leaderboard.csv, which :func:`note_score` writes into a run's folder. A run may still be training.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.runs.layout import RECIPE_FILE
from birdinfer.runs.study import cell, is_search
from birdinfer.runs.training_run import HISTORY, TrainedRun, read_run
from birdinfer.system.files import write_atomic
from birdinfer.system.locks import locked
from birdinfer.system.text import read_text
from birdinfer.tables.cells import number, whole_number
from birdinfer.tables.csv import HINT, csv_text, rows

METRICS, NOTES = "metrics.json", "leaderboard.csv"
_NOTE_COLUMNS = ("noted", "epoch", "public", "private", "text")
_COLUMNS = (
    "run", "folds", "finished", "epochs", "macro_auc", "std_macro_auc", "padded_cmap", "top1", "out_of_fold_macro_auc",
    "best_epochs", "seconds", "trained", "public", "private",
)  # fmt: skip
"""Of the table of runs; each further column is a key in which runs differ."""
_NOT_COMPARED = ("name", "tracking.")
"""Keys that change no result."""


class Note(NamedTuple):
    """A score of the leaderboard: local time, epoch (None: the best one), scores (nan: not known), and a text."""

    noted: str
    epoch: int | None
    public: float
    private: float
    text: str


class FoldScore(NamedTuple):
    """What a fold has come to so far; scores are nan where unknown."""

    fold: int
    is_finished: bool
    epochs: int
    best_epoch: int
    macro_auc: float
    padded_cmap: float
    top1: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run: its folds, at least one, ascending; its recipe flat, by key; the notes in order of time."""

    name: str
    folder: Path
    folds: tuple[FoldScore, ...]
    out_of_fold: float
    """Macro AUC of all folds' held-out clips together; nan of a single fold."""
    trained: str
    """When the last epoch ended, local time to the minute."""
    values: Mapping[str, Any]
    notes: tuple[Note, ...]

    @property
    def n_finished(self) -> int:
        """Folds that are trained to their end."""
        return sum(fold.is_finished for fold in self.folds)

    def mean(self, column: str) -> float:
        """Mean of a score over the folds that have it; nan if none has."""
        return float(np.mean(known)) if (known := self._known(column)) else math.nan

    def spread(self, column: str) -> float:
        """Standard deviation of a score over folds (of a sample); nan of fewer than two."""
        return float(np.std(known, ddof=1)) if len(known := self._known(column)) > 1 else math.nan

    @property
    def public(self) -> float:
        """The public score that was noted last; nan if none was."""
        return next((note.public for note in reversed(self.notes) if not math.isnan(note.public)), math.nan)

    @property
    def private(self) -> float:
        """The private score that was noted last; nan if none was."""
        return next((note.private for note in reversed(self.notes) if not math.isnan(note.private)), math.nan)

    def _known(self, column: str) -> list[float]:
        return [value for fold in self.folds if not math.isnan(value := getattr(fold, column))]


def read_runs(folder: Path) -> list[RunRecord]:
    """Read all runs in a folder, by name, or the run that the folder is; searches and other folders are left out.

    Raises:
        InputNotFoundError: there is no such folder, or no run in it that has finished an epoch.
        MetadataError: a file of a run is damaged.
    """
    if not folder.is_dir():
        raise InputNotFoundError(folder, "no such folder", "name the one that runs are kept in")
    if any(folder.glob(f"fold*/{HISTORY}")):
        return [read_record(folder)]
    found = sorted({path.parents[1] for path in folder.glob(f"*/fold*/{HISTORY}")})
    records = [read_record(each) for each in found if not is_search(each)]
    if not records:
        raise InputNotFoundError(folder, "holds no run that has finished an epoch", "birdinfer train makes one")
    return records


def read_record(run_dir: Path) -> RunRecord:
    """Read a run; errors as :func:`read_runs`."""
    run = read_run(run_dir)
    last = max(path.stat().st_mtime for path in run_dir.glob(f"fold*/{HISTORY}"))
    return RunRecord(
        name=run.name,
        folder=run_dir,
        folds=tuple(_fold_scores(run, run_dir)),
        out_of_fold=run.summary.get("out_of_fold_macro_auc", math.nan),
        trained=datetime.fromtimestamp(last).isoformat(" ", "minutes"),
        values=_flat(_recipe(run_dir / RECIPE_FILE)),
        notes=read_notes(run_dir),
    )


def differing_keys(records: Sequence[RunRecord]) -> list[str]:
    """The recipe's keys in which runs differ, in the recipe's order; a run of an older version may lack a key."""
    keys = dict.fromkeys(key for record in records for key in record.values)
    compared = [key for key in keys if not key.startswith(_NOT_COMPARED)]
    return [key for key in compared if len({cell(each.values[key]) for each in records if key in each.values}) > 1]


def runs_table(records: Sequence[RunRecord]) -> str:
    """The text of a table with a row for each run; a cell is empty where its value is unknown."""
    keys = differing_keys(records)
    table = [
        (
            record.name,
            len(record.folds),
            record.n_finished,
            " ".join(str(fold.epochs) for fold in record.folds),
            *map(_score, (record.mean("macro_auc"), record.spread("macro_auc"), record.mean("padded_cmap"))),
            *map(_score, (record.mean("top1"), record.out_of_fold)),
            " ".join(str(fold.best_epoch) for fold in record.folds),
            f"{sum(fold.seconds for fold in record.folds):.1f}",
            record.trained,
            *map(_score, (record.public, record.private)),
            *(cell(record.values[key]) if key in record.values else "" for key in keys),
        )
        for record in records
    ]
    return csv_text((*_COLUMNS, *keys), table)


def rank_correlation(records: Sequence[RunRecord]) -> tuple[float, int] | None:
    """Spearman's rank correlation of macro AUC with the public score, over runs that have both; None below three."""
    pairs = [(record.mean("macro_auc"), record.public) for record in records]
    known = np.array([pair for pair in pairs if not any(map(math.isnan, pair))])
    if len(known) < 3 or (known == known[0]).all(axis=0).any():
        return None
    ranks = [np.array([(values < one).sum() + (values <= one).sum() for one in values]) for values in known.T]
    return float(np.corrcoef(ranks)[0, 1]), len(known)


# ---- leaderboard.csv


def note_score(run_dir: Path, note: Note, *, replaces_same_text: bool = False) -> None:
    """Add a score of the leaderboard to a run's folder, or put it in the place of one that has the same text.

    Raises:
        InputNotFoundError: there is no such run.
        ConfigError: the note holds nothing, or no numbers, or the run has no such epoch.
        MetadataError: the notes that are there are damaged.
        OutputError: it cannot be written.
    """
    if not any(run_dir.glob(f"fold*/{HISTORY}")):
        raise InputNotFoundError(run_dir, "no such run", "name its folder, runs/NAME")
    known = [value for value in (note.public, note.private) if not math.isnan(value)]
    if not known and not note.text:
        raise ConfigError("--note", "notes nothing", "give --public, --private or --text")
    if not all(map(math.isfinite, known)):
        raise ConfigError("--note", f"the score is {known[0]}, needed is a number")
    longest = max(len(fold.epochs) for fold in read_run(run_dir).folds)
    if note.epoch is not None and not 1 <= note.epoch <= longest:
        raise ConfigError("--epoch", f"is {note.epoch}, the run has {longest} epochs")
    with locked(run_dir):
        notes = list(read_notes(run_dir))
        place = next((at for at, each in enumerate(notes) if replaces_same_text and each.text == note.text), len(notes))
        notes[place : place + 1] = [note]
        write_atomic(run_dir / NOTES, csv_text(_NOTE_COLUMNS, map(_note_cells, notes)))


def read_notes(run_dir: Path) -> tuple[Note, ...]:
    """Read a run's notes; none if there are none; MetadataError names a damaged cell."""
    path = run_dir / NOTES
    if not path.is_file():
        return ()
    notes = []
    for line, row in rows(path, _NOTE_COLUMNS):
        epoch = whole_number(path, line, row, "epoch", 1) if row["epoch"].strip() else None
        public, private = (number(path, line, row, name) for name in ("public", "private"))
        notes.append(Note(row["noted"], epoch, public, private, row["text"]))
    return tuple(notes)


def _note_cells(note: Note) -> tuple[object, ...]:
    return (note.noted, "" if note.epoch is None else note.epoch, _score(note.public), _score(note.private), note.text)


# ---- Reading


def _fold_scores(run: TrainedRun, run_dir: Path) -> list[FoldScore]:
    found = []
    for history in run.folds:
        metrics = _read_json(run_dir / f"fold{history.fold}" / METRICS)
        auc = history.curves["val_macro_auc"]
        # Of a fold that still trains: its best epoch so far.
        best = int(np.nanargmax(auc)) if not np.isnan(auc).all() else len(auc) - 1
        curves = {name: float(history.curves[f"val_{name}"][best]) for name in ("macro_auc", "padded_cmap", "top1")}
        scores = {name: _number(metrics.get(name)) for name in curves} if metrics else curves
        found.append(
            FoldScore(
                fold=history.fold,
                is_finished=bool(metrics),
                epochs=int(history.epochs[-1]),
                best_epoch=int(metrics.get("best_epoch", history.epochs[best])),
                seconds=float(np.nansum(history.curves["seconds"])),
                **scores,
            )
        )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise MetadataError(path, f"is not JSON ({error})", HINT) from error
    return found if isinstance(found, dict) else {}


def _recipe(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise MetadataError(path, f"is not TOML ({error})", HINT) from error


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _score(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
