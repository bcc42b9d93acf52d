"""The last epochs, in which norms hold still: what stays, what learns on, what is kept."""

import dataclasses

import pytest
import torch
from one_fold import (
    Killed,
    Recorder,
    assert_same_bits,
    changed,
    die_at,
    job,
    kill,
    soup_of,
    tensors,
    train,
)

from birdinfer.runs.layout import BEST
from birdinfer.training import loop as loop_module
from birdinfer.training.checkpoint import load_checkpoint

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def statistics(tensors, prefix):
    """What norms have measured."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and name.endswith(STATISTICS)
    }


def different(tensors, others):
    """The names of tensors that differ in any bit."""
    assert tensors.keys() == others.keys()
    return [name for name in tensors if not torch.equal(tensors[name], others[name])]


class EachEpoch(Recorder):
    """Keeps what the checkpoint of each epoch holds."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.tensors = folder, []

    def on_epoch_end(self, row, is_best):
        super().on_epoch_end(row, is_best)
        self.tensors.append(tensors(self.folder))


@pytest.fixture(scope="module")
def still(tmp_path_factory, tiny_recipe, clips_dir):
    """A run of two epochs, and two more whose norms hold still, that no one disturbed."""
    folder = tmp_path_factory.mktemp("still")
    recipe, reporter = changed(tiny_recipe, loop={"epochs": 4}, optim={"frozen_norm_epochs": 2}), EachEpoch(folder)
    train(job(recipe, clips_dir, folder), reporter)
    return recipe, folder, reporter.tensors


def with_scores(monkeypatch, scores):
    """Let validation after each epoch score as given."""
    real, given = loop_module.score, iter(scores)
    monkeypatch.setattr(loop_module, "score", lambda *args: dataclasses.replace(real(*args), macro_auc=next(given)))


class TestNormsThatHoldStill:
    @pytest.mark.parametrize("prefix", ["model.", "ema."])
    def test_statistics_stay_as_the_last_free_epoch_left_them(self, still, prefix):
        first, second, third, fourth = (statistics(one, prefix) for one in still[2])
        assert different(first, second) == list(first) != []
        assert different(second, third) == different(second, fourth) == []

    def test_what_is_kept_has_these_statistics(self, still):
        _, folder, epochs = still
        assert different(statistics(tensors(folder, BEST), "model."), statistics(epochs[1], "model.")) == []

    def test_their_weights_and_biases_learn_on(self, still):
        third, fourth = still[2][2:]
        learnt = [
            name.replace("running_mean", kind)
            for name in third
            if name.startswith("model.") and name.endswith("running_mean")
            for kind in ("weight", "bias")
        ]
        assert learnt
        assert not any(torch.equal(third[name], fourth[name]) for name in learnt)

    @pytest.mark.parametrize("step", [8, 11, *(pytest.param(step, marks=pytest.mark.slow) for step in (9, 13, 16))])
    def test_killed_before_or_while_they_hold_still(self, step, still, clips_dir, tmp_path, monkeypatch):
        """Steps 9 to 16 are theirs; there is a checkpoint after every second."""
        recipe, folder, _ = still
        with monkeypatch.context() as patch:
            die_at(patch, step, kill)
            with pytest.raises(Killed):
                train(job(recipe, clips_dir, tmp_path))
        reporter = Recorder()
        train(job(recipe, clips_dir, tmp_path), reporter)
        assert reporter.starts[0].first_step == (step - 1) // 2 * 2
        assert_same_bits(tmp_path, folder)

    @pytest.mark.parametrize(
        ("scores", "best"),
        [
            ([0.9, 0.8, 0.5, 0.6], 4),
            ([0.9, 0.8, 0.6, 0.5], 3),
            ([0.9, 0.8, 0.6, 0.6], 3),
            ([0.4, 0.5, 0.6, 0.7], 4),
            ([0.9, None, None, 0.5], 4),
        ],
    )
    def test_the_best_of_their_epochs_is_kept(self, scores, best, clips_dir, tmp_path, plain_recipe, monkeypatch):
        """What was trained before them is another network, however well it scored."""
        recipe = changed(plain_recipe, loop={"epochs": 4}, optim={"frozen_norm_epochs": 2})
        with_scores(monkeypatch, scores)
        progress = train(job(recipe, clips_dir, tmp_path))
        assert (progress.best_epoch, progress.best_auc) == (best, scores[best - 1])
        kept = load_checkpoint(tmp_path / BEST)
        assert (kept.epoch, kept.val_macro_auc) == (best, scores[best - 1])

    def test_killed_before_they_begin_an_earlier_epoch_is_still_outdone(
        self, clips_dir, tmp_path, plain_recipe, monkeypatch
    ):
        recipe = changed(plain_recipe, loop={"epochs": 3}, optim={"frozen_norm_epochs": 1})
        with_scores(monkeypatch, [0.9, 0.8, 0.5])
        with monkeypatch.context() as patch:
            die_at(patch, 2 * 2 + 1, kill)  # two steps an epoch
            with pytest.raises(Killed):
                train(job(recipe, clips_dir, tmp_path))
        assert load_checkpoint(tmp_path / BEST).epoch == 1
        assert train(job(recipe, clips_dir, tmp_path)).best_epoch == 3

    def test_a_soup_is_made_of_their_epochs_only(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, loop={"epochs": 5}, optim={"frozen_norm_epochs": 3, "soup_epochs": 2})
        with_scores(monkeypatch, [0.9, 0.8, 0.3, 0.5, 0.4, 0.6])  # the last one of their average
        saved = {}
        monkeypatch.setattr(loop_module.shutil, "rmtree", lambda folder, **_: saved.update(soup_of(folder)))
        progress = train(job(recipe, clips_dir, tmp_path))
        assert list(saved) == ["epoch0004.safetensors", "epoch0005.safetensors"]
        # Better than each of them, though worse than what the first epoch scored.
        assert (progress.soup, progress.best_auc) == ([4, 5], 0.6)
        fourth, fifth = (statistics(weights, "") for weights in saved.values())
        assert different(fourth, fifth) == []
        assert different(statistics(tensors(tmp_path, BEST), "model."), fourth) == []

    def test_nothing_is_kept_for_a_soup_before_them(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, loop={"epochs": 3}, optim={"frozen_norm_epochs": 1, "soup_epochs": 2})
        with monkeypatch.context() as patch:
            die_at(patch, 2 * 2 + 1, kill)
            with pytest.raises(Killed):
                train(job(recipe, clips_dir, tmp_path))
        assert list((tmp_path / "soup").glob("*")) == []
