"""The picture of what decided a search: how much each key counts, and the scores over the values of those that do.

In: :class:`~birdinfer.report.search_files.Search`. Out: a figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from birdinfer.report.picture import shown
from birdinfer.report.search_files import Search, Trial
from birdinfer.report.search_marks import (
    COMPLETE,
    SCORE,
    ScoreRange,
    draw_trials,
    headline,
    is_scored,
    legend_of,
    score_range,
    show_range,
)
from birdinfer.report.search_values import Scale, mark_axis, scale_of

_MOST_KEYS = 6
"""Whose values are shown."""
_MOST_BARS = 20
_LEAST_INCHES = 8.0
_LEGEND_INCHES = 2.3
"""What the longest entry of the legend needs."""
_BARS = "b"


def importance_figure(search: Search) -> Figure | None:
    """Draw what decided a search; None if no two trials that have a score differ in a key."""
    scores, keys = score_range(search), _shown_keys(search)
    if scores is None or not keys:
        return None
    layout = _layout(len(keys), with_bars=bool(search.importance))
    width = max(_LEAST_INCHES, 1.0 + 3.5 * len(layout[0]))
    figure = Figure(figsize=(width, max(4.4, 1.2 + 2.9 * len(layout))), layout="constrained")
    axes = figure.subplot_mosaic("\n".join(layout))
    if search.importance:
        _draw_bars(axes[_BARS], search.importance)
    for index, key in enumerate(keys):
        _draw_key(axes[str(index)], search, key, scores)
    for row in layout:
        _share_scores([axes[name] for name in row if name.isdigit()])
    figure.suptitle(headline(search), x=0.01, ha="left")
    medians = [Line2D([], [], color=COMPLETE, label="median of the complete")] if _has_words(search, keys) else []
    handles = [*legend_of(search, scores, with_failed=False), *medians]
    figure.legend(handles=handles, loc="outside lower center", ncols=int(width / _LEGEND_INCHES), frameon=False)
    return figure


def _shown_keys(search: Search) -> list[str]:
    """Those with more than one value, the most important first; as they were searched where that is not known."""
    ranked = sorted(search.keys, key=lambda key: -search.importance.get(key, 0.0))
    return [key for key in ranked if _scale(search, key).n_values > 1][:_MOST_KEYS]


def _layout(n_keys: int, with_bars: bool) -> list[str]:
    """A letter for each axes, row by row: ``b`` the bars, digits the keys, a dot a place without any."""
    n_columns = 3 if n_keys in {3, 5, 6} else min(n_keys, 2)
    n_rows = math.ceil(n_keys / n_columns)
    letters = "".join(map(str, range(n_keys))).ljust(n_rows * n_columns, ".")
    rows = [letters[row * n_columns : (row + 1) * n_columns] for row in range(n_rows)]
    return [(_BARS if with_bars else "") + row for row in rows]


def _draw_bars(axes: Any, importance: Mapping[str, float]) -> None:
    keys, shares = list(importance)[:_MOST_BARS], list(importance.values())[:_MOST_BARS]
    # A few bars stay bars, and fill no wall.
    axes.barh(range(len(keys)), shares, height=min(0.62, 0.1 * len(keys)), color=COMPLETE)
    for row, share in enumerate(shares):
        axes.annotate(f"{share:.2f}", (share, row), textcoords="offset points", xytext=(4, 0), va="center")
    axes.set_yticks(range(len(keys)), [shown(key) for key in keys], fontsize="small")
    axes.set_ylim(len(keys) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(*shares, 1e-3))
    title = f"the {len(keys)} most important of {len(importance)}" if len(importance) > len(keys) else "importance"
    axes.set_title(f"{title} (all keys: 1)", loc="left", fontsize="medium")
    axes.grid(alpha=0.25, axis="x")


def _draw_key(axes: Any, search: Search, key: str, scores: ScoreRange) -> None:
    scale = _scale(search, key)
    mark_axis(axes, scale)
    draw_trials(axes, search, lambda one: scale.place(one.values[key]), scores, size=24.0)
    show_range(axes, scores)
    for place, word in enumerate(scale.words):
        _mark_median(axes, place, [one.score for one in search.trials if _is(one, key, word)])
    axes.set_title(shown(key), loc="left", fontsize="medium")
    axes.grid(alpha=0.25)


def _share_scores(row: Sequence[Any]) -> None:
    """One scale of scores for the axes of a row, written at the first."""
    row[0].set_ylabel(SCORE)
    for axes in row[1:]:
        axes.tick_params(labelleft=False)


def _has_words(search: Search, keys: Sequence[str]) -> bool:
    return any(_scale(search, key).words for key in keys)


def _scale(search: Search, key: str) -> Scale:
    return scale_of([one.values[key] for one in search.trials if is_scored(one)], search.layouts.get(key))


def _is(trial: Trial, key: str, word: str) -> bool:
    return trial.state == "complete" and trial.values[key] == word


def _mark_median(axes: Any, place: int, scores: list[float]) -> None:
    if len(scores) > 1:
        axes.plot([place - 0.3, place + 0.3], [np.median(scores)] * 2, color=COMPLETE, linewidth=1.5, zorder=1)
