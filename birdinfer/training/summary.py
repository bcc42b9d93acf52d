"""What a run is worth: a fold's result from its history, all folds together, and both as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from birdinfer.metrics import macro_roc_auc, padded_cmap
from birdinfer.training.checkpoint import Progress
from birdinfer.training.fold_job import OUT_OF_FOLD
from birdinfer.training.report import FoldResult

METRICS, SUMMARY = "metrics.json", "summary.json"


def fold_result(fold: int, progress: Progress) -> FoldResult:
    """What the weights that were kept are worth."""
    best = progress.history[progress.best_epoch - 1]
    return FoldResult(
        fold,
        macro_auc=_or_nan(progress.best_auc),
        padded_cmap=_or_nan(best.val_padded_cmap),
        top1=_or_nan(best.val_top1),
        best_epoch=best.epoch,
        seconds=round(sum(row.seconds for row in progress.history), 1),
        soup=tuple(progress.soup),
        test_macro_auc=_or_nan(progress.test_macro_auc),
        test_padded_cmap=_or_nan(progress.test_padded_cmap),
    )


def summarise(results: Sequence[FoldResult], run_dir: Path) -> dict[str, object]:
    """All folds in a few numbers: mean and standard deviation (of a sample) over those that can be scored.

    ``out_of_fold_*`` are the scores of all folds' out-of-fold tables as one: each clip is scored by the model that was
    not trained on it, and species with few clips in each fold are scored on all of them.
    """
    return {
        **_spread("macro_auc", [result.macro_auc for result in results]),
        **_spread("padded_cmap", [result.padded_cmap for result in results]),
        **_spread("top1", [result.top1 for result in results]),
        **_together([run_dir / f"fold{result.fold}" / OUT_OF_FOLD for result in results if not result.problem]),
        "n_failed": sum(bool(result.problem) for result in results),
        "folds": [plain(result) for result in results],
    }


def plain(result: FoldResult) -> dict[str, object]:
    """For JSON, which has no nan."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in result._asdict().items()
    }


def as_json(value: object) -> str:
    """Text with a line for each value."""
    return json.dumps(value, indent=2) + "\n"


def _spread(name: str, values: Sequence[float]) -> dict[str, object]:
    there = [value for value in values if not math.isnan(value)]
    return {
        f"mean_{name}": float(np.mean(there)) if there else None,
        f"std_{name}": float(np.std(there, ddof=1)) if len(there) > 1 else None,
    }


def _together(tables: Sequence[Path]) -> dict[str, object]:
    """The scores of all out-of-fold tables as one; a clip's primary label is its truth."""
    import pandas as pd

    there = [pd.read_csv(path, dtype={"filename": str, "primary_label": str}) for path in tables if path.is_file()]
    rows = pd.concat(there) if there else None
    if rows is None or rows.empty:
        return {"out_of_fold_macro_auc": None, "out_of_fold_padded_cmap": None}
    labels = list(rows.columns[2:])
    truth = (rows["primary_label"].to_numpy()[:, None] == np.array(labels)).astype(np.int8)
    scores = rows[labels].to_numpy(np.float64)
    auc = macro_roc_auc(truth, scores)
    return {
        "out_of_fold_macro_auc": None if math.isnan(auc) else auc,
        "out_of_fold_padded_cmap": padded_cmap(truth, scores),
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
