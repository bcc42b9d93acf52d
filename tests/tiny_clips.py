"""A tiny data set in the layout of BirdCLEF: clips of 1.5 s at 8 kHz, and the front end that suits them."""

import csv
from pathlib import Path

import numpy as np
from make_bundles import write_sound

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig

RATE = 8_000
# An eBird code, and three labels that a careless reader takes for numbers or mangles.
LABELS = ("comcuc", "0012", "1161364", "47158son16")
TINY_FRONTEND = FrontEndConfig(
    AudioConfig(RATE),
    WindowConfig(1.0),
    MelConfig(n_fft=256, hop_length=125, n_mels=16, f_min_hz=50.0, f_max_hz=4_000.0),
)


def call(label: str, seconds: float, seed: int) -> np.ndarray:
    """A tone in noise, another pitch for each label."""
    rng = np.random.default_rng((seed, LABELS.index(label)))
    hz = 500.0 * (1 + LABELS.index(label)) * rng.uniform(0.95, 1.05)
    clock = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hz * clock) + rng.normal(0, 0.05, len(clock))).astype(np.float32)


def write_clips(folder: Path, clips_per_label: int = 6) -> Path:
    """train.csv, taxonomy.csv and train_audio/ with 1.5 s clips; every clip has an author of its own."""
    rows = []
    for label in LABELS:
        (folder / "train_audio" / label).mkdir(parents=True)
        for index in range(clips_per_label):
            name = f"{label}/XC{index}.wav"
            write_sound(folder / "train_audio" / name, call(label, 1.5, index), RATE)
            other = LABELS[(LABELS.index(label) + 1) % len(LABELS)]
            rows.append([label, f"['{other}']" if index == 0 else "['']", name, f"author {label} {index}"])
    write_table(folder / "train.csv", ["primary_label", "secondary_labels", "filename", "author"], rows)
    write_table(folder / "taxonomy.csv", ["primary_label", "class_name"], [[label, "Aves"] for label in LABELS])
    return folder


def write_table(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path
