"""Draw every picture of birdinfer: those of prediction from the demo's sound, the others from made-up numbers."""

import csv
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.cli.app import main
from birdinfer.inference.bundle import demo_bundle_path
from birdinfer.plots.rounds import draw_rounds
from birdinfer.plots.runs import draw_runs_overview
from birdinfer.plots.search import draw_search_as
from birdinfer.plots.training import draw_runs
from birdinfer.runs.overview import FoldScore, Note, RunRecord
from birdinfer.runs.training_run import CURVES
from birdinfer.synthetic.soundscapes import write_soundscapes

N_FILES, SECONDS, SEED = 10, 60, 5
SPECIES = ("Eurasian Blackbird", "Common Chiffchaff", "European Robin", "Winter Wren", "Song Thrush", "Common Frog",
           "Great Tit", "Tawny Owl", "Field Cricket", "Marsh Frog", "Dunnock", "Goldcrest")  # fmt: skip
CLASSES = {"Common Frog": "Amphibia", "Marsh Frog": "Amphibia", "Field Cricket": "Insecta"}


class Picture(NamedTuple):
    """One picture of the gallery."""

    name: str
    title: str
    command: str
    text: str


PICTURES = (
    Picture("soundscape", "A soundscape", "birdinfer predict soundscapes/ -o submission.csv --plots plots/",
            "The mel spectrogram above, the probability of each species below, on one clock. Ten minutes at most."),
    Picture("activity_by_hour", "Activity by hour", "birdinfer detect recordings/ -o results/",
            "Minutes with a species in an hour of effort, by the hour of the recorder's clock; above it the effort. "
            "Grey hours were not recorded."),
    Picture("survey", "The survey", "birdinfer detect recordings/ -o results/",
            "How many species were detected at each site on each day; grey days were not surveyed."),
    Picture("accumulation", "Accumulation of species", "birdinfer detect recordings/ -o results/",
            "How many species are found after 1, 2 ... survey days, over random orders of the days."),
    Picture("reliability", "Reliability", "birdinfer calibrate reviews.csv --bundle exports/b --plot reliability.png",
            "The share of right detections over the confidence, a panel for each species: reviews, the curve, "
            "and the threshold at which the wanted precision is reached."),
    Picture("ablation", "Steps of post-processing", "birdinfer score scores.csv truth.csv --ablate --plot ablation.png",
            "What each step gains in macro ROC-AUC, with its interval over files: thick 95 %, thin corrected for the "
            "number of trials. An interval that holds 0 shows nothing."),
    Picture("history", "A training", "birdinfer plot runs/efficientnet_b0",
            "Loss, scores and learning rate over epochs, each fold thin, their mean thick. (Made-up numbers.)"),
    Picture("species", "Species of a training", "birdinfer plot runs/efficientnet_b0",
            "ROC-AUC of each species, from weak to strong and against its clips. (Made-up numbers.)"),
    Picture("runs", "All runs", "birdinfer runs runs/ --plot runs.png",
            "Macro ROC-AUC of each run's folds and their mean, and against the leaderboard where its scores are noted. "
            "(Made-up numbers.)"),
    Picture("search_history", "A search", "birdinfer plot runs/b0-tune",
            "The score of each trial, and the curves by which trials were pruned. (Made-up numbers.)"),
    Picture("importance", "What mattered in a search", "birdinfer plot runs/b0-tune",
            "The importance of each key, and the score over its values. (Made-up numbers.)"),
    Picture("rounds", "Rounds of a noisy student", "birdinfer rounds strong --soundscapes soundscapes/ --data DATA",
            "Macro ROC-AUC of each round, its gain over the best before, and which is kept. (Made-up numbers.)"),
)  # fmt: skip


