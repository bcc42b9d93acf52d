"""Which trials are given up before their end, by the score of their epochs beside other trials' at the same epoch.

Successive halving (Li 2018, "Massively parallel hyperparameter tuning", ASHA) is the default: at a first rung, and at
each three times as far, the better third goes on. Hyperband (Li 2017) has several such ladders, which begin later and
later; with a few dozen trials each would know too little of the others.

Like is held against like: a rung that falls between two epochs of a trial, for a fold ended early, is judged by what
was known at it; an interrupted trial and the one that goes on with it are one, on one ladder. Optuna's own pruners
judge such a rung by the next fold's first epoch, and count an interrupted trial twice.
"""

import math
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from birdinfer.errors import ConfigError
from birdinfer.training.tuning.records import TrialRecord

PRUNERS = ("halving", "hyperband", "median", "none")
_FACTOR = 3
_EARLIEST_SHARE = 9
"""Nobody is judged before a ninth of a fold's epochs."""
_MEDIAN_AFTER = 4
"""Trials that the median needs before it judges."""


Pruner = Callable[[TrialRecord, Sequence[TrialRecord]], bool]
"""Whether a trial, whose last step has just been reported, is given up beside all of the study."""


class Steps(NamedTuple):
    """How far a trial goes: its folds one after another, a step an epoch."""

    per_fold: int
    """Epochs, the most that any trial may have: equal steps of two trials are the same epoch of the same fold."""
    n_folds: int
    warmup_epochs: float
    """In which the learning rate still rises, the most of any trial."""

    @property
    def first_rung(self) -> int:
        """The first step at which a score says something."""
        warm = math.ceil(self.warmup_epochs) + 1
        return max(1, min(self.per_fold, max(warm, math.ceil(self.per_fold / _EARLIEST_SHARE))))

    @property
    def n(self) -> int:
        """Steps of a whole trial."""
        return self.per_fold * self.n_folds


def build_pruner(name: str, steps: Steps) -> Pruner:
    """Who gives trials up.

    Raises:
        ConfigError: there is no such one.
    """
    if name not in PRUNERS:
        raise ConfigError("--pruner", f"is {name!r}, allowed are {', '.join(PRUNERS)}")
    judge = _judge(name, steps)
    # At its last step nothing is saved any more, and a whole trial teaches the sampler more than one given up.
    return lambda mine, records: max(mine.curve, default=0) < steps.n and judge(mine, records)


def _judge(name: str, steps: Steps) -> Pruner:
    if name == "none":
        return lambda mine, records: False
    if name == "median":
        return lambda mine, records: _is_below_the_median(mine, records, steps.first_rung)
    if name == "hyperband":
        return Hyperband(steps)
    return lambda mine, records: _lags(mine, records, steps.first_rung)


def _lags(mine: TrialRecord, records: Sequence[TrialRecord], first_rung: int) -> bool:
    """Whether it is not in the better third at a rung that its last report has reached."""
    *_, before, now = 0, 0, *mine.curve
    rung = first_rung
    while rung <= now:
        if rung > before and not _is_in_the_better_part(mine, records, rung):
            return True
        rung *= _FACTOR
    return False


def _is_in_the_better_part(mine: TrialRecord, records: Sequence[TrialRecord], rung: int) -> bool:
    own = _score_at(mine, rung)
    known = [_score_at(each, rung) for each in _others(mine, records) if _has_reached(each, rung)]
    scores = sorted([each for each in (*known, own) if each is not None], reverse=True)
    # Of the first two nobody is a third: the better one goes on.
    return own is None or own >= scores[max(1, len(scores) // _FACTOR) - 1]


def _is_below_the_median(mine: TrialRecord, records: Sequence[TrialRecord], first_rung: int) -> bool:
    now = max(mine.curve, default=0)
    own = _score_at(mine, now)
    complete = [_score_at(each, now) for each in records if each.state == "complete"]
    scores = [score for score in complete if score is not None]
    if own is None or now < first_rung or len(scores) < _MEDIAN_AFTER:
        return False
    return own < statistics.median(scores)


class Hyperband:
    """A ladder for each trial, by its number; those that begin early have more trials."""

    def __init__(self, steps: Steps) -> None:
        """Lay as many ladders as fit into the steps of a whole trial."""
        self._first_rungs = [steps.first_rung]
        while self._first_rungs[-1] * _FACTOR <= steps.n:
            self._first_rungs.append(self._first_rungs[-1] * _FACTOR)
        n = len(self._first_rungs)
        # As many as give each ladder about the same number of epochs (Li 2017, algorithm 1).
        self._places = [
            index for index in range(n) for _ in range(math.ceil(n * _FACTOR ** (n - 1 - index) / (n - index)))
        ]

    def __call__(self, mine: TrialRecord, records: Sequence[TrialRecord]) -> bool:
        """Whether it lags behind those of its own ladder."""
        before = {record.number: record.continues for record in records}
        ladder = self._ladder(mine, before)
        rivals = [record for record in records if self._ladder(record, before) == ladder]
        return _lags(mine, rivals, self._first_rungs[ladder])

    def _ladder(self, record: TrialRecord, before: Mapping[int, int | None]) -> int:
        number, earlier = record.number, record.continues
        while earlier is not None:
            number, earlier = earlier, before[earlier]
        return self._places[zlib.crc32(str(number).encode()) % len(self._places)]


def _others(mine: TrialRecord, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [each for each in records if each.number != mine.number and each.state not in {"failed", "interrupted"}]


def _has_reached(record: TrialRecord, step: int) -> bool:
    """A complete one has, though its last fold ended early."""
    return record.state == "complete" or max(record.curve, default=0) >= step


def _score_at(record: TrialRecord, step: int) -> float | None:
    """The score as far as it was known at a step; None where nothing was yet."""
    known = [score for at, score in record.curve.items() if at <= step]
    return known[-1] if known else None
