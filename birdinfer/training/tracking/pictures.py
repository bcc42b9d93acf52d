"""The pictures of one fold by itself, for trackers: its history.csv and classes.csv -> PNG files."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from birdinfer.training.fold_job import CLASSES, HISTORY


@contextlib.contextmanager
def pictures_of(fold_dir: Path, title: str) -> Iterator[list[Path]]:
    """Draw how a fold went and which species it recognises; the pictures are there while it is entered.

    Args:
        fold_dir: ``runs/NAME/fold0``.
        title: what the pictures call it.

    Yields:
        What was drawn: history.png, and species.png where species could be scored; nothing without matplotlib, and
        nothing where it cannot be drawn, for a picture is never worth a failure.
    """
    with contextlib.ExitStack() as open_ones:
        pictures: list[Path] = []
        with contextlib.suppress(Exception):
            folder = open_ones.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            pictures = _drawn(fold_dir, Path(folder) / title)
        yield pictures


def _drawn(fold_dir: Path, alone: Path) -> list[Path]:
    """The report draws runs, and a run's picture shows all of its folds: this one becomes a run of one fold."""
    from birdinfer.report.runs import draw_run

    (alone / fold_dir.name).mkdir(parents=True)
    for name in (HISTORY, CLASSES):
        if (fold_dir / name).is_file():
            shutil.copy(fold_dir / name, alone / fold_dir.name)
    return draw_run(alone)
