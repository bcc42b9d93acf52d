"""``birdinfer plot``: runs -> pictures of how they went, and of which species they recognise; a search -> its own."""

import os
from pathlib import Path
from typing import Annotated

import typer

from birdinfer.cli.console import needing, stderr
from birdinfer.errors import ConfigError
from birdinfer.runs.study import is_search
from birdinfer.system.outputs import PICTURE, check_folder, check_outputs


def plot(
    runs: Annotated[list[Path], typer.Argument(help="A trained run; several are compared. Or a search.")],
    out: Annotated[Path | None, typer.Option(
        "--out", "-o",
        help="A folder for history.png and species.png, or NAME.png for it and NAME_species.png (of a search: "
        "importance). Left out: the run's folder; of several, the one that the first lies in.")] = None,
) -> None:  # fmt: skip
    """Draw runs: loss, scores and learning rate over epochs (history.png), ROC-AUC per species (species.png).

    Of a search (birdinfer tune): the score of each trial and the curves of all (history.png), which keys decided, and
    the scores over their values (importance.png). An unfinished run is drawn as far as it is. Prints the paths of
    the pictures.
    """
    draw = _draw_search if any(map(is_search, runs)) else _draw_runs
    with needing("report", "matplotlib"):
        draw(runs, out)


def _draw_runs(runs: list[Path], out: Path | None) -> None:
    from birdinfer.plots.training import draw_runs

    history, species = picture_paths(runs, out, "species")
    _print_paths(draw_runs(runs, history, species), species, "no species was scored (fold*/classes.csv)")


def _draw_search(folders: list[Path], out: Path | None) -> None:
    from birdinfer.plots.search import draw_search_as

    if len(folders) > 1:
        raise ConfigError("plot", "a search is drawn by itself", "name no other folder beside it")
    history, importance = picture_paths(folders, out, "importance")
    written = draw_search_as(folders[0], history, importance)
    _print_paths(written, importance, "no two trials with a score differ in a key")


def _print_paths(written: list[Path], second: Path, why_not: str) -> None:
    for path in written:
        typer.echo(path)
    if second not in written:
        stderr().print(f"[yellow]{why_not}: there is no picture of them[/]")


def picture_paths(runs: list[Path], out: Path | None, second: str) -> tuple[Path, Path]:
    """Return the paths of the history and of the ``second`` picture (species, importance) for the option ``out``."""
    if out is not None and out.suffix.lower() == ".png" and not out.is_dir():
        pictures = out, out.with_name(f"{out.stem}_{second}{out.suffix}")
    else:
        folder = out or (runs[0] if len(runs) == 1 else Path(os.path.realpath(runs[0])).parent)
        check_folder(folder, hint="name a .png or a folder")
        pictures = folder / "history.png", folder / f"{second}.png"
    check_outputs([(picture, PICTURE) for picture in pictures])
    return pictures
