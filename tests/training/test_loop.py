import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import one_fold
import pytest
import torch
from one_fold import (
    STEPS_PER_EPOCH,
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

from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.runs.layout import BEST, LAST
from birdinfer.system.signals import StopRequest
from birdinfer.training import fold as results_module
from birdinfer.training import forward as forward_module
from birdinfer.training import loop as loop_module
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.fold import check_same_recipe
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.state import TrainingState


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_recipe, clips_dir):
    """A run that no one disturbed."""
    folder, reporter = tmp_path_factory.mktemp("finished"), Recorder()
    train(job(tiny_recipe, clips_dir, folder), reporter)
    return folder, reporter


class TestTrainFold:
    def test_leaves_what_was_promised(self, finished):
        folder, reporter = finished
        assert {path.name for path in folder.iterdir()} == {
            LAST, BEST, "history.csv", "oof.csv", "classes.csv", "taxa.csv"
        }  # fmt: skip
        assert len(reporter.rows) == 3
        (start,) = reporter.starts
        assert (start.n_training, start.n_validation, start.steps_per_epoch) == (16, 8, STEPS_PER_EPOCH)

    def test_the_best_epoch_is_kept(self, finished):
        folder, reporter = finished
        best = load_checkpoint(folder / BEST)
        assert best.val_macro_auc == max(row.val_macro_auc for row, _ in reporter.rows)
        assert best.epoch == [row.epoch for row, is_best in reporter.rows if is_best][-1]
        assert {name.split(".")[0] for name in best.tensors} == {"model"}

    def test_out_of_fold_is_what_the_best_checkpoint_says(self, finished, tiny_recipe, clips_dir):
        """The stored table can be made again from the stored weights: nothing of training mode is in it."""
        from birdinfer.audio.windows import read_window
        from birdinfer.training.models.log_mel import LogMel

        folder, _ = finished
        with (folder / "oof.csv").open(newline="") as file:
            row = next(csv.DictReader(file))
        model, frontend = load_checkpoint(folder / BEST).build_model(), LogMel(tiny_recipe.frontend)
        windows = [read_window(clips_dir / "train_audio" / row["filename"], s, tiny_recipe.frontend) for s in (0, 0.5)]
        with torch.no_grad():
            expected = torch.sigmoid(model(frontend(torch.from_numpy(np.stack(windows)))).clip).mean(0)
        stored = [float(row[species.label]) for species in load_checkpoint(folder / BEST).species]
        np.testing.assert_allclose(stored, expected, atol=1e-5)

    def test_it_learns(self, clips_dir, tmp_path, plain_recipe):
        """Four tones are separated after a few steps."""
        recipe = msgspec.structs.replace(
            plain_recipe,
            augment=msgspec.structs.replace(plain_recipe.augment, mixup_probability=0.0),
            optim=msgspec.structs.replace(plain_recipe.optim, lr=5e-3, ema_decay=0.0, warmup_epochs=0),
            loop=msgspec.structs.replace(plain_recipe.loop, epochs=12, batch_size=4),
        )
        progress = train(job(recipe, clips_dir, tmp_path))
        assert progress.best_auc > 0.85
        assert progress.history[-1].train_loss < 0.6 * progress.history[0].train_loss

    def test_same_seed_same_bits_another_seed_others(self, finished, tiny_recipe, clips_dir, tmp_path):
        train(job(tiny_recipe, clips_dir, tmp_path / "same"))
        assert_same_bits(finished[0], tmp_path / "same")
        train(job(msgspec.structs.replace(tiny_recipe, seed=1), clips_dir, tmp_path / "other"))
        other = tensors(tmp_path / "other")
        assert any(not torch.equal(tensor, other[name]) for name, tensor in tensors(finished[0]).items())

    def test_a_loss_that_is_no_number_is_refused(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        monkeypatch.setattr(
            forward_module, "build_loss", lambda *_: lambda logits, *_: logits.clip.sum() * float("nan")
        )
        with pytest.raises(ConfigError, match="no longer finite in epoch 1, step 2 - lower it"):
            train(job(plain_recipe, clips_dir, tmp_path))
        assert not (tmp_path / LAST).exists()

    def test_clips_that_break_while_training_are_named_once(self, clips_dir, tmp_path, plain_recipe):
        """Pitfall 13: neither training nor validation ends, and the table holds the others."""
        whole = job(plain_recipe, clips_dir, tmp_path)
        gone = [clips[0]._replace(path=tmp_path / "gone", filename=name) for clips, name in
                ((whole.training, "t.ogg"), (whole.validation, "v.ogg"))]  # fmt: skip
        recipe = msgspec.structs.replace(plain_recipe, loop=msgspec.structs.replace(plain_recipe.loop, epochs=2))
        reporter = Recorder()
        broken = dataclasses.replace(
            whole,
            recipe=msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, sampling_power=0.0)),
            training=(gone[0], *whole.training[1:]),
            validation=(gone[1], *whole.validation[1:]),
        )
        train(broken, reporter)
        assert sorted(reporter.messages) == [
            "left out, cannot be decoded: t.ogg (no such file)",
            "left out, cannot be decoded: v.ogg (no such file)",
        ]
        assert len((tmp_path / "oof.csv").read_text().splitlines()) == 1 + 7

    def test_a_fold_that_cannot_be_scored_keeps_its_latest_epoch(self, clips_dir, tmp_path, plain_recipe):
        whole = job(plain_recipe, clips_dir, tmp_path)
        progress = train(dataclasses.replace(whole, validation=whole.validation[:1]))
        assert (progress.best_epoch, progress.best_auc) == (1, None)
        assert (tmp_path / BEST).is_file()


