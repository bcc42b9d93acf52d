"""A trained fold's folder without its weights: tables of a run over tiny clips, and what its checkpoint says."""

import csv
import types
from pathlib import Path

from tiny_clips import LABELS, TINY_FRONTEND, write_table

from birdinfer.species import Species
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, Recipe

FOLD = 1


def fold_checkpoint(data_dir, *, all_data=False, max_seconds=0.0, val_windows=3):
    """What is asked of a checkpoint here."""
    return types.SimpleNamespace(
        recipe=Recipe(
            data=DataConfig(all_data=all_data, max_seconds=max_seconds),
            frontend=TINY_FRONTEND,
            loop=LoopConfig(val_windows=val_windows),
        ),
        species=tuple(Species(label) for label in LABELS),
        fold=FOLD,
        data_dir=str(data_dir),
    )


def write_fold(run: Path, data_dir: Path, fold_of=lambda index: index % 3) -> Path:
    """``folds.csv`` and ``fold1/oof.csv`` of all clips of train.csv.

    Args:
        run: its folder.
        data_dir: what ``write_clips`` has written.
        fold_of: of a clip, by its index within its label.
    """
    with (data_dir / "train.csv").open(newline="") as file:
        clips = [(row["filename"], row["primary_label"]) for row in csv.DictReader(file)]
    folds = [fold_of(int(Path(name).stem.removeprefix("XC"))) for name, _ in clips]
    (run / f"fold{FOLD}").mkdir(parents=True)
    rows = [[name, label, "", fold] for (name, label), fold in zip(clips, folds, strict=True)]
    write_table(run / "folds.csv", ["filename", "primary_label", "group", "fold"], rows)
    held_out = [[name, label, *[0.1] * len(LABELS)] for (name, label, _, fold) in rows if fold == FOLD]
    write_table(run / f"fold{FOLD}" / "oof.csv", ["filename", "primary_label", *LABELS], held_out)
    return run / f"fold{FOLD}"
