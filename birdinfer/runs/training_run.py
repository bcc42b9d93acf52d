"""A run's folder, read for its pictures: fold*/history.csv, fold*/classes.csv and summary.json -> :class:`TrainedRun`.

A column that is missing, or a cell that is empty, is a value that could not be computed: nan. What is damaged is
refused with its file, line and cell.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.cells import number
from birdinfer.tables.csv import HINT, rows
from birdinfer.typing import Float64, Int64

HISTORY, CLASSES, SUMMARY = "history.csv", "classes.csv", "summary.json"
CURVES = ("train_loss", "val_loss", "val_macro_auc", "val_padded_cmap", "val_top1", "lr", "seconds")
"""What history.csv says of an epoch."""


class FoldHistory(NamedTuple):
    """How one fold went: epochs ascend from 1, and each of ``CURVES`` is [epochs], nan where unknown."""

    fold: int
    epochs: Int64
    curves: dict[str, Float64]


class SpeciesScore(NamedTuple):
    """How well a species is recognised, over all folds.

    Its name is the common one, else the scientific one, else the label; its class is Aves, Amphibia ... or ""; ``auc``
    is the mean ROC-AUC over folds, weighted by validation clips; nan if no fold could score it.
    """

    label: str
    name: str
    class_name: str
    n_clips: int
    auc: float


class TrainedRun(NamedTuple):
    """All that pictures show of a run: its folds, at least one, ascending, and the numbers of summary.json.

    Without species nothing was validated, or an older version trained it.
    """

    name: str
    folds: tuple[FoldHistory, ...]
    species: tuple[SpeciesScore, ...]
    summary: dict[str, float]


def read_run(run_dir: Path) -> TrainedRun:
    """Read what a run has written so far, at least an epoch of a fold; it may still be running."""
    if not run_dir.is_dir():
        raise InputNotFoundError(run_dir, "no such run", "name its folder, runs/NAME")
    numbered = ((int(found[1]), path) for path in run_dir.iterdir() if (found := re.fullmatch(r"fold(\d+)", path.name)))
    folders = [(fold, path) for fold, path in sorted(numbered) if (path / HISTORY).is_file()]
    histories = [_read_history(fold, path / HISTORY) for fold, path in folders]
    folds = tuple(history for history in histories if len(history.epochs))
    if not folds:
        is_fold = (run_dir / HISTORY).is_file()
        hint = f"that is a fold, name its run: {run_dir.parent}" if is_fold else "birdinfer train makes one"
        raise InputNotFoundError(run_dir, "holds no fold that has finished an epoch", hint)
    species = _together([_read_classes(path / CLASSES) for _, path in folders if (path / CLASSES).is_file()])
    return TrainedRun(run_dir.resolve().name, folds, species, _read_summary(run_dir / SUMMARY))


def _read_history(fold: int, path: Path) -> FoldHistory:
    epochs: list[int] = []
    curves: dict[str, list[float]] = {name: [] for name in CURVES}
    for line, row in rows(path, "epoch"):
        epoch = number(path, line, row, "epoch")
        if not epoch.is_integer() or epoch <= (epochs[-1] if epochs else 0):
            last = f"one after {epochs[-1]}" if epochs else "one from 1"
            raise MetadataError(f"{path}, line {line}", f"epoch is {row['epoch']!r}, needed is {last}")
        epochs.append(int(epoch))
        for name, values in curves.items():
            values.append(number(path, line, row, name))
    return FoldHistory(fold, np.array(epochs, np.int64), {name: np.array(values) for name, values in curves.items()})


def _read_classes(path: Path) -> list[SpeciesScore]:
    scores = []
    for line, row in rows(path, "label"):
        name = row.get("common_name") or row.get("scientific_name") or row["label"]
        n_clips = number(path, line, row, "n_clips")
        n_clips = 0 if math.isnan(n_clips) else int(n_clips)
        auc = number(path, line, row, "roc_auc")
        scores.append(SpeciesScore(row["label"], name, row.get("class_name", ""), n_clips, auc))
    return scores


def _together(folds: Sequence[Sequence[SpeciesScore]]) -> tuple[SpeciesScore, ...]:
    by_label: dict[str, list[SpeciesScore]] = {}
    for one in (score for fold in folds for score in fold):
        by_label.setdefault(one.label, []).append(one)
    return tuple(_mean(scores) for scores in by_label.values())


def _mean(scores: Sequence[SpeciesScore]) -> SpeciesScore:
    scored = [one for one in scores if one.n_clips and not math.isnan(one.auc)]
    weight = sum(one.n_clips for one in scored)
    auc = sum(one.auc * one.n_clips for one in scored) / weight if scored else math.nan
    return scores[0]._replace(n_clips=sum(one.n_clips for one in scores), auc=auc)


def _read_summary(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(path, f"is not JSON ({error})", HINT) from error
    known = summary.items() if isinstance(summary, dict) else ()
    return {name: float(value) for name, value in known if isinstance(value, int | float) and math.isfinite(value)}
