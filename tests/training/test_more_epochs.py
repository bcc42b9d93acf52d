"""A run that is given another number of epochs, and epochs that are kept."""

import csv
import json

import pytest
from one_fold import Killed, Recorder, assert_same_bits, changed, die_at, job, kill, tensors, train, with_losses

from birdinfer.errors import CheckpointError
from birdinfer.runs.layout import BEST, LAST, weights_file
from birdinfer.training.checkpoint import load_checkpoint, load_header
from birdinfer.training.optim import learning_rate
from birdinfer.training.run import Run, train_run


def with_epochs(recipe, n, **sections):
    return changed(recipe, **{**sections, "loop": {"epochs": n, **sections.get("loop", {})}})


class TestMoreEpochs:
    def test_of_a_schedule_without_an_end_are_those_of_the_longer_run(self, clips_dir, tmp_path, tiny_recipe):
        recipe = changed(tiny_recipe, optim={"schedule": "constant"})
        train(job(with_epochs(recipe, 4), clips_dir, tmp_path / "long"))
        train(job(with_epochs(recipe, 2), clips_dir, tmp_path / "short"))
        reporter = Recorder()
        train(job(with_epochs(recipe, 4), clips_dir, tmp_path / "short"), reporter)
        assert_same_bits(tmp_path / "short", tmp_path / "long")
        assert any("2 epochs were asked for, now 4, of which 2 are trained" in line for line in reporter.messages)
        assert load_header(tmp_path / "short" / LAST).progress.extended_after == 2

    def test_have_the_learning_rate_of_the_whole_length(self, clips_dir, tmp_path, plain_recipe):
        optim = {"warmup_epochs": 0.0}
        train(job(with_epochs(plain_recipe, 2, optim=optim), clips_dir, tmp_path))
        recipe = with_epochs(plain_recipe, 4, optim=optim)
        history = train(job(recipe, clips_dir, tmp_path)).history
        per_epoch = 2
        expected = [learning_rate((epoch + 1) * per_epoch - 1, n, per_epoch, recipe.optim) for epoch, n in
                    enumerate((4, 4, 8, 8))]  # fmt: skip
        assert [row.lr for row in history] == expected
        assert history[2].lr > history[1].lr

    def test_killed_in_them(self, clips_dir, tmp_path, tiny_recipe, monkeypatch):
        for name in ("whole", "killed"):
            train(job(with_epochs(tiny_recipe, 1), clips_dir, tmp_path / name))
        longer = with_epochs(tiny_recipe, 3)
        train(job(longer, clips_dir, tmp_path / "whole"))
        for step in (1, 3):
            with monkeypatch.context() as patch:
                die_at(patch, step, kill)
                with pytest.raises(Killed):
                    train(job(longer, clips_dir, tmp_path / "killed"))
        train(job(longer, clips_dir, tmp_path / "killed"))
        assert_same_bits(tmp_path / "killed", tmp_path / "whole")

    def test_begin_a_new_soup_and_patience_and_outdo_the_old_one(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, optim={"soup_epochs": 2}, loop={"patience": 1, "monitor": "val_loss"})
        with_losses(monkeypatch, [0.5, 0.6, 0.4, 0.45, 0.3, 0.35, 0.2], [0.5] * 7)
        first = train(job(with_epochs(recipe, 5), clips_dir, tmp_path))
        assert (first.epoch, first.soup, first.best_score) == (2, [1, 2], -0.4)  # the third loss is the soup's
        last = train(job(with_epochs(recipe, 6), clips_dir, tmp_path))
        assert [row.val_loss for row in last.history] == [0.5, 0.6, 0.45, 0.3, 0.35]
        assert (last.soup, last.best_epoch, last.best_score) == ([4, 5], 4, -0.2)

    @pytest.mark.parametrize("n", [1, 2])
    def test_are_more_than_those_that_are_trained(self, n, clips_dir, tmp_path, plain_recipe):
        train(job(with_epochs(plain_recipe, 3), clips_dir, tmp_path))
        with pytest.raises(CheckpointError, match=f"has trained 3 epochs, asked is loop.epochs = {n}"):
            train(job(with_epochs(plain_recipe, n), clips_dir, tmp_path))

    def test_are_refused_where_norms_are_frozen_at_the_end(self, clips_dir, tmp_path, plain_recipe):
        optim = {"frozen_norm_epochs": 1}
        train(job(with_epochs(plain_recipe, 2, optim=optim), clips_dir, tmp_path))
        with pytest.raises(CheckpointError, match=r"was trained with loop\.epochs = 2"):
            train(job(with_epochs(plain_recipe, 3, optim=optim), clips_dir, tmp_path))

    def test_of_one_fold_of_a_run_leave_the_others(self, clips_dir, tmp_path, plain_recipe):
        def run(n, folds, resume=True):
            recipe = with_epochs(plain_recipe, n)
            return Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path, folds=folds, device="cpu", resume=resume)

        train_run(run(1, (0, 1)))
        with pytest.raises(CheckpointError, match=r"was trained with loop\.epochs"):
            train_run(run(2, (0,), resume=False))
        (result,) = train_run(run(2, (0,)))
        assert result.best_epoch in {1, 2}
        assert [load_header(tmp_path / f"fold{n}" / LAST).progress.epoch for n in (0, 1)] == [2, 1]
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert [fold["fold"] for fold in summary["folds"]] == [0, 1]
        train_run(run(2, (1,)))
        assert load_header(tmp_path / "fold1" / LAST).progress.epoch == 2


class TestKeptEpochs:
    def test_are_the_weights_that_were_validated(self, clips_dir, tmp_path, tiny_recipe):
        recipe = changed(tiny_recipe, loop={"keep_epochs": 2, "epochs": 5})
        progress = train(job(recipe, clips_dir, tmp_path / "kept"))
        kept = sorted(path.name for path in (tmp_path / "kept" / "epochs").iterdir())
        assert kept == ["epoch0002.safetensors", "epoch0004.safetensors"]
        second = load_checkpoint(weights_file(tmp_path / "kept", 2))
        assert (second.epoch, second.val_macro_auc) == (2, progress.history[1].val_macro_auc)
        if progress.best_epoch in {2, 4}:
            best, own = tensors(tmp_path / "kept", BEST), load_checkpoint(weights_file(tmp_path / "kept", 2)).tensors
            assert best.keys() == own.keys()
        train(job(changed(recipe, loop={"keep_epochs": 0}), clips_dir, tmp_path / "plain"))
        assert_same_bits(tmp_path / "kept", tmp_path / "plain")


def test_what_an_epoch_took_stands_in_the_history(clips_dir, tmp_path, plain_recipe):
    progress = train(job(plain_recipe, clips_dir, tmp_path))
    (row,) = progress.history
    model = load_checkpoint(tmp_path / BEST).build_model()
    assert row.n_parameters == sum(each.numel() for each in model.parameters())
    assert 50 < row.rss_mb < 100_000
    with (tmp_path / "history.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["rss_mb"]) == row.rss_mb
