"""``birdinfer tune`` as it is typed; the training itself is tested in tests/training/tuning."""

import contextlib
import csv
import io
import os
import signal
import threading
import time

import pytest
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.cli import tune as command
from birdinfer.cli.app import main
from birdinfer.cli.tune import TuningProgress, ended_line, value_text
from birdinfer.errors import MissingExtraError
from birdinfer.runs.study import TrialRecord
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, OptimConfig, Recipe
from birdinfer.training.recipe.toml import load_recipe, write_recipe

SPACE = "optim.lr = {low = 1e-4, high = 1e-2, log = true}\nmodel.drop_rate = [0.1, 0.3]\nloop.epochs = [2, 3]\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with clips, a recipe and a space: what a user has."""
    folder = tmp_path_factory.mktemp("place")
    write_clips(folder / "data")
    recipe = Recipe(
        name="tiny",
        data=DataConfig(n_folds=3),
        frontend=TINY_FRONTEND,
        model=ModelConfig(backbone="test_efficientnet", drop_rate=0.1),
        optim=OptimConfig(lr=3e-3, warmup_epochs=0),
        loop=LoopConfig(epochs=3, batch_size=4, val_windows=1, checkpoint_every_steps=1),
    )
    (folder / "tiny.toml").write_text(write_recipe(recipe))
    (folder / "space.toml").write_text(SPACE)
    return folder


