"""``birdinfer train --devices``: folds of a run side by side on shares of the cores."""

import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest
import torch
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.cli import side_by_side as command
from birdinfer.cli.app import main
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.data import DataConfig
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.recipe.learning import LoopConfig, ModelConfig

RECIPE = Recipe(
    name="pair",
    data=DataConfig(n_folds=2),
    frontend=TINY_FRONTEND,
    model=ModelConfig(family="rnn", backbone="gru", hidden=8, layers=1),
    loop=LoopConfig(epochs=25, batch_size=4, val_windows=1),
)


@pytest.fixture(scope="module")
def clips_dir(tmp_path_factory):
    """24 clips of 4 labels. Read only."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def train(tmp_path, clips_dir, monkeypatch):
    """Runs ``birdinfer train`` on the pair's recipe in a folder of its own; its exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.toml").write_text(write_recipe(RECIPE))

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(["train", "--recipe", "pair.toml", "--data", str(clips_dir), *arguments])
        return left.value.code

    return run


def instead(monkeypatch, *sources):
    """Each fold's process runs a line of Python instead of a training."""
    monkeypatch.setattr(
        command, "command_again", lambda context, without, added: [sys.executable, "-c", sources[int(added[-3])]]
    )


class TestFolds:
    def test_they_are_stopped_by_ctrl_c_and_go_on(self, train, clips_dir, tmp_path, capsys):
        """As a user sees it: what runs is saved, the next call goes on with it, and all of it is summed up."""
        options = ["--fold", "all", "--devices", "cpu,cpu", "--resume"]
        words = [sys.executable, "-m", "birdinfer", "train", "--recipe", "pair.toml", "--data", str(clips_dir)]
        environment, said = {**os.environ, "OMP_NUM_THREADS": "1"}, [""]
        with subprocess.Popen([*words, *options], env=environment, stderr=subprocess.PIPE, text=True) as running:
            while not said[-1].startswith("fold0: epoch") and running.poll() is None:
                said.append(running.stderr.readline())
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60)[1].endswith("birdinfer: stopped with Ctrl-C\n"), said
        assert running.returncode == 130
        assert "fold0: on a share of the cores, log in runs/pair/logs/fold0.log\n" in said
        log = tmp_path / "runs/pair/logs/fold0.log"
        assert "birdinfer: stopped by SIGTERM" in log.read_text()

        assert train(*options) == 0
        told = capsys.readouterr()
        assert "fold0: birdinfer:" not in told.err
        assert [f"runs/pair/fold{fold}: macro AUC" in told.out for fold in (0, 1)] == [True, True]
        assert "resumed at step" in log.read_text()
        summary = json.loads((tmp_path / "runs/pair/summary.json").read_text())
        assert [(one["fold"], one["problem"]) for one in summary["folds"]] == [(0, ""), (1, "")]

    def test_one_that_fails_is_told_by_its_last_line_and_the_others_go_on(self, train, monkeypatch, capsys):
        instead(monkeypatch, "raise SystemExit('birdinfer: loop.amp: too much')", "import os; os.kill(os.getpid(), 9)")
        assert train("--fold", "all", "--devices", "cpu") == 3
        told = capsys.readouterr().err
        assert "fold 0 failed: loop.amp: too much\n" in told
        assert "fold 1 failed: ended with SIGKILL, see runs/pair/logs/fold1.log\n" in told
        with open("runs/pair/summary.json") as file:  # noqa: PTH123
            assert [one["problem"] for one in json.load(file)["folds"]] == [
                "loop.amp: too much", "ended with SIGKILL, see runs/pair/logs/fold1.log",
            ]  # fmt: skip

    def test_one_that_leaves_nothing_has_failed(self, train, monkeypatch, capsys):
        instead(monkeypatch, "", "")
        assert train("--fold", "1", "--devices", "cpu,cpu,cpu", "-q") == 3
        assert "fold 1 failed: runs/pair/fold1/last.safetensors: no such checkpoint" in capsys.readouterr().err


class TestCommands:
    @pytest.fixture
    def commands(self, monkeypatch):
        """The commands that would be run, without running them."""
        found = {}

        def note(jobs, devices, say):
            found.update({job.name: list(job.command[3:]) for job in jobs})
            return dict.fromkeys(found, 1)

        monkeypatch.setattr("birdinfer.training.side_by_side.run_side_by_side", note)
        return found

    def test_each_fold_has_the_command_line_but_for_where_it_runs(self, train, commands, clips_dir):
        train("--fold", "all", "--devices", "cpu,cpu", "--name", "x", "--set", "optim.lr=1e-3", "-q")
        told = ["train", "--data", str(clips_dir), "--name", "x", "--set", "optim.lr=1e-3"]
        assert commands == {
            f"fold{fold}": [*told, "--recipe", "pair.toml", "--fold", str(fold), "--device", "cpu"] for fold in (0, 1)
        }

    def test_several_recipes_share_the_devices(self, train, commands, tmp_path, capsys):
        (tmp_path / "b.toml").write_text(write_recipe(msgspec.structs.replace(RECIPE, name="b")))
        bad = msgspec.structs.replace(RECIPE, name="bad", model=ModelConfig(backbone="no such network"))
        (tmp_path / "bad.toml").write_text(write_recipe(bad))
        assert train("--recipe", "bad.toml", "--recipe", "b.toml", "--devices", "cpu") == 3
        assert [(name, words[words.index("--recipe") + 1]) for name, words in commands.items()] == [
            ("pair/fold0", "pair.toml"), ("b/fold0", "b.toml"),
        ]  # fmt: skip
        assert not (tmp_path / "runs" / "bad").exists()
        failures = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
        assert [line.split(" failed: ")[0] for line in failures] == ["bad, fold 0", "pair, fold 0", "b, fold 0"]


class TestRefused:
    """In one line, before anything starts and without a trace on disk."""

    @pytest.fixture
    def refused(self, train, tmp_path, capsys):
        def told(*arguments: str) -> str:
            assert train(*arguments) == 2
            assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/fold*"))
            (line,) = capsys.readouterr().err.splitlines()
            return line

        return told

    def test_a_device_that_is_not_there(self, refused):
        there = torch.cuda.device_count()
        assert f"--devices: names GPU {there}, torch" in refused("--devices", f"{there}", "-q")

    def test_what_is_no_device(self, refused):
        assert "--devices: is 'tpu', allowed are GPUs as 0,1" in refused("--devices", "tpu")

    def test_a_device_beside_devices(self, refused):
        assert "--device: was given with --devices - leave it out" in refused("--devices", "cpu", "--device", "cpu")

    def test_several_processes_for_one_fold(self, refused, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "--devices: was given to torchrun" in refused("--devices", "cpu")

    def test_a_recipe_that_cannot_be_trained(self, refused):
        assert "model.backbone" in refused(
            "--devices", "cpu", "--set", "model.family=cnn", "--set", "model.backbone=no such network", "-q"
        )

    def test_a_fold_that_is_not_there(self, refused):
        assert "--fold: is 2, the recipe has folds 0 to 1" in refused("--devices", "cpu", "--fold", "2", "-q")
