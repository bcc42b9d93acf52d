"""``birdinfer train --devices``: folds of a run side by side on shares of the cores."""

import json
import sys

import msgspec
import pytest
import torch
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.cli.app import main
from birdinfer.runs.layout import LAST
from birdinfer.training import run as training_run
from birdinfer.training.checkpoint import load_header
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, Recipe
from birdinfer.training.recipe.toml import load_recipe, write_recipe

RECIPE = Recipe(
    name="pair",
    data=DataConfig(n_folds=2),
    frontend=TINY_FRONTEND,
    model=ModelConfig(family="rnn", backbone="gru", hidden=8, layers=1),
    loop=LoopConfig(epochs=2, batch_size=4, val_windows=1),
)
INTERRUPTING = """
import os, signal, sys
from birdinfer.training.launch.worker import main
from birdinfer.training.state import TrainingState

step, steps = TrainingState.step, []

def interrupt(*arguments):
    step(*arguments)
    steps.append(1)
    if len(steps) == 5:
        asked_to_end, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes)
        os.kill(os.getppid(), signal.SIGINT)
        os.read(asked_to_end, 1)

TrainingState.step = interrupt
sys.exit(main(sys.argv[1:]))
"""
"""Training of a fold that sends Ctrl-C to the command in its second epoch, and waits until it is asked to end."""


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
    monkeypatch.setattr(training_run, "_fold_command", lambda run, fold: (sys.executable, "-c", sources[fold]))


class TestFolds:
    @pytest.mark.slow
    def test_they_are_stopped_by_ctrl_c_and_resumed(self, train, tmp_path, monkeypatch, capsys):
        """What runs is saved, the next call resumes it, and one summary has all of it."""
        options = ("--fold", "all", "--devices", "cpu,cpu", "--resume")
        command = training_run._fold_command

        def interrupting(run, fold):
            """Fold 0 presses Ctrl-C in its second epoch; fold 1 only waits."""
            words = command(run, fold)
            code = (INTERRUPTING, *words[3:]) if fold == 0 else ("import signal; signal.pause()",)
            return (sys.executable, "-c", *code)

        with monkeypatch.context() as patch:
            patch.setattr(training_run, "_fold_command", interrupting)
            assert train(*options) == 130
        shown = capsys.readouterr().err
        assert shown.endswith("birdinfer: stopped with Ctrl-C\n")
        assert "fold0: on a share of the cores, log in runs/pair/logs/fold0.log\n" in shown
        assert "fold0: epoch" in shown
        assert load_header(tmp_path / "runs/pair/fold0" / LAST).progress.epoch == 1
        assert not (tmp_path / "runs/pair/summary.json").exists()

        assert train(*options) == 0
        shown = capsys.readouterr()
        assert "resumed at step" in shown.err
        assert [f"runs/pair/fold{fold}: macro AUC" in shown.out for fold in (0, 1)] == [True, True]
        assert (tmp_path / "runs/pair/logs/fold0.log").read_text().count("on_fold_start") == 2
        summary = json.loads((tmp_path / "runs/pair/summary.json").read_text())
        assert [(one["fold"], one["problem"]) for one in summary["folds"]] == [(0, ""), (1, "")]

    def test_one_that_fails_is_shown_with_its_reason_and_the_others_continue(self, train, monkeypatch, capsys):
        failing = 'print(\'["failed", "loop.amp: too much"]\'); raise SystemExit(2)'
        instead(monkeypatch, failing, "import os; os.kill(os.getpid(), 9)")
        assert train("--fold", "all", "--devices", "cpu,cpu") == 3
        shown = capsys.readouterr().err
        assert "fold 0 failed: loop.amp: too much\n" in shown
        assert "fold 1 failed: ended with SIGKILL, see runs/pair/logs/fold1.log\n" in shown
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

        def note(jobs, devices, callback, on_event):
            found.update({job.name: list(job.command[2:]) for job in jobs})
            return dict.fromkeys(found, "not run")

        monkeypatch.setattr(training_run, "run_side_by_side", note)
        return found

    def test_each_fold_starts_from_the_runs_folder(self, train, commands, clips_dir, tmp_path):
        train("--fold", "all", "--devices", "cpu,cpu", "--name", "x", "--set", "optim.lr=0.25", "--cache-dir", "c")
        words = ["birdinfer.training.launch.worker", "runs/x"]
        others = ["--data", str(clips_dir), "--device", "cpu", "--cache-dir", "c"]
        assert commands == {f"fold{fold}": [*words, "--fold", str(fold), *others] for fold in (0, 1)}
        assert load_recipe(tmp_path / "runs" / "x" / "recipe.toml").optim.lr == 0.25

    def test_several_recipes_share_the_devices(self, train, commands, tmp_path, capsys):
        (tmp_path / "b.toml").write_text(write_recipe(msgspec.structs.replace(RECIPE, name="b")))
        bad = msgspec.structs.replace(RECIPE, name="bad", model=ModelConfig(backbone="no such network"))
        (tmp_path / "bad.toml").write_text(write_recipe(bad))
        assert train("--recipe", "bad.toml", "--recipe", "b.toml", "--devices", "cpu,cpu") == 3
        assert [(name, words[1]) for name, words in commands.items()] == [
            ("pair/fold0", "runs/pair"), ("b/fold0", "runs/b"),
        ]  # fmt: skip
        assert not (tmp_path / "runs" / "bad").exists()
        failures = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
        assert [line.split(" failed: ")[0] for line in failures] == ["bad, fold 0", "pair, fold 0", "b, fold 0"]


class TestRefused:
    """In one line, before anything starts and without a trace on disk."""

    @pytest.fixture
    def refused(self, train, tmp_path, capsys):
        def line_of(*arguments: str) -> str:
            assert train(*arguments) == 2
            assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/fold*"))
            (line,) = capsys.readouterr().err.splitlines()
            return line

        return line_of

    def test_a_device_that_is_not_there(self, refused):
        there = torch.cuda.device_count()
        assert f"--devices: names GPU {there}, torch" in refused("--devices", f"{there}", "-q")

    def test_what_is_no_device(self, refused):
        assert "--devices: is 'tpu', allowed are GPUs as 0,1" in refused("--devices", "tpu")

    def test_a_device_beside_devices(self, refused):
        assert "--device: was given with --devices - leave it out" in refused("--devices", "cpu", "--device", "cpu")

    def test_several_processes_for_one_fold(self, refused, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "--devices: was given to torchrun" in refused("--devices", "cpu,cpu")

    def test_a_recipe_that_cannot_be_trained(self, refused):
        assert "model.backbone" in refused(
            "--devices", "cpu,cpu", "--set", "model.family=cnn", "--set", "model.backbone=no such network", "-q"
        )

    def test_a_fold_that_is_not_there(self, refused):
        assert "--fold: is 2, the recipe has folds 0 to 1" in refused("--devices", "cpu,cpu", "--fold", "2", "-q")
