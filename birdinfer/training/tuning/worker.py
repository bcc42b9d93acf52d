"""One worker of a study: claims a trial, trains it, tells how it went, until as many are finished as were asked for.

Ctrl-C and SIGTERM put the trial back: its state is saved, and whoever comes next, here or elsewhere, goes on with it.
A worker that is killed is found dead by the others, and its trial is gone on with as well. A trial that cannot be
trained is one failed trial; only a row of them ends the search.
"""

import contextlib
import gc
import math
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from birdinfer.errors import ConfigError, OutputError
from birdinfer.files import write_atomic
from birdinfer.interrupt import StopRequest
from birdinfer.training.folds.file import FOLDS_FILE
from birdinfer.training.plan import Run
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.run import train
from birdinfer.training.tuning.alive import Alive
from birdinfer.training.tuning.folder import PROBLEM_FILE, RECIPE_FILE, take_over, trial_dir
from birdinfer.training.tuning.ledger import Claimed, Ledger, TakenOver
from birdinfer.training.tuning.lock import locked
from birdinfer.training.tuning.publish import publish
from birdinfer.training.tuning.records import TrialRecord
from birdinfer.training.tuning.search import Search, begin, check_device
from birdinfer.training.tuning.storage import open_study
from birdinfer.training.tuning.trial_reporter import Passing, Pruned, TrialReporter, Watcher
from birdinfer.training.tuning.values import with_values

MOST_FAILURES = 10
"""In a row: then it is not the values that are wrong."""
_WAIT_SECONDS = 1.0


class Outcome(NamedTuple):
    """What a study has come to."""

    records: list[TrialRecord]
    """All trials by number."""
    is_done: bool
    """Whether as many are finished as were asked for."""


def work(search: Search, watcher: Watcher) -> Outcome:
    """Work on a study until it is finished.

    Raises:
        BirdinferError: recipe, data or the study's folder cannot be used, or one trial after another fails.
        KeyboardInterrupt, SystemExit: a stop was requested; the trial is put back.
    """
    check_device(search, Passing(watcher))
    ledger = open_ledger(search, Passing(watcher))
    with StopRequest() as stop, Alive(search.study_dir) as alive:
        _Worker(search, watcher, ledger, stop, alive).run()
    return look(search, ledger)


def open_ledger(search: Search, reporter: Passing) -> Ledger:
    """A study's trials, its folder begun if there is none.

    Raises:
        BirdinferError: recipe, data or the study's folder cannot be used.
    """
    begin(search, reporter)
    study = open_study(search.study_dir, search.kind)
    return Ledger(study, search.space, search.build_sampler(), search.pruner, search.steps, search.n_trials)


def look(search: Search, ledger: Ledger) -> Outcome:
    """What the study has come to, with its tables written."""
    with locked(search.study_dir):
        return Outcome(publish(search, ledger), ledger.is_done())


def _release() -> None:
    """Give back what a trial has held on a GPU, before the next one asks for as much."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


class _Worker:
    """Claims and trains."""

    def __init__(self, search: Search, watcher: Watcher, ledger: Ledger, stop: StopRequest, alive: Alive) -> None:
        self._search, self._watcher, self._ledger = search, watcher, ledger
        self._stop, self._alive, self._failures = stop, alive, 0

    def run(self) -> None:
        """Until nothing is left, neither for us nor for those who might die at what they have."""
        while True:
            self._stop.check()
            claimed, is_done = self._next()
            if claimed is not None:
                self._go(claimed)
            elif is_done:
                return
            else:
                self._watcher.message("the last trials are with other workers; waiting, for one may need us")
                time.sleep(_WAIT_SECONDS)

    def _next(self) -> tuple[Claimed | None, bool]:
        with locked(self._search.study_dir):
            for dead in self._ledger.bury(self._alive):
                self._watcher.message(f"trial {dead.number} has lost its worker, {dead.worker or 'unknown'}")
            return self._ledger.claim(self._alive.name), self._ledger.is_done()

    def _go(self, claimed: Claimed) -> None:
        self._watcher.began(claimed.record)
        try:
            self._train_and_tell(claimed)
        except TakenOver:
            self._watcher.message(f"trial {claimed.record.number} was taken over by another worker")
        except (KeyboardInterrupt, SystemExit, OutputError):
            self._put_back(claimed)
            raise
        finally:
            _release()

    def _put_back(self, claimed: Claimed) -> None:
        # It may be told already, or another worker's by now; and a full disk is told of by whoever met it.
        with contextlib.suppress(TakenOver, OutputError), locked(self._search.study_dir):
            self._ledger.put_back(claimed)
            publish(self._search, self._ledger)

    def _train_and_tell(self, claimed: Claimed) -> None:
        problem = ""
        score: float | None = None
        try:
            score = train_trial(self._search, claimed, self._watcher, self._stop)
        except Pruned:
            pass
        except (TakenOver, OutputError):
            raise
        except Exception as error:  # values nobody has tried make networks and libraries raise whatever they like
            problem = " ".join(str(error).split()) or type(error).__name__
        with locked(self._search.study_dir):
            record = self._told(claimed, score, problem)
            records = publish(self._search, self._ledger)
        self._watcher.ended(record, records)
        self._count(problem)

    def _told(self, claimed: Claimed, score: float | None, problem: str) -> TrialRecord:
        if problem:
            write_atomic(trial_dir(self._search.study_dir, claimed.record.number) / PROBLEM_FILE, f"{problem}\n")
            return self._ledger.fail(claimed, problem)
        return self._ledger.give_up(claimed) if score is None else self._ledger.complete(claimed, score)

    def _count(self, problem: str) -> None:
        self._failures = self._failures + 1 if problem else 0
        if self._failures >= MOST_FAILURES:
            what = f"{MOST_FAILURES} trials in a row failed, the last one: {problem}"
            raise ConfigError(self._search.study_dir, what, "narrow the space, or change the recipe")


def train_trial(search: Search, claimed: Claimed, watcher: Watcher, stop: StopRequest) -> float:
    """Train all folds of a trial, from where an earlier one has left them.

    Returns:
        Mean over the folds of the best epoch's macro AUC, 0 to 1.

    Raises:
        Pruned, TakenOver: it ended before its end.
        FoldFailed, BirdinferError: the values are of no use, alone or together.
        KeyboardInterrupt, SystemExit: a stop was requested.
    """
    record, run_dir = claimed.record, trial_dir(search.study_dir, claimed.record.number)
    recipe = trial_recipe(search, record)
    if record.continues is not None:
        take_over(search.study_dir, record.number, record.continues)
    _lay_out(search, recipe, run_dir)
    reporter = TrialReporter(claimed, search.steps, search.folds, watcher, stop)
    reporter.replay(run_dir, recipe)
    run = Run(recipe, search.data_dir, run_dir, search.folds, search.device, True, search.cache_dir)
    scores = [result.macro_auc for result in train(run, reporter)]
    return math.fsum(scores) / len(scores)


def trial_recipe(search: Search, record: TrialRecord) -> Recipe:
    """The base recipe with the trial's values and a name of its own."""
    recipe = with_values(search.recipe, record.values, "recipe")
    return msgspec.structs.replace(recipe, name=f"{search.study_dir.name}-{record.number:04}")


def _lay_out(search: Search, recipe: Recipe, run_dir: Path) -> None:
    """A run's folder with the study's folds: every trial has the same, and they are laid only once."""
    write_atomic(run_dir / RECIPE_FILE, write_recipe(recipe))
    write_atomic(run_dir / FOLDS_FILE, (search.study_dir / FOLDS_FILE).read_bytes())
