"""The picture of how trainings went: losses, scores and learning rate over epochs, per fold and over all folds.

In: :class:`~birdinfer.report.run_files.TrainedRun`, one or several to compare. Out: a figure. A run by itself shows
its folds as thin lines; several have a colour each, and only their means.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from birdinfer.report.picture import PALETTE, palette, shown
from birdinfer.report.run_files import TrainedRun

Float64 = npt.NDArray[np.float64]

_TRAINING, _VALIDATION = "train_loss", "val_loss"
_PANELS = (
    ("loss", (_TRAINING, _VALIDATION)),
    ("macro ROC-AUC", ("val_macro_auc",)),
    ("padded cmAP", ("val_padded_cmap",)),
    ("learning rate", ("lr",)),
)
_TRAINING_COLOUR = PALETTE[1]
"""Of a run by itself; of several, each has its colour, and training is told by its dashes."""
_SCORES = ("macro ROC-AUC", "padded cmAP")
_THICK, _THIN, _FAINT = 1.8, 0.9, 0.45
_LOG_FROM = 20.0
"""A learning rate that falls by more than this has a logarithmic axis."""


class MeanCurve(NamedTuple):
    """A value over epochs, of all folds."""

    epochs: npt.NDArray[np.int64]
    """[epochs] that more than half of the folds have a value for: so a fold that stops early bends no curve much."""
    mean: Float64
    spread: Float64
    """Standard deviation over folds (of a sample), 0 of a single one; both [epochs]."""


def history_figure(runs: Sequence[TrainedRun]) -> Figure:
    """Draw the histories of runs.

    Args:
        runs: at least one.
    """
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    last_epoch = max(int(fold.epochs[-1]) for run in runs for fold in run.folds)
    for axes, (name, columns) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for run, colour in zip(runs, palette(len(runs)), strict=True):
            for column in columns:
                own = _TRAINING_COLOUR if column == _TRAINING and len(runs) == 1 else colour
                _draw_run(axes, run, column, own, with_folds=len(runs) == 1)
            if name in _SCORES:
                _mark_best(axes, mean_curve(run, columns[0]), colour, with_text=len(runs) == 1)
        _finish(axes, name, last_epoch)
    figure.suptitle(_headline(runs), x=0.01, ha="left")
    _add_legends(figure, runs)
    return figure


def mean_curve(run: TrainedRun, column: str) -> MeanCurve:
    """A column of history.csv over the folds of a run; without an epoch where nothing is known."""
    last = max(int(fold.epochs[-1]) for fold in run.folds)
    table = np.full((len(run.folds), last), np.nan)
    for row, fold in zip(table, run.folds, strict=True):
        row[fold.epochs - 1] = fold.curves[column]
    known = ~np.isnan(table)
    epochs = np.flatnonzero(2 * known.sum(axis=0) > known.any(axis=1).sum())
    columns = [table[known[:, epoch], epoch] for epoch in epochs]
    means = np.array([values.mean() for values in columns])
    spreads = np.array([values.std(ddof=1) if len(values) > 1 else 0.0 for values in columns])
    return MeanCurve(epochs + 1, means, spreads)


def _draw_run(axes: Any, run: TrainedRun, column: str, colour: str, with_folds: bool) -> None:
    style: Any = _style(column)
    curve = mean_curve(run, column)
    # A single epoch is a point; a line of it would not be seen.
    marker = "o" if len(curve.epochs) == 1 else ""
    if with_folds and len(run.folds) > 1:
        for fold in run.folds:
            axes.plot(fold.epochs, fold.curves[column], style, color=colour, alpha=_FAINT, linewidth=_THIN)
    axes.plot(curve.epochs, curve.mean, style, color=colour, linewidth=_THICK, marker=marker)
    if curve.spread.any():
        low, high = curve.mean - curve.spread, curve.mean + curve.spread
        axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _mark_best(axes: Any, curve: MeanCurve, colour: str, with_text: bool) -> None:
    if not len(curve.epochs):
        return
    best = int(np.argmax(curve.mean))
    epoch, value = int(curve.epochs[best]), float(curve.mean[best])
    axes.plot([epoch], [value], "o", color=colour, markersize=5)
    if with_text:
        # Towards the middle, so that the text stays within the axes, and below the curve.
        side = "right" if epoch > curve.epochs.mean() else "left"
        text = f"{value:.4f}, epoch {epoch}"
        axes.annotate(text, (epoch, value), textcoords="offset points", xytext=(0, -16), ha=side, va="top")


def _finish(axes: Any, name: str, last_epoch: int) -> None:
    axes.set_title(name, loc="left", fontsize="medium")
    axes.set_xlabel("epoch")
    axes.set_xlim(1 - 0.03 * last_epoch - 0.1, last_epoch + 0.03 * last_epoch + 0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[~np.isnan(values)]
    if not len(values):
        axes.text(0.5, 0.5, "nothing was validated", ha="center", va="center", transform=axes.transAxes, color="grey")
        axes.set_yticks([])
    elif name == "learning rate" and values.min() > 0 and values.max() > _LOG_FROM * values.min():
        axes.set_yscale("log")


def _headline(runs: Sequence[TrainedRun]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs, means over their folds"
    (run,) = runs
    n_folds = f"{len(run.folds)} folds" if len(run.folds) > 1 else f"fold {run.folds[0].fold}"
    facts = [n_folds]
    if "mean_macro_auc" in run.summary:
        spread = f" ± {run.summary['std_macro_auc']:.4f}" if "std_macro_auc" in run.summary else ""
        facts.append(f"best epochs' macro ROC-AUC {run.summary['mean_macro_auc']:.4f}{spread}")
    if "out_of_fold_macro_auc" in run.summary and len(run.folds) > 1:
        facts.append(f"all out-of-fold clips together {run.summary['out_of_fold_macro_auc']:.4f}")
    return f"{shown(run.name)}: {', '.join(facts)}"


def _add_legends(figure: Figure, runs: Sequence[TrainedRun]) -> None:
    colours = (_TRAINING_COLOUR, PALETTE[0]) if len(runs) == 1 else ("grey", "grey")
    kinds = [
        Line2D([], [], color=colour, linestyle=_style(column), label=name)
        for column, name, colour in zip((_TRAINING, _VALIDATION), ("training", "validation"), colours, strict=True)
    ]
    figure.axes[0].legend(handles=kinds, frameon=False)
    lines = _lines_of_folds(runs[0]) if len(runs) == 1 else _lines_of_runs(runs)
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)


def _lines_of_folds(run: TrainedRun) -> list[Line2D]:
    if len(run.folds) == 1:
        return []
    return [
        Line2D([], [], color="grey", linewidth=_THIN, label="one fold"),
        Line2D([], [], color="grey", linewidth=_THICK, label=f"mean of {len(run.folds)} folds, ± standard deviation"),
    ]


def _lines_of_runs(runs: Sequence[TrainedRun]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, linewidth=_THICK, label=shown(run.name) + _best_text(run))
        for run, colour in zip(runs, palette(len(runs)), strict=True)
    ]


def _best_text(run: TrainedRun) -> str:
    curve = mean_curve(run, "val_macro_auc")
    return f" ({curve.mean.max():.4f})" if len(curve.mean) else ""


def _style(column: str) -> Literal["-", "--"]:
    return "--" if column == _TRAINING else "-"
