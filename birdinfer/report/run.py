"""``birdinfer data``: a data folder -> a folder with the report, ``index.html`` and a CSV of each table."""

from dataclasses import dataclass, field
from pathlib import Path

from birdinfer.callbacks import Callback
from birdinfer.report.findings import Finding, find_all
from birdinfer.report.page import report_page
from birdinfer.report.survey import Survey, take_survey
from birdinfer.report.tables import Table, make_tables
from birdinfer.system.files import atomic_folder, atomic_text, check_replaceable
from birdinfer.system.outputs import check_folder
from birdinfer.tables.csv import CsvWriter
from birdinfer.training.recipe.schema import Recipe

PAGE, FINDINGS = "index.html", "findings.csv"
_KIND = ("a report of data", "name another folder with -o, or remove it", FINDINGS)
"""What a folder may hold that is replaced, what to do if it holds another thing, and the file that it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReportSettings:
    """What is reported."""

    data: Path
    """A folder in the layout of BirdCLEF: train.csv or train_metadata.csv, train_audio/, perhaps taxonomy.csv and
    train_soundscapes/."""
    output: Path | None = None
    """The folder to write; None writes nothing."""
    sound: bool = False
    """Decode every file once: near-duplicates, human voices, silence, clipping, damage."""
    recipe: Recipe = field(default_factory=Recipe)
    """Assigns the folds, and is what the advice is about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What was found."""

    findings: tuple[Finding, ...]
    """The gravest first."""
    tables: dict[str, Table]
    """By name, as their CSVs are called."""
    survey: Survey
    """The facts behind them."""
    page: Path | None
    """Where the page is; None if nothing was written."""


def report_data(settings: DataReportSettings, callback: Callback | None = None) -> DataReport:
    """Report what a data folder holds and what is wrong with it.

    Example::

        report = report_data(DataReportSettings(data=Path("birdclef-2025"), output=Path("report")))
        for finding in report.findings:
            print(finding.severity.text, finding.title)

    Raises:
        InputNotFoundError: there is no such folder, or no table in it.
        MetadataError: a table cannot be read at all.
        OutputError: the folder holds other things than a report, or cannot be written.
    """
    output = settings.output
    if output is not None:
        check_folder(output, [settings.data])
        check_replaceable(output, *_KIND)
    survey = take_survey(
        settings.data, settings.recipe, sound=settings.sound, callback=callback or Callback(),
        progress=None if output is None else output.with_name(f"{output.name}.progress"),
    )  # fmt: skip
    tables, findings = make_tables(survey), find_all(survey)
    if output is not None:
        _write(output, survey, tables, findings)
    return DataReport(
        findings=tuple(findings), tables=tables, survey=survey, page=None if output is None else output / PAGE
    )  # fmt: skip


def _write(output: Path, survey: Survey, tables: dict[str, Table], findings: list[Finding]) -> None:
    rows = tuple(
        (each.severity.text, each.title, each.count, "; ".join(each.examples), each.advice, each.table)
        for each in findings
    )
    listed = Table("findings", "Findings", ("severity", "finding", "count", "examples", "advice", "table"), rows)
    with atomic_folder(output, *_KIND) as new:
        for table in (*tables.values(), listed):
            with atomic_text(new / f"{table.name}.csv") as file:
                writer = CsvWriter(file)
                for row in (table.columns, *table.rows):
                    first, *others = ("" if cell is None else cell for cell in row)
                    writer.row(str(first), others)
        (new / PAGE).write_text(report_page(survey, tables, findings), "utf-8", "backslashreplace")