@pytest.fixture
def tune(place, birdinfer, tmp_path):
    """``tune("--trials", 2)`` -> (exit code, standard output, standard error), in runs of its own."""

    def run(*arguments):
        paths = ("--recipe", place / "tiny.toml", "--space", place / "space.toml", "--data", place / "data")
        return birdinfer("tune", *paths, "--runs-dir", tmp_path / "runs", "--device", "cpu", *arguments)

    return run


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(place, tmp_path_factory):
    """A study by one worker with --debug, and what it printed. Read only."""
    runs, out, err = tmp_path_factory.mktemp("runs"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([
            "tune", "--recipe", str(place / "tiny.toml"), "--space", str(place / "space.toml"), "--debug",
            "--data", str(place / "data"), "--runs-dir", str(runs), "--device", "cpu", "--storage", "sqlite",
        ])  # fmt: skip
    assert not left.value.code
    return runs / "tiny-debug-tune", out.getvalue(), err.getvalue()


class TestOneWorker:
    def test_debug_is_three_trials_of_two_epochs(self, searched):
        study_dir, _, _ = searched
        assert len(rows(study_dir / "trials.csv")) == 3
        assert load_recipe(study_dir / "recipe.toml").loop.epochs == 2
        assert "loop.epochs" not in (study_dir / "space.toml").read_text()

    def test_a_study_has_all_its_files(self, searched):
        assert {"study.db", "space.toml", "recipe.toml", "trials", "trials.csv", "curves.csv", "best.toml"} <= {
            path.name for path in searched[0].iterdir()
        }

    def test_each_trial_is_a_line_and_the_end_says_what_to_run(self, searched):
        study_dir, out, err = searched
        assert "trial 0 (the recipe itself): optim.lr=0.003 model.drop_rate=0.1" in err
        assert "; 3 of 3" in err
        first, second = out.splitlines()[:2]
        assert first.startswith(f"{study_dir}: 3 of 3 trials finished")
        assert second.startswith("best score 0.")
        assert out.splitlines()[-1].startswith(f"next: birdinfer train --recipe {study_dir / 'best.toml'} --data ")
        assert "Experimental" not in err
        assert "optuna" not in err.lower()


class TestSeveralWorkers:
    @pytest.mark.slow
    def test_a_killed_workers_trial_is_resumed_by_another_under_its_number(self, tune, tmp_path, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        study_dir = tmp_path / "runs" / "tiny-tune"
        killed: list[int] = []
        over = threading.Event()

        def kill():
            # Only a worker that has saved a step of a trial that is not over.
            while not killed and not over.is_set():
                time.sleep(0.02)
                for saved in study_dir.glob("trials/*/fold0/last.safetensors"):
                    lease = study_dir / "trials" / f"{saved.parents[1].name}.lease"
                    (pid,) = [line[4:] for line in lease.read_text().splitlines() if line.startswith("pid=")]
                    os.kill(int(pid), signal.SIGKILL)
                    killed.append(int(saved.parents[1].name))
                    break

        killer = threading.Thread(target=kill)
        killer.start()
        code, out, err = tune("--workers", 2, "--trials", 3, "--pruner", "none")
        over.set()
        killer.join()
        assert code == 0, err
        table = rows(study_dir / "trials.csv")
        assert [row["state"] for row in table] == ["complete"] * 3
        assert f"trial {killed[0]}" in err
        assert "3 of 3 trials finished (3 complete)" in out
        assert "ended with SIGKILL" in err
        assert len((study_dir / "logs" / "worker0.log").read_text().splitlines()) > 2
        best = max(float(row["score"]) for row in table if row["score"])
        default = next(row for row in table if row["optim.lr"] == "0.003" and row["score"])
        assert best >= float(default["score"])


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--set", "optim.lrr=1"), "did you mean lr?"),
            (("--sampler", "grid"), "--sampler: is 'grid', allowed are tpe, random"),
            (("--pruner", "asha"), "--pruner: is 'asha'"),
            (("--storage", "postgres"), "--storage: is 'postgres', allowed are journal, sqlite"),
            (("--trials", 0), "--trials: is 0"),
            (("--fold", 7), "--fold: is 7, the recipe has folds 0 to 2"),
            (("--fold", "first"), "--fold: is 'first'"),
            (("--study", "a/b"), "--study: 'a/b' is no name for a folder"),
            (("--workers", 0), "--workers: is 0"),
            (("--devices", "tpu"), "--devices: is 'tpu'"),
            (("--then-train", "all"), "--then-train: is of jobs of a cluster"),
            (("--space", "nowhere.toml"), "nowhere.toml: no such space"),
            (("--data", "nowhere"), "nowhere: no such folder"),
        ],
    )
    def test_each_is_one_line(self, tune, tmp_path, arguments, message):
        code, out, err = tune(*arguments)
        assert code == 2
        assert out == ""
        assert message in err
        assert err.splitlines()[-1].startswith("birdinfer: ")
        assert not list(tmp_path.glob("runs/*/trials"))

    def test_without_optuna_the_extra_is_named(self, monkeypatch):
        monkeypatch.setattr("birdinfer.cli.options.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r'optuna: is not installed - pip install "birdinfer\[tune\]"'):
            command.tune()

    def test_torchrun_is_refused(self, tune, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        code, _, err = tune()
        assert code == 2
        assert "torchrun: starts several processes of one trial - use --devices or --workers" in err


def record(**changes) -> TrialRecord:
    plain = {"number": 7, "state": "complete", "score": 0.75, "seconds": 61.2, "curve": {1: 0.5, 2: 0.75}}
    return TrialRecord(**(plain | changes))


class TestLines:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({}, "trial 7: score 0.7500, best so far 0.8000 of trial 3, 61 s; 2 of 9"),
            ({"score": 0.9}, "trial 7: score 0.9000, the best so far, 61 s; 2 of 9"),
            (
                {"state": "pruned", "score": None},
                "trial 7: given up at epoch 2 with 0.7500, best so far 0.8000 of trial 3, 61 s; 2 of 9",
            ),
            ({"state": "failed", "score": None, "problem": "no memory"}, "trial 7: failed, no memory"),
        ],
    )
    def test_what_became_of_a_trial(self, changes, line):
        mine = record(**changes)
        assert ended_line(mine, [record(number=3, score=0.8), mine], 9) == line

    def test_values_are_short(self):
        assert [value_text(value) for value in (0.00123456, 16, "adamw", True, [0.9, 1.1])] == [
            "0.001235", "16", "adamw", "true", "[0.9, 1.1]",
        ]  # fmt: skip

    def test_the_same_message_is_printed_once_and_quiet_prints_none(self, capsys):
        for quiet in (False, True):
            with TuningProgress(3, quiet) as progress:
                progress.on_message("reading data")
                progress.on_message("reading data")
        assert capsys.readouterr().err == "reading data\n"
