"""``birdinfer blend``: score tables of several models -> one table, post-processed file by file if asked for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.markup import escape

from birdinfer.cli.console import summary, table_file
from birdinfer.cli.options import Force, Output
from birdinfer.cli.score_tables import check_one_source, known_species
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import MANIFEST_NAME
from birdinfer.inference.ensemble import Blend
from birdinfer.postprocess.base import Pipeline, tables_of
from birdinfer.postprocess.steps import parse_steps, write_step
from birdinfer.submission.blend_tables import (
    align_tables,
    blend_probabilities,
    blend_ranks,
    match_to_first,
    write_scores,
)
from birdinfer.system.outputs import SCORES, check_outputs
from birdinfer.tables.scores import ScoreTable, apply_by_file, check_probabilities, read_scores, rows_by_file

Scores = npt.NDArray[np.floating[Any]]


class How(StrEnum):
    """How tables become one."""

    mean = "mean"
    geometric = "geometric"
    rms = "rms"
    minimum = "minimum"
    maximum = "maximum"
    median = "median"
    gate = "gate"
    rank = "rank"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendSettings:
    """How tables are blended and post-processed."""

    how: How = How.mean
    weights: tuple[float, ...] | None = None  # one for each table; None: all 1
    gate: int | None = None  # number of the table that decides, from 1
    threshold: float | None = None  # of the gate
    match: bool = False  # whether later tables are first mapped to the first one's distribution, class by class
    post: tuple[str, ...] = ()  # as :func:`birdinfer.postprocess.steps.parse_steps` reads them
    bundle: Path | None = None  # with the species of the columns, for steps that need them
    taxonomy: Path | None = None  # instead of the bundle
    force: bool = False  # replace an output that birdinfer has not written


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendReport:
    """What was written."""

    tables: int
    rows: int
    classes: int
    how: str
    steps: tuple[str, ...]  # of post-processing, as they are written on a command line
    seconds: float  # reading, blending and writing


def blend(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE", help="Scores: row_id and one column per label.")],
    output: Output,
    how: Annotated[How, typer.Option(help="rank: the mean of each class's ranks over all rows.")] = How.mean,
    weights: Annotated[str | None, typer.Option(
        help="One for each table, as 0.8,0.2; equal if left out. They count by their ratio.")] = None,
    gate: Annotated[int | None, typer.Option(
        min=1, help="With --how gate: which table (1, 2, ...) decides where the others' mean passes.")] = None,
    threshold: Annotated[float | None, typer.Option(
        help="With --how gate: from this score of that table on, all passes.")] = None,
    match: Annotated[bool, typer.Option(
        "--match", help="First bring later tables onto the first one's distribution, per class.")] = False,
    post: Annotated[list[str] | None, typer.Option(
        help="A step of post-processing, e.g. smooth:kernel=0.2/0.6/0.2; repeat it.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle whose species the steps go by.")] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="taxonomy.csv whose species the steps go by.")] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Blend the score tables of several models into one, and post-process it file by file.

    Rows and columns are matched by name, all tables need the same; the first one's order is kept. One table alone is
    only post-processed.
    """
    settings = BlendSettings(
        how=how, weights=parse_weights(weights), gate=gate, threshold=threshold, match=match, post=tuple(post or ()),
        bundle=bundle, taxonomy=taxonomy, force=force,
    )  # fmt: skip
    with table_file(output) as table:
        report = blend_tables(tables, table, settings)
    _print_summary(report, output)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """Parse ``"0.8,0.2"``; None stays None. Raises ConfigError for anything but numbers."""
    if text is None:
        return None
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError as error:
        raise ConfigError("--weights", f"{text!r}: {error}", "write them as 0.8,0.2") from error


def blend_tables(paths: Sequence[Path], output: Path, settings: BlendSettings) -> BlendReport:
    """Blend tables on disk into one; raise a BirdinferError if something is missing or does not fit together."""
    began = time.perf_counter()
    _check(len(paths), settings)
    steps = parse_steps(settings.post)
    given = [each for each in (settings.bundle and settings.bundle / MANIFEST_NAME, settings.taxonomy) if each]
    check_outputs([(output, SCORES)], [*paths, *given, *tables_of(steps)], force=settings.force)
    tables = [read_scores(path) for path in paths]
    first, values = tables[0], _blended(tables, settings)
    if steps:
        pipeline = Pipeline(steps, known_species(first.labels, settings.bundle, settings.taxonomy))
        values = apply_by_file(values, rows_by_file(first.row_ids, first.path), pipeline)
    write_scores(output, first.row_ids, first.labels, values)
    how = settings.how.value if len(tables) > 1 else "as it is"
    names = tuple(write_step(step) for step in steps)
    n_rows, n_classes = values.shape
    return BlendReport(
        tables=len(tables), rows=n_rows, classes=n_classes, how=how, steps=names, seconds=time.perf_counter() - began,
    )  # fmt: skip


def _check(n_tables: int, settings: BlendSettings) -> None:
    """Refuse what is impossible, or has no effect, before a table is read."""
    n_weights = n_tables if settings.weights is None else len(settings.weights)
    if n_weights != n_tables:
        raise ConfigError("--weights", f"are {n_weights} for {n_tables} tables", "give one for each")
    if n_tables == 1 and replace(settings, post=(), bundle=None, taxonomy=None, force=False) != BlendSettings():
        raise ConfigError("TABLE", "one alone has nothing to be blended with", "name more, or only give --post")
    if n_tables == 1 and not settings.post:
        raise ConfigError("TABLE", "one alone would stay as it is", "name more, or give --post")
    given = [settings.gate is not None, settings.threshold is not None]
    if settings.how is How.gate and not all(given):
        raise ConfigError("--how gate", "needs to know who decides, and from where on", "give --gate and --threshold")
    if settings.how is not How.gate and any(given):
        raise ConfigError("--gate and --threshold", f"are of no effect on {settings.how}", "give --how gate")
    if settings.gate is not None and settings.gate > n_tables:
        raise ConfigError("--gate", f"is table {settings.gate}, but there are {n_tables}", "count from 1")
    if settings.match and settings.how is How.rank:
        raise ConfigError("--match", "changes no rank", "leave it out, or blend in another way")
    check_one_source(settings.bundle, settings.taxonomy)
    if (settings.bundle or settings.taxonomy) and not settings.post:
        raise ConfigError("--bundle and --taxonomy", "are of no effect without steps", "give --post, or leave them out")


def _blended(tables: Sequence[ScoreTable], settings: BlendSettings) -> Scores:
    """Blend to [rows, labels] in the order of the first table."""
    values = align_tables(tables)
    weights = settings.weights or (1.0,) * len(tables)
    if len(tables) > 1 and settings.how is How.rank:
        return blend_ranks(values, weights)
    for table in tables:
        check_probabilities(table, "blend such scores with --how rank")
    if settings.match:
        values = match_to_first(values)
    try:  # tables are named by their numbers
        blend = Blend(settings.how.value, "" if settings.gate is None else str(settings.gate), settings.threshold)
    except ValueError as error:
        raise ConfigError(f"--how {settings.how}", str(error)) from error
    return blend_probabilities(values, blend, weights)


def _print_summary(report: BlendReport, output: Path) -> None:
    tables = f"{report.tables} tables" if report.tables > 1 else "1 table"
    done = ", then ".join([report.how, *report.steps])
    summary(output).print(
        escape(f"{output}: {tables}, {report.rows} rows, {report.classes} classes, {done}, {report.seconds:.1f} s")
    )
