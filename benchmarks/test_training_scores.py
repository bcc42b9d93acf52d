"""What CPU-sized recipes are worth on real sound, against a naive script with the same backbone and epochs.

ESC-10 on its official folds: a CNN, a sound event detector and a recurrent network, all by one command. Half an hour
and more on two cores; ``BIRDINFER_EPOCHS=10`` makes it shorter, and the table says so.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from birdinfer.cli.app import main
from birdinfer.metrics import macro_roc_auc
from bundles import SHARED_DATA
from naive_training import out_of_fold, read_rows

EPOCHS = int(os.environ.get("BIRDINFER_EPOCHS", "30"))
RECIPES = ("esc10", "esc10_sed", "esc10_rnn")
BACKBONE = "test_resnet"
TRAIN = Path(__file__).parents[1] / "train"

# librosa reaches for modules that Python is about to drop.
pytestmark = [pytest.mark.timeout(4 * 3600), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


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


@pytest.fixture(scope="module")
def naive(data_dir: Path) -> tuple[float, float]:
    """Macro AUC of all out-of-fold clips, and seconds, of the naive script."""
    rows = read_rows(data_dir, "esc10_fold")
    labels = sorted({row.label for row in rows})
    began = time.perf_counter()
    scores = out_of_fold(rows, labels, BACKBONE, EPOCHS)
    truth = np.array([[row.label == label for label in labels] for row in rows])
    return macro_roc_auc(truth, scores), time.perf_counter() - began


def test_out_of_fold_scores(data_dir: Path, naive: tuple[float, float], tmp_path: Path, table):
    asked = [word for name in RECIPES for word in ("--recipe", str(TRAIN / f"{name}.toml"))]
    asked += ["--data", str(data_dir), "--fold", "all", "--runs-dir", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main(["train", *asked, "--set", f"loop.epochs={EPOCHS}"])
    assert not left.value.code
    summaries = {name: json.loads((tmp_path / name / "summary.json").read_text()) for name in RECIPES}
    for name, summary in summaries.items():
        seconds = sum(fold["seconds"] for fold in summary["folds"])
        table.append(
            {
                "what": f"ESC-10, {name}, {EPOCHS} epochs from scratch, 4 official folds: out-of-fold macro AUC",
                "measured": f"{summary['out_of_fold_macro_auc']:.4f}",
                "bound": f"> {naive[0]:.4f}, the naive script" if name != "esc10_rnn" else "",
                "detail": f"folds {summary['mean_macro_auc']:.4f} ± {summary['std_macro_auc']:.4f}, "
                f"cmAP {summary['mean_padded_cmap']:.4f}, top-1 {summary['mean_top1']:.3f}, {seconds:.0f} s; "
                f"naive {naive[1]:.0f} s",
            }
        )
    # The recurrent network has another backbone, the naive script none such.
    for name in ("esc10", "esc10_sed"):
        assert summaries[name]["out_of_fold_macro_auc"] > naive[0]
