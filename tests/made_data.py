"""Small data folders in the layout of BirdCLEF, of any rows: noise as sound, a second or so of each clip."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 8_000


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, format="WAV")
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(filename: str, **cells: object) -> dict[str, object]:
    """A row whose label is its folder and whose author is one of its own."""
    return {"primary_label": filename.partition("/")[0], "filename": filename, "author": f"by {filename}", **cells}


def write_data(
    folder: Path, rows: Sequence[Mapping[str, object]], *, taxonomy: Sequence[str] = (), seconds: float = 1.0
) -> Path:
    """Write train.csv, a sound for each file of it, each another one, and taxonomy.csv if there are labels for it."""
    write_table(folder / "train.csv", rows)
    for seed, name in enumerate(dict.fromkeys(str(each["filename"]) for each in rows)):
        write_sound(folder / "train_audio" / name, noise(seconds, seed))
    if taxonomy:
        species = [{"primary_label": label, "scientific_name": f"Genus {label}"} for label in taxonomy]
        write_table(folder / "taxonomy.csv", species)
    return folder
