"""One worker of a study: claims a trial, trains it and writes down its score, until enough trials are finished.

Ctrl-C and SIGTERM release the trial: its state is saved, and the next worker, here or elsewhere, resumes it; so it
does if the worker was killed. A trial that cannot be trained is one failed trial; only a row of them ends the search.
"""

import contextlib
import gc
import json
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch

from birdinfer.errors import ConfigError, OutputError
from birdinfer.runs.layout import (
    BEST_FILE,
    LAST,
    PROBLEM_FILE,
    RECIPE_FILE,
    fold_dir,
    remove_weights,
    repeat_dir,
    trial_dir,
)
from birdinfer.runs.study import TrialRecord, best_of, write_tables
from birdinfer.system.files import write_atomic
from birdinfer.system.signals import StopRequest
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow, Progress, load_header
from birdinfer.training.data.folds_file import FOLDS_FILE
from birdinfer.training.monitor import best_so_far, monitor_of
from birdinfer.training.plan import Run
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.training.run import train_run
from birdinfer.training.summary import METRICS
from birdinfer.tuning.callbacks import TuningCallback
from birdinfer.tuning.search import MOST_SEED, Search, begin, check_device, score_meaning
from birdinfer.tuning.space import with_values
from birdinfer.tuning.trials import Claimed, LeaseLost, Trials, importance_of, study_lock

