import pytest
from one_fold import changed

from birdinfer.interrupt import StopRequest
from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.recipe import Recipe
from birdinfer.training.report import FoldResult, FoldStart, Silent
from birdinfer.training.tuning.pruning import Steps
from birdinfer.training.tuning.records import TrialRecord
from birdinfer.training.tuning.trial_reporter import FoldFailed, Pruned, TrialReporter, best_so_far


class Trial:
    """Takes reports; ends at a step."""

    def __init__(self, ends_at=99):
        self.record = TrialRecord(7, "running", None, None, "w", "", None, {}, {})
        self.reports, self._ends_at = [], ends_at

    def report(self, step, score):
        self.reports.append((step, score))

    def should_end(self):
        return any(step >= self._ends_at for step, _ in self.reports)


class Watching(Silent):
    def __init__(self):
        self.moves = []

    def moved(self, *move):
        self.moves.append(move)


def row(epoch, auc):
    return EpochRow(epoch, 0.5, 0.5, auc, 0.5, 0.5, 1e-3, 1.0, 0.0, None)


def start(fold):
    return FoldStart(fold, 8, 4, 3, 2, 0, 4, "fp32")


def reporter(trial, folds=(0, 2)):
    return TrialReporter(trial, Steps(3, len(folds), 0), folds, Watching(), StopRequest())


def test_a_score_is_the_mean_of_finished_folds_and_this_ones_best():
    trial = Trial()
    told = reporter(trial)
    told.start(start(0))
    for epoch, auc, is_best in ((1, 0.6, True), (2, 0.5, False), (3, 0.8, True)):
        told.epoch(row(epoch, auc), is_best)
    told.finish(FoldResult(0, macro_auc=0.9))  # a soup was better than its best epoch
    told.start(start(2))
    told.epoch(row(1, 0.7), True)
    assert trial.reports == [(1, 0.6), (2, 0.6), (3, 0.8), (4, pytest.approx(0.8))]
    assert told._watcher.moves[-1] == (7, 4, 6, pytest.approx(0.8))


def test_an_epoch_that_cannot_be_scored_reports_nothing():
    trial = Trial()
    told = reporter(trial)
    told.start(start(0))
    told.epoch(row(1, None), True)
    told.epoch(row(2, 0.6), True)
    assert trial.reports == [(2, 0.6)]


def test_a_trial_that_lags_behind_ends():
    told = reporter(Trial(ends_at=2))
    told.start(start(0))
    told.epoch(row(1, 0.6), True)
    with pytest.raises(Pruned):
        told.epoch(row(2, 0.6), False)


@pytest.mark.parametrize(
    ("result", "told"), [(FoldResult(2, "no memory"), "no memory"), (FoldResult(2), "fold 2 validates no species")]
)
def test_a_fold_without_a_score_ends_the_trial(result, told):
    with pytest.raises(FoldFailed, match=told):
        reporter(Trial()).finish(result)


def test_a_stop_that_came_before_the_loop_listened_ends_the_fold():
    stop = StopRequest()
    stop._receive(2, None)
    told = TrialReporter(Trial(), Steps(3, 1, 0), (0,), Watching(), stop)
    with pytest.raises(KeyboardInterrupt):
        told.start(start(0))


def test_the_best_so_far_is_what_the_loop_keeps():
    rows = [row(index + 1, auc) for index, auc in enumerate((0.5, 0.7, 0.6, 0.65))]
    assert best_so_far(rows, Recipe()) == [0.5, 0.7, 0.7, 0.7]
    # From epoch 3 on norms hold still: another network, whose scores alone count.
    still = changed(Recipe(), loop={"epochs": 4}, optim={"frozen_norm_epochs": 2})
    assert best_so_far(rows, still) == [0.5, 0.7, 0.6, 0.65]
