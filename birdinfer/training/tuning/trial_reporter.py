"""Between a trial's training and the search: each epoch's score is reported, and a trial that lags behind ends there.

The score at a step is the mean of the finished folds' best epochs and this fold's best so far, so that trials at one
step are compared on the same folds and the same number of epochs. The loop has saved everything before it reports an
epoch; what is raised here ends it as a stop between two epochs does.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from birdinfer.interrupt import StopRequest
from birdinfer.training.checkpoint import EpochRow, Progress, load_header
from birdinfer.training.fold_job import LAST, fold_dir
from birdinfer.training.recipe import Recipe
from birdinfer.training.report import FoldResult, FoldStart, Silent
from birdinfer.training.tuning.ledger import Claimed
from birdinfer.training.tuning.pruning import Steps
from birdinfer.training.tuning.records import TrialRecord


class Watcher(Protocol):
    """Shows a search; every method returns quickly."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before the first trial: so many of ``total`` clips are searched, decoded or the like."""

    def message(self, line: str) -> None:
        """Something worth knowing; the same line may come again with each trial."""

    def began(self, record: TrialRecord) -> None:
        """A trial of ours begins, or goes on."""

    def moved(self, number: int, step: int, n_steps: int, score: float | None) -> None:
        """So many of its epochs are done."""

    def ended(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        """A trial of ours is over; all of the study as it stands then."""


class Pruned(Exception):
    """A trial is not worth its end."""


class FoldFailed(Exception):
    """A fold cannot be trained, so the trial has no score."""


class Passing(Silent):
    """Lets messages and preparations through, and nothing else."""

    def __init__(self, watcher: Watcher) -> None:
        """Tell ``watcher``."""
        self._watcher = watcher

    def preparing(self, what: str, done: int, total: int) -> None:
        """Passed on."""
        self._watcher.preparing(what, done, total)

    def message(self, line: str) -> None:
        """Passed on."""
        self._watcher.message(line)

    def complaint(self, line: str) -> None:
        """Passed on."""
        self._watcher.message(line)


class TrialReporter(Passing):
    """Reports a trial's epochs."""

    def __init__(
        self, claimed: Claimed, steps: Steps, folds: Sequence[int], watcher: Watcher, stop: StopRequest
    ) -> None:
        """Nothing is trained yet.

        Args:
            claimed: the trial.
            steps: how far it may go.
            folds: in the order in which they are trained.
            watcher: is told of each epoch.
            stop: of the worker; the loop has one of its own, and a signal may come before it listens.
        """
        super().__init__(watcher)
        self._stop = stop
        self._claimed, self._steps, self._folds = claimed, steps, tuple(folds)
        self._finished: list[float] = []
        self._resumed: dict[int, Progress] = {}
        self._index = 0
        self._best: float | None = None

    def replay(self, run_dir: Path, recipe: Recipe) -> None:
        """Report what an earlier worker had trained, of a run that is gone on with; none of it is judged again.

        Raises:
            CheckpointError: a checkpoint is damaged.
        """
        finished: list[float] = []
        for index, fold in enumerate(self._folds):
            path = fold_dir(run_dir, fold) / LAST
            if not path.exists():
                return
            progress = load_header(path).progress
            for row, best in zip(progress.history, best_so_far(progress.history, recipe), strict=True):
                self._report(index, row.epoch, finished, best)
            finished += [progress.best_auc] if progress.best_auc is not None else []
            self._resumed[fold] = progress

    def start(self, start: FoldStart) -> None:
        """A fold begins, or goes on.

        Raises:
            KeyboardInterrupt, SystemExit: a stop was requested.
        """
        self._stop.check()
        self._index = self._folds.index(start.fold)
        resumed = self._resumed.get(start.fold)
        self._best = None if resumed is None else resumed.best_auc

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """An epoch was validated.

        Raises:
            Pruned: others were better at this step.
            TakenOver: another worker has the trial now.
        """
        self._best = row.val_macro_auc if is_best else self._best
        step, score = self._report(self._index, row.epoch, self._finished, self._best)
        self._watcher.moved(self._claimed.record.number, step, self._steps.n, score)
        if self._claimed.should_end():
            raise Pruned

    def finish(self, result: FoldResult) -> None:
        """A fold is over.

        Raises:
            FoldFailed: it has no score; the other folds are not worth their time.
        """
        if result.problem:
            raise FoldFailed(result.problem)
        if math.isnan(result.macro_auc):
            raise FoldFailed(f"fold {result.fold} validates no species that can be scored")
        self._finished.append(result.macro_auc)

    def _report(
        self, index: int, epoch: int, finished: Sequence[float], best: float | None
    ) -> tuple[int, float | None]:
        step = index * self._steps.per_fold + epoch
        score = None if best is None else (sum(finished) + best) / (len(finished) + 1)
        if score is not None:
            self._claimed.report(step, score)
        return step, score


def best_so_far(history: Sequence[EpochRow], recipe: Recipe) -> list[float | None]:
    """After each epoch, the macro AUC of the weights that were kept then; as the loop decides it."""
    best: float | None = None
    kept: list[float | None] = []
    for row in history:
        auc = row.val_macro_auc
        if auc is None or best is None or auc > best or row.epoch == recipe.first_frozen_epoch:
            best = auc
        kept.append(best)
    return kept
