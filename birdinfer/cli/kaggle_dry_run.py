"""``birdinfer kaggle dry-run``: a packed submission, run as Kaggle would run it -> a table, and what would fail."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from birdinfer.kaggle.dry_run import DryRunReport, RunReport
    from birdinfer.kaggle.fake_kaggle import Layout

EXIT_WITH_FAULTS = 3
_SHOWN_LINES = 12
"""Of what a run that failed has said."""
_SYNTHETIC = "synthetic"


class Mounts(StrEnum):
    """Which layouts of mounts are tried."""

    both = "both"
    of_2025 = "2025"
    of_2026 = "2026"


def dry_run(
    packed: Annotated[Path, typer.Argument(help="What `birdinfer kaggle pack` has made: submission/NAME.")],
    soundscapes: Annotated[
        str, typer.Option(help="A folder of .ogg soundscapes, or synthetic: made for the purpose.")
    ] = _SYNTHETIC,
    files: Annotated[int, typer.Option(min=2, help="Soundscapes of the hidden run; one more is corrupt.")] = 24,
    python: Annotated[
        Path | None,
        typer.Option(
            help="Run with this Python and its packages, as they stand. Left out: one of Kaggle's version with its "
            "packages alone, made once (this needs the internet) and kept in the cache."
        ),
    ] = None,
    memory_gb: Annotated[float, typer.Option(min=0.1, help="Memory of all processes together.")] = 30.0,
    cores: Annotated[int, typer.Option(min=1, help="Cores; as many as there are if they are fewer.")] = 4,
    layout: Annotated[Mounts, typer.Option(help="Where inputs are mounted: as in 2025, as in 2026.")] = Mounts.both,
    time_limit: Annotated[
        str | None, typer.Option(help="Of one run, as 90m or 1h30m; the competition's if left out.")
    ] = None,
) -> None:
    """Run a packed submission as Kaggle would: no network, Kaggle's Python, its folders, 4 cores, 30 GB.

    Each layout is run twice: as the public run, whose test folder is empty, and as the hidden run with a few
    soundscapes, one of them corrupt. The table tells how long the hidden run of full size would take on this machine.

    Exit code 0: all of it would pass. 3: something would fail, and what.
    """
    from birdinfer.cli.console import shown, stderr
    from birdinfer.errors import MissingExtraError
    from birdinfer.pace.durations import parse_duration

    try:
        from birdinfer.kaggle.dry_run import DryRunSettings
        from birdinfer.kaggle.dry_run import dry_run as play_kaggle
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "packaging", "kaggle") from error

    limit_minutes = None if time_limit is None else parse_duration(time_limit, "--time-limit") / 60
    settings = DryRunSettings(
        layouts=_layouts(layout), n_files=files, memory_gb=memory_gb, cores=cores, limit_minutes=limit_minutes
    )
    report = play_kaggle(
        packed, _soundscapes(soundscapes), python, settings, lambda line: stderr().print(f"[dim]{shown(line)}[/]")
    )
    _show(report, cores)
    if not report.is_good:
        raise typer.Exit(EXIT_WITH_FAULTS)


def _layouts(wanted: Mounts) -> "tuple[Layout, ...]":
    from birdinfer.kaggle.fake_kaggle import Layout

    return tuple(Layout) if wanted is Mounts.both else (Layout(wanted.value),)


def _soundscapes(given: str) -> list[Path] | None:
    """The files of a folder; None: to be made.

    Raises:
        InputNotFoundError: there is no such folder, or no .ogg file in it.
    """
    from birdinfer.errors import InputNotFoundError

    if given == _SYNTHETIC:
        return None
    found = sorted(path for path in Path(given).glob("*.ogg") if path.is_file())
    if not found:
        raise InputNotFoundError(given, "holds no .ogg file", "Kaggle's soundscapes are Ogg; or leave it out")
    return found


def _show(report: "DryRunReport", cores: int) -> None:
    """The table, what would fail, and what stood in for Kaggle."""
    from rich.table import Table

    from birdinfer.cli.console import shown, stdout

    console = stdout()
    table = Table("run", "mounts", "seconds", "peak MB", "files", f"forecast for {report.competition}", "verdict")
    for run in report.runs:
        table.add_row(*_cells(run))
    if report.runs:
        console.print(table)
    for fault in report.faults:
        console.print(f"[red]would fail[/]  {shown(fault)}")
    for run in report.runs:
        _show_faults(run)
    if report.runs:
        fewer = f", {cores} were asked for" if report.cores < cores else ""
        console.print(f"Python {report.python}, {report.cores} cores{fewer}; network: {shown(report.network)}")
    verdict = "[bold green]it would pass[/]" if report.is_good else "[bold red]it would fail[/]"
    console.print(verdict)


def _cells(run: "RunReport") -> list[str]:
    from birdinfer.pace.durations import in_words

    forecast = "" if run.forecast_seconds is None else in_words(run.forecast_seconds)
    peak = "" if run.peak_mb is None else f"{run.peak_mb:.0f}"
    verdict = "[red]fails[/]" if run.faults else "[green]good[/]"
    return [run.run, run.layout, f"{run.seconds:.1f}", peak, str(run.n_files), forecast, verdict]


def _show_faults(run: "RunReport") -> None:
    """Its faults, and the last lines that it said."""
    from birdinfer.cli.console import shown, stdout

    console = stdout()
    for fault in run.faults:
        console.print(f"[red]would fail[/]  {run.run} run, mounts of {run.layout}: {shown(fault)}")
    if run.faults:
        for line in run.output.splitlines()[-_SHOWN_LINES:]:
            console.print(f"            [dim]{shown(line)}[/]")
