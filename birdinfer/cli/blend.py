"""``birdinfer blend``: score tables of several models -> one, post-processed file by file if wanted."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from birdinfer.ensemble import Blend
    from birdinfer.postprocess.step import Step
    from birdinfer.tables.score_table import ScoreTable

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


class Blending(NamedTuple):
    """What is asked for, but the tables."""

    how: How = How.mean
    weights: tuple[float, ...] | None = None
    """One for each table; None: all 1."""
    gate: int | None = None
    """Number of the table that decides, from 1."""
    threshold: float | None = None
    """Of the gate."""
    match: bool = False
    """Whether later tables are first brought onto the first one's distribution, class by class."""
    post: tuple[str, ...] = ()
    """Steps of post-processing, as :func:`birdinfer.postprocess.steps.parse_steps` reads them."""
    bundle: Path | None = None
    """Whose species tell the steps what the columns are, or"""
    taxonomy: Path | None = None
    """the table that does."""


class BlendReport(NamedTuple):
    """What was written."""

    tables: int
    rows: int
    classes: int
    how: str
    steps: tuple[str, ...]
    """Of post-processing, as they are written on a command line."""
    seconds: float
    """Reading, blending and writing."""


def blend(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE", help="Scores: row_id and one column per label.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")],
    how: Annotated[How, typer.Option(help="rank: the mean of each class's ranks over all rows.")] = How.mean,
    weights: Annotated[
        str | None, typer.Option(help="One for each table, as 0.8,0.2; equal if left out. They count by their ratio.")
    ] = None,
    gate: Annotated[
        int | None, typer.Option(min=1, help="Of --how gate: number of the table that lets the others' mean pass.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of --how gate: where that table says so much or more, all passes.")
    ] = None,
    match: Annotated[
        bool, typer.Option("--match", help="First bring later tables onto the first one's distribution, per class.")
    ] = False,
    post: Annotated[
        list[str] | None, typer.Option(help="A step of post-processing, e.g. smooth:kernel=0.2/0.6/0.2; repeat it.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Steps that need to know species ask this bundle, or")] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="this taxonomy.csv.")] = None,
) -> None:
    """Blend the score tables of several models into one, and post-process it file by file.

    Rows and columns are matched by name, all tables need the same; the first one's order is kept. One table alone is
    only post-processed.
    """
    wanted = Blending(how, parse_weights(weights), gate, threshold, match, tuple(post or ()), bundle, taxonomy)
    _print_summary(blend_tables(tables, output, wanted), output)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """``"0.8,0.2"`` -> (0.8, 0.2); None stays None.

    Raises:
        ConfigError: there is something else than numbers.
    """
    from birdinfer.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError as error:
        raise ConfigError("--weights", f"{text!r}: {error}", "write them as 0.8,0.2") from error


def blend_tables(paths: "Sequence[Path]", output: Path, wanted: Blending) -> BlendReport:
    """Blend tables on disk into one.

    Raises:
        InputNotFoundError: a table, the bundle or the taxonomy is not there.
        MetadataError: a table is not as needed, or has other rows or columns than the first.
        ConfigError: what is asked for does not fit together.
        OutputError: the result cannot be written.
    """
    from birdinfer.files import check_writable
    from birdinfer.postprocess.steps import parse_steps, write_step
    from birdinfer.table_blend import write_scores
    from birdinfer.tables.score_table import read_scores

    began = time.perf_counter()
    _check_wanted(len(paths), wanted)
    steps = parse_steps(wanted.post)
    check_writable(output)
    tables = [read_scores(path) for path in paths]
    values = _post_processed(tables[0], _blended(tables, wanted), steps, wanted)
    write_scores(output, tables[0].row_ids, tables[0].labels, values)
    how = wanted.how.value if len(tables) > 1 else "as it is"
    names = tuple(write_step(step) for step in steps)
    n_rows, n_classes = values.shape
    return BlendReport(len(tables), n_rows, n_classes, how, names, time.perf_counter() - began)


