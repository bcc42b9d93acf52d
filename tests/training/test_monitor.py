"""What epochs are compared by, and that all that depends on it goes by it."""

from pathlib import Path

import msgspec
import pytest
from one_fold import Killed, assert_same_bits, changed, die_at, job, kill, train, with_losses

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import BEST
from birdinfer.training.checkpoint import EpochRow, Progress, load_checkpoint
from birdinfer.training.monitor import best_epochs, best_so_far, is_better, monitor_of
from birdinfer.training.recipe.schema import LoopConfig, Recipe
from birdinfer.tuning.space import load_space


def row(epoch, **values):
    return EpochRow(**{
        "epoch": epoch, "train_loss": 0.5, "val_loss": 0.5, "val_macro_auc": 0.5, "val_padded_cmap": 0.5,
        "val_top1": 0.5, "lr": 1e-3, "seconds": 1.0, "wait_share": 0.0, "peak_gpu_mb": None, "val_f1": 0.5, **values,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column", "sign"),
    [
        ("macro_auc", "val_macro_auc", 1),
        ("padded_cmap", "val_padded_cmap", 1),
        ("val_loss", "val_loss", -1),
        ("top1", "val_top1", 1),
        ("f1", "val_f1", 1),
    ],
)
def test_each_monitor_reads_its_column_and_knows_its_direction(name, column, sign):
    monitor = monitor_of(LoopConfig(monitor=name))
    worse, better = (0.25, 0.75) if sign > 0 else (0.75, 0.25)
    history = [row(1, **{column: worse}), row(2, **{column: better}), row(3, **{column: None})]
    scores = monitor.scores(history)
    assert scores == [sign * worse, sign * better, None]
    assert is_better(scores[1], scores[0])
    assert not is_better(scores[0], scores[1])
    assert monitor.value(scores[1]) == better
    assert best_epochs(history, 1, monitor) == [2]
    recipe = Recipe(loop=LoopConfig(monitor=name))
    assert best_so_far(history[:2], recipe) == scores[:2]


def test_another_name_is_refused():
    with pytest.raises(msgspec.ValidationError, match="monitor"):
        msgspec.convert({"monitor": "auc"}, LoopConfig)


def test_what_older_versions_have_saved_has_its_score():
    assert msgspec.json.decode(b'{"best_auc": 0.75}', type=Progress).best_score == 0.75


@pytest.mark.parametrize("key", ["loop.monitor", "loop.f1_threshold"])
def test_what_the_score_is_cannot_be_searched(key, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(f"{key} = [0.25, 0.5]\n")
    with pytest.raises(ConfigError, match="decides what the score is"):
        load_space(path, Recipe())


# ---- In the loop: losses fall while macro AUC rises and falls


LOSSES, AUCS = [0.5, 0.25, 0.75, 0.375, 0.5], [0.5, 0.625, 0.75, 0.25, 0.5]


def test_best_and_patience_go_by_the_monitor(clips_dir, tmp_path, plain_recipe, monkeypatch):
    """By macro AUC epoch 3 would be the best one, and patience would end the run only after epoch 5."""
    recipe = changed(plain_recipe, loop={"epochs": 8, "patience": 2, "monitor": "val_loss"})
    with_losses(monkeypatch, LOSSES, AUCS)
    progress = train(job(recipe, clips_dir, tmp_path))
    assert (progress.epoch, progress.best_epoch, progress.best_score, progress.best_auc) == (4, 2, -0.25, 0.625)
    assert load_checkpoint(tmp_path / BEST).epoch == 2


def test_plateau_goes_by_the_monitor(clips_dir, tmp_path, plain_recipe, monkeypatch):
    optim = {"schedule": "plateau", "plateau_epochs": 1, "plateau_factor": 0.5, "warmup_epochs": 0.0}
    recipe = changed(plain_recipe, loop={"epochs": 4, "monitor": "val_loss"}, optim=optim)
    with_losses(monkeypatch, LOSSES[:4], AUCS[:4])
    rates = [row.lr / recipe.optim.lr for row in train(job(recipe, clips_dir, tmp_path)).history]
    assert rates == pytest.approx([1, 1, 1, 0.5])  # lowered after epoch 3, whose loss was no better


def test_the_soup_goes_by_the_monitor(clips_dir, tmp_path, plain_recipe, monkeypatch):
    recipe = changed(plain_recipe, loop={"epochs": 4, "monitor": "val_loss"}, optim={"soup_epochs": 2})
    with_losses(monkeypatch, [*LOSSES[:4], 0.125], [*AUCS[:4], 0.1])
    progress = train(job(recipe, clips_dir, tmp_path))
    assert (progress.soup, progress.best_score, progress.best_auc) == ([2, 4], -0.125, 0.1)


def test_a_resumed_run_compares_with_the_score_before(clips_dir, tmp_path: Path, plain_recipe, monkeypatch):
    recipe = changed(plain_recipe, loop={"epochs": 3, "monitor": "f1", "checkpoint_every_steps": 1})
    train(job(recipe, clips_dir, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        die_at(patch, 4, kill)
        with pytest.raises(Killed):
            train(job(recipe, clips_dir, tmp_path / "killed"))
    train(job(recipe, clips_dir, tmp_path / "killed"))
    assert_same_bits(tmp_path / "killed", tmp_path / "whole")
