"""Several processes: do two train what one does, how much faster, and what do folds side by side bring?

On the CPU, two shares of the cores that are there. Mixed precision on a GPU stands in ``test_training_speed.py``.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import pytest

from birdinfer.synthetic.soundscapes import write_training_data
from birdinfer.system.cpu import available_cores
from birdinfer.training.recipe.data_config import DataConfig
from birdinfer.training.recipe.schema import AugmentConfig, LoopConfig, ModelConfig, OptimConfig, Recipe
from birdinfer.training.recipe.toml import write_recipe

N = 2
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={N}"]
LARGEST_DIFFERENCE = 1e-5
MINUTES_AT_MOST = 20
# Without chance per window: two processes draw other partners and masks than one.
RECIPE = Recipe(
    name="processes",
    data=DataConfig(n_folds=2),
    augment=AugmentConfig(gain_probability=0.0, mixup_probability=0.0, mask_probability=0.0),
    model=ModelConfig(backbone="mobilenetv3_small_050", pretrained=False, drop_rate=0.0),
    optim=OptimConfig(name="sgd", lr=1e-3),
    loop=LoopConfig(epochs=4, batch_size=16, val_windows=1),
)

pytestmark = pytest.mark.slow


class Trained:
    """One call of ``birdinfer train``, and what it took."""

    def __init__(
        self, folder: Path, name: str, start: list[str], options: list[str], threads: int, data: str = "data"
    ) -> None:
        """Run it, with so many threads a process."""
        words = ["-m", "birdinfer", "train", "--recipe", "processes.toml", "--data", data, "--name", name, *options]
        began = perf_counter()
        subprocess.run(
            [sys.executable, *start, *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""},
            check=True,
            capture_output=True,
            timeout=60 * MINUTES_AT_MOST,
        )
        self.seconds = perf_counter() - began
        with (folder / "runs" / name / "fold0" / "history.csv").open(newline="") as file:
            self.rows = list(csv.DictReader(file))

    @property
    def losses(self) -> np.ndarray:
        """Of each epoch in training and in validation."""
        return np.array([[float(row["train_loss"]), float(row["val_loss"])] for row in self.rows])

    @property
    def epoch_seconds(self) -> float:
        """Of the epochs after the first, which warms up."""
        return float(np.median([float(row["seconds"]) for row in self.rows[1:]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and synthetic clips; few of them, too, for rounding grows with every step."""
    folder = tmp_path_factory.mktemp("processes")
    write_training_data(folder / "data", clips_per_species=40, seed=1)
    write_training_data(folder / "few", clips_per_species=8, seed=1)
    (folder / "processes.toml").write_text(write_recipe(RECIPE))
    return folder


@pytest.fixture
def half() -> int:
    """Threads of one of two processes."""
    return max(1, available_cores() // N)


def test_two_processes_train_what_one_does(folder, half, table):
    options = ["--fold", "0", "--device", "cpu"]
    one = Trained(folder, "one-few", [], options, half, "few")
    both = Trained(folder, "both-few", TORCHRUN, options, half, "few")
    difference = float(np.abs(one.losses - both.losses).max())
    table.append(
        {
            "what": "two processes against one: largest difference of a loss, of any epoch",
            "measured": f"{difference:.1e}",
            "bound": f"<= {LARGEST_DIFFERENCE:.0e}",
            "detail": f"{RECIPE.model.backbone} with shared norms, {RECIPE.loop.epochs} epochs, train and validation",
        }
    )
    assert difference <= LARGEST_DIFFERENCE


def test_two_processes_are_as_fast_as(folder, half, table):
    options = ["--fold", "0", "--device", "cpu"]
    one = Trained(folder, "one", [], options, half)
    both = Trained(folder, "both", TORCHRUN, options, half)
    whole = Trained(folder, "whole", [], options, half * N)
    table.append(
        {
            "what": f"two processes against one, epochs a second (CPU, {available_cores()} cores)",
            "measured": f"{one.epoch_seconds / both.epoch_seconds:.2f} x of one with half the threads, "
            f"{whole.epoch_seconds / both.epoch_seconds:.2f} x of one with all",
            "bound": "",
            "detail": f"{half} threads a process; every norm waits for the other process; largest difference of a "
            f"loss {float(np.abs(one.losses - both.losses).max()):.1e}",
        }
    )
    assert len(one.rows) == len(both.rows) == len(whole.rows) == RECIPE.loop.epochs


def test_folds_side_by_side(folder, half, table):
    apart = Trained(folder, "apart", [], ["--fold", "all", "--device", "cpu"], half * N)
    beside = Trained(folder, "beside", [], ["--fold", "all", "--devices", ",".join(["cpu"] * N)], half)
    table.append(
        {
            "what": f"two folds side by side against one after the other (CPU, {available_cores()} cores)",
            "measured": f"{apart.seconds / beside.seconds:.2f} x",
            "bound": "",
            "detail": f"{apart.seconds:.0f} and {beside.seconds:.0f} s, the start of each process included",
        }
    )
    assert msgspec.json.decode((folder / "runs" / "beside" / "summary.json").read_bytes())["n_failed"] == 0
