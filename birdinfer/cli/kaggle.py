"""``birdinfer kaggle``: a bundle packed for a BirdCLEF competition, and what was packed brought to Kaggle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from birdinfer.errors import MissingExtraError
    from birdinfer.kaggle.pack import Packed
    from birdinfer.kaggle.push import Pushed

EXIT_INCOMPLETE = 3
"""Packed, but wheels are missing: as it is, the notebook would not get birdinfer installed."""

kaggle = typer.Typer(
    help="From a bundle to the leaderboard: pack a submission, try it out as Kaggle would, push it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@kaggle.command()
def pack(
    bundle: Annotated[Path, typer.Option(help="Bundle folder: exports/NAME.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to: submission/NAME.")],
    competition: Annotated[str, typer.Option(help="Its slug, birdclef-2021 to birdclef-2026.")] = "birdclef-2026",
    engine: Annotated[
        str, typer.Option(help="As of predict --engine; its wheels are packed. auto: both engines, measured on Kaggle.")
    ] = "auto",
    wheels: Annotated[
        list[Path] | None, typer.Option(help="Folder with wheels for Kaggle's Python; several may be given.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Let pip fetch the wheels that are not there.")] = False,
    budget_minutes: Annotated[
        float | None,
        typer.Option(help="Of the whole notebook; 5 less than the competition allows if left out.", show_default=False),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Of the data set, 6 to 39 characters; from the bundle's name if left out.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(envvar="KAGGLE_USERNAME", help="Your Kaggle account; needed before a push.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help='A further option of predict for the notebook: --option="--overlap 2.5".')
    ] = None,
) -> None:
    """Pack a data set and a notebook: the bundle, birdinfer, the wheels that Kaggle lacks, all metadata.

    The folder is flat, for Kaggle skips sub-folders. An older submission in its place is replaced.

    Exit code 0: whole. 3: packed, but wheels are missing; the command that gets them is printed.
    """
    from birdinfer.cli.console import stderr

    try:
        from birdinfer.kaggle.competitions import competition as find_competition
        from birdinfer.kaggle.metadata import UNKNOWN_OWNER
        from birdinfer.kaggle.pack import PackSettings
        from birdinfer.kaggle.pack import pack as pack_submission
    except ModuleNotFoundError as error:
        raise _missing(error) from error

    settings = PackSettings(
        find_competition(competition),
        engine,
        budget_minutes,
        owner or UNKNOWN_OWNER,
        title or "",
        tuple(word for each in option or () for word in _words(each)),
        tuple(wheels or ()),
        download,
    )
    with stderr().status("packing"):
        packed = pack_submission(bundle, out, settings)
    _tell_packed(packed, out, has_owner=owner is not None)
    if packed.missing_wheels:
        raise typer.Exit(EXIT_INCOMPLETE)


@kaggle.command()
def push(
    packed: Annotated[Path, typer.Argument(help="What `birdinfer kaggle pack` has made: submission/NAME.")],
    only_print: Annotated[bool, typer.Option("--print", help="Print the commands instead; nothing is sent.")] = False,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Of the version, and of the submission.")
    ] = "birdinfer",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the notebook has run.")] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Wait, and hand in what it wrote.")] = False,
    poll: Annotated[float, typer.Option(min=1, help="Seconds between two questions to Kaggle.")] = 15.0,
) -> None:
    """Bring a packed submission to Kaggle with Kaggle's own client: the data set, the notebook, on demand the rest.

    A data set that is there gets a new version. The client finds your token itself; birdinfer never sees it.
    """
    try:
        from birdinfer.kaggle.push import PushSettings, push_commands
        from birdinfer.kaggle.push import push as push_submission
    except ModuleNotFoundError as error:
        raise _missing(error) from error

    from birdinfer.cli.console import shown, stderr

    if only_print:
        for command, purpose in push_commands(packed, message):
            typer.echo(f"{command}  # {purpose}")
        return
    console = stderr()
    settings = PushSettings(message, wait, submit, poll)
    _tell_pushed(push_submission(packed, settings, lambda line: console.print(shown(line))))


def _words(option: str) -> list[str]:
    """An option and its value, taken apart as a shell does."""
    import shlex

    from birdinfer.errors import ConfigError

    try:
        return shlex.split(option)
    except ValueError as error:
        raise ConfigError("--option", f"{option!r} cannot be taken apart ({error})", "close its quotes") from error


def _missing(error: ModuleNotFoundError) -> "MissingExtraError":
    from birdinfer.errors import MissingExtraError

    return MissingExtraError(error.name or "packaging", "kaggle")


def _tell_packed(packed: "Packed", out: Path, has_owner: bool) -> None:
    from birdinfer.cli.console import shown, stderr
    from birdinfer.kaggle.pack import DATASET_LIMIT_BYTES

    for name, size_bytes in packed.files:
        typer.echo(f"{size_bytes / 1e6:10.2f} MB  {name}")
    typer.echo(f"{packed.size_bytes / 1e6:10.2f} MB  in all, of {DATASET_LIMIT_BYTES / 1e6:,.0f} MB that Kaggle takes")
    console = stderr()
    if packed.left_behind:
        console.print(f"left behind, for the manifest does not need them: {shown(', '.join(packed.left_behind))}")
    for wheel in packed.missing_wheels:
        why = f": {wheel.reason}" if wheel.reason else ""
        console.print(f"[yellow]missing wheel:[/] {shown(f'{wheel.requirement}, needed by {wheel.needed_by}{why}')}")
    if packed.download_problem:
        console.print(f"[yellow]pip says:[/] {shown(packed.download_problem)}")
    if packed.missing_wheels:
        console.print("pack again with --download, or with --wheels wheels after:")
        console.print(f"  {shown(packed.wheels_command)}")
        return
    if not has_owner:
        console.print("[yellow]no account:[/] pack again with --owner NAME before you push")
    console.print(f"next: birdinfer kaggle dry-run {shown(str(out))}, then birdinfer kaggle push {shown(str(out))}")


def _tell_pushed(pushed: "Pushed") -> None:
    from birdinfer.cli.console import shown, stderr

    pages, console = pushed.pages, stderr()
    typer.echo(f"https://www.kaggle.com/code/{pages.kernel}")
    if pushed.submitted:
        console.print(shown(pushed.submitted))
        console.print(f"next: the score, at https://www.kaggle.com/competitions/{shown(pages.competition)}/submissions")
    elif not pushed.kernel_status:
        console.print("next: wait until it has run, then submit; --wait and --submit do both")
