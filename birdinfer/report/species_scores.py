"""The picture of which species a model recognises: ROC-AUC of each, sorted, against its clips, and the weakest by name.

In: :class:`~birdinfer.report.run_files.TrainedRun`, one or several to compare. Out: a figure. In a run by itself
colours are taxa; of several, each run has one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from birdinfer.report.picture import PALETTE, palette, shown
from birdinfer.report.run_files import SpeciesScore, TrainedRun

_TAXA = ("Aves", "Amphibia", "Insecta", "Mammalia", "Reptilia")
"""Those of the competitions keep their colour from one picture to the next."""
_UNKNOWN = "unknown taxon"
_MOST_WEAK = 30
_CHANCE = 0.5


class _Point(NamedTuple):
    """One species of one run."""

    score: SpeciesScore
    rank: int
    """From 1, the weakest."""
    colour: str


def species_figure(runs: Sequence[TrainedRun]) -> Figure | None:
    """Draw the species of runs; None if none of them could be scored.

    Args:
        runs: at least one.
    """
    colours = _taxon_colours(runs[0].species) if len(runs) == 1 else {}
    points = [
        [_Point(one, rank, colours.get(one.class_name, run_colour)) for rank, one in enumerate(_scored(run), start=1)]
        for run, run_colour in zip(runs, palette(len(runs)), strict=True)
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


def _scored(run: TrainedRun) -> list[SpeciesScore]:
    """From the weakest to the best recognised."""
    return sorted((one for one in run.species if not math.isnan(one.auc)), key=lambda one: one.auc)


def _weakest(points: Sequence[_Point]) -> list[list[_Point]]:
    """Of each of the weakest species (mean over runs) its points, the weakest first."""
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
    axes.set_xlabel("validation clips of the species, over all folds")
    axes.set_xscale("log")
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
    named = {name or _UNKNOWN: colour for name, colour in taxa.items()} if len(runs) == 1 else {}
    if len(runs) > 1:
        named = {run.name: colour for run, colour in zip(runs, palette(len(runs)), strict=True)}
    return [Line2D([], [], color=colour, marker="o", linestyle="", label=shown(name)) for name, colour in named.items()]
