"""The last lines of a search: the best trial beside the default, what mattered, what to run next; the pictures."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from birdinfer.cli.tuning_progress import value_text

if TYPE_CHECKING:
    from birdinfer.training.tuning.records import TrialRecord
    from birdinfer.training.tuning.search import Search
    from birdinfer.training.tuning.worker import Outcome


def draw(study_dir: Path) -> list[Path]:
    """The pictures of a study, where matplotlib is there; a picture is never worth a failure."""
    from birdinfer.errors import BirdinferError

    with suppress(ModuleNotFoundError, BirdinferError):
        from birdinfer.report.search import draw_search

        return draw_search(study_dir)
    return []


def say(search: "Search", outcome: "Outcome") -> None:
    """What the study has come to, on standard output."""
    from rich.markup import escape

    from birdinfer.cli.console import stdout
    from birdinfer.training.tuning.folder import BEST_FILE, trial_dir
    from birdinfer.training.tuning.records import best_of, default_of

    console = stdout()
    best, default = best_of(outcome.records), default_of(outcome.records)
    console.print(escape(f"{search.study_dir}: {counts_text(outcome.records, search.n_trials)}"))
    if best is None:
        console.print("no trial has a score yet")
        return
    console.print(escape(_verdict(best, default)))
    _table(search, best, default, _importance(search.study_dir))
    kept = trial_dir(search.study_dir, best.number)
    console.print(escape(f"weights are kept of the best trial alone, {kept}; histories and tables of all"))
    data = "" if search.data_dir == Path("data") else f" --data {search.data_dir}"
    recipe = search.study_dir / BEST_FILE
    console.print(escape(f"next: birdinfer train --recipe {recipe}{data} --fold all"))


def counts_text(records: "Sequence[TrialRecord]", n_trials: int) -> str:
    """How many trials came to which end."""
    n = {
        "complete": sum(record.state == "complete" for record in records),
        "given up early": sum(record.state == "pruned" for record in records),
        "failed": sum(record.state == "failed" for record in records),
        "interrupted and gone on with": sum(record.state == "interrupted" for record in records),
    }
    told = ", ".join(f"{count} {what}" for what, count in n.items() if count)
    finished = sum(record.is_finished for record in records)
    return f"{finished} of {n_trials} trials finished" + (f" ({told})" if told else "")


def _verdict(best: "TrialRecord", default: "TrialRecord | None") -> str:
    found = f"best score {best.score:.4f}, trial {best.number}"
    if default is None or best.score is None or default.score is None:
        return f"{found}; the recipe itself was not among the trials that came to their end"
    if best.number == default.number:
        return f"{found}: nothing was better than the recipe itself"
    return f"{found}; the recipe itself {default.score:.4f}, {best.score - default.score:+.4f}"


def _table(search: "Search", best: "TrialRecord", default: "TrialRecord | None", importance: dict[str, str]) -> None:
    """Each searched key, those first that mattered most."""
    from rich.markup import escape
    from rich.table import Table

    from birdinfer.cli.console import stdout
    from birdinfer.training.tuning.values import values_of

    base = values_of(search.recipe, search.space)
    table = Table("key", f"best, trial {best.number}", "the recipe", *(["importance"] if importance else []))
    for key in sorted(search.space, key=lambda key: -float(importance.get(key, 0))):
        shares = [f"{float(importance.get(key, 0)):.0%}"] if importance else []
        table.add_row(key, escape(value_text(best.values[key])), escape(value_text(base[key])), *shares)
    stdout().print(table)


def _importance(study_dir: Path) -> dict[str, str]:
    """As importance.csv has it; empty without one."""
    import csv

    from birdinfer.training.tuning.folder import IMPORTANCE_FILE

    path = study_dir / IMPORTANCE_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["importance"] for row in csv.DictReader(file)}
