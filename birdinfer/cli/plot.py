"""``birdinfer plot``: runs -> pictures of how they went, and of which species they recognise; a search -> its own."""

from pathlib import Path
from typing import Annotated

import typer

_OTHER_FORMATS = frozenset({".jpg", ".jpeg", ".pdf", ".svg", ".gif", ".webp", ".tif", ".tiff"})


def plot(
    runs: Annotated[list[Path], typer.Argument(help="A trained run; several are compared. Or a search.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o",
            help="A folder for history.png and species.png, or NAME.png for it and NAME_species.png (of a search: "
            "importance). Left out: the run's folder; of several, the one that the first lies in.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Draw runs: loss, scores and learning rate over epochs (history.png), ROC-AUC per species (species.png).

    Of a search (birdinfer tune): the score of each trial and the curves of all (history.png), which keys decided, and
    the scores over their values (importance.png). What is still going on is drawn as far as it is. Prints the paths
    of the pictures.
    """
    from birdinfer.errors import MissingExtraError
    from birdinfer.report.search_files import is_search

    draw = _draw_search if any(map(is_search, runs)) else _draw_runs
    try:
        draw(runs, out)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report") from error


def _draw_runs(runs: list[Path], out: Path | None) -> None:
    from birdinfer.report.runs import draw_runs

    history, species = picture_paths(runs, out, "species")
    _say(draw_runs(runs, history, species), species, "no species was scored (fold*/classes.csv)")


def _draw_search(folders: list[Path], out: Path | None) -> None:
    from birdinfer.errors import ConfigError
    from birdinfer.report.search import draw_search_as

    if len(folders) > 1:
        raise ConfigError("plot", "a search is drawn by itself", "name no other folder beside it")
    history, importance = picture_paths(folders, out, "importance")
    _say(draw_search_as(folders[0], history, importance), importance, "no two trials with a score differ in a key")


def _say(written: list[Path], second: Path, why_not: str) -> None:
    """The paths of the pictures, and why the second is not among them."""
    from birdinfer.cli.console import stderr

    for path in written:
        typer.echo(path)
    if second not in written:
        stderr().print(f"[yellow]{why_not}: there is no picture of them[/]")


def picture_paths(runs: list[Path], out: Path | None, second: str) -> tuple[Path, Path]:
    """Where the pictures go: of the history, and the second one.

    Args:
        runs: what is drawn.
        out: as the option says.
        second: what the second picture is called: species.

    Raises:
        ConfigError: ``out`` names a format other than PNG.
    """
    from birdinfer.errors import ConfigError

    if out is not None and not out.is_dir():
        if out.suffix.lower() in _OTHER_FORMATS:
            raise ConfigError("-o", f"{out} ends in {out.suffix}, pictures are PNG", "name a .png or a folder")
        if out.suffix.lower() == ".png":
            return out, out.with_name(f"{out.stem}_{second}{out.suffix}")
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    return folder / "history.png", folder / f"{second}.png"