MOST_FAILURES = 10  # in a row: then the cause is not the trials' values
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a study has come to: all trials by number, and whether as many are finished as were asked for."""

    search: Search
    records: list[TrialRecord]
    is_done: bool


def work(search: Search, callback: TuningCallback) -> TuningResult:
    """Train trials of a study in this process until it is finished; errors as :func:`birdinfer.tuning.run.tune`."""
    forward = Forward(callback)
    check_device(search, forward)
    begin(search, forward)
    trials = search.open_trials()
    with StopRequest() as stop:
        _Worker(search, callback, trials, stop).run()
    return result_of(search, trials)


def result_of(search: Search, trials: Trials) -> TuningResult:
    """What a study has come to, with its tables written."""
    with study_lock(search.study_dir):
        return TuningResult(search, publish(search, trials), trials.is_done())


class Forward(TrainingCallback):
    """Passes on what every callback has, and no events of folds."""

    def __init__(self, callback: TuningCallback) -> None:
        self._callback = callback
        for name in ("on_message", "on_warning", "on_progress"):
            setattr(self, name, getattr(callback, name))


class _Worker:
    def __init__(self, search: Search, callback: TuningCallback, trials: Trials, stop: StopRequest) -> None:
        self._search, self._callback, self._trials, self._stop, self._failures = search, callback, trials, stop, 0
        machine = re.sub(r"[^A-Za-z0-9_-]+", "-", platform.node()) or "machine"
        # A restarted container has its name and its process ids again, and is another worker.
        self._name = f"{machine}-{os.getpid()}-{secrets.token_hex(2)}"

    def run(self) -> None:
        while True:
            self._stop.check()
            with study_lock(self._search.study_dir):
                claimed, is_done = self._trials.claim(self._name), self._trials.is_done()
            if claimed is not None:
                self._train(claimed)
            elif is_done:
                return
            else:
                self._callback.on_message("other workers train the last trials; waiting, for one of them may stop")
                time.sleep(_WAIT_SECONDS)

    def _train(self, claimed: Claimed) -> None:
        self._callback.on_trial_start(claimed.record)
        try:
            self._train_and_finish(claimed)
        except LeaseLost:
            self._callback.on_message(f"another worker has trial {claimed.record.number} now")
        except (KeyboardInterrupt, SystemExit, OutputError):
            # It may be over already, or another worker's; and whoever met the full disk reports it.
            with contextlib.suppress(LeaseLost, OutputError), study_lock(self._search.study_dir):
                self._trials.release(claimed)
                publish(self._search, self._trials)
            raise
        finally:
            claimed.release()
            if torch.cuda.is_available():  # before the next trial needs as much memory
                gc.collect()
                torch.cuda.empty_cache()

    def _train_and_finish(self, claimed: Claimed) -> None:
        problem = ""
        score: float | None = None
        try:
            with contextlib.suppress(Pruned):
                score = train_trial(self._search, claimed, self._callback, self._stop)
        except (LeaseLost, OutputError):
            raise
        except Exception as error:  # untried values make networks and libraries raise whatever they like
            problem = " ".join(str(error).split()) or type(error).__name__
        with study_lock(self._search.study_dir):
            if problem:
                write_atomic(trial_dir(self._search.study_dir, claimed.record.number) / PROBLEM_FILE, f"{problem}\n")
                record = self._trials.fail(claimed, problem)
            else:
                record = self._trials.finish(claimed, score)
            records = publish(self._search, self._trials)
        self._callback.on_trial_end(record, records)
        self._failures = self._failures + 1 if problem else 0
        if self._failures >= MOST_FAILURES:
            what = f"{MOST_FAILURES} trials in a row failed, the last one: {problem}"
            raise ConfigError(self._search.study_dir, what, "narrow the space, or change the recipe")


# ---- A trial: its folds are trained one after another, each epoch's score is compared with other trials'


class Pruned(Exception):
    """A trial lags so far behind others that it is ended early."""


class FoldFailed(Exception):
    """A fold cannot be trained, so the trial has no score."""


def train_trial(search: Search, claimed: Claimed, callback: TuningCallback, stop: StopRequest) -> float:
    """Train all folds of a trial as often as asked, from where an earlier worker has left them.

    Returns the mean over folds and repeats of the best epoch's score, higher is better; FoldFailed or BirdinferError
    for values that cannot be trained, alone or together.
    """
    runs = [_planned(search, claimed, repeat) for repeat in range(search.repeats)]
    for run in runs:
        write_atomic(run.run_dir / RECIPE_FILE, write_recipe(run.recipe))
        # Every trial has the study's folds, which are assigned only once.
        write_atomic(run.run_dir / FOLDS_FILE, (search.study_dir / FOLDS_FILE).read_bytes())
    reporter = TrialReporter(claimed, search, callback, stop)
    reporter.replay(runs)
    scores = []
    for reporter.repeat, run in enumerate(runs):
        scores += [result.score for result in train_run(run, reporter)]
    return math.fsum(scores) / len(scores)


def _planned(search: Search, claimed: Claimed, repeat: int) -> Run:
    """A trial's run; each repeat has a seed of its own, the next one after the recipe's."""
    recipe = with_values(search.recipe, claimed.record.values, "recipe")
    name = f"{search.study_dir.name}-{claimed.record.number:04}" + (f"-repeat{repeat}" if repeat else "")
    return Run(
        recipe=msgspec.structs.replace(recipe, name=name, seed=(recipe.seed + repeat) % MOST_SEED),
        data_dir=search.data,
        run_dir=repeat_dir(trial_dir(search.study_dir, claimed.record.number), repeat),
        folds=search.folds,
        device=search.device,
        resume=True,
        cache_dir=search.cache_dir,
    )


class TrialReporter(Forward):
    """Writes down the score after each epoch of a trial, and ends the trial if it lags behind."""

    repeat = 0
    """Which training of the trial's folds this is."""

    def __init__(self, claimed: Claimed, search: Search, callback: TuningCallback, stop: StopRequest) -> None:
        """``stop`` is the worker's: a signal may come before the training loop's own stop request is active."""
        super().__init__(callback)
        self._stop, self._claimed, self._steps, self._folds = stop, claimed, search.steps, search.folds
        self._monitor = monitor_of(search.recipe.loop)
        self._finished: list[float] = []
        self._resumed: dict[tuple[int, int], Progress] = {}
        self._index = 0
        self._best: float | None = None

    def replay(self, runs: Sequence[Run]) -> None:
        """Write down what an earlier worker had trained, and perhaps not reported; nothing of it is compared again."""
        finished: list[float] = []
        for index, (repeat, fold) in enumerate((repeat, fold) for repeat in range(len(runs)) for fold in self._folds):
            path = fold_dir(runs[repeat].run_dir, fold) / LAST
            if not path.exists():
                return
            progress = load_header(path).progress
            kept = best_so_far(progress.history, runs[repeat].recipe)
            for row, best in zip(progress.history, kept, strict=True):
                self._report(index, row.epoch, finished, best)
            finished += [progress.best_score] if progress.best_score is not None else []
            self._resumed[repeat, fold] = progress

    def on_fold_start(self, start: FoldStart) -> None:
        self._stop.check()
        self._index = self.repeat * len(self._folds) + self._folds.index(start.fold)
        resumed = self._resumed.get((self.repeat, start.fold))
        self._best = None if resumed is None else resumed.best_score

    def on_epoch_end(self, row: EpochRow, is_best: bool) -> None:
        self._best = self._monitor.score(row) if is_best else self._best
        step, score = self._report(self._index, row.epoch, self._finished, self._best)
        self._callback.on_trial_step(self._claimed.record.number, step, self._steps.n, score)
        if self._claimed.should_end():
            raise Pruned

    def on_fold_end(self, result: FoldResult, run: str = "") -> None:
        if result.problem:
            raise FoldFailed(result.problem)
        if math.isnan(result.score):
            raise FoldFailed(f"fold {result.fold} validates no species that can be scored")
        self._finished.append(result.score)

    def _report(
        self, index: int, epoch: int, finished: Sequence[float], best: float | None
    ) -> tuple[int, float | None]:
        step = index * self._steps.per_fold + epoch
        score = None if best is None else (sum(finished) + best) / (len(finished) + 1)
        if score is not None:
            self._claimed.report(step, score)
        return step, score


