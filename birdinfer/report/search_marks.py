"""How trials look in every picture of a search: their marks, the axis of their scores, and the legend of both.

In: trials of :class:`~birdinfer.report.search_files.Search` and where each stands along the other axis. Out: marks
drawn into axes. Complete trials are filled, pruned ones hollow, for their scores are those of a shorter training.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from birdinfer.report.picture import PALETTE, shown
from birdinfer.report.search_files import STATES, Search, Trial

COMPLETE, DEFAULT, BEST, FAILED, PRUNED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[6], "#999999"
SCORE = "macro ROC-AUC"
_EDGE = 0.03
"""Marks at the bottom stand so high, as a share of the axes."""
_ENOUGH = 5
"""So many complete trials decide how low the axis of scores reaches."""
_FEW = 8
"""From so many complete trials on, what is low beyond Tukey's outer fence (1977) does not stretch the axis."""
_FENCE = 3.0
_LONE_HEIGHT = 0.05
"""What an axis spans about a single score."""

Place = Callable[[Trial], float]


class ScoreRange(NamedTuple):
    """The scores that an axis shows."""

    low: float
    """Lower ones are marked at the bottom."""
    high: float


def score_range(search: Search) -> ScoreRange | None:
    """From the worst complete trial, or the default's, to the highest score; None where nothing has a score.

    Pruned trials do not stretch it downwards: after one epoch of thirty any score is low, and the others would lie in
    a stripe. They do where hardly a trial is complete.
    """
    scores = [one.score for one in search.trials if is_scored(one)]
    complete = [one.score for one in search.trials if one.state == "complete"]
    if not scores:
        return None
    low, high = min(complete if len(complete) >= _ENOUGH else scores), max(scores)
    if len(complete) >= _FEW:
        quarter, three = np.quantile(complete, [0.25, 0.75])
        low = min(one for one in complete if one >= quarter - _FENCE * (three - quarter))
    if search.default is not None and search.default.state == "complete":
        low = min(low, search.default.score)
    return ScoreRange(low, high)


def is_scored(trial: Trial) -> bool:
    """Whether a trial has a mark among the scores: it is complete, or pruned with a score."""
    return trial.state in {"complete", "pruned"} and not math.isnan(trial.score)


def show_range(axes: Any, scores: ScoreRange) -> None:
    """Let axes show these scores, with room for marks below and for words above."""
    height = (scores.high - scores.low) or _LONE_HEIGHT
    axes.set_ylim(scores.low - 0.14 * height, scores.high + 0.16 * height)


def draw_trials(axes: Any, search: Search, place: Place, scores: ScoreRange, size: float) -> None:
    """Mark the trials that have a score: complete and pruned, the default's, the best.

    Args:
        axes: where to; its other axis is the caller's.
        search: whose trials.
        place: where a trial stands on the horizontal axis; nan leaves it out.
        scores: what the axis shows.
        size: of a mark, in square points.
    """
    pruned = [one for one in search.trials if one.state == "pruned"]
    complete = [one for one in search.trials if one.state == "complete"]
    _scatter(axes, pruned, place, scores, s=size * 0.8, facecolors="none", edgecolors=PRUNED, linewidths=0.9)
    _scatter(axes, complete, place, scores, s=size, color=COMPLETE, alpha=0.75, linewidths=0)
    if search.best is not None:
        one = search.best
        axes.plot([place(one)], [one.score], "*", color=BEST, markersize=14, markeredgecolor="white", zorder=4)
    default = [search.default] if search.default is not None else []
    _scatter(axes, default, place, scores, marker="D", s=70, facecolors="none", edgecolors=DEFAULT, linewidths=1.2)


def _scatter(axes: Any, trials: Sequence[Trial], place: Place, scores: ScoreRange, **style: Any) -> None:
    within = [one for one in trials if one.score >= scores.low]
    below = [one for one in trials if one.score < scores.low]
    axes.scatter([place(one) for one in within], [one.score for one in within], zorder=2, **style)
    _at_the_bottom(axes, [place(one) for one in below], **{"marker": "v"} | style)


def mark_failed(axes: Any, search: Search, place: Place) -> None:
    """At the bottom a cross for each trial that failed, a plus for one that another one went on with."""
    for state, marker, colour in (("failed", "x", FAILED), ("interrupted", "+", PRUNED)):
        places = [place(one) for one in search.trials if one.state == state]
        _at_the_bottom(axes, places, marker=marker, color=colour, s=26)


def _at_the_bottom(axes: Any, places: Sequence[float], **style: Any) -> None:
    edge = blended_transform_factory(axes.transData, axes.transAxes)
    # A transform that is in part the axes' own would else widen the scores down to 0.
    axes.scatter(places, [_EDGE] * len(places), transform=edge, zorder=3, clip_on=False, **style)


def legend_of(search: Search, scores: ScoreRange | None, with_failed: bool) -> list[Line2D]:
    """What the marks mean, of those that there are."""
    states = {one.state for one in search.trials}
    marks = [
        ("complete" in states, "complete", _mark("o", COMPLETE, COMPLETE)),
        ("pruned" in states, "pruned, its last score", _mark("o", "none", PRUNED)),
        (_any_below(search, scores), "lower than the axis", _mark("v", "none", PRUNED)),
        (with_failed and "failed" in states, "failed", _mark("x", FAILED, FAILED)),
        (with_failed and "interrupted" in states, "interrupted", _mark("+", PRUNED, PRUNED)),
        (search.default is not None and is_scored(search.default), "the default recipe", _mark("D", "none", DEFAULT)),
        (search.best is not None, "the best", _mark("*", BEST, BEST)),
    ]
    for _, label, line in marks:
        line.set_label(label)
    return [line for is_there, _, line in marks if is_there]


def _any_below(search: Search, scores: ScoreRange | None) -> bool:
    return scores is not None and any(one.score < scores.low for one in search.trials)


def _mark(marker: str, face: str, edge: str) -> Line2D:
    size = 11 if marker == "*" else 6
    return Line2D([], [], linestyle="", marker=marker, markersize=size, markerfacecolor=face, markeredgecolor=edge)


def headline(search: Search) -> str:
    """Which search, and how many of its trials became what."""
    n_trials, states = len(search.trials), [one.state for one in search.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    return f"{shown(search.name)}: " + (f"{n_trials} trials, {counted}" if n_trials > 1 else f"1 trial, {states[0]}")
