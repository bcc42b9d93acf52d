"""Rounds of a noisy student, killed at random moments and resumed, against rounds that were left alone."""

import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from birdinfer.training.checkpoint import load_checkpoint

KILLS = int(os.environ.get("BIRDINFER_ROUND_KILLS", "10"))
SEED, RATE, LABELS = 20_260_101, 8_000, ("aaa", "bbb", "ccc")
RECIPE = """
name = "tiny"
[data]
n_folds = 3
cache = true
[frontend.audio]
sample_rate = 8000
[frontend.window]
window_seconds = 1.0
[frontend.mel]
n_fft = 256
hop_length = 125
n_mels = 16
f_max_hz = 4000.0
[model]
backbone = "test_efficientnet"
[loop]
epochs = 4
batch_size = 4
val_windows = 1
checkpoint_every_steps = 1
"""

pytestmark = pytest.mark.slow


def call(label, seconds, rng):
    """A tone in noise, another pitch for each label."""
    clock = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 600.0 * (1 + LABELS.index(label)) * clock)
    return (tone + rng.normal(0, 0.1, len(clock))).astype(np.float32)


def write_all(folder):
    """Clips, soundscapes without labels, and a recipe."""
    rng, rows = np.random.default_rng(SEED), ["filename,primary_label,author"]
    for label in LABELS:
        (folder / "data" / "train_audio" / label).mkdir(parents=True)
        for index in range(6):
            name = f"{label}/{index}.wav"
            soundfile.write(folder / "data" / "train_audio" / name, call(label, 1.5, rng), RATE)
            rows.append(f"{name},{label},author {label} {index}")
    (folder / "data" / "train.csv").write_text("\n".join([*rows, ""]))
    (folder / "sounds").mkdir()
    for index in range(6):
        sound = np.concatenate([call(LABELS[(index + at) % 3], 1.0, rng) for at in range(5)])
        soundfile.write(folder / "sounds" / f"s{index}.wav", sound, RATE)
    (folder / "tiny.toml").write_text(RECIPE)


def command(folder, out, cache):
    program = [sys.executable, "-m", "birdinfer", "rounds", "tiny.toml", "--soundscapes", "sounds", "--data", "data"]
    options = ["--rounds", "1", "--fold", "0", "--device", "cpu", "--resamples", "100", "--quiet", "--resume"]
    return [*program, *options, "--out", str(folder / out), "--cache-dir", str(folder / cache)]


def run(folder, *options, most_seconds=None):
    """Run to the end, or kill after some seconds; whether it came to its end."""
    with subprocess.Popen(command(folder, *options), cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            assert process.wait(most_seconds) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    return True


def facts(out):
    """Weights and scores of both rounds, without times."""
    tensors = [load_checkpoint(out / f"round{n}" / "run" / "fold0" / "best.safetensors").tensors for n in (0, 1)]
    rows = [line.split(",")[:7] for line in (out / "rounds.csv").read_text().splitlines()]
    pseudo = (out / "round1" / "pseudo" / "scores.npy").read_bytes()
    return tensors, rows, pseudo


@pytest.mark.timeout(7200)
def test_rounds_end_with_the_same_bits_whenever_they_are_killed(tmp_path, table):
    write_all(tmp_path)
    began = time.perf_counter()
    run(tmp_path, "whole", "cache0")
    seconds = time.perf_counter() - began
    rng, n_kills = random.Random(SEED), 0
    while n_kills < KILLS:
        if run(tmp_path, "killed", "cache1", most_seconds=rng.uniform(0.2, 0.6) * seconds):
            shutil.rmtree(tmp_path / "killed")
            shutil.rmtree(tmp_path / "cache1")
        else:
            n_kills += 1
    run(tmp_path, "killed", "cache1")
    (ours, rows, pseudo), (others, their_rows, theirs) = facts(tmp_path / "killed"), facts(tmp_path / "whole")
    n_tensors = sum(len(each) for each in others)
    n_equal = sum(
        int((mine[name] == tensor).all()) for mine, other in zip(ours, others, strict=True)
        for name, tensor in other.items()
    )  # fmt: skip
    table.append(
        {
            "what": f"rounds killed at {n_kills} random moments and resumed: tensors with the same bits",
            "measured": f"{n_equal} of {n_tensors}", "bound": "all",
            "detail": f"an undisturbed run takes {seconds:.0f} s; pseudo-labels and scores equal: "
            f"{pseudo == theirs and rows == their_rows}",
        }
    )  # fmt: skip
    assert n_equal == n_tensors
    assert (rows, pseudo) == (their_rows, theirs)