# ---- After each trial: tables, best.toml, and checkpoints of the best trial alone


def publish(search: Search, trials: Trials) -> list[TrialRecord]:
    """Write what the trials have come to, with the study's lock held; all trials as they stand."""
    records, keys = trials.records(), list(search.space)
    write_tables(search.study_dir, records, keys, importance_of(trials.study, records, keys))
    best = best_of(records)
    if best is not None:
        write_atomic(search.study_dir / BEST_FILE, best_recipe(search, best, records))
    for record in records:
        if record.is_over and record is not best:
            remove_weights(trial_dir(search.study_dir, record.number))
    return records


def best_recipe(search: Search, best: TrialRecord, records: Sequence[TrialRecord]) -> str:
    """The text of best.toml: a whole recipe, which trains as its trial's first training did; above it, its score."""
    recipe = with_values(search.recipe, best.values, "recipe")
    recipe = msgspec.structs.replace(recipe, name=f"{search.recipe.name}-best")
    n_finished = sum(record.is_finished for record in records)
    folds = ",".join(map(str, search.folds))
    head = (
        f"# score {best.score:.6f}, {score_meaning(recipe, search.repeats)}, folds {folds}",
        f"# trial {best.number} of study {search.study_dir.name}, the best of {n_finished} finished trials",
        f"# searched: {', '.join(search.space)}",
        *_scores_by_seed(search, best, recipe.seed),
    )
    return "\n".join([*head, "", write_recipe(recipe)])


def _scores_by_seed(search: Search, best: TrialRecord, seed: int) -> list[str]:
    """Lines on what each repeat of the best trial came to, the first of which the recipe trains to; none for one."""
    if search.repeats == 1:
        return []
    folder, scores = trial_dir(search.study_dir, best.number), {}
    for repeat in range(search.repeats):
        paths = [fold_dir(repeat_dir(folder, repeat), fold) / METRICS for fold in search.folds]
        try:
            own = [float(json.loads(path.read_text())["score"]) for path in paths]
        except (OSError, ValueError, KeyError, TypeError):  # deleted or damaged since: a remark less
            return []
        scores[(seed + repeat) % MOST_SEED] = math.fsum(own) / len(own)
    each = ", ".join(f"{score:.6f} (seed {number})" for number, score in scores.items())
    return [
        f"# each seed: {each}",
        "# this recipe trains to the first; --set seed=N to another, with data.folds_file naming the study's folds.csv",
    ]
