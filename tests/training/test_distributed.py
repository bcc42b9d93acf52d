"""Several processes train one model: what they share, and that they end where one process does."""

import csv
import os
import signal
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
import training_together
from one_fold import changed
from tiny_clips import LABELS, write_clips, write_table

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.runs.layout import BEST, LAST
from birdinfer.system.signals import StopRequest
from birdinfer.training.checkpoint import load_checkpoint, load_header
from birdinfer.training.distributed import Distributed, exit_if_one_is_lost, from_environment, process_group
from birdinfer.training.recipe.schema import AugmentConfig, DataConfig, LoopConfig, ModelConfig, OptimConfig
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.training.run import Run, train_run

CPU = torch.device("cpu")


class TestAlone:
    def test_one_process_talks_to_itself(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        alone = from_environment()
        assert (alone.rank, alone.n, alone.is_first) == (0, 1, True)
        with process_group(alone, CPU, "run"):
            alone.wait()
            assert alone.all_gather("x") == ["x"]
            model = torch.nn.Linear(1, 1)
            assert alone.parallel(model) is model

    def test_who_is_who_stands_in_the_environment(self, monkeypatch):
        for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
            monkeypatch.setenv(name, value)
        one = from_environment()
        assert (one.rank, one.n, one.local_rank, one.is_first) == (5, 8, 1, False)

    @pytest.mark.parametrize(("n", "accumulate"), [(3, 1), (2, 8)])
    def test_a_batch_that_cannot_be_dealt_out_is_refused(self, n, accumulate):
        with pytest.raises(ConfigError, match=f"make it a multiple of {n * accumulate}"):
            Distributed(0, n).check_batch(LoopConfig(batch_size=8, accumulate=accumulate))
        Distributed(0, 2).check_batch(LoopConfig(batch_size=8, accumulate=4))


class TestTotal:
    def test_alone_it_is_the_value_itself(self):
        values = torch.tensor([1.0, 2.0])
        assert Distributed().total(values) is values
        assert torch.equal(Distributed().mean(values), values)


class TestStoppedBy:
    """One of two processes was sent a signal, the other one not, or not yet."""

    @pytest.mark.parametrize(("number", "left"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
    def test_all_leave_as_the_one_that_was_asked(self, monkeypatch, number, left):
        other = Distributed(1, 2)
        monkeypatch.setattr(other, "all_gather", lambda value: [number, value])
        with StopRequest() as stop:
            assert other.stop_signal(stop) == number
            with pytest.raises(left):
                other.exit_together(stop)

    def test_no_one_was_asked(self):
        with StopRequest() as stop:
            assert Distributed().stop_signal(stop) is None
            Distributed().exit_together(stop)


LOST = "[../third_party/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5"


class TestEndingTogether:
    def test_a_process_that_has_gone_is_one_line(self):
        reported = r"torchrun: process 1 of 2 has lost another.*continue with --resume"
        with pytest.raises(BirdinferError, match=reported), exit_if_one_is_lost(Distributed(1, 2), StopRequest()):
            raise RuntimeError(LOST)

    def test_where_it_never_came_to_talk_the_reason_is_reported_on_the_same_line(self):
        """Two processes on one GPU, or a network that NCCL cannot use: no one has gone, and no other line says more."""
        reported = r"cannot continue without it \(NCCL error: invalid usage Last error: Duplicate GPU detected\) - see"
        with pytest.raises(BirdinferError, match=reported), exit_if_one_is_lost(Distributed(0, 2), StopRequest()):
            raise RuntimeError("NCCL error: invalid usage\nLast error:\nDuplicate GPU detected")

    def test_one_that_was_itself_asked_to_end_ends_as_it_was_asked(self):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(SystemExit) as left, exit_if_one_is_lost(Distributed(1, 2), stop):
                raise RuntimeError(LOST)
        assert left.value.code == 143

    def test_another_error_stays_what_it_is(self):
        reported = "shapes cannot be multiplied"
        with pytest.raises(RuntimeError, match=reported), exit_if_one_is_lost(Distributed(1, 2), StopRequest()):
            raise RuntimeError(reported)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def exact_recipe(tiny_recipe):
    """Without chance per window, parts of a batch add up to the whole."""
    return msgspec.structs.replace(
        tiny_recipe,
        name="exact",
        data=DataConfig(n_folds=3),
        augment=AugmentConfig(gain_probability=0.0, mixup_probability=0.0, mask_probability=0.0),
        model=ModelConfig(family="rnn", backbone="gru", hidden=8, layers=1, drop_rate=0.0),
        optim=OptimConfig(lr=3e-3, ema_decay=0.9),
        loop=LoopConfig(epochs=2, batch_size=4, val_windows=1),
    )


@pytest.fixture(scope="module")
def uneven_dir(tmp_path_factory):
    """19 clips: ratings from 0.5 to 5, an uneven number of them in fold 0, and one that cannot be decoded."""
    folder = write_clips(tmp_path_factory.mktemp("uneven"), clips_per_label=5)
    names = [f"{label}/XC{index}.wav" for label in LABELS for index in range(5)][:-1]
    header = ["primary_label", "filename", "author", "rating", "my_fold"]
    rows = [
        [name.split("/")[0], name, name, 0.5 + 4.5 * (index % 3) / 2, 0 if index % 4 == 1 else 1]
        for index, name in enumerate(names)
    ]
    write_table(folder / "train.csv", header, rows)
    (folder / "train_audio" / names[2]).write_bytes(b"no sound")
    return folder


@pytest.fixture(scope="module")
def recipes(exact_recipe, clips_dir, uneven_dir):
    """What two processes train, one after another, and on which clips; see ``training_together`` for the names."""
    # Not adamw: a bias before a norm has a slope of nothing but rounding, which Adam makes steps of a full rate.
    norms = msgspec.structs.replace(
        changed(exact_recipe, optim={"name": "sgd", "lr": 3e-3}, loop={"epochs": 3, "batch_size": 8}),
        model=ModelConfig(backbone="test_efficientnet", drop_rate=0.0),
    )
    own_folds, weights = {"n_folds": 2, "fold_column": "my_fold"}, {"rating_weight": 1.0}
    return {
        "a_exact": (exact_recipe, clips_dir),
        "b_norms": (norms, clips_dir),
        "c_weighted": (changed(exact_recipe, data=own_folds, labels=weights, loop={"accumulate": 2}), uneven_dir),
        "d_then_alone_half": (norms, clips_dir),
        "e_then_both": (norms, clips_dir),
        "f_killed": (changed(exact_recipe, loop={"epochs": 1_000}), clips_dir),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For runs by one process in ``one/`` and by two in ``two/``."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "two").mkdir()
    return folder


@pytest.fixture(scope="module")
def both(recipes, folder):
    """All trainings of two processes. One of them has begun with one process."""
    for name, (recipe, _) in recipes.items():
        (folder / "two" / f"{name}.toml").write_text(write_recipe(recipe))
    recipe, data = recipes["e_then_both"]
    with pytest.raises(SystemExit):
        train_run(
            Run(recipe=recipe, data_dir=data, run_dir=folder / "two" / "e_then_both", folds=(0,), device="cpu"),
            training_together.StopsAfterAnEpoch(),
        )
    words = [training_together.__file__, str(folder / "two"), *(str(data) for _, data in recipes.values())]
    done = subprocess.run([*TORCHRUN, *words], env=ALONE, capture_output=True, text=True)
    assert (folder / "two" / "f_killed" / "fold0" / "history.csv").exists(), done.stderr
    return done


@pytest.fixture(scope="module")
def runs(recipes, folder, both):
    """The same trainings by one process. One continues with what two have begun."""
    for name in ("a_exact", "b_norms", "c_weighted"):
        recipe, data = recipes[name]
        whole = changed(recipe, loop={"accumulate": 1})
        train_run(
            Run(recipe=whole, data_dir=data, run_dir=folder / "one" / name, folds=(0,), device="cpu"),
        )
    recipe, data = recipes["d_then_alone_half"]
    train_run(
        Run(
            recipe=recipe,
            data_dir=data,
            run_dir=folder / "two" / "d_then_alone_",
            folds=(0,),
            device="cpu",
            resume=True,
        ),
    )
    return folder


def losses(run_dir):
    with (run_dir / "fold0" / "history.csv").open(newline="") as file:
        return np.array([[float(row["train_loss"]), float(row["val_loss"])] for row in csv.DictReader(file)])


def scores(run_dir):
    with (run_dir / "fold0" / "history.csv").open(newline="") as file:
        return [(row["val_macro_auc"], row["val_padded_cmap"], row["val_top1"]) for row in csv.DictReader(file)]


def names_used(run_dir):
    return [row.split(",")[0] for row in (run_dir / "fold0" / "oof.csv").read_text().splitlines()[1:]]


@pytest.mark.slow
class TestTwoProcesses:
    """The number of processes is no part of a recipe: two end where one does, but for rounding."""

    @pytest.mark.parametrize(
        ("name", "n_epochs"), [("a_exact", 2), ("b_norms", 3), ("c_weighted", 2)], ids=["plain", "norms", "weights"]
    )
    def test_their_losses_are_those_of_one(self, runs, name, n_epochs):
        """ "weights": clips that weigh unlike, one that weighs nothing, and two processes with two parts each."""
        one, two = losses(runs / "one" / name), losses(runs / "two" / name)
        assert one.shape == (n_epochs, 2)
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
        assert scores(runs / "one" / name) == scores(runs / "two" / name)

    @pytest.mark.parametrize("name", ["a_exact", "c_weighted"])
    def test_their_weights_are_those_of_one(self, runs, name):
        one, two = (load_checkpoint(runs / who / name / "fold0" / BEST) for who in ("one", "two"))
        assert one.tensors.keys() == two.tensors.keys()
        for key, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, two.tensors[key], rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("name", ["a_exact", "c_weighted"])
    def test_each_clip_is_used_once_and_in_order_also_if_they_cannot_be_shared_evenly(self, runs, name):
        output = names_used(runs / "two" / name)
        assert output == names_used(runs / "one" / name)
        assert len(output) == len(set(output)) == {"a_exact": 8, "c_weighted": 5}[name]

    @pytest.mark.parametrize("name", ["d_then_alone_", "e_then_both"])
    def test_one_continues_where_two_were_stopped_and_the_other_way_round(self, runs, name):
        np.testing.assert_allclose(losses(runs / "two" / name), losses(runs / "one" / "b_norms"), rtol=0, atol=1e-5)

    def test_what_is_saved_is_the_network_as_it_is(self, runs):
        """Nothing of what several processes need stays in a checkpoint: it builds the recipe's own network."""
        one, two = (load_checkpoint(runs / who / "b_norms" / "fold0" / BEST) for who in ("one", "two"))
        assert {name: (x.shape, x.dtype) for name, x in one.tensors.items()} == {
            name: (x.shape, x.dtype) for name, x in two.tensors.items()
        }
        assert {type(module) for module in one.build_model().modules()} == {
            type(module) for module in two.build_model().modules()
        }


@pytest.mark.slow
class TestKilled:
    """One of two processes, by kill -9, in the midst of a training that a user has started."""

    def test_the_other_ends_too_and_says_why_in_one_line(self, both):
        assert both.returncode != 0
        (line,) = [line for line in both.stderr.splitlines() if "birdinfer:" in line]
        # Where torchrun was quicker to notice than the connection, it is the end that torchrun asked for.
        assert "process 0 of 2 has lost another" in line or line == "birdinfer: stopped by SIGTERM"

    def test_the_run_continues(self, runs, clips_dir):
        run_dir = runs / "two" / "f_killed"
        before = load_header(run_dir / "fold0" / LAST)
        assert 1 <= before.progress.epoch < before.recipe.loop.epochs
        with pytest.raises(SystemExit):
            train_run(
                Run(recipe=before.recipe, data_dir=clips_dir, run_dir=run_dir, folds=(0,), device="cpu", resume=True),
                training_together.StopsAfterAnEpoch(),
            )
        assert load_header(run_dir / "fold0" / LAST).progress.epoch == before.progress.epoch + 1
