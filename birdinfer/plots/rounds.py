"""Picture of a noisy student's rounds: macro ROC-AUC, and each round's gain with its interval -> one PNG.

In: ``rounds.csv`` as :mod:`birdinfer.rounds` writes it.
"""

from pathlib import Path

from matplotlib.figure import Figure

from birdinfer.plots.style import PALETTE, save
from birdinfer.tables.cells import number, whole_number
from birdinfer.tables.csv import rows


def draw_rounds(table: Path, picture: Path) -> None:
    """Draw the rounds of a table; MetadataError if it is not one."""
    save(rounds_figure(table), picture)


def rounds_figure(table: Path) -> Figure:
    """Make the figure of :func:`draw_rounds`."""
    lines = list(rows(table, ("round", "macro_auc", "gain", "low", "high", "best")))
    rounds = [whole_number(table, at, cells, "round", 0) for at, cells in lines]
    aucs = [number(table, at, cells, "macro_auc") for at, cells in lines]
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(rounds, aucs, color=PALETTE[0], marker="o")
    for each, auc, (_, cells) in zip(rounds, aucs, lines, strict=True):
        above.annotate(f"{auc:.4f}", (each, auc), (0, 6), textcoords="offset points", ha="center", fontsize="small")
        if cells["best"]:
            above.scatter([each], [auc], color=PALETTE[2], s=90, zorder=3, label="kept")
    above.set_ylabel("macro ROC-AUC")
    above.margins(y=0.25)
    above.legend(frameon=False)
    below.axhline(0, color="grey", linewidth=0.8)
    for each, (at, cells) in zip(rounds, lines, strict=True):
        if cells["gain"]:
            gain, low, high = (number(table, at, cells, name) for name in ("gain", "low", "high"))
            colour = PALETTE[2] if low > 0 else PALETTE[6]
            below.plot([each, each], [low, high], color=colour, linewidth=2.6)
            below.scatter([each], [gain], color=colour, s=36, zorder=3)
    below.set_ylabel("gain (95 % interval)")
    below.set_xlabel("round")
    below.set_xticks(rounds)
    for axes in (above, below):
        axes.grid(alpha=0.25, axis="y")
    return figure
