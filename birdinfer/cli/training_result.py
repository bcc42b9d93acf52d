"""The last lines of a training: what each fold is worth, all together, several recipes side by side; the pictures."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdinfer.cli.training_progress import score_text

if TYPE_CHECKING:
    from birdinfer.training.report import FoldResult


def draw(run_dirs: Sequence[Path]) -> None:
    """The pictures of each run, where matplotlib is there; a picture is never worth a failure."""
    from birdinfer.errors import BirdinferError

    with suppress(ModuleNotFoundError):
        from birdinfer.report.runs import draw_run

        for run_dir in run_dirs:
            with suppress(BirdinferError):
                draw_run(run_dir)


def say(outcomes: "Mapping[Path, Sequence[FoldResult]]") -> None:
    """A line a fold, a line a run of several folds, a table of several runs, and what to do next."""
    from rich.markup import escape

    from birdinfer.cli.console import stdout
    from birdinfer.training.summary import summarise

    console = stdout()
    summaries = {run_dir: summarise(results, run_dir) for run_dir, results in outcomes.items()}
    for run_dir, results in outcomes.items():
        for result in results:
            if not result.problem:
                console.print(escape(f"{run_dir / f'fold{result.fold}'}: {_worth(result)}"))
        if len(results) > 1:
            console.print(escape(f"{run_dir}: {_together(summaries[run_dir])}"))
    if len(outcomes) > 1:
        console.print(_table(outcomes, summaries))
    for run_dir, results in outcomes.items():
        if not all(result.problem for result in results):
            console.print(f"next: birdinfer export --onnx --run {escape(str(run_dir))}")


def compare(run_dir: Path, results: "Sequence[FoldResult]") -> None:
    """A table of each fold's macro AUC before a fine-tune and after it, on the same held-out clips.

    Args:
        run_dir: the run that was trained on.
        results: of the fine-tune.
    """
    from rich.table import Table

    from birdinfer.cli.console import stdout
    from birdinfer.training.checkpoint import load_header
    from birdinfer.training.fold_job import LAST, fold_dir
    from birdinfer.training.summary import fold_result

    table = Table("fold", f"macro AUC of {run_dir.name}", "after", "difference")
    for after in results:
        before = fold_result(after.fold, load_header(fold_dir(run_dir, after.fold) / LAST).progress).macro_auc
        gain = after.macro_auc - before
        table.add_row(
            str(after.fold), _text(before), _text(after.macro_auc), "-" if math.isnan(gain) else f"{gain:+.4f}"
        )
    stdout().print(table)


def _worth(result: "FoldResult") -> str:
    kept = f"a soup of epochs {', '.join(map(str, result.soup))}" if result.soup else f"best epoch {result.best_epoch}"
    test = "" if math.isnan(result.test_macro_auc) else f", on test clips macro AUC {result.test_macro_auc:.4f}"
    scores = f"macro AUC {_text(result.macro_auc)}, cmAP {_text(result.padded_cmap)}, top-1 {_text(result.top1)}"
    return f"{scores}, {kept}{test}, {result.seconds:.0f} s"


def _together(summary: Mapping[str, Any]) -> str:
    n_folds = len(summary["folds"]) - summary["n_failed"]
    return (
        f"macro AUC {_spread(summary, 'macro_auc')} over {n_folds} folds, {summary['n_failed']} failed; "
        f"all out-of-fold clips together {score_text(summary['out_of_fold_macro_auc'])}"
    )


def _table(outcomes: "Mapping[Path, Sequence[FoldResult]]", summaries: Mapping[Path, Mapping[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("run", "folds", "failed", "macro AUC", "cmAP", "top-1", "out-of-fold macro AUC", "seconds")
    for run_dir, results in outcomes.items():
        summary = summaries[run_dir]
        table.add_row(
            run_dir.name,
            str(len(results)),
            str(summary["n_failed"]),
            *(_spread(summary, name) for name in ("macro_auc", "padded_cmap", "top1")),
            score_text(summary["out_of_fold_macro_auc"]),
            f"{sum(result.seconds for result in results):.0f}",
        )
    return table


def _spread(summary: Mapping[str, Any], name: str) -> str:
    mean, deviation = summary[f"mean_{name}"], summary[f"std_{name}"]
    return score_text(mean) + ("" if deviation is None else f" ± {deviation:.4f}")


def _text(value: float) -> str:
    return score_text(None if math.isnan(value) else value)
