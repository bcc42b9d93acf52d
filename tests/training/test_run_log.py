"""logs/fold*.log: what is reported, fold by fold; the training goes first."""

import pytest
from one_fold import Recorder

from birdinfer.training.callbacks import FoldResult, FoldStart
from birdinfer.training.run_log import logged


def start(fold):
    return FoldStart(
        fold=fold, n_training=8, n_validation=4, epochs=3, steps_per_epoch=2, first_step=0, batch_size=4,
        precision="fp32",
    )  # fmt: skip


def lines(path):
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


def test_what_is_said_before_a_fold_stands_in_its_log(tmp_path):
    reporter = Recorder()
    with logged(tmp_path, reporter) as log:
        log.on_message("reading clips")
        log.on_fold_start(start(0))
        log.on_warning("a clip \udcff is damaged")
        log.on_fold_end(FoldResult(fold=0, macro_auc=0.5, best_epoch=2))
        log.on_message("on to the next one")
        log.on_fold_end(FoldResult(fold=1, problem="no memory"))
    first, second = (lines(tmp_path / "logs" / f"fold{fold}.log") for fold in (0, 1))
    assert first[0] == "reading clips"
    assert first[1].startswith("fold 0: 8 clips to train, 4 to validate, 3 epochs of 2 steps in fp32")
    assert first[2] == r"warning: a clip \udcff is damaged"
    assert first[3].startswith("macro AUC 0.5000")
    assert second == ["on to the next one", "failed: no memory"]
    assert reporter.messages == ["reading clips", "a clip \udcff is damaged", "on to the next one"]


def stopped(folder):
    with logged(folder, Recorder()) as log:
        log.on_fold_start(start(2))
        raise KeyboardInterrupt


def test_a_resumed_fold_adds_to_its_log_and_an_end_is_named(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stopped(tmp_path)
    assert [line.split(":")[0] for line in lines(tmp_path / "logs" / "fold2.log")] == [
        "fold 2", "ended with KeyboardInterrupt"
    ] * 2  # fmt: skip


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "logs").write_text("a file")
    reporter = Recorder()
    with logged(tmp_path, reporter) as log:
        log.on_fold_start(start(0))
        log.on_message("a line")
    assert reporter.messages == ["a line"]
