from pathlib import Path

import msgspec
import pytest
from one_fold import changed

from birdinfer.runs.study import TrialRecord
from birdinfer.system.signals import StopRequest
from birdinfer.training.callbacks import FoldResult, FoldStart
from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.monitor import best_so_far
from birdinfer.training.recipe.schema import Recipe
from birdinfer.tuning.callbacks import TuningCallback
from birdinfer.tuning.search import Search
from birdinfer.tuning.worker import FoldFailed, Pruned, TrialReporter


class Trial:
    """Takes reports; ends at a step."""

    def __init__(self, ends_at=99):
        self.record = TrialRecord(number=7, state="running", worker="w")
        self.reports, self._ends_at = [], ends_at

    def report(self, step, score):
        self.reports.append((step, score))

    def should_end(self):
        return any(step >= self._ends_at for step, _ in self.reports)


class Watching(TuningCallback):
    def __init__(self):
        self.moves = []

    def on_trial_step(self, *move):
        self.moves.append(move)


def row(epoch, auc):
    return EpochRow(epoch, 0.5, 0.5, auc, 0.5, 0.5, 1e-3, 1.0, 0.0, None)


def start(fold):
    return FoldStart(
        fold=fold,
        n_training=8,
        n_validation=4,
        epochs=3,
        steps_per_epoch=2,
        first_step=0,
        batch_size=4,
        precision="fp32",
    )


def reporter(trial, folds=(0, 2), stop=None, monitor="macro_auc", repeats=1):
    recipe = changed(Recipe(), loop={"epochs": 3, "monitor": monitor}, optim={"warmup_epochs": 0.0})
    search = Search(recipe=recipe, space={}, folds=folds, study_dir=Path("study"), repeats=repeats)
    return TrialReporter(trial, search, Watching(), stop or StopRequest())


def test_a_score_is_the_mean_of_finished_folds_and_this_ones_best():
    trial = Trial()
    reported = reporter(trial)
    reported.on_fold_start(start(0))
    for epoch, auc, is_best in ((1, 0.6, True), (2, 0.5, False), (3, 0.8, True)):
        reported.on_epoch_end(row(epoch, auc), is_best)
    reported.on_fold_end(FoldResult(fold=0, macro_auc=0.9, score=0.9))  # a soup was better than its best epoch
    reported.on_fold_start(start(2))
    reported.on_epoch_end(row(1, 0.7), True)
    assert trial.reports == [(1, 0.6), (2, 0.6), (3, 0.8), (4, pytest.approx(0.8))]
    assert reported._callback.moves[-1] == (7, 4, 6, pytest.approx(0.8))


def test_repeats_follow_one_another_in_the_units_of_the_monitor():
    trial = Trial()
    reported = reporter(trial, folds=(0,), monitor="val_loss", repeats=2)
    for repeat, loss in enumerate((0.25, 0.75)):
        reported.repeat = repeat
        reported.on_fold_start(start(0))
        reported.on_epoch_end(msgspec.structs.replace(row(1, 0.9), val_loss=loss), True)
        reported.on_fold_end(FoldResult(fold=0, score=-loss))
    assert trial.reports == [(1, -0.25), (4, -0.5)]


def test_an_epoch_that_cannot_be_scored_reports_nothing():
    trial = Trial()
    reported = reporter(trial)
    reported.on_fold_start(start(0))
    reported.on_epoch_end(row(1, None), True)
    reported.on_epoch_end(row(2, 0.6), True)
    assert trial.reports == [(2, 0.6)]


def test_a_trial_that_lags_behind_ends():
    reported = reporter(Trial(ends_at=2))
    reported.on_fold_start(start(0))
    reported.on_epoch_end(row(1, 0.6), True)
    with pytest.raises(Pruned):
        reported.on_epoch_end(row(2, 0.6), False)


@pytest.mark.parametrize(
    ("result", "reported"),
    [(FoldResult(fold=2, problem="no memory"), "no memory"), (FoldResult(fold=2), "fold 2 validates no species")],
)
def test_a_fold_without_a_score_ends_the_trial(result, reported):
    with pytest.raises(FoldFailed, match=reported):
        reporter(Trial()).on_fold_end(result)


def test_a_stop_that_came_before_the_loop_listened_ends_the_fold():
    stop = StopRequest()
    stop._receive(2, None)
    reported = reporter(Trial(), (0,), stop)
    with pytest.raises(KeyboardInterrupt):
        reported.on_fold_start(start(0))


def test_the_best_so_far_is_what_the_loop_keeps():
    rows = [row(index + 1, auc) for index, auc in enumerate((0.5, 0.7, 0.6, 0.65))]
    assert best_so_far(rows, Recipe()) == [0.5, 0.7, 0.7, 0.7]
    # From epoch 3 on norms hold still: another network, whose scores alone count.
    still = changed(Recipe(), loop={"epochs": 4}, optim={"frozen_norm_epochs": 2})
    assert best_so_far(rows, still) == [0.5, 0.7, 0.6, 0.65]
