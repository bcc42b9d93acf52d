"""The picture of how a search went: the score of each trial in order, and the curves that pruning went by.

In: :class:`~birdinfer.report.search_files.Search`. Out: a figure.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from birdinfer.report.search_files import Search, Trial
from birdinfer.report.search_marks import (
    BEST,
    COMPLETE,
    DEFAULT,
    PRUNED,
    SCORE,
    draw_trials,
    headline,
    legend_of,
    mark_failed,
    score_range,
    show_range,
)

_THICK, _THIN = 2.0, 0.8
_INK = 25.0
"""So many whole lines in one place are as dark as ink: more of them are the fainter."""


def search_history_figure(search: Search) -> Figure:
    """Draw how a search went, also one without a score yet."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    trials, curves = figure.subplots(2, 1, height_ratios=[1.15, 1])
    scores = score_range(search)
    _draw_trials(trials, search)
    _draw_curves(curves, search)
    figure.suptitle(_headline(search), x=0.01, ha="left")
    lines = [Line2D([], [], color=COMPLETE, linewidth=_THIN * 2, label="the best so far")] if search.best else []
    handles = [*legend_of(search, scores, with_failed=True), *lines]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False)
    return figure


def _draw_trials(axes: Any, search: Search) -> None:
    last = search.trials[-1].number
    scores = score_range(search)
    if scores is None:
        _say_nothing(axes, "no trial has a score yet")
    else:
        _draw_best_so_far(axes, search)
        # Dots of a long search would else run into one another.
        draw_trials(axes, search, lambda one: one.number, scores, size=max(12.0, 40.0 - last / 8))
        show_range(axes, scores)
    if search.default is not None and search.default.state == "complete":
        axes.axhline(search.default.score, color=DEFAULT, linestyle="--", linewidth=1.0, zorder=1)
    if search.best is not None:
        _name_best(axes, search.best, last)
    mark_failed(axes, search, lambda one: one.number)
    margin = 0.02 * last + 0.6
    _finish(axes, "score of each trial", "trial", (-margin, last + margin))


def _draw_best_so_far(axes: Any, search: Search) -> None:
    complete = [one for one in search.trials if one.state == "complete"]
    if not complete:
        return
    numbers = [one.number for one in complete] + [search.trials[-1].number]
    best = np.maximum.accumulate([one.score for one in complete])
    axes.step(numbers, [*best, best[-1]], where="post", color=COMPLETE, linewidth=_THIN * 2, alpha=0.6, zorder=1)


def _name_best(axes: Any, best: Trial, last: int) -> None:
    # Towards the middle, so that the words stay within the axes.
    side = "right" if best.number > last / 2 else "left"
    text = f"{best.score:.4f}, trial {best.number}"
    axes.annotate(text, (best.number, best.score), textcoords="offset points", xytext=(0, 9), ha=side, va="bottom")


def _draw_curves(axes: Any, search: Search) -> None:
    told = [one for one in search.trials if len(one.curve.steps)]
    if not told:
        _say_nothing(axes, "no trial has a curve")
    faint = min(0.6, max(0.1, _INK / max(1, len(told)) * 0.6))
    for one in told:
        colour = PRUNED if one.state in {"pruned", "failed", "interrupted"} else COMPLETE
        _draw_curve(axes, one, colour, alpha=faint, linewidth=_THIN)
    _mark_pruned(axes, [one for one in told if one.state == "pruned"])
    # The default's dashes last: where it is the best, both are seen.
    for thick, colour, style in ((search.best, BEST, "-"), (search.default, DEFAULT, "--")):
        if thick is not None and len(thick.curve.steps):
            _draw_curve(axes, thick, colour, linestyle=style, linewidth=_THICK, zorder=4)
    last = max((int(one.curve.steps[-1]) for one in told), default=1)
    margin = 0.02 * last + 0.1
    _finish(axes, "what pruning went by", "step (epochs, one fold after the other)", (1 - margin, last + margin))


def _draw_curve(axes: Any, trial: Trial, colour: str, **style: Any) -> None:
    # A single step is a point; a line of it would not be seen.
    marker = "o" if len(trial.curve.steps) == 1 and trial.state != "pruned" else ""
    axes.plot(trial.curve.steps, trial.curve.scores, color=colour, marker=marker, markersize=4, **style)


def _mark_pruned(axes: Any, trials: Sequence[Trial]) -> None:
    ends = [(int(one.curve.steps[-1]), float(one.curve.scores[-1])) for one in trials]
    steps, scores = zip(*ends, strict=True) if ends else ((), ())
    axes.scatter(steps, scores, s=18, facecolors="white", edgecolors=PRUNED, linewidths=0.9, zorder=3)


def _say_nothing(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="grey")
    axes.set_yticks([])


def _finish(axes: Any, title: str, along: str, limits: tuple[float, float]) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel(along)
    axes.set_ylabel(SCORE)
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)


def _headline(search: Search) -> str:
    if search.best is None:
        return headline(search)
    best = f"{headline(search)}; best {search.best.score:.4f}"
    if search.default is None or search.default.state != "complete":
        return best
    if search.default == search.best:
        return f"{best}, the default's"
    return f"{best}, {search.best.score - search.default.score:+.4f} against the default's {search.default.score:.4f}"
