"""The one rule by which epochs are compared: ``loop.monitor`` and an epoch's row of history.csv -> its score.

A score is higher where an epoch is better: of the validation loss it is the loss with a minus sign. The best epoch,
patience, the plateau of the learning rate, the soup and a search all go by it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.evaluate import Validation
from birdinfer.training.recipe.schema import LoopConfig, MonitorName, Recipe


class Monitor(NamedTuple):
    """A column of history.csv."""

    name: MonitorName
    column: str
    sign: float
    """1 where higher values are better, -1 where lower ones are."""

    def score(self, row: EpochRow) -> float | None:
        """The score of an epoch; None if it could not be computed."""
        return self._score(getattr(row, self.column))

    def score_of(self, validation: Validation) -> float | None:
        """The score of weights that were validated; None if it could not be computed."""
        return self._score(getattr(validation, self.column.removeprefix("val_")))

    def _score(self, value: float | None) -> float | None:
        return None if value is None else self.sign * value

    def value(self, score: float) -> float:
        """The value of which this is the score."""
        return self.sign * score

    def scores(self, history: Sequence[EpochRow]) -> list[float | None]:
        """The score of each epoch."""
        return [self.score(row) for row in history]

    @property
    def title(self) -> str:
        """As it stands in a sentence."""
        return TITLES[self.name]


TITLES: dict[MonitorName, str] = {
    "macro_auc": "macro AUC", "padded_cmap": "cmAP", "val_loss": "validation loss", "top1": "top-1", "f1": "F1"
}  # fmt: skip
_LOWER_IS_BETTER = frozenset({"val_loss"})


def monitor_of(config: LoopConfig) -> Monitor:
    """What a recipe compares epochs by."""
    name = config.monitor
    column = name if name.startswith("val_") else f"val_{name}"
    return Monitor(name, column, -1.0 if name in _LOWER_IS_BETTER else 1.0)


def is_better(score: float | None, best: float | None) -> bool:
    """Whether a score beats the best one so far; where one of them cannot be computed, the latest epoch is the best."""
    return score is None or best is None or score > best


def is_kept(row: EpochRow, best: float | None, recipe: Recipe) -> bool:
    """Whether an epoch's weights are the best so far, whose score is ``best``."""
    # With frozen norms it is another network than before: its first score is not compared with earlier ones.
    # While the teacher alone counts, the latest features are the best.
    is_first = row.epoch == recipe.first_frozen_epoch or row.epoch <= recipe.distil.alone_epochs + 1
    return is_first or is_better(monitor_of(recipe.loop).score(row), best)


def best_so_far(history: Sequence[EpochRow], recipe: Recipe) -> list[float | None]:
    """After each epoch, the score of the weights that were kept then."""
    monitor, best = monitor_of(recipe.loop), None
    kept: list[float | None] = []
    for row in history:
        if is_kept(row, best, recipe):
            best = monitor.score(row)
        kept.append(best)
    return kept


def best_epochs(history: Sequence[EpochRow], n_epochs: int, monitor: Monitor) -> list[int]:
    """The epochs with the highest scores, in order of time; of equal ones the earlier; unscored ones never."""
    scored = [(score, row.epoch) for row in history if (score := monitor.score(row)) is not None]
    ordered = sorted(scored, key=lambda one: (-one[0], one[1]))
    return sorted(epoch for _, epoch in ordered[:n_epochs])
