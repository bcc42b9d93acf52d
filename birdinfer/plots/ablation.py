"""Picture of an ablation: each trial's gain of macro ROC-AUC with its intervals, around zero -> one PNG.

In: an :class:`~birdinfer.evaluation.ablation.Ablation`. Colours show the decision about each step. The thick line
is the 95 % interval, the thin one is corrected for the number of trials.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from birdinfer.evaluation.ablation import Ablation, Conclusion, Trial
from birdinfer.plots.style import PALETTE, save, shown

_COLOURS = {
    Conclusion.take: PALETTE[2],
    Conclusion.promising: PALETTE[4],
    Conclusion.no_evidence: PALETTE[6],
    Conclusion.no_change: "#AAAAAA",
    Conclusion.worse: PALETTE[1],
    Conclusion.undetermined: PALETTE[6],
}
_HOW = {"alone": "", "last": " (added last)", "whole": ""}


def draw_ablation(path: Path, ablation: Ablation) -> None:
    """Draw all trials, at least one, the greatest gain on top, as the PNG ``path``."""
    save(ablation_figure(ablation), path)


def ablation_figure(ablation: Ablation) -> Figure:
    """Make the figure of :func:`draw_ablation`."""
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
    there = {trial.conclusion for trial in trials}
    named = {str(conclusion): colour for conclusion, colour in _COLOURS.items() if conclusion in there}
    lines = [Line2D([], [], color=colour, marker="o", label=label) for label, colour in named.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_trial(axes: Any, row: int, trial: Trial) -> None:
    colour = _COLOURS[trial.conclusion]
    for interval, width in ((trial.corrected_interval, 0.9), (trial.interval, 2.6)):
        if interval is not None:
            axes.plot(interval, [row, row], color=colour, linewidth=width, solid_capstyle="butt")
    axes.scatter([trial.gain], [row], color=colour, s=28, zorder=3)
