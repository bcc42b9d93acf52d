"""``birdinfer data``: what a data folder holds, and what is wrong with it."""

from pathlib import Path
from typing import Annotated

import typer

from birdinfer.callbacks import Callback
from birdinfer.cli import console
from birdinfer.cli.options import Quiet
from birdinfer.cli.progress import StatusBar
from birdinfer.report.run import DataReport, DataReportSettings, report_data
from birdinfer.training.recipe.toml import load_recipe

_NAMED = 3


def data(
    folder: Annotated[Path, typer.Argument(
        metavar="DATA", help="A folder as BirdCLEF ships it: train.csv, train_audio/, perhaps taxonomy.csv and "
        "train_soundscapes/ with their labels.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("report"),
    sound: Annotated[bool, typer.Option(
        "--sound", help="Decode every file, too: near-duplicates, human voices, silence, clipping, damage.")] = False,
    recipe: Annotated[Path | None, typer.Option(
        "--recipe", help="Name of a recipe (birdinfer recipes list) or a TOML file, whose folds, window and rate are "
        "shown; the defaults if left out.")] = None,
    override: Annotated[list[str] | None, typer.Option(
        "--set", help="Change a key of it, as data.n_folds=4; repeatable.")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Report what there is to train on: one page, a CSV of each table, and what is wrong, the gravest first.

    From tables and headers of files in seconds, with --sound from every sample. Each finding says how many, which, and
    the key of the recipe that helps. The page opens from the disk and needs no network.
    """
    chosen = load_recipe(recipe, override or ())
    settings = DataReportSettings(data=folder, output=output, sound=sound, recipe=chosen)
    with ReportProgress(quiet) as progress:
        report = report_data(settings, progress)
    _print_summary(report)


def _print_summary(report: DataReport) -> None:
    out = console.stdout()
    for finding in report.findings[:_NAMED]:
        out.print(f"{finding.severity.text}: {console.shown(finding.title)}")
    rest = len(report.findings) - _NAMED
    more = "" if report.findings else ": nothing was found"
    if rest > 0:
        more = f", and {rest} more finding{'' if rest == 1 else 's'}"
    out.print(f"{console.shown(str(report.page))}{more}")


class ReportProgress(Callback):
    """Show how far a report is. Use as a context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._status = StatusBar(quiet)

    def __enter__(self) -> "ReportProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def on_message(self, line: str) -> None:
        self._status.line(line, "dim")

    def on_warning(self, line: str) -> None:
        self._status.warn(line, "yellow")

    def on_progress(self, task: str, done: float, total: float) -> None:
        self._status.show(task, f"{task}: {done:.0f} of {total:.0f}", done, total)
        if done >= total:
            self._status.stop()
