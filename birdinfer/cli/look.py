"""``birdinfer look``: clips as pictures with players on one page, also as a network gets them."""

from pathlib import Path
from typing import Annotated

import typer

from birdinfer.cli import console
from birdinfer.cli.data import ReportProgress
from birdinfer.cli.options import Quiet, need_modules
from birdinfer.cli.predict import EXIT_WITH_FAILURES
from birdinfer.report.look import LookSettings, look_at
from birdinfer.system.files import write_atomic
from birdinfer.system.outputs import PAGE, check_outputs
from birdinfer.training.recipe.toml import load_recipe

_DEFAULTS = LookSettings()
_NAMED = 3


def look(
    files: Annotated[list[Path] | None, typer.Argument(
        metavar="FILES", help="Sound files and folders of them; or name a data folder with --data.")] = None,
    data: Annotated[Path | None, typer.Option(
        help="A folder as BirdCLEF ships it: what its table says of a clip stands below it.")] = None,
    label: Annotated[str, typer.Option(help="Clips of this species: its label or its name.")] = "",
    n: Annotated[int, typer.Option("--n", min=1, max=500, help="Most clips; of more a random choice.")] = _DEFAULTS.n,
    seconds: Annotated[float, typer.Option(
        min=1, max=600, help="Seconds of each clip, from its beginning.")] = _DEFAULTS.seconds,
    augmented: Annotated[Path | None, typer.Option(
        metavar="RECIPE", help="Name of a recipe or a TOML file: show each clip as its network gets it, too, as it is "
        "and augmented.")] = None,
    override: Annotated[list[str] | None, typer.Option(
        "--set", help="Change a key of the recipe, as augment.mixup_probability=1; repeatable.")] = None,
    draws: Annotated[int, typer.Option(
        min=1, max=16, help="Windows of each clip as training draws them.")] = _DEFAULTS.draws,
    seed: Annotated[int, typer.Option(help="Another one, another choice of clips.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, an .html.")] = Path("look.html"),
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make a page of clips: a spectrogram and a player for each, with label, author and rating.

    With --augmented also what the network gets: the first window as it is, and several as training draws them, with
    noise, background and other clips mixed in, to be played, with the targets that are asked of it. The page is one
    file, opens from the disk and needs no network.
    """
    recipe = None
    if augmented is not None:
        need_modules("train", "torch")
        recipe = load_recipe(augmented, override or ())
    inputs = tuple(files or ())
    check_outputs([(output, PAGE)], [*inputs, *([augmented] if augmented else [])])
    settings = LookSettings(
        inputs=inputs, data=data, label=label, n=n, seconds=seconds, recipe=recipe, draws=draws, seed=seed
    )  # fmt: skip
    with ReportProgress(quiet) as progress:
        page = look_at(settings, progress)
    write_atomic(output, page.html)
    out = console.stdout()
    for line in page.failed[:_NAMED]:
        console.stderr().print(f"[yellow]without sound: {console.shown(line)}[/]")
    out.print(f"{console.shown(str(output))}: {page.n} clip{'' if page.n == 1 else 's'}, {len(page.html) / 1e6:.1f} MB")
    if page.failed:
        raise typer.Exit(EXIT_WITH_FAILURES)
