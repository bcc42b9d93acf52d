"""``birdinfer plot``: trained runs -> pictures of how they went, and of which species they recognise."""

from pathlib import Path
from typing import Annotated

import typer

_OTHER_FORMATS = frozenset({".jpg", ".jpeg", ".pdf", ".svg", ".gif", ".webp", ".tif", ".tiff"})


def plot(
    runs: Annotated[list[Path], typer.Argument(help="A trained run, runs/NAME; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o",
            help="A folder for history.png and species.png, or NAME.png for it and NAME_species.png. Left out: the "
            "run's folder; of several, the one that the first lies in.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Draw runs: loss, scores and learning rate over epochs (history.png), ROC-AUC per species (species.png).

    A run that is still going on is drawn as far as it is. Prints the paths of the pictures.
    """
    from birdinfer.cli.console import stderr
    from birdinfer.errors import MissingExtraError

    try:
        from birdinfer.report.runs import draw_runs
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report") from error

    history, species = picture_paths(runs, out)
    written = draw_runs(runs, history, species)
    for path in written:
        typer.echo(path)
    if species not in written:
        stderr().print("[yellow]no species was scored (fold*/classes.csv): there is no picture of them[/]")


def picture_paths(runs: list[Path], out: Path | None) -> tuple[Path, Path]:
    """Where the pictures go: of the history, and of the species.

    Raises:
        ConfigError: ``out`` names a format other than PNG.
    """
    from birdinfer.errors import ConfigError

    if out is not None and not out.is_dir():
        if out.suffix.lower() in _OTHER_FORMATS:
            raise ConfigError("-o", f"{out} ends in {out.suffix}, pictures are PNG", "name a .png or a folder")
        if out.suffix.lower() == ".png":
            return out, out.with_name(f"{out.stem}_species{out.suffix}")
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    return folder / "history.png", folder / "species.png"
