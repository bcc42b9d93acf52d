"""Which trials are given up before their end, by the score of their epochs beside other trials' at the same epoch.

Successive halving (Li 2018, "Massively parallel hyperparameter tuning", ASHA) is the default: at a first rung, and at
each three times as far, the better third goes on. Hyperband (Li 2017) has several such ladders, which begin later and
later; with a few dozen trials each would know too little of the others, and so would TPE, which learns within a ladder.
"""

import math
from typing import NamedTuple

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from birdinfer.errors import ConfigError

PRUNERS = ("halving", "hyperband", "median", "none")
_FACTOR = 3
_EARLIEST_SHARE = 9
"""Nobody is judged before a ninth of a fold's epochs."""
_MEDIAN_AFTER = 4
"""Trials that the median needs before it judges."""


class Steps(NamedTuple):
    """How far a trial goes: its folds one after another, a step an epoch."""

    per_fold: int
    """Epochs, the most that any trial may have: equal steps of two trials are the same epoch of the same fold."""
    n_folds: int
    warmup_epochs: float
    """In which the learning rate still rises, of the base recipe."""

    @property
    def first_rung(self) -> int:
        """The first step at which a score says something."""
        warm = math.ceil(self.warmup_epochs) + 1
        return max(1, min(self.per_fold, max(warm, math.ceil(self.per_fold / _EARLIEST_SHARE))))

    @property
    def n(self) -> int:
        """Steps of a whole trial."""
        return self.per_fold * self.n_folds


def build_pruner(name: str, steps: Steps) -> BasePruner:
    """Who gives trials up.

    Raises:
        ConfigError: there is no such one.
    """
    if name not in PRUNERS:
        raise ConfigError("--pruner", f"is {name!r}, allowed are {', '.join(PRUNERS)}")
    if name == "none":
        return NopPruner()
    if name == "median":
        return MedianPruner(n_startup_trials=_MEDIAN_AFTER, n_warmup_steps=steps.first_rung - 1)
    if name == "hyperband":
        return HyperbandPruner(min_resource=steps.first_rung, max_resource=steps.n, reduction_factor=_FACTOR)
    return SuccessiveHalvingPruner(min_resource=steps.first_rung, reduction_factor=_FACTOR)
