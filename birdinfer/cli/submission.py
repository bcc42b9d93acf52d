"""``birdinfer submission``: is a submission as Kaggle wants it, and a submission of one year's shape in another's."""

import json
from pathlib import Path
from typing import Annotated

import typer

from birdinfer.cli.app import make_group
from birdinfer.cli.console import shown, stdout, summary, table_file
from birdinfer.cli.options import Force, Output
from birdinfer.submission.check import Report, check_submission
from birdinfer.submission.convert import convert_submission

EXIT_WITH_FAULTS = 3

submission = make_group("submission")


@submission.command()
def check(
    table: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="The file that would be submitted.")],
    sample: Annotated[Path | None, typer.Option(
        help="sample_submission.csv, whose rows and columns are needed in its order. Left out: only the form of the "
        "year's row ids is checked.", show_default=False)] = None,
    year: Annotated[int | None, typer.Option(
        help="Year of the format, 2021 to 2026; guessed from the sample, or the submission, if left out.",
        show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:  # fmt: skip
    """Find all that is wrong with a submission, the worst first: Kaggle says no more than "Submission Scoring Error".

    Rows, columns, their order, row ids, types, NaN, range, and what kind of file it is. Each line says how many, the
    first three, what Kaggle would do and what to do about it. Warnings are odd, and are no faults.

    Exit code 0: good, perhaps with warnings. 3: there are faults. 2: it cannot be checked.
    """
    report = check_submission(table, sample, year)
    if json:
        _print_json(report)
    else:
        _print_report(report)
    if not report.is_ok:
        raise typer.Exit(EXIT_WITH_FAULTS)


@submission.command()
def convert(
    table: Annotated[Path, typer.Argument(
        metavar="SUBMISSION", help="Probabilities, lists (2021) or True and False (2022).")],
    output: Output,
    year: Annotated[int, typer.Option(help="Year of the format to write, 2021 to 2026.")],
    threshold: Annotated[float, typer.Option(
        min=0, max=1, help="A species is present from this probability on.")] = 0.5,
    sample: Annotated[Path | None, typer.Option(
        help="Write exactly the rows and columns of this file, in its order; lists of 2021 need one.",
        show_default=False)] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Write a submission in another year's format: probabilities as lists (2021) or as True and False (2022), and back.

    Of probabilities it writes what `birdinfer predict --year` would have written. Back, a species that is present is 1,
    all others are 0.
    """
    with table_file(output) as file:
        done = convert_submission(table, file, year, threshold, sample, force)
    summary(output).print(
        f"[bold]{shown(str(output))}[/]: {done.rows} rows in the format of {done.to_year}, "
        f"made from that of {done.from_year}"
    )


def _print_report(report: Report) -> None:
    console = stdout()
    how = "guessed" if report.is_year_guessed else "asked for"
    console.print(
        f"[bold]{shown(str(report.path))}[/]: {report.n_rows} rows, {report.n_columns} columns, "
        f"compared with the format of {report.year} ({how})"
    )
    for problem in report.problems:
        severity = "[red]fault  [/]" if problem.is_error else "[yellow]warning[/]"
        console.print(f"{severity}  {shown(str(problem))}")
    n_errors = sum(problem.is_error for problem in report.problems)
    n_warnings = len(report.problems) - n_errors
    summary = f"[bold red]{n_errors} kinds of fault[/]" if n_errors else "[bold green]good[/]"
    console.print(summary + (f", {n_warnings} warnings" if n_warnings else ""))


def _print_json(report: Report) -> None:
    line = {
        "file": str(report.path),
        "year": report.year,
        "year_guessed": report.is_year_guessed,
        "rows": report.n_rows,
        "columns": report.n_columns,
        "good": report.is_ok,
        "findings": [
            {"kind": p.kind.value, "fault": p.is_error, "times": p.n_times, "first": p.first, "line": str(p)}
            for p in report.problems
        ],
    }
    typer.echo(json.dumps(line))
