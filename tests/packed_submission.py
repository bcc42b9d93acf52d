"""What tests of dry runs make: a packed submission whose notebook is a few lines, or birdinfer's own."""

import json
import shutil
from pathlib import Path

from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.metadata import write_dataset_metadata, write_kernel_metadata
from birdinfer.kaggle.notebook import NotebookSettings, write_notebook

COMPETITION = competition("birdclef-2025")
SETTINGS = NotebookSettings(COMPETITION, 85.0, "onnxruntime")

CAREFUL = """\
import csv, os, random
from pathlib import Path

root = Path(os.environ["BIRDINFER_KAGGLE_ROOT"])
(sample,) = root.rglob("sample_submission.csv")
with sample.open(newline="") as file:
    header, *rows = csv.reader(file)
rows = [[row[0], *(f"{random.random():.6f}" for _ in row[1:])] for row in rows]
PLANT
with (root / "working" / "submission.csv").open("w", newline="") as file:
    csv.writer(file).writerows([header, *rows])
"""
"""A notebook of somebody's own: random, but valid in every run. What is wrong is planted before it writes."""


def notebook_of(code: str) -> str:
    """A notebook of one cell."""
    cell = {"cell_type": "code", "id": "only", "metadata": {}, "source": code, "execution_count": None, "outputs": []}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def write_packed(folder: Path, bundle: Path, settings: NotebookSettings = SETTINGS) -> Path:
    """A submission as it is packed, without wheels: birdinfer is there already."""
    shutil.copytree(bundle, folder / "dataset")
    (folder / "kernel").mkdir()
    write_dataset_metadata(folder / "dataset", "somebody", "a bundle")
    write_kernel_metadata(folder / "kernel", "somebody", "a bundle", settings.competition)
    write_notebook(folder / "kernel" / "birdinfer.ipynb", settings)
    return folder


def plant(packed: Path, lines: str) -> Path:
    """The same with another notebook: :data:`CAREFUL`, but for these lines."""
    (packed / "kernel" / "birdinfer.ipynb").write_text(notebook_of(CAREFUL.replace("PLANT", lines)))
    return packed
