"""``birdinfer score``: submission.csv and truth.csv -> the competitions' metrics, or which post-processing helps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from birdinfer.cli.matched_tables import MatchedTables

_ABLATION = "Which post-processing helps"
_NAMED_COLUMNS = 5
_RESAMPLES = 2000


class ClassScore(NamedTuple):
    """One label's part in the score."""

    label: str
    roc_auc: float | None
    """0 to 1; None if the label has no positive row or no negative one."""
    positives: int
    """Rows in which it is to be heard."""


class ScoreReport(NamedTuple):
    """A submission against its truth."""

    macro_roc_auc: float | None
    """Metric of BirdCLEF 2024-2026, 0 to 1; None if no class is scorable."""
    padded_cmap: float
    """Metric of BirdCLEF 2023, 0 to 1."""
    rows: int
    classes: list[ClassScore]
    """In the truth's order."""
    extra_rows: int
    """Rows of the submission that the truth does not have: left out."""
    extra_columns: list[str]
    """Columns of the submission that the truth does not have: left out."""
    outside_0_1: bool
    """Whether a score lies outside [0, 1], where the padding of cmAP makes no sense."""

    @property
    def classes_scored(self) -> int:
        """How many classes have a ROC-AUC."""
        return sum(each.roc_auc is not None for each in self.classes)


