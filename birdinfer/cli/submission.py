"""``birdinfer submission``: is a submission as Kaggle wants it, and a submission of one year's shape in another's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from birdinfer.submission_rules import Finding, Report

EXIT_WITH_FAULTS = 3

submission = typer.Typer(
    help="Check a submission before Kaggle does, or bring it into another year's shape.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@submission.command()
def check(
    table: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="The file that would be submitted.")],
    sample: Annotated[
        Path | None,
        typer.Option(
            help="sample_submission.csv, whose rows and columns are wanted in its order. Left out: rows are only held "
            "against the year's row ids.",
            show_default=False,
        ),
    ] = None,
    year: Annotated[
        int | None,
        typer.Option(
            help="Whose shape, 2021 to 2026; guessed from the sample, or the submission, if left out.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Find all that is wrong with a submission, the worst first: Kaggle says no more than "Submission Scoring Error".

    Rows, columns, their order, row ids, types, NaN, range, and what kind of file it is. Each line says how many, the
    first three, what Kaggle would do and what to do about it. Warnings are odd, and are no faults.

    Exit code 0: good, perhaps with warnings. 3: there are faults. 2: it cannot be checked.
    """
    from birdinfer.submission_rules import check_submission

    report = check_submission(table, sample, year)
    if json:
        _print_json(report)
    else:
        _print_report(report)
    if not report.is_good:
        raise typer.Exit(EXIT_WITH_FAULTS)


@submission.command()
def convert(
    table: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="Probabilities, lists (2021) or True and False (2022).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")],
    year: Annotated[int, typer.Option(help="Whose shape to write, 2021 to 2026.")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="A species is heard from this probability on.")] = 0.5,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="Write exactly the rows and columns of this file, in its order; lists of 2021 need one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a submission in another year's shape: probabilities as lists (2021) or as True and False (2022), and back.

    Of probabilities it writes what `birdinfer predict --year` would have. Back, what was heard is 1 and all else 0.
    """
    from birdinfer.cli.console import shown, stdout
    from birdinfer.submission_forms import convert_submission

    done = convert_submission(table, output, year, threshold, sample)
    stdout().print(
        f"[bold]{shown(str(output))}[/]: {done.rows} rows in the shape of {done.to_year}, "
        f"made of that of {done.from_year}"
    )


def _print_report(report: "Report") -> None:
    from birdinfer.cli.console import shown, stdout

    console = stdout()
    how = "guessed" if report.is_year_guessed else "asked for"
    console.print(
        f"[bold]{shown(str(report.path))}[/]: {report.n_rows} rows, {report.n_columns} columns, "
        f"held against the shape of {report.year} ({how})"
    )
    for finding in report.findings:
        console.print(f"{_severity(finding)}  {shown(str(finding))}")
    n_faults = sum(finding.is_fault for finding in report.findings)
    n_warnings = len(report.findings) - n_faults
    verdict = f"[bold red]{n_faults} kinds of fault[/]" if n_faults else "[bold green]good[/]"
    console.print(verdict + (f", {n_warnings} warnings" if n_warnings else ""))


def _severity(finding: "Finding") -> str:
    return "[red]fault  [/]" if finding.is_fault else "[yellow]warning[/]"


def _print_json(report: "Report") -> None:
    import json

    line = {
        "file": str(report.path),
        "year": report.year,
        "year_guessed": report.is_year_guessed,
        "rows": report.n_rows,
        "columns": report.n_columns,
        "good": report.is_good,
        "findings": [
            {
                "kind": finding.kind.value,
                "fault": finding.is_fault,
                "times": finding.n_times,
                "first": finding.first,
                "line": str(finding),
            }
            for finding in report.findings
        ],
    }
    typer.echo(json.dumps(line))