class TestExactResume:
    @pytest.mark.parametrize("step", [3, 4, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 7, 11))])
    def test_killed_at_any_step(self, step, finished, tiny_recipe, clips_dir, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            die_at(patch, step, kill)
            with pytest.raises(Killed):
                train(job(tiny_recipe, clips_dir, tmp_path))
        reporter = Recorder()
        train(job(tiny_recipe, clips_dir, tmp_path), reporter)
        saved_every = tiny_recipe.loop.checkpoint_every_steps
        assert reporter.starts[0].first_step == (step - 1) // saved_every * saved_every
        assert_same_bits(tmp_path, finished[0])

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            (loop_module, "predict_clips"),
            (results_module, "oof_table"),
            (results_module, "taxa_table"),
            (results_module, "history_table"),
            (loop_module.FoldTrainer, "_finish"),
        ],
    )
    def test_killed_between_the_files_of_an_epoch(
        self, module, name, finished, tiny_recipe, clips_dir, tmp_path, monkeypatch
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: kill())
            with pytest.raises(Killed):
                train(job(tiny_recipe, clips_dir, tmp_path))
        train(job(tiny_recipe, clips_dir, tmp_path))
        assert_same_bits(tmp_path, finished[0])

    @pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
    def test_a_signal_saves_the_very_step(
        self, number, leaves, finished, tiny_recipe, clips_dir, tmp_path, monkeypatch
    ):
        with monkeypatch.context() as patch, StopRequest() as stop:
            die_at(patch, 5, lambda: os.kill(os.getpid(), number))
            with pytest.raises(leaves) as left:
                train(job(tiny_recipe, clips_dir, tmp_path), stop=stop)
        if number == signal.SIGTERM:
            assert left.value.code == 143
        reporter = Recorder()
        train(job(tiny_recipe, clips_dir, tmp_path), reporter)
        assert reporter.starts[0].first_step == 5
        assert_same_bits(tmp_path, finished[0])

    @pytest.mark.slow
    def test_sigkill_of_the_process(self, finished, tiny_recipe, clips_dir, tmp_path):
        """No stand-in: a process of its own, killed within an epoch."""
        from birdinfer.training.recipe.toml import write_recipe

        (tmp_path / "tiny.toml").write_text(write_recipe(tiny_recipe))
        program = f"""
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.state import TrainingState
sys.path.insert(0, {str(Path(one_fold.__file__).parent)!r})
import one_fold
real, count = TrainingState.step, iter(range(1, 99))
def step(self, *arguments):
    real(self, *arguments)
    if next(count) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
TrainingState.step = step
recipe = load_recipe(Path({str(tmp_path / "tiny.toml")!r}))
one_fold.train(one_fold.job(recipe, Path({str(clips_dir)!r}), Path({str(tmp_path / "run")!r})))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        train(job(tiny_recipe, clips_dir, tmp_path / "run"))
        assert_same_bits(tmp_path / "run", finished[0])

    @pytest.mark.slow
    def test_worker_processes_change_nothing(self, finished, tiny_recipe, clips_dir, tmp_path):
        recipe = msgspec.structs.replace(tiny_recipe, loop=msgspec.structs.replace(tiny_recipe.loop, num_workers=1))
        train(job(recipe, clips_dir, tmp_path))
        assert_same_bits(tmp_path, finished[0])

    def test_another_recipe_is_refused(self, finished, tiny_recipe, clips_dir):
        other = msgspec.structs.replace(tiny_recipe, optim=msgspec.structs.replace(tiny_recipe.optim, lr=0.5))
        with pytest.raises(CheckpointError, match=r"was trained with optim\.lr = 0\.003, asked is 0\.5 - resume with"):
            train(job(other, clips_dir, finished[0]))

    def test_other_species_are_refused(self, finished, tiny_recipe, clips_dir):
        mine = job(tiny_recipe, clips_dir, finished[0])
        with pytest.raises(CheckpointError, match="other species"):
            train(dataclasses.replace(mine, species=mine.species[::-1]))


def test_keys_that_change_no_result_may_differ(tmp_path):
    a, b = Recipe(), Recipe(name="b", loop=msgspec.structs.replace(Recipe().loop, num_workers=4))
    check_same_recipe(a, b, tmp_path)
    with pytest.raises(CheckpointError, match="and 1 more keys differ"):
        check_same_recipe(a, msgspec.structs.replace(b, seed=1, model=msgspec.structs.replace(a.model, backbone="x")),
                          tmp_path)  # fmt: skip


class TestWhatIsKept:
    def test_patience_ends_a_run_and_its_resume(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        """The score cannot rise: with two epochs of patience the third is the last."""
        recipe = changed(plain_recipe, loop={"epochs": 9, "patience": 2})
        real = loop_module.score
        monkeypatch.setattr(loop_module, "score", lambda *args: dataclasses.replace(real(*args), macro_auc=0.5))
        progress = train(job(recipe, clips_dir, tmp_path))
        assert (progress.epoch, progress.is_finished, progress.is_complete) == (3, True, True)
        assert train(job(recipe, clips_dir, tmp_path)).epoch == 3

    def test_a_soup_is_kept_if_it_is_better(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, loop={"epochs": 4}, optim={"soup_epochs": 3})
        scores = iter([0.5, 0.7, 0.6, 0.4, 0.9])
        real = loop_module.score
        monkeypatch.setattr(
            loop_module, "score", lambda *args: dataclasses.replace(real(*args), macro_auc=next(scores))
        )
        reporter = Recorder()
        saved = {}
        monkeypatch.setattr(loop_module.shutil, "rmtree", lambda folder, **_: saved.update(soup_of(folder)))
        progress = train(job(recipe, clips_dir, tmp_path), reporter)
        assert progress.soup == [1, 2, 3]
        best = load_checkpoint(tmp_path / BEST)
        assert best.val_macro_auc == 0.9
        weights = best.weights("model.")
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, torch.stack([one[name] for one in saved.values()]).mean(0))
        assert any("average of epochs 1, 2, 3: macro AUC 0.9000, kept instead of" in line for line in reporter.messages)

    def test_a_soup_that_is_worse_is_not_kept(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, loop={"epochs": 2}, optim={"soup_epochs": 2})
        real = loop_module.score
        monkeypatch.setattr(loop_module, "score", lambda *args: dataclasses.replace(real(*args), macro_auc=0.0))
        progress = train(job(recipe, clips_dir, tmp_path))
        assert progress.soup == []
        assert load_checkpoint(tmp_path / BEST).val_macro_auc == progress.best_auc
        assert not (tmp_path / "soup").exists()

    def test_killed_while_the_soup_is_averaged(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        recipe = changed(plain_recipe, loop={"epochs": 3}, optim={"soup_epochs": 2})
        train(job(recipe, clips_dir, tmp_path / "whole"))
        with monkeypatch.context() as patch:
            patch.setattr(loop_module, "average_weights", lambda *_: kill())
            with pytest.raises(Killed):
                train(job(recipe, clips_dir, tmp_path / "killed"))
        train(job(recipe, clips_dir, tmp_path / "killed"))
        assert_same_bits(tmp_path / "whole", tmp_path / "killed")

    def test_test_clips_are_scored_once_with_what_is_kept(self, clips_dir, tmp_path, plain_recipe):
        whole = job(plain_recipe, clips_dir, tmp_path)
        progress = train(dataclasses.replace(whole, validation=whole.validation[:4], test=whole.validation[4:]))
        assert 0 <= progress.test_macro_auc <= 1
        assert len((tmp_path / "test.csv").read_text().splitlines()) == 1 + 4
        assert len((tmp_path / "oof.csv").read_text().splitlines()) == 1 + 4

    def test_without_validation_the_last_epoch_is_kept(self, clips_dir, tmp_path, plain_recipe):
        recipe = changed(plain_recipe, loop={"epochs": 2})
        whole = job(recipe, clips_dir, tmp_path)
        progress = train(dataclasses.replace(whole, training=whole.training + whole.validation, validation=()))
        assert (progress.best_epoch, progress.best_auc) == (2, None)
        assert (tmp_path / BEST).is_file()
        assert not (tmp_path / "oof.csv").exists()


class TestParts:
    def test_accumulation_is_the_same_step_but_for_batchnorm(self, clips_dir, tmp_path, plain_recipe):
        """Chance is drawn per part; without any, halves add up to the whole: a network without BatchNorm shows it."""
        recipe = changed(
            plain_recipe,
            augment={"gain_probability": 0.0, "mixup_probability": 0.0, "mask_probability": 0.0},
            model={"family": "rnn", "backbone": "gru", "hidden": 8, "layers": 1, "drop_rate": 0.0},
        )
        train(job(recipe, clips_dir, tmp_path / "whole"))
        train(job(changed(recipe, loop={"accumulate": 4}), clips_dir, tmp_path / "parts"))
        whole, parts = tensors(tmp_path / "whole", BEST), tensors(tmp_path / "parts", BEST)
        for name in whole:
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-3, atol=1e-5)

    def test_out_of_memory_says_which_knob_to_turn(self, clips_dir, tmp_path, plain_recipe, monkeypatch):
        def exhausted(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

        monkeypatch.setattr(TrainingState, "backward", exhausted)
        with pytest.raises(ConfigError, match=r"loop\.batch_size: is 8, 8 windows at once .*--set loop\.accumulate=2"):
            train(job(plain_recipe, clips_dir, tmp_path))


def test_what_was_waited_for_data_is_logged(finished):
    with (finished[0] / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(0 < float(row["wait_share"]) < 1 for row in rows)
    assert all(row["peak_gpu_mb"] == "" for row in rows)
