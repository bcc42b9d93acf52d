"""One fold that four trackers recorded: killed by SIGKILL between an epoch and its record, and resumed."""

import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from one_fold import Recorder

from birdinfer.training.recipe.schema import LoopConfig, Recipe, TrackingConfig
from birdinfer.training.recipe.toml import write_recipe
from birdinfer.training.run import Run, train_run

ALL = ("tensorboard", "wandb", "mlflow", "neptune")
EPOCHS = 3

KILLED = """
import os, signal, sys
from pathlib import Path
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.run import Run, train_run
from birdinfer.training.tracking.reporter import TrackingCallback

real = TrackingCallback.on_epoch_end

def on_epoch_end(self, row, is_best):
    if row.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, row, is_best)

TrackingCallback.on_epoch_end = on_epoch_end
recipe, data, run_dir = map(Path, sys.argv[1:])
train_run(Run(recipe=load_recipe(recipe), data_dir=data, run_dir=run_dir, folds=(0,), device="cpu"))
"""


class Tracked(NamedTuple):
    """A run that was killed when it had validated epoch 2 and logged epoch 1, and resumed."""

    run_dir: Path
    notes_when_killed: bytes
    messages: list[str]
    printed: str
    recipe: Recipe

    @property
    def fold_dir(self) -> Path:
        return self.run_dir / "fold0"

    @property
    def tracking(self) -> Path:
        return self.run_dir / "tracking"

    def history(self, column: str) -> list[tuple[int, float]]:
        """(epoch, value) as history.csv has them."""
        with (self.fold_dir / "history.csv").open(newline="") as file:
            return [(int(row["epoch"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


@pytest.fixture(scope="package")
def short_recipe(plain_recipe) -> Recipe:
    """Three epochs, without trackers."""
    return msgspec.structs.replace(plain_recipe, loop=LoopConfig(epochs=EPOCHS, batch_size=8, val_windows=1))


@pytest.fixture(scope="package")
def tracked_run(short_recipe, clips_dir, tmp_path_factory) -> Tracked:
    """Recorded by all four."""
    folder = tmp_path_factory.mktemp("tracked")
    recipe = msgspec.structs.replace(short_recipe, tracking=TrackingConfig(trackers=ALL, histograms=True))
    (folder / "recipe.toml").write_text(write_recipe(recipe))
    run_dir = folder / "runs" / "tiny"
    words = [sys.executable, "-c", KILLED, folder / "recipe.toml", clips_dir, run_dir]
    killed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    notes, reporter = (run_dir / "fold0" / "tracking.json").read_bytes(), Recorder()
    train_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=run_dir, folds=(0,), device="cpu", resume=True), reporter)
    return Tracked(run_dir, notes, reporter.messages, killed.stdout + killed.stderr, recipe)