def score(
    submission: Annotated[
        Path | None, typer.Argument(help="Table of scores: row_id and one column per label.", show_default=False)
    ] = None,
    truth: Annotated[
        Path | None, typer.Argument(help="Table of the same shape that holds 0 or 1.", show_default=False)
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="List every class, the worst first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate", help="Try steps of post-processing on scores without any (predict --smooth none --post none).",
            rich_help_panel=_ABLATION,
        ),
    ] = False,
    post: Annotated[
        list[str] | None,
        typer.Option(
            help="A step, as for predict; several are one pipeline: each is tried alone and taken out of the whole. "
            "Left out: every kind of step is tried alone.",
            rich_help_panel=_ABLATION, show_default=False,
        ),
    ] = None,
    oof: Annotated[
        Path | None,
        typer.Option(
            help="Try them on a run's out-of-fold scores instead, runs/NAME.", rich_help_panel=_ABLATION,
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="The bundle that predicted: its species' names and classes.", rich_help_panel=_ABLATION,
            show_default=False,
        ),
    ] = None,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            help="taxonomy.csv with the species' names and classes.", rich_help_panel=_ABLATION, show_default=False
        ),
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Of the files, for the intervals.", rich_help_panel=_ABLATION,
            show_default=str(_RESAMPLES),
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the resamples.", rich_help_panel=_ABLATION, show_default="0")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the gains with their intervals: a PNG.", rich_help_panel=_ABLATION, show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Score a submission against the truth: macro ROC-AUC (BirdCLEF 2024-2026) and padded cmAP (2023).

    Rows and columns are matched by name. What the truth asks for must be there; what it does not ask for is left out.

    With --ablate: which steps of post-processing help, with intervals from a bootstrap over files.
    """
    from birdinfer.errors import ConfigError

    asked = {
        "--post": post, "--oof": oof, "--bundle": bundle, "--taxonomy": taxonomy, "--plot": plot,
        "--resamples": resamples, "--seed": seed,
    }  # fmt: skip
    if ablate:
        from birdinfer.cli.ablating import Asked, run_ablation

        if per_class:
            raise ConfigError("--per-class", "does not go with --ablate", "leave one of them out")
        run_ablation(
            Asked(
                submission, truth, oof, tuple(post or ()), bundle, taxonomy, resamples or _RESAMPLES, seed or 0, plot
            ),
            as_json=json,
        )
        return
    for name, value in asked.items():
        if value is not None and value != []:
            raise ConfigError(name, "goes with --ablate alone", "add --ablate, or leave it out")
    if submission is None or truth is None:
        raise ConfigError("score", "needs two tables", "birdinfer score submission.csv truth.csv")
    report = score_submission(submission, truth)
    if json:
        _print_json(report, per_class)
        return
    _print_summary(report)
    if per_class:
        _print_classes(report)


def score_submission(submission: Path, truth: Path) -> ScoreReport:
    """Score one table against another.

    Raises:
        InputNotFoundError: a table is not there.
        MetadataError: a table is not as needed, the submission lacks rows or columns of the truth, or the truth holds
            something else than 0 or 1.
    """
    from birdinfer.cli.matched_tables import read_matched

    return _compare(read_matched(submission, truth))


def _compare(tables: "MatchedTables") -> ScoreReport:
    import numpy as np

    from birdinfer.metrics import macro_roc_auc, padded_cmap, roc_auc_per_class

    truth, given, scores = tables.truth, tables.given, tables.scores
    macro = macro_roc_auc(truth.values, scores)
    per_class = roc_auc_per_class(truth.values, scores)
    positives = truth.values.sum(axis=0).astype(int)
    wanted_labels = set(truth.labels)
    return ScoreReport(
        macro_roc_auc=None if np.isnan(macro) else macro,
        padded_cmap=padded_cmap(truth.values, scores),
        rows=len(truth.row_ids),
        classes=[
            ClassScore(label, None if np.isnan(auc) else float(auc), int(count))
            for label, auc, count in zip(truth.labels, per_class, positives, strict=True)
        ],
        extra_rows=len(given.row_ids) - len(truth.row_ids),
        extra_columns=[label for label in given.labels if label not in wanted_labels],
        outside_0_1=bool((scores < 0).any() or (scores > 1).any()),
    )


def _print_json(report: ScoreReport, per_class: bool) -> None:
    """One line, NaN as null, so that any JSON reader takes it."""
    import json

    line: dict[str, object] = {
        "macro_roc_auc": report.macro_roc_auc,
        "padded_cmap": report.padded_cmap,
        "rows": report.rows,
        "classes": len(report.classes),
        "classes_scored": report.classes_scored,
        "extra_rows": report.extra_rows,
        "extra_columns": report.extra_columns,
    }
    if per_class:
        line["per_class"] = {c.label: {"roc_auc": c.roc_auc, "positives": c.positives} for c in report.classes}
    typer.echo(json.dumps(line))


def _print_summary(report: ScoreReport) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stderr, stdout

    console = stdout()
    console.print(f"[bold]macro ROC-AUC  {_four_digits(report.macro_roc_auc)}[/]")
    console.print(f"padded cmAP    {report.padded_cmap:.4f}")
    console.print(f"rows           {report.rows}")
    console.print(f"classes        {report.classes_scored} scored of {len(report.classes)}")
    if report.macro_roc_auc is None:
        stderr().print("[yellow]no class has both a positive and a negative row: there is no ROC-AUC[/]")
    if report.extra_rows:
        stderr().print(f"[yellow]{report.extra_rows} rows of the submission are not in the truth: left out[/]")
    if report.extra_columns:
        named = escape(", ".join(report.extra_columns[:_NAMED_COLUMNS]))
        stderr().print(
            f"[yellow]{len(report.extra_columns)} columns of the submission are not in the truth: left out ({named})[/]"
        )
    if report.outside_0_1:
        stderr().print("[yellow]some scores lie outside 0 to 1: padded cmAP means nothing for them[/]")


def _print_classes(report: ScoreReport) -> None:
    """A table, the worst class first and those without a score last."""
    from rich.table import Table
    from rich.text import Text

    from birdinfer.cli.console import stdout

    table = Table("class", box=None, pad_edge=False)
    table.add_column("ROC-AUC", justify="right")
    table.add_column("positives", justify="right")
    for each in sorted(report.classes, key=lambda c: 2.0 if c.roc_auc is None else c.roc_auc):
        table.add_row(Text(each.label), _four_digits(each.roc_auc), str(each.positives))
    stdout().print(table)


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
