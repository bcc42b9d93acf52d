"""A whole `birdinfer export` process: seconds for five folds, and memory, which must not grow with the folds."""

import csv
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch

from birdinfer.species import Species
from birdinfer.synthetic.soundscapes import write_training_data
from birdinfer.training.checkpoint import MODEL, EpochRow, Header, Progress, save_checkpoint
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig, Recipe
from bundles import FRONTENDS, LABELS

N_FOLDS = 5
RECIPE = Recipe(
    name="b0", frontend=FRONTENDS["efficientnet_b0"], model=ModelConfig(backbone="efficientnet_b0", drop_rate=0.0)
)
# The process says itself, at its end, what it took at most: what a parent learns of its children counts the moment
# between fork and exec, in which a child is as large as the parent.
TELLING = """
import atexit, re, sys
from pathlib import Path
from birdinfer.cli.app import main

pytestmark = pytest.mark.slow


def report():
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(f"peak {peak} kB", file=sys.stderr)

atexit.register(report)
main(sys.argv[1:])
"""


class Exported(NamedTuple):
    """One export."""

    seconds: float
    peak_mb: float


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of a few species, in the layout of BirdCLEF."""
    return write_training_data(tmp_path_factory.mktemp("export") / "data", 6, seed=1)


def write_run(run, n_folds, data):
    """Folds of seeded weights, as training leaves them."""
    with (data / "train.csv").open(newline="") as file:
        clips = [(row["filename"], row["primary_label"]) for row in csv.DictReader(file)]
    present = sorted({label for _, label in clips})
    labels = (*present, *LABELS[len(present) :])
    folds = [(name, label, index % N_FOLDS) for index, (name, label) in enumerate(clips)]
    write_csv(run / "folds.csv", ("filename", "primary_label", "group", "fold"),
              [(name, label, "", fold) for name, label, fold in folds])  # fmt: skip
    for fold in range(n_folds):
        write_fold(run / f"fold{fold}", fold, labels, [clip for *clip, own in folds if own == fold], data)
    return run


def write_fold(folder, fold, labels, clips, data):
    """best.safetensors and oof.csv."""
    torch.manual_seed(fold)
    network = build_model(RECIPE.model, len(labels), RECIPE.input_config, start=False)
    row = EpochRow(1, 0.1, 0.1, 0.8, 0.8, 0.8, 1e-3, 1.0, 0.0, None)
    progress = Progress(epoch=1, best_epoch=1, best_auc=0.8, history=[row], is_finished=True, is_complete=True)
    header = Header(RECIPE, tuple(Species(label) for label in labels), fold, progress, str(data), {})
    tensors = {MODEL + name: tensor for name, tensor in network.state_dict().items()}
    save_checkpoint(folder / "best.safetensors", header, tensors)
    rows = [(name, label, *(0.9 if label == other else 0.01 for other in labels)) for name, label in clips]
    write_csv(folder / "oof.csv", ("filename", "primary_label", *labels), rows)


def write_csv(path, header, rows):
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def export(run, out):
    """Seconds and peak memory of a process that exports a run."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", TELLING, "export", "--run", str(run), "--out", str(out)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return Exported(time.perf_counter() - begin, int(output.split()[-2]) / 1e3)


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_five_folds_against_one(data, table, tmp_path):
    one, five = (
        export(write_run(tmp_path / f"run{n_folds}", n_folds, data), tmp_path / f"bundle{n_folds}")
        for n_folds in (1, N_FOLDS)
    )
    manifest = msgspec.json.decode((tmp_path / f"bundle{N_FOLDS}" / "manifest.json").read_bytes())
    assert [member["fold"] for member in manifest["members"]] == list(range(N_FOLDS))
    table.append(
        {
            "what": "export of five efficientnet_b0 in fp32, seconds",
            "measured": f"{five.seconds:.1f}",
            "bound": "-",
            "detail": f"one takes {one.seconds:.1f} s",
        }
    )
    table.append(
        {
            "what": "peak memory of an export, five folds against one, efficientnet_b0",
            "measured": f"{five.peak_mb / one.peak_mb:.3f}",
            "bound": "<= 1.15",
            "detail": f"{one.peak_mb:.0f} and {five.peak_mb:.0f} MB",
        }
    )
    assert five.peak_mb / one.peak_mb <= 1.15
