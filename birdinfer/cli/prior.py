"""``birdinfer prior``: labelled soundscapes -> how often each species is recorded at each site, hour and month."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.cli.console import stderr, summary, table_file
from birdinfer.cli.options import Force, Output
from birdinfer.detections.recordings import timed_name
from birdinfer.errors import AudioError, LabelError
from birdinfer.inference.external.label_lists import read_label_list
from birdinfer.inference.external.label_matching import species_of
from birdinfer.species import Species
from birdinfer.system.outputs import PRIORS, check_outputs
from birdinfer.tables.labelled_windows import (
    LabelledWindows,
    Window,
    count_windows,
    read_labelled_windows,
    silent_windows,
)
from birdinfer.tables.recording_names import RecordingName, parse_name
from birdinfer.tables.recordings import Recordings, spelled
from birdinfer.tables.step_tables import write_priors

_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorReport:
    """What was counted; ``species`` are the columns of the table, ``species_found`` those with a window."""

    windows: int  # all, with the silent ones
    silent_windows: int  # windows of labelled files without a row; 0 without a folder of soundscapes
    files: int
    sites: int
    hours: int  # of the 24
    months: int  # of the 12
    species: int
    species_found: int
    repeated_rows: int  # rows that repeat a window: it counts once, with the labels of all
    nameless: tuple[str, ...]  # files whose names have neither a site nor an hour
    lengthless: tuple[str, ...]  # labelled files without a readable sound file: their silent windows are not known
    notes: tuple[str, ...] = ()  # what was left out of the tables, a line each


def prior(
    labels: Annotated[list[Path], typer.Argument(
        metavar="LABELS",
        help="Tables of filename,start,end,primary_label as in BirdCLEF 2026, of row_id and columns of 0 and 1, "
        "Raven's selection tables, Audacity's label tracks, or folders of them.")],
    output: Output = Path("prior.csv"),
    soundscapes: Annotated[Path | None, typer.Option(
        help="Folder of the sound files: windows of labelled files without a row count as silent.")] = None,
    taxonomy: Annotated[Path | None, typer.Option(
        help="taxonomy.csv: columns for all of its species, in its order.")] = None,
    row_seconds: Annotated[float, typer.Option(
        min=0.1, max=3600, help="Length of a window if a row_id names only its end, or calls are counted.")] = 5.0,
    force: Force = False,
) -> None:  # fmt: skip
    """Count in labelled soundscapes which species are recorded where and when: the table of the step prior_shift.

    Site, hour and month are read from the files' names, e.g. BC2026_Train_0001_S05_20250227_010002 or
    PLOT7_20250227_010002; the time also from what a recorder wrote into the file, with --soundscapes.
    """
    with table_file(output) as table:
        report = count_priors(labels, table, soundscapes, taxonomy, row_seconds, force)
    _print_report(report, output)


def count_priors(
    labels: list[Path],
    output: Path,
    soundscapes: Path | None = None,
    taxonomy: Path | None = None,
    row_seconds: float = 5.0,
    force: bool = False,
) -> PriorReport:
    """Make a table of priors.

    Without ``soundscapes`` only the windows of the tables count, without a taxonomy only the species that they name.
    ``row_seconds`` is the length of a window if a row id names only its end, ``force`` replaces an output that
    birdinfer has not written. Raises a BirdinferError if an input is missing or wrong, or the table cannot be written.
    """
    check_outputs([(output, PRIORS)], [*labels, *([taxonomy] if taxonomy else [])], force=force)
    species = species_of(read_label_list(taxonomy), taxonomy) if taxonomy else ()
    found = read_labelled_windows(labels, row_seconds, species, str(taxonomy))
    columns = _columns(found, species, taxonomy)
    windows, durations, timed = found.windows, None, dict[str, str]()
    if soundscapes:
        windows, durations, timed = _with_durations(windows, soundscapes)
    silent = silent_windows(windows, durations or {})
    table = count_windows({**windows, **dict.fromkeys(silent, frozenset())}, columns, timed)
    write_priors(output, table)
    names = sorted({window.recording for window in windows})
    return PriorReport(
        windows=len(windows) + len(silent), silent_windows=len(silent), files=len(names),
        sites=len({one.site for one in table.occasions} - {None}),
        hours=len({one.hour for one in table.occasions} - {None}),
        months=len({one.month for one in table.occasions} - {None}), species=len(columns),
        species_found=int((table.present.sum(axis=0) > 0).sum()), repeated_rows=found.repeated_rows,
        nameless=tuple(name for name in names if parse_name(timed.get(name, name)) == RecordingName()),
        lengthless=() if durations is None else tuple(name for name in names if name not in durations),
        notes=found.notes,
    )  # fmt: skip


def _columns(found: LabelledWindows, species: Sequence[Species], taxonomy: Path | None) -> tuple[str, ...]:
    if taxonomy is None:
        return found.labels
    columns = tuple(each.label for each in species)
    unknown = sorted(set(found.labels) - set(columns))
    if unknown:
        named = ", ".join(unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
        raise LabelError(taxonomy, f"lacks {len(unknown)} labels of the windows: {named}", "add the species there")
    return columns


def _with_durations(
    windows: dict[Window, frozenset[str]], soundscapes: Path
) -> tuple[dict[Window, frozenset[str]], dict[str, float], dict[str, str]]:
    """Find the recordings in the folder.

    Returns the windows with their folders, the seconds of those that can be read, and names with their clock times.
    """
    there = find_recordings([soundscapes])
    there.require()
    name_of = {spelled(path.absolute().as_posix()): (name, path) for path, name in there.names.items()}
    recordings = Recordings(name_of)
    durations: dict[str, float] = {}
    renamed: dict[str, str] = {}
    timed: dict[str, str] = {}
    for asked in {window.recording for window in windows}:
        found = recordings.find(asked)
        if len(found) == 1:
            name, path = name_of[found[0]]
            renamed[asked] = asked if "/" in asked else name
            timed[renamed[asked]] = timed_name(path, renamed[asked])
            with contextlib.suppress(AudioError):  # named among the files without a length
                durations[renamed[asked]] = probe(path).duration_seconds
    placed: dict[Window, frozenset[str]] = {}
    for window, labels in windows.items():
        here = window._replace(recording=renamed.get(window.recording, window.recording))
        placed[here] = placed.get(here, frozenset()) | labels
    return placed, durations, timed


def _print_report(report: PriorReport, output: Path) -> None:
    console, warnings = summary(output), stderr()
    silent = f", {report.silent_windows} of them silent" if report.silent_windows else ""
    console.print(f"windows  {report.windows} of {report.files} files{silent}")
    console.print(f"sites    {report.sites}")
    console.print(f"hours    {report.hours} of 24")
    console.print(f"months   {report.months} of 12")
    console.print(f"species  {report.species_found} found of {report.species}")
    console.print(f"written  {escape(str(output))}")
    for line in report.notes:
        warnings.print(f"[yellow]{escape(line)}[/]")
    if report.repeated_rows:
        warnings.print(f"[yellow]{report.repeated_rows} rows repeat a window: it counts once[/]")
    for files, what in (
        (report.nameless, "have neither site nor hour in their names"),
        (report.lengthless, "have no readable sound: their silent windows are not counted"),
    ):
        if files:
            named = ", ".join(files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
            warnings.print(f"[yellow]{len(files)} of {report.files} files {what} ({escape(named)})[/]")
