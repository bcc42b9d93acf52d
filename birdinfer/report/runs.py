"""Pictures of trainings: the folder of a run, or of several to compare -> history.png and species.png."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from birdinfer.report.picture import save
from birdinfer.report.run_files import TrainedRun, read_run
from birdinfer.report.species_scores import species_figure
from birdinfer.report.training_history import history_figure

HISTORY_PICTURE, SPECIES_PICTURE = "history.png", "species.png"


def draw_run(run_dir: Path) -> list[Path]:
    """Draw a run into its own folder.

    Returns:
        What was written: history.png, and species.png where species could be scored.

    Raises:
        InputNotFoundError: there is no such run, or none of its folds has finished an epoch.
        MetadataError: one of its files is damaged.
        OutputError: a picture cannot be written.
    """
    return draw_runs([run_dir], run_dir / HISTORY_PICTURE, run_dir / SPECIES_PICTURE)


def draw_runs(run_dirs: Sequence[Path], history: Path, species: Path) -> list[Path]:
    """Draw runs into one pair of pictures.

    Args:
        run_dirs: at least one; several are compared.
        history: the PNG of losses and scores over epochs.
        species: the PNG of scores per species.

    Returns:
        What was written: ``history``, and ``species`` where species could be scored.

    Raises:
        InputNotFoundError, MetadataError, OutputError: as :func:`draw_run`.
    """
    runs = _told_apart([read_run(run_dir) for run_dir in run_dirs], run_dirs)
    save(history_figure(runs), history)
    figure = species_figure(runs)
    if figure is None:
        return [history]
    save(figure, species)
    return [history, species]


def _told_apart(runs: Sequence[TrainedRun], run_dirs: Sequence[Path]) -> list[TrainedRun]:
    """Runs of one name are called by their paths."""
    times = Counter(run.name for run in runs)
    return [
        run if times[run.name] == 1 else run._replace(name=str(run_dir))
        for run, run_dir in zip(runs, run_dirs, strict=True)
    ]
