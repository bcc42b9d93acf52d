"""An ablation -> what the user reads: a table with a line a trial and a recommendation below, or one line of JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from birdinfer.ablation.ablate import Ablation, Trial

_NUMBERS = ("macro AUC", "gain", "95 % interval", "better", "worse", "ms/1,000 rows")
_HOW = {"alone": "alone", "last": "put back", "whole": "whole"}
_COLOURS = {"take": "green", "promising": "yellow", "leave: worse": "red"}
_MORE_THAN_ANY_LINE = 10_000
"""Characters: where the table's own width is asked for."""


def print_ablation(ablation: "Ablation", notes: Sequence[str]) -> None:
    """The table and the recommendation to standard output, what weakens them and ``notes`` to standard error."""
    from rich.markup import escape

    from birdinfer.cli.console import stderr, stdout

    console = stdout()
    console.print(
        f"[bold]macro ROC-AUC  {ablation.macro_auc:.4f}[/] without post-processing: {ablation.n_rows} rows of "
        f"{ablation.n_files} files, {ablation.n_scored} classes scored"
    )
    table = ablation_table(ablation)
    if table.row_count:
        console.print(table)
    for line in recommendation(ablation):
        console.print(escape(line))
    for line in notes:
        stderr().print(escape(line))
    for line in reservations(ablation):
        stderr().print(f"[yellow]{escape(line)}[/]")


def ablation_table(ablation: "Ablation") -> "Table":
    """A line for each trial that changes the order of any rows: those alone by their gain, then the pipeline's.

    Returns:
        Columns step, tried (alone; put back into the whole that lacks it; the whole), macro AUC with it, gain (macro
        AUC less that without it), its interval of 95 %, shares of the scored classes that become better and worse,
        milliseconds per 1,000 rows, verdict.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("step", "tried"):
        table.add_column(heading, no_wrap=True)
    for heading in _NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for trial in shown_trials(ablation):
        colour = _COLOURS.get(trial.verdict)
        verdict = verdict_words(trial, ablation)
        table.add_row(
            escape(trial.name), _HOW[trial.how], *_cells(trial), f"[{colour}]{verdict}[/]" if colour else verdict
        )
    table.width = Console(width=_MORE_THAN_ANY_LINE).measure(table).maximum
    return table


def shown_trials(ablation: "Ablation") -> "list[Trial]":
    """In the table's order, without those that change no order."""
    from birdinfer.ablation.ablate import Verdict

    moving = [trial for trial in ablation.trials if trial.verdict is not Verdict.no_change]
    alone = sorted((trial for trial in moving if trial.how == "alone"), key=lambda trial: -trial.gain)
    return alone + [trial for trial in moving if trial.how != "alone"]


def verdict_words(trial: "Trial", ablation: "Ablation") -> str:
    """The verdict, with what it lacks for more."""
    from birdinfer.ablation.ablate import Verdict

    if trial.verdict is Verdict.promising:
        return f"promising: excludes zero alone, not among {ablation.n_counted} tried"
    return str(trial.verdict)


def recommendation(ablation: "Ablation") -> list[str]:
    """What to do, a line each."""
    from birdinfer.ablation.ablate import Verdict

    taken = dict.fromkeys(trial.name for trial in shown_trials(ablation) if trial.verdict is Verdict.take)
    still = dict.fromkeys(trial.name for trial in ablation.trials if trial.verdict is Verdict.no_change)
    lines = [f"take: {'; '.join(taken)}" if taken else "nothing is recommended"]
    if len(taken) > 1 and all(trial.how == "alone" for trial in ablation.trials):
        lines.append("each was tried alone: to see what they give together, name them with --post")
    return lines + ([f"change no order of rows here: {'; '.join(still)}"] if still else [])


def reservations(ablation: "Ablation") -> list[str]:
    """What makes the verdicts weak, a line each."""
    from birdinfer.ablation.ablate import ROUGH_BELOW_FILES, most_attempts

    n_telling, most = ablation.n_telling, most_attempts(ablation.n_telling)
    if n_telling == 1:
        return [
            "all that is heard is of one file, which cannot be resampled: there are no intervals, and nothing is "
            "recommended"
        ]
    all_tell = n_telling == ablation.n_files
    files = f"{n_telling} files" if all_tell else f"the {n_telling} of {ablation.n_files} files that tell species apart"
    lines = [f"{files} are few: the intervals are rough"] if n_telling < ROUGH_BELOW_FILES else []
    if ablation.n_counted > most:
        able = f"carry {most} trials at most, not {ablation.n_counted}" if most else "are too few for any trial"
        remedy = "name fewer steps with --post, or label more files" if most else "label more files"
        lines.append(f"{files} {able}: nothing is recommended; {remedy}")
    return lines


def ablation_json(ablation: "Ablation", left_out: Sequence[str]) -> str:
    """One line; an interval that there is not is null."""
    import json

    trials = [trial._asdict() | {"verdict": str(trial.verdict)} for trial in ablation.trials]
    line = ablation._asdict() | {
        "trials": trials,
        "recommended": [trial["name"] for trial in trials if trial["verdict"] == "take"],
        "not_tried": list(left_out),
        "reservations": reservations(ablation),
    }
    return json.dumps(line)


def _cells(trial: "Trial") -> tuple[str, ...]:
    """A cell for each of ``_NUMBERS``."""
    interval = "-" if trial.interval is None else "{:+.4f} .. {:+.4f}".format(*trial.interval)
    return (
        f"{trial.macro_auc:.4f}",
        f"{trial.gain:+.4f}",
        interval,
        f"{trial.better:.0%}",
        f"{trial.worse:.0%}",
        f"{trial.ms_per_thousand_rows:.1f}",
    )
