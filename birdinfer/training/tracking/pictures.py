"""The pictures of one fold by itself, for trackers: its history.csv and classes.csv -> PNG files."""

import shutil
from pathlib import Path

from birdinfer.errors import BirdinferError
from birdinfer.training.fold_job import CLASSES, HISTORY


def draw_fold(fold_dir: Path, title: str, into: Path) -> list[Path]:
    """Draw how a fold went and which species it recognises.

    Args:
        fold_dir: ``runs/NAME/fold0``.
        title: what the pictures call it.
        into: an empty folder.

    Returns:
        What was drawn: history.png, and species.png where species could be scored; nothing without matplotlib.
    """
    # The report draws runs, and a run's picture shows all of its folds: this one becomes a run of one fold.
    alone = into / title
    (alone / fold_dir.name).mkdir(parents=True)
    for name in (HISTORY, CLASSES):
        if (fold_dir / name).is_file():
            shutil.copy(fold_dir / name, alone / fold_dir.name)
    try:
        from birdinfer.report.runs import draw_run

        return draw_run(alone)
    except (ModuleNotFoundError, BirdinferError):  # a picture is never worth a failure
        return []
