"""``birdinfer prior``: labelled soundscapes -> how often each species is heard at which site and hour, as prior.csv."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from birdinfer.tables.labelled_windows import LabelledWindows

_NAMED = 3


class PriorReport(NamedTuple):
    """What was counted."""

    windows: int
    """All, with the silent ones."""
    silent_windows: int
    """Windows of labelled files that no row tells of: nobody was heard in them. 0 without a folder of soundscapes."""
    files: int
    sites: int
    hours: int
    """Of the 24."""
    species: int
    """Columns of the table."""
    species_heard: int
    """Those with a window."""
    repeated_rows: int
    """Rows of a window that has one already: the window counts once, with the labels of all."""
    nameless: tuple[str, ...]
    """Files whose names tell neither a site nor an hour."""
    lengthless: tuple[str, ...]
    """Labelled files without a readable sound file in the folder: their silent windows are not known."""


def prior(
    labels: Annotated[
        list[Path],
        typer.Argument(
            metavar="LABELS",
            help="Tables of filename,start,end,primary_label as in BirdCLEF 2026, or of row_id and columns of 0 and 1.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")] = Path("prior.csv"),
    soundscapes: Annotated[
        Path | None,
        typer.Option(help="Folder of the sound files: windows of labelled files that no row tells of count as silent."),
    ] = None,
    taxonomy: Annotated[
        Path | None, typer.Option(help="taxonomy.csv: columns for all of its species, in its order.")
    ] = None,
    row_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Length of a window where a row_id tells its end alone.")
    ] = 5.0,
) -> None:
    """Count in labelled soundscapes which species are heard where and when: the table of the step prior_shift.

    Site and hour are read from the files' names, e.g. BC2026_Train_0001_S05_20250227_010002 or PLOT7_20250227_010002.
    """
    _print_report(count_priors(labels, output, soundscapes, taxonomy, row_seconds), output)


def count_priors(
    labels: list[Path],
    output: Path,
    soundscapes: Path | None = None,
    taxonomy: Path | None = None,
    row_seconds: float = 5.0,
) -> PriorReport:
    """Make a table of priors.

    Args:
        labels: tables of labelled windows.
        output: the table to write.
        soundscapes: the sound files, or None to count the windows of the tables alone.
        taxonomy: the species, or None for those that the tables name.
        row_seconds: length of a window where a row id tells its end alone, > 0.

    Raises:
        InputNotFoundError: a table or the folder is not there.
        MetadataError: a table of labels is not as needed.
        LabelError: a label is not in the taxonomy, or the taxonomy is none.
        OutputError: the table cannot be written.
    """
    from birdinfer.files import check_writable
    from birdinfer.tables.labelled_windows import count_windows, read_labelled_windows, silent_windows
    from birdinfer.tables.prior_tables import write_priors

    check_writable(output)
    found = read_labelled_windows(labels, row_seconds)
    columns = _columns(found, taxonomy)
    durations = _durations({window.stem for window in found.heard}, soundscapes) if soundscapes else None
    silent = silent_windows(found.heard, durations or {})
    table = count_windows({**found.heard, **dict.fromkeys(silent, frozenset())}, columns)
    write_priors(output, table)
    stems = sorted({window.stem for window in found.heard})
    return PriorReport(
        windows=len(found.heard) + len(silent),
        silent_windows=len(silent),
        files=len(stems),
        sites=len({one.site for one in table.occasions} - {None}),
        hours=len({one.hour for one in table.occasions} - {None}),
        species=len(columns),
        species_heard=int((table.heard.sum(axis=0) > 0).sum()),
        repeated_rows=found.repeated_rows,
        nameless=tuple(stem for stem in stems if _tells_nothing(stem)),
        lengthless=() if durations is None else tuple(stem for stem in stems if stem not in durations),
    )


def _columns(found: "LabelledWindows", taxonomy: Path | None) -> tuple[str, ...]:
    """The labels of the table."""
    from birdinfer.errors import LabelError
    from birdinfer.tables.label_lists import read_label_list

    if taxonomy is None:
        return found.labels
    columns = tuple(listed.label for listed in read_label_list(taxonomy))
    unknown = sorted(set(found.labels) - set(columns))
    if unknown:
        named = ", ".join(unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
        raise LabelError(taxonomy, f"lacks {len(unknown)} labels of the windows: {named}", "add the species there")
    return columns


def _durations(stems: set[str], soundscapes: Path) -> dict[str, float]:
    """Seconds of each of these files that is there and can be read, by stem."""
    from birdinfer.audio import probe
    from birdinfer.errors import AudioError
    from birdinfer.soundscapes import find_soundscapes

    durations = {}
    for path in find_soundscapes([soundscapes]):
        if path.stem in stems:
            try:
                durations[path.stem] = probe(path).duration_seconds
            except AudioError:  # named among the files without a length
                continue
    return durations


def _tells_nothing(stem: str) -> bool:
    from birdinfer.recording_names import parse_name

    return parse_name(stem) == (None, None)


def _print_report(report: PriorReport, output: Path) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stderr, stdout

    console, warnings = stdout(), stderr()
    silent = f", {report.silent_windows} of them silent" if report.silent_windows else ""
    console.print(f"windows  {report.windows} of {report.files} files{silent}")
    console.print(f"sites    {report.sites}")
    console.print(f"hours    {report.hours} of 24")
    console.print(f"species  {report.species_heard} heard of {report.species}")
    console.print(f"written  {escape(str(output))}")
    if report.repeated_rows:
        warnings.print(f"[yellow]{report.repeated_rows} rows repeat a window: it counts once[/]")
    for files, what in (
        (report.nameless, "tell neither site nor hour by their names"),
        (report.lengthless, "have no readable sound: their silent windows are not counted"),
    ):
        if files:
            named = ", ".join(files[:_NAMED]) + (", ..." if len(files) > _NAMED else "")
            warnings.print(f"[yellow]{len(files)} of {report.files} files {what} ({escape(named)})[/]")
