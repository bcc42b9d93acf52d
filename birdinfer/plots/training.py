"""Pictures of trainings: folders of one run, or of several to compare -> history.png and species.png."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from birdinfer.plots.style import PALETTE, palette, save, shown
from birdinfer.runs.training_run import SpeciesScore, TrainedRun, read_run
from birdinfer.typing import Float64, Int64

# ---- species.png: ROC-AUC of each species, sorted, against its clips, and by name

_TAXA = ("Aves", "Amphibia", "Insecta", "Mammalia", "Reptilia")  # same colours in every picture
_UNKNOWN = "unknown taxon"
_MOST_WEAK = 30
_CHANCE = 0.5


class _Point(NamedTuple):
    score: SpeciesScore
    rank: int  # from 1, the weakest
    colour: str


def species_figure(runs: Sequence[TrainedRun]) -> Figure | None:
    """Draw the species of one run or more; None if none of them could be scored."""
    colours = _taxon_colours(runs[0].species) if len(runs) == 1 else {}
    points = [
        [_Point(one, rank, colours.get(one.class_name, run_colour)) for rank, one in enumerate(_scored(run), start=1)]
        for run, run_colour in _coloured(runs)
    ]
    everywhere = [point for of_run in points for point in of_run]
    if not everywhere:
        return None
    weakest = _weakest(everywhere)
    figure = Figure(figsize=(12, max(6.4, 1.6 + 0.2 * len(weakest))), layout="constrained")
    axes = figure.subplot_mosaic([["ranks", "names"], ["clips", "names"]], width_ratios=[1, 1.1])
    _draw_ranks(axes["ranks"], [of_run for of_run in points if of_run])
    _draw_clips(axes["clips"], everywhere)
    _draw_names(axes["names"], weakest)
    figure.suptitle(_headline(runs, everywhere), x=0.01, ha="left")
    figure.legend(handles=_legend(runs, colours), loc="outside lower center", ncols=6, frameon=False)
    return figure


def _coloured(runs: Sequence[TrainedRun]) -> Iterable[tuple[TrainedRun, str]]:
    return zip(runs, palette(len(runs)), strict=True)


def _scored(run: TrainedRun) -> list[SpeciesScore]:
    return sorted((one for one in run.species if not math.isnan(one.auc)), key=lambda one: one.auc)


def _weakest(points: Sequence[_Point]) -> list[list[_Point]]:
    by_label: dict[str, list[_Point]] = {}
    for point in points:
        by_label.setdefault(point.score.label, []).append(point)
    return sorted(by_label.values(), key=lambda own: np.mean([point.score.auc for point in own]))[:_MOST_WEAK]


def _draw_ranks(axes: Any, runs: Sequence[Sequence[_Point]]) -> None:
    for of_run in runs:
        middle = float(np.median([point.score.auc for point in of_run]))
        axes.axhline(middle, color=of_run[0].colour if len(runs) > 1 else "grey", linewidth=0.8, linestyle=":")
    points = [point for of_run in runs for point in of_run]
    _scatter(axes, [point.rank for point in points], points)
    axes.set_title("species from weak to strong (dotted: the median)", loc="left", fontsize="medium")
    axes.set_xlabel("rank")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_clips(axes: Any, points: Sequence[_Point]) -> None:
    _scatter(axes, [point.score.n_clips for point in points], points)
    axes.set_title("against how many clips they were validated on", loc="left", fontsize="medium")
    axes.set(xlabel="validation clips of the species, over all folds", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _scatter(axes: Any, places: Sequence[int], points: Sequence[_Point]) -> None:
    scores, colours = [point.score.auc for point in points], [point.colour for point in points]
    if min(scores) < _CHANCE:
        axes.axhline(_CHANCE, color="grey", linewidth=0.6)
    axes.scatter(places, scores, c=colours, s=14, alpha=0.75, linewidths=0)
    axes.set_ylabel("ROC-AUC")
    axes.grid(alpha=0.25)


def _draw_names(axes: Any, weakest: Sequence[Sequence[_Point]]) -> None:
    for row, own in enumerate(weakest):
        scores = [point.score.auc for point in own]
        axes.plot([min(scores), 1.0 if len(own) == 1 else max(scores)], [row, row], color="lightgrey", linewidth=1)
        axes.scatter(scores, [row] * len(own), c=[point.colour for point in own], s=26, zorder=3)
    names = [f"{shown(own[0].score.name)}  ({max(point.score.n_clips for point in own)})" for own in weakest]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(len(names) - 0.4, -0.6)
    title = f"the {len(names)} weakest" if len(names) == _MOST_WEAK else "by name"
    axes.set_title(f"{title} (in brackets: their clips)", loc="left", fontsize="medium")
    axes.set_xlabel("ROC-AUC")
    axes.grid(alpha=0.25, axis="x")


def _taxon_colours(species: Sequence[SpeciesScore]) -> Mapping[str, str]:
    there = dict.fromkeys(one.class_name for one in species)
    known = [*_TAXA, *(name for name in there if name and name not in _TAXA)]
    colours = dict(zip(known, palette(max(len(PALETTE), len(known) + 1)), strict=False))
    return {name: colours.get(name, PALETTE[-1]) for name in [*known, ""] if name in there}


def _headline(runs: Sequence[TrainedRun], points: Sequence[_Point]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs, species by species"
    (run,) = runs
    text = f"{shown(run.name)}: {len(points)} of {len(run.species)} species can be scored"
    n_chance = sum(point.score.auc <= _CHANCE for point in points)
    return text + (f", {n_chance} of them no better than chance" if n_chance else "")


def _legend(runs: Sequence[TrainedRun], taxa: Mapping[str, str]) -> list[Line2D]:
    named = {name or _UNKNOWN: colour for name, colour in taxa.items()}
    if len(runs) > 1:
        named = {run.name: colour for run, colour in _coloured(runs)}
    return [Line2D([], [], color=colour, marker="o", linestyle="", label=shown(name)) for name, colour in named.items()]


# ---- history.png: losses, scores and learning rate over epochs, per fold and over all folds

_TRAINING, _VALIDATION = "train_loss", "val_loss"
_PANELS = (
    ("loss", (_TRAINING, _VALIDATION)),
    ("macro ROC-AUC", ("val_macro_auc",)),
    ("padded cmAP", ("val_padded_cmap",)),
    ("learning rate", ("lr",)),
)
_TRAINING_COLOUR = PALETTE[1]  # for a single run; several runs have a colour each, and dashes mark training
_SCORES = ("macro ROC-AUC", "padded cmAP")
_THICK, _THIN, _FAINT = 1.8, 0.9, 0.45
_LOG_FROM = 20.0  # a learning rate that falls by a greater factor has a logarithmic axis


class MeanCurve(NamedTuple):
    """A value over epochs, over all folds."""

    epochs: Int64  # [epochs] that most folds have, so that one that stops early changes little
    mean: Float64
    spread: Float64  # standard deviation over folds (of a sample), 0 of a single one; both [epochs]


def history_figure(runs: Sequence[TrainedRun]) -> Figure:
    """Draw the histories of one run or more."""
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    last_epoch = max(int(fold.epochs[-1]) for run in runs for fold in run.folds)
    for axes, (name, columns) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for run, colour in _coloured(runs):
            for column in columns:
                own = _TRAINING_COLOUR if column == _TRAINING and len(runs) == 1 else colour
                _draw_run(axes, run, column, own, with_folds=len(runs) == 1)
            if name in _SCORES:
                _mark_best(axes, mean_curve(run, columns[0]), colour, with_text=len(runs) == 1)
        _finish(axes, name, last_epoch)
    figure.suptitle(_headline_of_training_history(runs), x=0.01, ha="left")
    _add_legends(figure, runs)
    return figure


def mean_curve(run: TrainedRun, column: str) -> MeanCurve:
    """Average a column of history.csv over the folds of a run; without epochs if nothing is known."""
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
    # A single epoch is a point; a line of it would be invisible.
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
        # Towards the middle, so that the text stays within the axes and below the curve.
        side = "right" if epoch > curve.epochs.mean() else "left"
        text = f"{value:.4f}, epoch {epoch}"
        axes.annotate(text, (epoch, value), textcoords="offset points", xytext=(0, -16), ha=side, va="top")


def _finish(axes: Any, name: str, last_epoch: int) -> None:
    axes.set_title(name, loc="left", fontsize="medium")
    axes.set(xlabel="epoch", xlim=(1 - 0.03 * last_epoch - 0.1, last_epoch + 0.03 * last_epoch + 0.1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[~np.isnan(values)]
    if not len(values):
        axes.text(0.5, 0.5, "nothing was validated", ha="center", va="center", transform=axes.transAxes, color="grey")
        axes.set_yticks([])
    elif name == "learning rate" and values.min() > 0 and values.max() > _LOG_FROM * values.min():
        axes.set_yscale("log")


def _headline_of_training_history(runs: Sequence[TrainedRun]) -> str:
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
    if len(runs) > 1:
        curves = (mean_curve(run, "val_macro_auc").mean for run in runs)
        best = [f" ({curve.max():.4f})" if len(curve) else "" for curve in curves]
        names = [shown(run.name) + own for run, own in zip(runs, best, strict=True)]
        named = [(_THICK, colour, name) for colour, name in zip(palette(len(runs)), names, strict=True)]
    elif (n_folds := len(runs[0].folds)) > 1:
        mean = f"mean of {n_folds} folds, ± standard deviation"
        named = [(_THIN, "grey", "one fold"), (_THICK, "grey", mean)]
    else:
        return
    lines = [Line2D([], [], color=colour, linewidth=width, label=label) for width, colour, label in named]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)


def _style(column: str) -> Literal["-", "--"]:
    return "--" if column == _TRAINING else "-"


# ---- Files

HISTORY_PICTURE, SPECIES_PICTURE = "history.png", "species.png"


def draw_run(run_dir: Path) -> list[Path]:
    """Draw a run into its own folder: history.png, and species.png if species could be scored; return these files.

    Raises:
        InputNotFoundError: there is no such run, or none of its folds has finished an epoch.
        MetadataError: one of its files is damaged.
        OutputError: a picture cannot be written.
    """
    return draw_runs([run_dir], run_dir / HISTORY_PICTURE, run_dir / SPECIES_PICTURE)


def draw_runs(run_dirs: Sequence[Path], history: Path, species: Path) -> list[Path]:
    """Draw one run, or several to compare, into one pair of pictures; return the files that were written.

    ``history`` has losses and scores over epochs; ``species`` the scores per species, if some could be scored. Raises
    as :func:`draw_run`.
    """
    runs = _distinct([read_run(run_dir) for run_dir in run_dirs], run_dirs)
    save(history_figure(runs), history)
    figure = species_figure(runs)
    if figure is None:
        return [history]
    save(figure, species)
    return [history, species]


def _distinct(runs: Sequence[TrainedRun], run_dirs: Sequence[Path]) -> list[TrainedRun]:
    times = Counter(run.name for run in runs)
    return [
        run if times[run.name] == 1 else run._replace(name=str(run_dir))
        for run, run_dir in zip(runs, run_dirs, strict=True)
    ]
