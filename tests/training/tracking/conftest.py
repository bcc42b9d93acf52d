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

from birdinfer.training.plan import Run
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.recipe.learning import LoopConfig
from birdinfer.training.recipe.tracking import TrackingConfig
from birdinfer.training.run import train

ALL = ("tensorboard", "wandb", "mlflow", "neptune")
EPOCHS = 3

KILLED = """
import os, signal, sys
from pathlib import Path
from birdinfer.training.recipe.file import load_recipe
from birdinfer.training.report import Silent
from birdinfer.training.plan import Run
from birdinfer.training.run import train
from birdinfer.training.tracking.reporter import TrackedReporter

real = TrackedReporter.epoch

def epoch(self, row, is_best):
    if row.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, row, is_best)

TrackedReporter.epoch = epoch
recipe, data, run_dir = map(Path, sys.argv[1:])
train(Run(load_recipe(recipe), data, run_dir, (0,), "cpu"), Silent())
"""


class Tracked(NamedTuple):
    """A run that was killed when it had validated epoch 2 and told epoch 1, and resumed."""

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
    """Three epochs, recorded by nobody."""
    return msgspec.structs.replace(plain_recipe, loop=LoopConfig(epochs=EPOCHS, batch_size=8, val_windows=1))


@pytest.fixture(scope="package")
def tracked_run(short_recipe, clips_dir, tmp_path_factory) -> Tracked:
    """Recorded by all four."""
    folder = tmp_path_factory.mktemp("tracked")
    recipe = msgspec.structs.replace(short_recipe, tracking=TrackingConfig(trackers=ALL))
    (folder / "recipe.toml").write_text(write_recipe(recipe))
    run_dir = folder / "runs" / "tiny"
    words = [sys.executable, "-c", KILLED, folder / "recipe.toml", clips_dir, run_dir]
    killed = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    notes, reporter = (run_dir / "fold0" / "tracking.json").read_bytes(), Recorder()
    train(Run(recipe, clips_dir, run_dir, (0,), "cpu", resume=True), reporter)
    return Tracked(run_dir, notes, reporter.messages, killed.stdout + killed.stderr, recipe)
