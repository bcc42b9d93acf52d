"""What trackers are told: the parameters of a fold, the metrics of an epoch and the figures of a fold, all flat.

What could not be computed is left out: trackers know no None.
"""

import json
import math
from pathlib import Path

import msgspec

from birdinfer.training.checkpoint import EpochRow, versions
from birdinfer.training.recipe import Recipe, flatten
from birdinfer.training.report import FoldResult, FoldStart
from birdinfer.training.tracking.tracker import Parameter


def parameters(recipe: Recipe, data_dir: Path, fold: int, start: FoldStart | None) -> dict[str, Parameter]:
    """The recipe, flattened, and what else decides or explains a fold; a list is JSON, for few trackers know any.

    Args:
        recipe: the run's.
        data_dir: where the clips are.
        fold: from 0.
        start: what the fold was begun with; None for one that is finished already.
    """
    facts: dict[str, object] = {"fold": fold, "data_dir": str(data_dir.resolve())}
    facts |= {f"versions.{name}": version for name, version in versions().items()}
    if start is not None:
        sizes = {"n_training_clips": start.n_training, "n_validation_clips": start.n_validation}
        facts |= sizes | {"steps_per_epoch": start.steps_per_epoch, "precision": start.precision}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in (flatten(recipe) | facts).items()
    }


def epoch_metrics(row: EpochRow) -> dict[str, float]:
    """The columns of history.csv, under their names there, in their units."""
    return _numbers(msgspec.structs.asdict(row), without={"epoch"}, prefix="")


def final_figures(result: FoldResult) -> dict[str, float]:
    """What the weights that were kept are worth, each as ``final_NAME``."""
    return _numbers(result._asdict(), without={"fold"}, prefix="final_")


def _numbers(values: dict[str, object], without: set[str], prefix: str) -> dict[str, float]:
    return {
        prefix + name: float(value)
        for name, value in values.items()
        if name not in without and isinstance(value, int | float) and math.isfinite(value)
    }
