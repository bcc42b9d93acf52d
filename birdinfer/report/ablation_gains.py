"""The picture of an ablation: each trial's gain of macro ROC-AUC with its interval, around zero -> one PNG.

In: an :class:`~birdinfer.ablation.ablate.Ablation`. Colours are verdicts. The thick line is the interval of 95 %, the
thin one that of as many trials as were made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from birdinfer.ablation.ablate import Ablation, Trial, Verdict
from birdinfer.report.picture import PALETTE, save, shown

_COLOURS = {
    Verdict.take: PALETTE[2],
    Verdict.promising: PALETTE[4],
    Verdict.no_evidence: PALETTE[6],
    Verdict.no_change: "#AAAAAA",
    Verdict.worse: PALETTE[1],
    Verdict.untold: PALETTE[6],
}
_HOW = {"alone": "", "last": " (put back)", "whole": ""}


def draw_ablation(path: Path, ablation: Ablation) -> None:
    """Draw all trials, the greatest gain on top.

    Args:
        path: the PNG.
        ablation: with at least one trial.

    Raises:
        OutputError: it cannot be written.
    """
    save(ablation_figure(ablation), path)


def ablation_figure(ablation: Ablation) -> Figure:
    """As :func:`draw_ablation`, not yet on disk."""
    trials = sorted(ablation.trials, key=lambda trial: -trial.gain)
    figure = Figure(figsize=(10, 1.9 + 0.3 * len(trials)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="grey", linewidth=0.8)
    for row, trial in enumerate(trials):
        _draw_trial(axes, row, trial)
    axes.set_yticks(range(len(trials)), [shown(trial.name) + _HOW[trial.how] for trial in trials], fontsize="small")
    axes.set_ylim(len(trials) - 0.4, -0.6)
    axes.set_xlabel("gain of macro ROC-AUC (thick: 95 %, thin: corrected for the number of trials)")
    axes.grid(alpha=0.25, axis="x")
    axes.set_title(
        f"without post-processing {ablation.macro_auc:.4f}, on {ablation.n_rows} rows of {ablation.n_files} files",
        loc="left", fontsize="medium",
    )  # fmt: skip
    figure.legend(handles=_legend(trials), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_trial(axes: Any, row: int, trial: Trial) -> None:
    colour = _COLOURS[trial.verdict]
    for interval, width in ((trial.corrected_interval, 0.9), (trial.interval, 2.6)):
        if interval is not None:
            axes.plot(interval, [row, row], color=colour, linewidth=width, solid_capstyle="butt")
    axes.scatter([trial.gain], [row], color=colour, s=28, zorder=3)


def _legend(trials: Sequence[Trial]) -> list[Line2D]:
    there = {trial.verdict for trial in trials}
    return [
        Line2D([], [], color=colour, marker="o", label=str(verdict))
        for verdict, colour in _COLOURS.items()
        if verdict in there
    ]
