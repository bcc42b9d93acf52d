"""``birdinfer runs``: all runs of a folder in one table, and the scores that the leaderboard gave them."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from birdinfer.cli.console import needing, stdout
from birdinfer.errors import ConfigError
from birdinfer.runs.overview import (
    Note,
    RunRecord,
    differing_keys,
    note_score,
    rank_correlation,
    read_record,
    read_runs,
    runs_table,
)
from birdinfer.runs.study import cell
from birdinfer.system.files import write_atomic
from birdinfer.system.outputs import PICTURE, RUNS, STDOUT, check_outputs

_ORDERS = ("name", "score", "public", "trained")
_LONGEST = 24
"""Characters of a value on the screen."""


def runs(
    folder: Annotated[Path, typer.Argument(help="Where runs are kept; or one run.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help=f"Order of the table: {', '.join(_ORDERS)}.")] = "name",
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Also as a table, NAME.csv, with a column for each key in which runs differ; - prints "
        "it alone.")] = None,
    picture: Annotated[Path | None, typer.Option(
        "--plot", help="Also as a picture, NAME.png: scores of all folds, and against the leaderboard.")] = None,
    note: Annotated[str | None, typer.Option(
        help="Instead: note a score of the leaderboard of this run, a name in FOLDER or a path.")] = None,
    public: Annotated[float, typer.Option(help="The public score to note.", show_default=False)] = math.nan,
    private: Annotated[float, typer.Option(help="The private score to note.", show_default=False)] = math.nan,
    epoch: Annotated[int | None, typer.Option(
        help="The epoch that was submitted, if not the best one.", show_default=False)] = None,
    text: Annotated[str, typer.Option(help="A text to note.", show_default=False)] = "",
) -> None:  # fmt: skip
    """Compare all runs of a folder: scores, epochs, the settings that differ, scores of the leaderboard.

    A run that still trains is shown as far as it is. Scores of the leaderboard are noted in RUN/leaderboard.csv; with
    three or more of them the table says how well macro AUC ranks the runs as the leaderboard does.
    """
    noted = (public, private, epoch, text)
    if note is not None:
        _note(folder, note, Note(datetime.now().isoformat(" ", "seconds"), epoch, public, private, text))
        return
    if any(value not in (None, "") and value == value for value in noted):
        raise ConfigError("--public, --private, --epoch, --text", "are of a note", "name its run with --note")
    if sort not in _ORDERS:
        raise ConfigError("--sort", f"is {sort!r}, allowed are {', '.join(_ORDERS)}")
    outputs = [(path, kind) for path, kind in ((output, RUNS), (picture, PICTURE)) if path is not None]
    check_outputs(outputs)
    records = sorted(read_runs(folder), key=lambda record: _rank(record, sort))
    if picture is not None:
        with needing("report", "matplotlib"):
            from birdinfer.plots.runs import draw_runs_overview
        draw_runs_overview(records, picture)
    if output == STDOUT:
        typer.echo(runs_table(records), nl=False)
        return
    if output is not None:
        write_atomic(output, runs_table(records))
    _show(records)


def _note(folder: Path, name: str, note: Note) -> None:
    run_dir = folder / name if (folder / name).is_dir() else Path(name)
    note_score(run_dir, note)
    record = read_record(run_dir)
    ours = record.mean("macro_auc")
    stdout().print(escape(f"{run_dir}: {_note_text(note)}; macro AUC of its folds {_text(ours)}"))


def _rank(record: RunRecord, order: str) -> tuple[float | str, str]:
    """What a run is sorted by: the best score and the latest run last, where the screen ends."""
    scores = {"score": record.mean("macro_auc"), "public": record.public}
    if order in scores:
        return (-math.inf if math.isnan(scores[order]) else scores[order]), record.name
    return (record.trained if order == "trained" else ""), record.name


def _show(records: Sequence[RunRecord]) -> None:
    console, keys = stdout(), differing_keys(records)
    has_notes = any(record.notes for record in records)
    leaderboard = ["public", "private"] if has_notes else []
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("run", "done", "epochs", "macro AUC", "cmAP", "all folds", *leaderboard):
        table.add_column(name, no_wrap=True)
    for record in records:
        spread = record.spread("macro_auc")
        table.add_row(
            escape(record.name),
            f"{record.n_finished}/{len(record.folds)}",
            _span([fold.epochs for fold in record.folds]),
            _text(record.mean("macro_auc")) + ("" if math.isnan(spread) else f" ± {spread:.3f}"),
            *map(_text, (record.mean("padded_cmap"), record.out_of_fold)),
            *([_text(record.public), _text(record.private)] if has_notes else []),
        )
    console.print(table)
    if keys:
        console.print(f"settings that differ ({len(keys)}):")
    for record in records:
        own = [f"{key}={_short(record, key)}" for key in keys if key in record.values]
        if own:
            console.print(escape(f"  {record.name}: {' '.join(own)}"), soft_wrap=True)
    for record in records:
        for note in record.notes if len(records) == 1 or len(record.notes) > 1 else ():
            console.print(escape(f"{record.name}, noted {note.noted}: {_note_text(note)}"))
    if (found := rank_correlation(records)) is not None:
        value, n_runs = found
        console.print(f"macro AUC and the public score of {n_runs} runs: rank correlation {value:.2f}")


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}-{high}"


def _short(record: RunRecord, key: str) -> str:
    value = record.values[key]
    text = f"{value:.4g}" if isinstance(value, float) else cell(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _note_text(note: Note) -> str:
    scores = [f"{name} {_text(value)}" for name, value in (("public", note.public), ("private", note.private))
              if not math.isnan(value)]  # fmt: skip
    return ", ".join([*([f"epoch {note.epoch}"] if note.epoch else []), *scores, *([note.text] if note.text else [])])


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
