"""What tests of dry runs make: a packed submission whose notebook is a few lines, or birdinfer's own."""

import json
import shutil
from pathlib import Path

from birdinfer.inference.bundle import Bundle
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.notebook import NotebookSettings, write_notebook
from birdinfer.kaggle.pack import SAMPLE, write_dataset_metadata, write_kernel_metadata
from birdinfer.submission.formats import value_names

COMPETITION = competition("birdclef-2025")
SETTINGS = NotebookSettings(competition=COMPETITION, budget_minutes=85.0, engine="onnxruntime")

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
"""A notebook of someone's own: random, but valid in every run. What is wrong is planted before it writes."""


def notebook_of(code: str) -> str:
    """A notebook of one cell."""
    cell = {"cell_type": "code", "id": "only", "metadata": {}, "source": code, "execution_count": None, "outputs": []}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def write_sample(path: Path, labels: tuple[str, ...], year: int) -> Path:
    """A competition's sample_submission.csv that asks for these species."""
    cells = {2021: ["nocall"], 2022: ["False"]}.get(year, ["0.5"] * len(labels))
    row_ids = [f"soundscape_1_{label}_5" for label in labels] if year == 2022 else ["1_COL_5"]
    rows = [["row_id", *value_names(year, labels)], *([row_id, *cells] for row_id in row_ids)]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


def write_packed(folder: Path, bundle: Path, settings: NotebookSettings = SETTINGS) -> Path:
    """A submission as it is packed, without wheels: birdinfer is there already. Its sample asks for all its species."""
    shutil.copytree(bundle, folder / "dataset")
    write_sample(folder / SAMPLE, Bundle.load(bundle).labels[::-1], settings.competition.year)
    (folder / "kernel").mkdir()
    write_dataset_metadata(folder / "dataset", "someone", "a bundle")
    write_kernel_metadata(folder / "kernel", "someone", "a bundle", settings.competition)
    write_notebook(folder / "kernel" / "birdinfer.ipynb", settings)
    return folder


def plant(packed: Path, lines: str) -> Path:
    """The same with another notebook: :data:`CAREFUL`, but for these lines."""
    (packed / "kernel" / "birdinfer.ipynb").write_text(notebook_of(CAREFUL.replace("PLANT", lines)))
    return packed
