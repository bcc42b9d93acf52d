"""Pictures of a search: its folder -> history.png and importance.png."""

from pathlib import Path

from birdinfer.report.picture import save
from birdinfer.report.search_files import read_search
from birdinfer.report.search_history import search_history_figure
from birdinfer.report.search_importance import importance_figure

HISTORY_PICTURE, IMPORTANCE_PICTURE = "history.png", "importance.png"


def draw_search(study_dir: Path) -> list[Path]:
    """Draw a search into its own folder.

    Returns:
        What was written: history.png, and importance.png where two trials with a score differ in a key.

    Raises:
        InputNotFoundError: there is no such search, or no trial in it.
        MetadataError: one of its files is damaged.
        OutputError: a picture cannot be written.
    """
    return draw_search_as(study_dir, study_dir / HISTORY_PICTURE, study_dir / IMPORTANCE_PICTURE)


def draw_search_as(study_dir: Path, history: Path, importance: Path) -> list[Path]:
    """Draw a search into a pair of pictures.

    Args:
        study_dir: the search's folder.
        history: the PNG of the scores of all trials, and of their curves.
        importance: the PNG of how much each key counts, and of the scores over its values.

    Returns:
        What was written: ``history``, and ``importance`` where two trials with a score differ in a key.

    Raises:
        InputNotFoundError, MetadataError, OutputError: as :func:`draw_search`.
    """
    search = read_search(study_dir)
    save(search_history_figure(search), history)
    figure = importance_figure(search)
    if figure is None:
        return [history]
    save(figure, importance)
    return [history, importance]
