"""``birdinfer kaggle``: a bundle packed for a BirdCLEF competition, and what was packed brought to Kaggle."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from birdinfer.callbacks import Callback
from birdinfer.cli.app import make_group
from birdinfer.cli.console import make_table, needing, shown, stderr, stdout, widen
from birdinfer.cli.options import bundle_folder
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.system.timing import format_duration, parse_duration

if TYPE_CHECKING:
    from birdinfer.kaggle.dry_run import DryRunReport, RunReport
    from birdinfer.kaggle.pack import Packed, PackSettings
    from birdinfer.kaggle.push import Pushed

EXIT_WITH_FAULTS = 3
_SHOWN_LINES = 12  # last lines of the output of a run that failed
_SYNTHETIC = "synthetic"
EXIT_INCOMPLETE = 3  # packed, but wheels are missing: birdinfer would not install on Kaggle; or species are
_ACCEPT = '--option="--missing-species prior"'
_COUNTED = "its species were counted only: --sample sample_submission.csv compares their names"


class _Messages(Callback):
    def on_message(self, line: str) -> None:
        stderr().print(f"[dim]{shown(line)}[/]")


kaggle = make_group("kaggle")


@kaggle.command()
def pack(
    bundle: Annotated[Path, typer.Option(help="Bundle folder: exports/NAME; or demo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to: submission/NAME.")],
    competition: Annotated[str, typer.Option(help="birdclef-2021 to birdclef-2026.")] = "birdclef-2026",
    engine: Annotated[str, typer.Option(
        help="As for predict --engine; its wheels are packed. auto: both engines, measured on Kaggle.")] = "auto",
    wheels: Annotated[list[Path] | None, typer.Option(
        help="Folder with wheels for Kaggle's Python; several may be given.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let pip fetch the wheels that are not there.")] = False,
    budget_minutes: Annotated[float | None, typer.Option(
        help="Minutes for the whole notebook; 5 less than the competition allows if left out.",
        show_default=False)] = None,
    title: Annotated[str | None, typer.Option(
        help="Title of the data set, 6 to 39 characters; from the bundle's name if left out.")] = None,
    owner: Annotated[str | None, typer.Option(
        envvar="KAGGLE_USERNAME", help="Your Kaggle account; needed before a push.")] = None,
    sample: Annotated[Path | None, typer.Option(
        help="The competition's sample_submission.csv: the bundle's species are held against its columns.")] = None,
    option: Annotated[list[str] | None, typer.Option(
        help='A further option of predict for the notebook: --option="--overlap 2.5".')] = None,
) -> None:  # fmt: skip
    """Pack a data set and a notebook: the bundle, birdinfer, the wheels that Kaggle lacks, all metadata.

    The folder is flat, for Kaggle skips sub-folders. An older submission in its place is replaced. Species that the
    competition asks for and the bundle lacks hold a constant, and each counts as ROC-AUC 0.5.

    Exit code 0: whole. 3: packed, but wheels are missing, and the command that gets them is printed; or species are.
    """
    with needing("kaggle", "packaging"):
        from birdinfer.kaggle.competitions import competition as find_competition
        from birdinfer.kaggle.pack import UNKNOWN_OWNER, PackSettings
        from birdinfer.kaggle.pack import pack as pack_submission

    settings = PackSettings(
        bundle=bundle_folder(bundle), out=out, competition=find_competition(competition), engine=engine,
        budget_minutes=budget_minutes, owner=owner or UNKNOWN_OWNER, title=title or "",
        options=tuple(word for each in option or () for word in _split(each)), wheel_folders=tuple(wheels or ()),
        download=download, sample=sample,
    )  # fmt: skip
    with stderr().status("packing"):
        packed = pack_submission(settings)
    _print_packed(packed, settings)
    if packed.missing_wheels or (packed.lacking and not packed.accepts_lacking):
        raise typer.Exit(EXIT_INCOMPLETE)


@kaggle.command()
def push(
    packed: Annotated[Path, typer.Argument(help="What `birdinfer kaggle pack` has made: submission/NAME.")],
    only_print: Annotated[bool, typer.Option("--print", help="Print the commands instead; nothing is sent.")] = False,
    message: Annotated[str, typer.Option(
        "--message", "-m", help="Message of the version and of the submission.")] = "birdinfer",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the notebook has run.")] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Wait, and hand in what it wrote.")] = False,
    poll: Annotated[float, typer.Option(min=1, help="Seconds between two questions to Kaggle.")] = 15.0,
) -> None:  # fmt: skip
    """Bring a packed submission to Kaggle with Kaggle's own client: the data set, the notebook, on demand the rest.

    A data set that is there gets a new version. The client finds your token itself; birdinfer never sees it.
    """
    with needing("kaggle", "packaging"):
        from birdinfer.kaggle.push import PushSettings, push_commands
        from birdinfer.kaggle.push import push as push_submission

    settings = PushSettings(packed=packed, message=message, wait=wait, submit=submit, poll_seconds=poll)
    if only_print:
        for command, purpose in push_commands(settings):
            typer.echo(f"{command}  # {purpose}")
    else:
        _print_pushed(push_submission(settings, _Messages()))


@kaggle.command()
def fetch(
    competition: Annotated[str, typer.Argument(help="birdclef-2021 to birdclef-2026.")] = "birdclef-2026",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data.")] = Path("data"),
    keep_archive: Annotated[bool, typer.Option("--keep-archive", help="Leave the archive beside the data.")] = False,
) -> None:
    """Download a competition's data with Kaggle's own client, and unpack it.

    Accept the competition's rules on its page first. What breaks off is continued by the same command; a disk that is
    too small is named before it is full.
    """
    with needing("kaggle", "packaging"):
        from birdinfer.kaggle.competitions import competition as find
        from birdinfer.kaggle.fetch import FetchCallback, FetchSettings
        from birdinfer.kaggle.fetch import fetch as fetch_data

    settings = FetchSettings(competition=find(competition), output=output, keep_archive=keep_archive)
    with stderr().status(competition) as status:

        class Shown(FetchCallback):
            def on_bytes(self, n_bytes: int) -> None:
                status.update(f"{competition}: {n_bytes / 1e9:.2f} GB downloaded")

            def on_unpacked(self, done_bytes: int, all_bytes: int) -> None:
                status.update(f"{competition}: {done_bytes / 1e9:.2f} of {all_bytes / 1e9:.2f} GB unpacked")

        n_files = fetch_data(settings, Shown())
    typer.echo(f"{output}: {n_files:,} files")
    stderr().print(f"next: birdinfer data {shown(str(output))} -o report/", highlight=False)


@kaggle.command()
def scores(
    competition: Annotated[str, typer.Argument(help="birdclef-2021 to birdclef-2026.")] = "birdclef-2026",
    runs: Annotated[Path, typer.Option(help="Where the runs are that scores are noted with.")] = Path("runs"),
) -> None:
    """Ask Kaggle for the scores of your submissions, and note them with the runs that they came from.

    Shows the latest 200. The message that `kaggle push` hands a submission in with names run and epoch; their scores go
    to RUN/leaderboard.csv, which `birdinfer runs` compares. What was handed in otherwise is shown, not noted.
    """
    with needing("kaggle", "packaging"):
        from birdinfer.kaggle.competitions import competition as find
        from birdinfer.kaggle.scores import ScoresSettings, fetch_scores

    with stderr().status(competition):
        found = fetch_scores(ScoresSettings(competition=find(competition), runs=runs))
    if not found:
        stderr().print(f"{competition}: you have no submissions there")
        return
    table = make_table(("submitted (UTC)", "public", "private", "run", "epoch", "score is", "message"), ("epoch",))
    for each in found:
        submission, origin = each.submission, each.origin
        run, epoch = (origin.run, str(origin.epoch or "best")) if origin else ("-", "-")
        points = ("-" if value != value else f"{value:.5g}" for value in (submission.public, submission.private))
        table.add_row(submission.submitted[:16], *points, *map(shown, (run, epoch, each.outcome, each.message)))
    stdout().print(widen(table), soft_wrap=True)
    if any(each.outcome == "noted" for each in found):
        stderr().print(f"next: birdinfer runs {shown(shlex.quote(str(runs)))}")


def _split(option: str) -> list[str]:
    try:
        return shlex.split(option)
    except ValueError as error:
        raise ConfigError("--option", f"{option!r} cannot be split ({error})", "close its quotes") from error


def _print_packed(packed: "Packed", settings: "PackSettings") -> None:
    from birdinfer.kaggle.pack import DATASET_LIMIT_BYTES, UNKNOWN_OWNER

    for name, size_bytes in packed.files:
        typer.echo(f"{size_bytes / 1e6:10.2f} MB  {name}")
    typer.echo(f"{packed.size_bytes / 1e6:10.2f} MB  in all, of {DATASET_LIMIT_BYTES / 1e6:,.0f} MB that Kaggle takes")
    console = stderr()
    if packed.left_behind:
        console.print(f"left behind, because the manifest does not need them: {shown(', '.join(packed.left_behind))}")
    for name, new_name in packed.renamed.items():
        console.print(f"renamed for Kaggle: {shown(f'{name} is {new_name}')}")
    if packed.lacking:
        console.print(f"[yellow]missing species:[/] {shown(packed.lacking)}")
        if not packed.accepts_lacking:
            console.print(shown(f"pack another bundle; or the same with {_ACCEPT} if that is meant"))
    elif settings.sample is None:
        console.print(shown(_COUNTED))
    for wheel in packed.missing_wheels:
        why = f": {wheel.reason}" if wheel.reason else ""
        console.print(f"[yellow]missing wheel:[/] {shown(f'{wheel.requirement}, needed by {wheel.needed_by}{why}')}")
    if packed.download_problem:
        console.print(f"[yellow]pip says:[/] {shown(packed.download_problem)}")
    if packed.missing_wheels:
        console.print("pack again with --download, or with --wheels wheels after:")
        console.print(f"  {shown(packed.wheels_command)}")
        return
    if settings.owner == UNKNOWN_OWNER:
        console.print("[yellow]no account:[/] pack again with --owner NAME before you push")
    out = shown(shlex.quote(str(settings.out)))
    console.print(f"next: birdinfer kaggle dry-run {out}, then birdinfer kaggle push {out}")


def _print_pushed(pushed: "Pushed") -> None:
    pages, console = pushed.pages, stderr()
    typer.echo(f"https://www.kaggle.com/code/{pages.kernel}")
    if pushed.submitted:
        console.print(shown(pushed.submitted))
        console.print(f"next: once Kaggle has scored it, birdinfer kaggle scores {shown(pages.competition)}")
    elif not pushed.kernel_status:
        console.print("next: wait until it has run, then submit; --wait and --submit do both")


class Mounts(StrEnum):
    """Which layouts of mounts are tried."""

    both = "both"
    of_2025 = "2025"
    of_2026 = "2026"


@kaggle.command("dry-run")
def dry_run(
    packed: Annotated[Path, typer.Argument(help="What `birdinfer kaggle pack` has made: submission/NAME.")],
    soundscapes: Annotated[str, typer.Option(
        help="A folder of .ogg soundscapes, or synthetic: made for the purpose.")] = _SYNTHETIC,
    sample: Annotated[Path | None, typer.Option(
        help="The competition's sample_submission.csv, for its species; the packed one if left out.")] = None,
    files: Annotated[int, typer.Option(min=2, help="Soundscapes of the hidden run; one more is corrupt.")] = 24,
    python: Annotated[Path | None, typer.Option(
        help="Run with this Python and its packages, as they stand. Left out: one of Kaggle's version with its "
        "packages alone, made once (this needs the internet) and kept in the cache.")] = None,
    memory_gb: Annotated[float, typer.Option(min=0.1, help="Memory of all processes together.")] = 30.0,
    cores: Annotated[int, typer.Option(min=1, help="Cores, or all if the machine has fewer.")] = 4,
    layout: Annotated[Mounts, typer.Option(help="Where inputs are mounted: as in 2025, as in 2026.")] = Mounts.both,
    time_limit: Annotated[str | None, typer.Option(
        help="Limit of one run, as 90m or 1h30m; the competition's if left out.")] = None,
) -> None:  # fmt: skip
    """Run a packed submission as Kaggle would: no network, Kaggle's Python, its folders, 4 cores, 30 GB.

    Each layout is run twice: as the public run, whose test folder is empty, and as the hidden run with a few
    soundscapes, one of them corrupt. The table has a forecast for the hidden run of full size on this machine.

    Exit code 0: all of it would pass. 3: something would fail, and what; or species that are asked for are missing.
    """
    with needing("kaggle", "packaging"):
        from birdinfer.kaggle.dry_run import DryRunSettings
        from birdinfer.kaggle.dry_run import dry_run as run_as_kaggle
        from birdinfer.kaggle.fake_kaggle import Layout

    layouts = tuple(Layout) if layout is Mounts.both else (Layout(layout.value),)
    settings = DryRunSettings(
        packed=packed, sample=sample, soundscapes=_soundscapes(soundscapes), python=python, layouts=layouts,
        n_files=files, memory_gb=memory_gb, cores=cores,
        limit_minutes=None if time_limit is None else parse_duration(time_limit, "--time-limit") / 60,
    )  # fmt: skip
    report = run_as_kaggle(settings, _Messages())
    _show(report, cores)
    if not report.ok:
        raise typer.Exit(EXIT_WITH_FAULTS)


def _soundscapes(given: str) -> tuple[Path, ...] | None:
    if given == _SYNTHETIC:
        return None
    found = tuple(sorted(path for path in Path(given).glob("*.ogg") if path.is_file()))
    if not found:
        raise InputNotFoundError(given, "holds no .ogg file", "Kaggle's soundscapes are Ogg; or leave it out")
    return found


def _show(report: "DryRunReport", cores: int) -> None:
    console = stdout()
    table = Table("run", "mounts", "seconds", "peak MB", "files", f"forecast for {report.competition}", "result")
    for run in report.runs:
        table.add_row(*_cells(run))
    if report.runs:
        console.print(table)
    for fault in report.faults:
        console.print(f"[red]would fail[/]  {shown(fault)}")
    for run in report.runs:
        for fault in run.faults:
            console.print(f"[red]would fail[/]  {run.run} run, mounts of {run.layout}: {shown(fault)}")
        for line in run.output.splitlines()[-_SHOWN_LINES:] if run.faults else ():
            console.print(f"            [dim]{shown(line)}[/]")
    if report.runs:
        fewer = f", {cores} were asked for" if report.cores < cores else ""
        console.print(f"Python {report.python}, {report.cores} cores{fewer}; network: {shown(report.network)}")
    if report.lacking:
        console.print(f"[yellow]missing species[/]  {shown(report.lacking)}")
        console.print(shown(f"                 pack another bundle; or the same with {_ACCEPT} if that is meant"))
    elif report.runs and not report.has_sample:
        console.print(shown(_COUNTED))
    if report.ok:
        console.print("[bold green]it would pass[/]")
    elif report.runs_through:
        console.print("[bold yellow]it would pass, but for these species[/]")
    else:
        console.print("[bold red]it would fail[/]")


def _cells(run: "RunReport") -> list[str]:
    forecast = "" if run.forecast_seconds is None else format_duration(run.forecast_seconds)
    peak = "" if run.peak_mb is None else f"{run.peak_mb:.0f}"
    result = "[red]fails[/]" if run.faults else "[green]ok[/]"
    return [run.run, run.layout, f"{run.seconds:.1f}", peak, str(run.n_files), forecast, result]
