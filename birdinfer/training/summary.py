"""What a run is worth: a fold's result from its history, all folds together, and both as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.files import write_atomic
from birdinfer.metrics import macro_roc_auc, padded_cmap
from birdinfer.training.checkpoint import Progress, load_header
from birdinfer.training.fold_job import LAST, OUT_OF_FOLD, fold_dir
from birdinfer.training.report import FoldResult
from birdinfer.training.turns import one_at_a_time

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


def write_summary(run_dir: Path, results: Sequence[FoldResult]) -> None:
    """Write summary.json of these folds and of the run's others that are finished, if they are more than one.

    Folds may be trained one by one, or by processes that end at the same moment: each has finished its fold before it
    looks for the others', and they look and write in turns, so that the last one knows all.

    Args:
        run_dir: the run's folder.
        results: of the folds that were just trained, or failed.

    Raises:
        OutputError: it cannot be written.
    """
    with one_at_a_time(run_dir):
        known: list[FoldResult] = []
        # Once more after writing: where a disk has no locks, another process may have looked before we had finished.
        while len(together := _with_finished(results, run_dir)) > len(known):
            known = together
            if len(known) > 1:
                write_atomic(run_dir / SUMMARY, as_json(summarise(known, run_dir)))


def summarise(results: Sequence[FoldResult], run_dir: Path) -> dict[str, object]:
    """All folds in a few numbers: mean and standard deviation (of a sample) over those that can be scored.

    ``out_of_fold_*`` are the scores of all folds' out-of-fold tables as one: each clip is scored by the model that was
    not trained on it, and species with few clips in each fold are scored on all of them.
    """
    return {
        **_spread("macro_auc", [result.macro_auc for result in results]),
        **_spread("padded_cmap", [result.padded_cmap for result in results]),
        **_spread("top1", [result.top1 for result in results]),
        **_together([fold_dir(run_dir, result.fold) / OUT_OF_FOLD for result in results if not result.problem]),
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


def _with_finished(results: Sequence[FoldResult], run_dir: Path) -> list[FoldResult]:
    """These folds and the run's others that are finished, by number; a checkpoint that is damaged is a failure."""
    own = {result.fold for result in results}
    others = [_finished(path) for path in run_dir.glob(f"fold*/{LAST}")]
    return sorted([*results, *(one for one in others if one and one.fold not in own)], key=lambda result: result.fold)


def _finished(path: Path) -> FoldResult | None:
    try:
        header = load_header(path)
    except InputNotFoundError:
        return None
    except CheckpointError as error:
        number = path.parent.name.removeprefix("fold")
        return FoldResult(int(number), str(error)) if number.isdecimal() else None
    return fold_result(header.fold, header.progress) if header.progress.is_complete else None


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
