"""A picture of all runs of a folder: the scores of their folds, and how they compare with the leaderboard's."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from birdinfer.plots.style import PALETTE, save, shown
from birdinfer.runs.overview import RunRecord, rank_correlation


def draw_runs_overview(records: Sequence[RunRecord], path: Path) -> None:
    """Draw the picture; OutputError if it cannot be written.

    Each run is a row: a small point for each fold, a large one for their mean. Beside it, where public scores are
    noted, macro AUC against them.
    """
    noted = [record for record in records if not math.isnan(record.public) and not math.isnan(record.mean("macro_auc"))]
    height = max(3.2, 1.4 + 0.32 * len(records))
    figure = Figure(figsize=(13 if noted else 8, height), layout="constrained")
    axes, *beside = figure.subplots(1, 2 if noted else 1, squeeze=False, width_ratios=[3, 2][: 2 if noted else 1])[0]
    for row, record in enumerate(records):
        own = [fold.macro_auc for fold in record.folds]
        axes.scatter(own, [row] * len(own), s=16, color=PALETTE[0], alpha=0.5, linewidths=0)
        is_done = record.n_finished == len(record.folds)
        axes.scatter([record.mean("macro_auc")], [row], s=54, color=PALETTE[1] if is_done else "white",
                     edgecolors=PALETTE[1], zorder=3)  # fmt: skip
    axes.set_yticks(range(len(records)), [shown(record.name) for record in records])
    axes.set_ylim(-0.6, len(records) - 0.4)
    axes.set_xlabel("macro ROC-AUC: each fold, and their mean (hollow: unfinished)")
    axes.grid(alpha=0.25, axis="x")
    for own_axes in beside:
        xs, ys = [record.mean("macro_auc") for record in noted], [record.public for record in noted]
        own_axes.scatter(xs, ys, s=40, color=PALETTE[1])
        for x, y, record in zip(xs, ys, noted, strict=True):
            own_axes.annotate(shown(record.name), (x, y), textcoords="offset points", xytext=(5, 4), fontsize="small")
        own_axes.margins(x=0.25, y=0.15)
        found = rank_correlation(records)
        own_axes.set_title("" if found is None else f"rank correlation {found[0]:.2f}", loc="left", fontsize="medium")
        own_axes.set(xlabel="macro ROC-AUC, mean over folds", ylabel="public score of the leaderboard")
        own_axes.grid(alpha=0.25)
    save(figure, path)
