"""What CPU-sized recipes are worth on real sound, against a naive script with the same backbone and epochs.

ESC-10 on its official folds: a CNN, a sound event detector and a recurrent network, all by one command. Half an hour
and more on two cores; ``BIRDINFER_EPOCHS=10`` makes it shorter, and the table says so.
"""

import csv
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from birdinfer.cli.app import main
from birdinfer.evaluation.metrics import macro_roc_auc
from bundles import SHARED_DATA
from naive_training import out_of_fold, read_rows

EPOCHS = int(os.environ.get("BIRDINFER_EPOCHS", "30"))
RECIPES = ("esc10", "esc10_sed", "esc10_rnn")
BACKBONE = "test_resnet"
TRAIN = Path(__file__).parents[1] / "train"

# librosa reaches for modules that Python is about to drop.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def data_dir() -> Path:
    """ESC-10 in the layout of BirdCLEF."""
    if not (SHARED_DATA / "esc10").is_dir():
        pytest.skip("needs ESC-10 in the layout of BirdCLEF (../shared/data/esc10)")
    return SHARED_DATA / "esc10"


@pytest.fixture(autouse=True)
def one_thread():
    """Both sides compute alike, and threads of small networks wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Naive(NamedTuple):
    """What the naive script's out-of-fold probabilities are worth."""

    out_of_fold: float
    """Macro AUC of all clips as one."""
    folds: float
    """Mean macro AUC of the folds, each by itself."""
    seconds: float


@pytest.fixture(scope="module")
def naive(data_dir: Path) -> Naive:
    """The naive script, trained and scored."""
    rows = read_rows(data_dir, "esc10_fold")
    labels = sorted({row.label for row in rows})
    began = time.perf_counter()
    scores = out_of_fold(rows, labels, BACKBONE, EPOCHS)
    seconds = time.perf_counter() - began
    truth = np.array([[row.label == label for label in labels] for row in rows])
    folds = np.array([row.fold for row in rows])
    each = [macro_roc_auc(truth[folds == fold], scores[folds == fold]) for fold in np.unique(folds)]
    return Naive(macro_roc_auc(truth, scores), float(np.mean(each)), seconds)


def last_epochs(run_dir: Path) -> float:
    """The mean macro AUC of the folds' last epochs: nothing was chosen on the clips that it is measured on."""
    tables = [list(csv.DictReader(path.read_text().splitlines())) for path in sorted(run_dir.glob("fold*/history.csv"))]
    return float(np.mean([float(rows[-1]["val_macro_auc"]) for rows in tables]))


def test_out_of_fold_scores(data_dir: Path, naive: Naive, tmp_path: Path, table):
    asked = [word for name in RECIPES for word in ("--recipe", str(TRAIN / f"{name}.toml"))]
    asked += ["--data", str(data_dir), "--fold", "all", "--runs-dir", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main(["train", *asked, "--set", f"loop.epochs={EPOCHS}"])
    assert not left.value.code
    summaries = {name: json.loads((tmp_path / name / "summary.json").read_text()) for name in RECIPES}
    last = {name: last_epochs(tmp_path / name) for name in RECIPES}
    for name, summary in summaries.items():
        seconds = sum(fold["seconds"] for fold in summary["folds"])
        table.append(
            {
                "what": f"ESC-10, {name}, {EPOCHS} epochs from scratch, 4 official folds: macro AUC of the last epochs",
                "measured": f"{last[name]:.4f}",
                "bound": f"> {naive.folds:.4f}, the naive script's" if name != "esc10_rnn" else "",
                "detail": f"best epochs {summary['mean_macro_auc']:.4f} ± {summary['std_macro_auc']:.4f}, all clips as "
                f"one {summary['out_of_fold_macro_auc']:.4f} (naive {naive.out_of_fold:.4f}), "
                f"cmAP {summary['mean_padded_cmap']:.4f}, top-1 {summary['mean_top1']:.3f}; {seconds:.0f} s (naive "
                f"{naive.seconds:.0f} s)",
            }
        )
    # The recurrent network has another backbone, the naive script none such.
    for name in ("esc10", "esc10_sed"):
        assert last[name] > naive.folds
