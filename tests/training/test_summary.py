"""A run's summary, whoever trained its folds and whenever they ended."""

import errno
import fcntl
import json
import threading

import pytest

from birdinfer.species import Species
from birdinfer.training.callbacks import FoldResult
from birdinfer.training.checkpoint import EpochRow, Header, Progress, save_checkpoint
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.summary import fold_result, write_summary

EPOCH = EpochRow(1, 0.5, 0.4, 0.9, 0.8, 0.7, 1e-3, 2.0, 0.0, None)


def finish(run_dir, fold, is_complete=True):
    """What a fold's process leaves, and its result."""
    progress = Progress(epoch=1, best_epoch=1, best_auc=0.9, history=[EPOCH], is_complete=is_complete)
    header = Header(Recipe(), (Species("bird"),), fold, progress, "data", {})
    save_checkpoint(run_dir / f"fold{fold}" / "last.safetensors", header, {})
    return fold_result(fold, progress)


def folds_of(run_dir):
    return {one["fold"]: one["problem"] for one in json.loads((run_dir / "summary.json").read_text())["folds"]}


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as some clusters have."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def train_at_once(run_dir, n_folds):
    """Folds that end at the same moment, each in a process of its own."""
    together = threading.Barrier(n_folds)

    def end(fold):
        together.wait()
        result = finish(run_dir, fold)
        write_summary(run_dir, [result])

    threads = [threading.Thread(target=end, args=(fold,)) for fold in range(n_folds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_folds_that_end_at_the_same_moment_are_all_in_it(tmp_path):
    train_at_once(tmp_path, 6)
    assert list(folds_of(tmp_path)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_locks")
def test_also_where_there_are_no_locks(tmp_path):
    train_at_once(tmp_path, 6)
    assert list(folds_of(tmp_path)) == [0, 1, 2, 3, 4, 5]


def test_one_fold_alone_needs_none(tmp_path):
    write_summary(tmp_path, [finish(tmp_path, 0)])
    assert not (tmp_path / "summary.json").exists()


def test_what_still_trains_is_not_in_it_and_what_failed_is(tmp_path):
    finish(tmp_path, 0, is_complete=False)
    finish(tmp_path, 2)
    write_summary(tmp_path, [FoldResult(fold=1, problem="no memory")])
    assert folds_of(tmp_path) == {1: "no memory", 2: ""}


def test_a_damaged_checkpoint_of_another_fold_is_reported_and_ends_nothing(tmp_path):
    result = finish(tmp_path, 0)
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1" / "last.safetensors").write_bytes(b"no checkpoint")
    write_summary(tmp_path, [result])
    assert folds_of(tmp_path)[0] == ""
    assert "is damaged or no checkpoint" in folds_of(tmp_path)[1]
