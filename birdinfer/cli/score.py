"""``birdinfer score``: submission.csv and truth.csv -> the competitions' metrics, or which post-processing helps."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from birdinfer.cli.ablate import AblationSettings, run_ablation
from birdinfer.cli.console import stderr, stdout
from birdinfer.cli.score_tables import check_one_source, read_matched
from birdinfer.errors import ConfigError
from birdinfer.evaluation.metrics import macro_roc_auc, padded_cmap, roc_auc_per_class

_ABLATION = "Which post-processing helps"
_ablation_option = partial(typer.Option, rich_help_panel=_ABLATION, show_default=False)
_NAMED_COLUMNS = 5
_RESAMPLES = 2000


class ClassScore(NamedTuple):
    """One label's ROC-AUC (None without a positive or a negative row) and the number of rows in which it is present."""

    label: str
    roc_auc: float | None
    positives: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """A submission against its truth; what it has besides the truth's rows and columns (``extra``) is left out."""

    macro_roc_auc: float | None  # metric of BirdCLEF 2024-2026, 0 to 1; None if no class is scorable
    padded_cmap: float  # metric of BirdCLEF 2023, 0 to 1
    rows: int
    classes: list[ClassScore]  # in the truth's order
    extra_rows: int
    extra_columns: list[str]
    notes: tuple[str, ...]  # what was left out of the truth, a line each
    outside_0_1: bool  # whether a score lies outside [0, 1], where the padding of cmAP makes no sense

    @property
    def classes_scored(self) -> int:
        return sum(each.roc_auc is not None for each in self.classes)


def score(
    submission: Annotated[Path | None, typer.Argument(
        help="Table of scores: row_id and one column per label. With --ablate also a folder of them, of the groups of "
        "a blend by rank (predict --group-tables).", show_default=False)] = None,
    truth: Annotated[Path | None, typer.Argument(
        help="Table of the same shape that holds 0 or 1, or who is present when: filename,start,end,primary_label as "
        "in BirdCLEF 2026, a selection table of Raven, a label track of Audacity, a folder of them.",
        show_default=False)] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="List every class, the worst first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    ablate: Annotated[bool, typer.Option(
        "--ablate", help="Try steps of post-processing on scores without any (predict --smooth none --post none).",
        rich_help_panel=_ABLATION)] = False,
    post: Annotated[list[str] | None, _ablation_option(
        help="A step, as for predict; several are one pipeline: each is tried alone and taken out of the whole. Left "
        "out: every kind of step is tried alone.")] = None,
    blend: Annotated[str | None, _ablation_option(
        help="A blend by rank, as for predict, whose parts are tried on a folder of tables of its groups; the bundle's "
        "if left out.")] = None,
    oof: Annotated[Path | None, _ablation_option(
        help="Try them on a run's out-of-fold scores instead, runs/NAME.")] = None,
    bundle: Annotated[Path | None, typer.Option(
        help="The bundle that predicted: its species' names and classes.", show_default=False)] = None,
    taxonomy: Annotated[Path | None, typer.Option(
        help="taxonomy.csv with the species' names and classes.", show_default=False)] = None,
    resamples: Annotated[int | None, _ablation_option(
        min=1, max=1_000_000, help="How often files are resampled for the intervals.",
        show_default=str(_RESAMPLES))] = None,
    seed: Annotated[int | None, _ablation_option(min=0, help="Seed of the resampling.", show_default="0")] = None,
    plot: Annotated[Path | None, _ablation_option(help="Draw the gains with their intervals: a PNG.")] = None,
) -> None:  # fmt: skip
    """Score a submission against the truth: macro ROC-AUC (BirdCLEF 2024-2026) and padded cmAP (2023).

    Rows and columns are matched by name. What the truth asks for must be there; what it does not ask for is left out.
    Calls of a truth count in each row that has a tenth of a second of them. Species may have their scientific or common
    name there with --bundle or --taxonomy.

    With --ablate: which steps of post-processing help, with intervals from a bootstrap over files; for a folder of
    tables of groups, which parts of their blend by rank (--bundle, or --blend).
    """
    asked = {
        "--post": post,
        "--blend": blend,
        "--oof": oof,
        "--plot": plot,
        "--resamples": resamples,
        "--seed": seed,
    }
    if ablate:
        if per_class:
            raise ConfigError("--per-class", "does not go with --ablate", "leave one of them out")
        run_ablation(
            AblationSettings(
                submission=submission, truth=truth, oof=oof, post=tuple(post or ()), blend=blend, bundle=bundle,
                taxonomy=taxonomy, resamples=resamples or _RESAMPLES, seed=seed or 0, plot=plot,
            ),
            as_json=json,
        )  # fmt: skip
        return
    for name, value in asked.items():
        if value is not None and value != []:
            raise ConfigError(name, "goes with --ablate alone", "add --ablate, or leave it out")
    if submission is None or truth is None:
        raise ConfigError("score", "needs two tables", "birdinfer score submission.csv truth.csv")
    report = score_submission(submission, truth, bundle, taxonomy)
    for line in report.notes:
        stderr().print(f"[yellow]{escape(line)}[/]")
    if json:
        _print_json(report, per_class)
        return
    _print_summary(report)
    if per_class:
        _print_classes(report)


def score_submission(
    submission: Path, truth: Path, bundle: Path | None = None, taxonomy: Path | None = None
) -> ScoreReport:
    """Score a submission against a truth of any kind.

    ``bundle`` or ``taxonomy``: whose names of species the truth uses instead of labels. Raises InputNotFoundError,
    MetadataError or LabelError if a table is not as needed.
    """
    check_one_source(bundle, taxonomy)
    tables = read_matched(submission, truth, bundle, taxonomy)
    wanted, given, scores = tables.truth, tables.given, tables.scores
    macro = macro_roc_auc(wanted.values, scores)
    per_class = roc_auc_per_class(wanted.values, scores)
    positives = wanted.values.sum(axis=0).astype(int)
    wanted_labels = set(wanted.labels)
    return ScoreReport(
        macro_roc_auc=None if np.isnan(macro) else macro, padded_cmap=padded_cmap(wanted.values, scores),
        rows=len(wanted.row_ids),
        classes=[
            ClassScore(label, None if np.isnan(auc) else float(auc), int(count))
            for label, auc, count in zip(wanted.labels, per_class, positives, strict=True)
        ],
        extra_rows=len(given.row_ids) - len(wanted.row_ids),
        extra_columns=[label for label in given.labels if label not in wanted_labels],
        notes=tables.notes,
        outside_0_1=bool((scores < 0).any() or (scores > 1).any()),
    )  # fmt: skip


def _print_json(report: ScoreReport, per_class: bool) -> None:
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
    table = Table("class", box=None, pad_edge=False)
    table.add_column("ROC-AUC", justify="right")
    table.add_column("positives", justify="right")
    for each in sorted(report.classes, key=lambda c: 2.0 if c.roc_auc is None else c.roc_auc):
        table.add_row(Text(each.label), _four_digits(each.roc_auc), str(each.positives))
    stdout().print(table)


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