def draw_pictures(folder: Path) -> None:
    """Draw all pictures into a folder, under the names that the page has."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _draw_predictions(Path(scratch), folder)
        _draw_trainings(Path(scratch), folder)
        _draw_search(Path(scratch), folder)
        _draw_rounds(Path(scratch), folder)
        _draw_runs(folder)


def _draw_predictions(scratch: Path, folder: Path) -> None:
    truth = write_soundscapes(scratch / "demo", N_FILES, SECONDS, SEED)
    scores, survey = scratch / "scores.csv", scratch / "survey"
    survey.mkdir()
    for index, path in enumerate(sorted((scratch / "demo").glob("*.ogg"))):
        day, hour, site = 1 + index // 3, 4 + index % 3, "AB"[index % 2]
        shutil.copy(path, survey / f"site{site}_202605{day:02d}_{hour:02d}0000.ogg")
    shutil.copytree(demo_bundle_path(), scratch / "bundle")
    _run("predict", scratch / "demo", "--bundle", "demo", "-o", scores, "--plots", scratch / "plots", "--quiet")
    _run("detect", survey, "--bundle", "demo", "-o", scratch / "results", "--no-page", "--quiet")
    _run("score", scores, truth, "--ablate", "--plot", folder / "ablation.png")
    calibrate = ("calibrate", scores, "--truth", truth, "--bundle", scratch / "bundle", "--dry-run")
    _run(*calibrate, "--plot", folder / "reliability.png")
    shutil.copy(min((scratch / "plots").glob("*.png")), folder / "soundscape.png")
    for path in (scratch / "results" / "summary").glob("*.png"):
        shutil.copy(path, folder)


def _run(*arguments: object) -> None:
    """Run a command line in this process; what it prints is shown only if it fails."""
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            main([str(each) for each in arguments])
        except SystemExit as left:
            code = left.code
    if code:
        sys.exit(f"birdinfer {arguments[0]} ends with {code}: {printed.getvalue()}")


def _draw_trainings(scratch: Path, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for fold in range(4):
        epochs = np.arange(1, 31)
        curve = 1 - np.exp(-epochs / (6 + fold))
        values = {name: np.full(len(epochs), np.nan) for name in CURVES}
        values |= {
            "train_loss": 0.6 - 0.52 * curve + rng.normal(0, 0.008, 30),
            "val_loss": 0.62 - 0.45 * curve + rng.normal(0, 0.015, 30),
            "val_macro_auc": 0.5 + (0.44 - 0.01 * fold) * curve + rng.normal(0, 0.006, 30),
            "val_padded_cmap": 0.2 + (0.5 - 0.02 * fold) * curve + rng.normal(0, 0.01, 30),
            "lr": 1e-3 * (1 + np.cos(np.pi * epochs / 30)) / 2,
        }
        rows = [[epoch, *(f"{values[name][index]:.6f}" for name in values)] for index, epoch in enumerate(epochs)]
        _write(scratch / "run" / f"fold{fold}" / "history.csv", [["epoch", *values], *rows])
        header = ["label", "scientific_name", "common_name", "class_name", "n_clips", "roc_auc", "average_precision"]
        species = [
            [name, "", name, CLASSES.get(name, "Aves"), 5 + 9 * index, f"{0.97 - 0.3 / (index + 1.5):.4f}", "0.5"]
            for index, name in enumerate(SPECIES)
        ]
        _write(scratch / "run" / f"fold{fold}" / "classes.csv", [header, *species])
    draw_runs([scratch / "run"], folder / "history.png", folder / "species.png")


def _draw_runs(folder: Path) -> None:
    rng = np.random.default_rng(2)
    records = []
    for number, name in enumerate(("b0", "b0-mixup", "nfnet", "sed", "sed-pseudo")):
        own = 0.86 + 0.015 * number + rng.normal(0, 0.006, 4)
        folds = tuple(FoldScore(fold, True, 30, 28, own[fold], 0.8, 0.7, 900.0) for fold in range(4))
        notes = (Note("2026-05-01 12:00:00", None, 0.83 + 0.012 * number + rng.normal(0, 0.004), math.nan, ""),)
        records.append(
            RunRecord(name=name, folder=folder, folds=folds, out_of_fold=0.9, trained="", values={}, notes=notes)
        )
    draw_runs_overview(records, folder / "runs.png")


def _draw_search(scratch: Path, folder: Path) -> None:
    rng = np.random.default_rng(1)
    trials, curves = [], []
    for trial in range(24):
        rate, mixup = 10 ** rng.uniform(-4, -2), rng.uniform(0, 1)
        score = 0.93 - 0.05 * (math.log10(rate) + 3) ** 2 - 0.03 * (mixup - 0.6) ** 2 + rng.normal(0, 0.004)
        last = 12 if trial < 5 or score > 0.9 else 4
        state = "complete" if last == 12 else "pruned"
        steps = [(step, score - 0.25 * math.exp(-step / 3)) for step in range(1, last + 1)]
        curves += [[trial, step, f"{value:.4f}"] for step, value in steps]
        of_trial = [trial, state, f"{steps[-1][1]:.4f}", 60, "host:1", "2026-05-01 00:00:00"]
        trials.append([*of_trial, f"{rate:.6f}", f"{mixup:.3f}"])
    study = scratch / "b0-tune"
    head = ["trial", "state", "score", "seconds", "worker", "started", "optim.lr", "augment.mixup_probability"]
    _write(study / "trials.csv", [head, *trials])
    _write(study / "curves.csv", [["trial", "step", "score"], *curves])
    _write(study / "importance.csv", [["key", "importance"], ["optim.lr", 0.83], ["augment.mixup_probability", 0.17]])
    draw_search_as(study, folder / "search_history.png", folder / "importance.png")


def _draw_rounds(scratch: Path, folder: Path) -> None:
    head = ["round", "recipe", "macro_auc", "gain", "low", "high", "is_sure", "pseudo_windows", "seconds", "best"]
    rows = [
        [0, "b0", 0.7312, "", "", "", "yes", 0, 812, ""],
        [1, "v2s", 0.7633, "+0.0321", "+0.0110", "+0.0522", "yes", 2304, 1011, "*"],
        [2, "b0", 0.7590, "-0.0043", "-0.0140", "+0.0090", "no", 2304, 1020, ""],
    ]
    _write(scratch / "rounds.csv", [head, *rows])
    draw_rounds(scratch / "rounds.csv", folder / "rounds.png")


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    draw_pictures(Path(sys.argv[1]))
