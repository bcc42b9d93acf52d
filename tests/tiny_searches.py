"""Searches as birdinfer tune leaves them, without their trials' runs: trials.csv, curves.csv, importance.csv, TOML."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

OF_THE_TRIAL = ["trial", "state", "score", "seconds", "worker", "started"]
KEYS = ("optim.lr",)
TRIALS = (
    [0, "complete", 0.70, 1e-3],
    [1, "pruned", 0.55, 1e-2],
    [2, "complete", 0.75, 2e-3],
    [3, "failed", "", 3e-3],
)
"""Number, state, score, then a value for each key."""
CURVES = ([0, 1, 0.60], [0, 2, 0.70], [1, 1, 0.55], [2, 1, 0.65], [2, 2, 0.75])


def write_search(
    folder: Path,
    trials: Sequence[Sequence[object]] = TRIALS,
    keys: Sequence[str] = KEYS,
    curves: Sequence[Sequence[object]] = CURVES,
    importance: Mapping[str, float] | None = None,
    space: str = "",
    recipe: str = "",
) -> Path:
    """The rows of trials.csv (without seconds, worker and start) and curves.csv; files of what is left out are not."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[*row[:3], 3.5, "host:1", "2026-01-01 00:00:00", *row[3:]] for row in trials]
    _write(folder / "trials.csv", [[*OF_THE_TRIAL, *keys], *rows])
    _write(folder / "curves.csv", [["trial", "step", "score"], *curves])
    if importance is not None:
        _write(folder / "importance.csv", [["key", "importance"], *importance.items()])
    for name, text in (("space.toml", space), ("recipe.toml", recipe)):
        if text:
            (folder / name).write_text(text)
    return folder


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