def _check_wanted(n_tables: int, wanted: Blending) -> None:
    """Refuse what cannot be, or would do nothing, before a table is read."""
    _check_tables(n_tables, wanted)
    _check_gate(n_tables, wanted)
    _check_effects(wanted)


def _check_tables(n_tables: int, wanted: Blending) -> None:
    from birdinfer.errors import ConfigError

    n_weights = n_tables if wanted.weights is None else len(wanted.weights)
    if n_weights != n_tables:
        raise ConfigError("--weights", f"are {n_weights} for {n_tables} tables", "give one for each")
    if n_tables == 1 and wanted._replace(post=(), bundle=None, taxonomy=None) != Blending():
        raise ConfigError("TABLE", "one alone has nothing to be blended with", "name more, or only give --post")
    if n_tables == 1 and not wanted.post:
        raise ConfigError("TABLE", "one alone would stay as it is", "name more, or give --post")


def _check_gate(n_tables: int, wanted: Blending) -> None:
    from birdinfer.errors import ConfigError

    given = [wanted.gate is not None, wanted.threshold is not None]
    if wanted.how is How.gate and not all(given):
        raise ConfigError("--how gate", "needs to know who decides, and from where on", "give --gate and --threshold")
    if wanted.how is not How.gate and any(given):
        raise ConfigError("--gate and --threshold", f"are of no effect on {wanted.how}", "give --how gate")
    if wanted.gate is not None and wanted.gate > n_tables:
        raise ConfigError("--gate", f"is table {wanted.gate}, but there are {n_tables}", "count from 1")


def _check_effects(wanted: Blending) -> None:
    from birdinfer.cli.known_species import check_one_source
    from birdinfer.errors import ConfigError

    if wanted.match and wanted.how is How.rank:
        raise ConfigError("--match", "changes no rank", "leave it out, or blend in another way")
    check_one_source(wanted.bundle, wanted.taxonomy)
    if (wanted.bundle or wanted.taxonomy) and not wanted.post:
        raise ConfigError("--bundle and --taxonomy", "are of no effect without steps", "give --post, or leave them out")


def _as_blend(wanted: Blending) -> "Blend":
    """The way as a bundle would have it, tables named by their numbers."""
    from birdinfer.ensemble import Blend
    from birdinfer.errors import ConfigError

    try:
        return Blend(wanted.how.value, "" if wanted.gate is None else str(wanted.gate), wanted.threshold)
    except ValueError as error:
        raise ConfigError(f"--how {wanted.how}", str(error)) from error


def _blended(tables: "Sequence[ScoreTable]", wanted: Blending) -> "Scores":
    """All tables as one, [rows, labels] in the order of the first."""
    from birdinfer.table_blend import align_tables, blend_probabilities, blend_ranks, match_to_first
    from birdinfer.tables.score_table import check_probabilities

    values = align_tables(tables)
    weights = wanted.weights or (1.0,) * len(tables)
    if len(tables) > 1 and wanted.how is How.rank:
        return blend_ranks(values, weights)
    for table in tables:
        check_probabilities(table, "blend such scores with --how rank")
    if wanted.match:
        values = match_to_first(values)
    return blend_probabilities(values, _as_blend(wanted), weights)


def _post_processed(table: "ScoreTable", values: "Scores", steps: "Sequence[Step]", wanted: Blending) -> "Scores":
    """The steps, file by file."""
    from birdinfer.cli.known_species import known_species
    from birdinfer.postprocess.pipeline import Pipeline
    from birdinfer.tables.score_files import apply_by_file, rows_by_file

    if not steps:
        return values
    pipeline = Pipeline(steps, known_species(table.labels, wanted.bundle, wanted.taxonomy))
    return apply_by_file(values, rows_by_file(table.row_ids, table.path), pipeline)


def _print_summary(report: BlendReport, output: Path) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stdout

    tables = f"{report.tables} tables" if report.tables > 1 else "1 table"
    done = ", then ".join([report.how, *report.steps])
    stdout().print(
        escape(f"{output}: {tables}, {report.rows} rows, {report.classes} classes, {done}, {report.seconds:.1f} s")
    )
