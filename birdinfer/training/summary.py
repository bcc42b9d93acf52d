"""What a run is worth: a fold's result from its history, all folds together, and both as JSON."""

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.evaluation.metrics import macro_roc_auc, padded_cmap
from birdinfer.runs.layout import LAST, RECIPE_FILE, fold_dir
from birdinfer.runs.out_of_fold import read_out_of_fold
from birdinfer.system.files import write_atomic
from birdinfer.system.locks import locked
from birdinfer.training.callbacks import FoldResult
from birdinfer.training.checkpoint import Progress, load_header
from birdinfer.training.data.folds_file import FOLDS_FILE, LEFT_OUT, VALIDATION, folds_by_name
from birdinfer.training.fold import OUT_OF_FOLD

METRICS, SUMMARY = "metrics.json", "summary.json"


def fold_result(fold: int, progress: Progress) -> FoldResult:
    """What the weights that were kept are worth."""
    best = progress.history[progress.best_epoch - 1]
    return FoldResult(
        fold=fold,
        macro_auc=_or_nan(progress.best_auc),
        score=_or_nan(progress.best_score),
        padded_cmap=_or_nan(best.val_padded_cmap),
        top1=_or_nan(best.val_top1),
        best_epoch=best.epoch,
        train_loss=best.train_loss,
        val_loss=_or_nan(best.val_loss),
        seconds=round(sum(row.seconds for row in progress.history), 1),
        soup=tuple(progress.soup),
        test_macro_auc=_or_nan(progress.test_macro_auc),
        test_padded_cmap=_or_nan(progress.test_padded_cmap),
    )


def write_summary(run_dir: Path, results: Sequence[FoldResult]) -> None:
    """Write summary.json of these folds and of the run's others that are finished, if they are more than one.

    Folds may be trained one by one, or by processes that end at the same moment: each has finished its fold before it
    looks for the others', and they look and write in turns, so that the last one knows all.

    Raises:
        OutputError: it cannot be written.
    """
    with locked(run_dir):
        known = _with_finished(results, run_dir)
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
        **_coverage(run_dir / FOLDS_FILE),
        **_spread("train_loss", [result.train_loss for result in results]),
        **_spread("val_loss", [result.val_loss for result in results]),
        **origin(run_dir, [result.fold for result in results]),
        "n_failed": sum(bool(result.problem) for result in results),
        "folds": [plain(result) for result in results],
    }


def origin(run_dir: Path, folds: Sequence[int]) -> dict[str, object]:
    """Where a run and its data lie, and the digest of its recipe: that of the file, as ``sha256sum`` has it."""
    recipe = run_dir / RECIPE_FILE
    checkpoints = [path for fold in folds if (path := fold_dir(run_dir, fold) / LAST).is_file()]
    found: dict[str, object] = {"run": str(run_dir.resolve())}
    if checkpoints:
        with suppress(CheckpointError):
            found["data"] = load_header(checkpoints[0]).data_dir
    if recipe.is_file():
        found |= {"recipe": RECIPE_FILE, "recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest()}
    return found


def plain(result: FoldResult) -> dict[str, object]:
    """For JSON, which has no nan."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(result).items()
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
        return FoldResult(fold=int(number), problem=str(error)) if number.isdecimal() else None
    return fold_result(header.fold, header.progress) if header.progress.is_complete else None


def _spread(name: str, values: Sequence[float]) -> dict[str, object]:
    there = [value for value in values if not math.isnan(value)]
    return {
        f"mean_{name}": float(np.mean(there)) if there else None,
        f"std_{name}": float(np.std(there, ddof=1)) if len(there) > 1 else None,
    }


def _coverage(path: Path) -> dict[str, object]:
    """How much of the data is validated, of all folds together; nothing of a run that has no folds.csv any more."""
    if not path.is_file():
        return {}
    clips = [(label, fold) for label, fold in folds_by_name(path).values() if fold != LEFT_OUT]
    validated = [label for label, fold in clips if fold >= 0 or fold == VALIDATION]
    return {
        "n_clips": len(clips),
        "n_species": len({label for label, _ in clips} - {""}),
        "n_validated_clips": len(validated),
        "n_validated_species": len(set(validated) - {""}),
    }


def _together(tables: Sequence[Path]) -> dict[str, object]:
    """The scores of all out-of-fold tables as one; a clip's primary label is its truth."""
    there = [read_out_of_fold(path) for path in tables if path.is_file()]
    primary = [label for table in there for label in table.primary_labels]
    if not primary:
        return {"out_of_fold_macro_auc": None, "out_of_fold_padded_cmap": None}
    truth = (np.array(primary)[:, None] == np.array(there[0].labels)).astype(np.int8)
    scores = np.concatenate([table.probabilities for table in there])
    auc = macro_roc_auc(truth, scores)
    return {
        "out_of_fold_macro_auc": None if math.isnan(auc) else auc,
        "out_of_fold_padded_cmap": padded_cmap(truth, scores),
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
