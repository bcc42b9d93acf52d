"""Pictures of a search: its folder -> history.png (scores and curves) and importance.png (keys and their values)."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory

from birdinfer.plots.style import PALETTE, save, shown
from birdinfer.runs.study import STATES, Layout, Search, Trial, read_search

# ---- Marks of trials, the axis of scores and the legend, for both pictures

COMPLETE, DEFAULT, BEST, FAILED, PRUNED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[6], "#999999"
SCORES = {
    "macro_auc": "macro ROC-AUC", "padded_cmap": "padded cmAP", "val_loss": "- validation loss",
    "top1": "top-1", "f1": "F1",
}  # fmt: skip
"""What is written at the axis of scores, by ``loop.monitor``."""
_EDGE = 0.03  # height of marks at the bottom, as a share of the axes
_ENOUGH = 5  # from this number of complete trials on, they alone decide how low the axis of scores reaches
_FEW = 8  # from this number of complete trials on, scores below Tukey's outer fence (1977) do not stretch the axis
_FENCE = 3.0
_LONE_HEIGHT = 0.05  # span of an axis around a single score
Place = Callable[[Trial], float]


class ScoreRange(NamedTuple):
    """The scores that an axis shows."""

    low: float  # lower ones are marked at the bottom
    high: float


def score_range(search: Search) -> ScoreRange | None:
    """Choose the range from the worst complete trial, or the default's, to the highest score; None without scores.

    Pruned trials do not stretch it downwards: after one epoch of thirty any score is low, and the others would lie in
    a stripe. They count if hardly any trial is complete.
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
    """Make axes show these scores, with space for marks below and text above."""
    height = (scores.high - scores.low) or _LONE_HEIGHT
    axes.set_ylim(scores.low - 0.14 * height, scores.high + 0.16 * height)


def draw_trials(axes: Any, search: Search, place: Place, scores: ScoreRange, size: float) -> None:
    """Mark the trials that have a score: complete and pruned, the default's, the best.

    ``place`` is a trial's horizontal position, for which the caller sets the axis; nan leaves it out. ``size`` of a
    mark is in square points.
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
    """Mark failed trials at the bottom with a cross, interrupted ones that another trial continues with a plus."""
    for state, marker, colour in (("failed", "x", FAILED), ("interrupted", "+", PRUNED)):
        places = [place(one) for one in search.trials if one.state == state]
        _at_the_bottom(axes, places, marker=marker, color=colour, s=26)


def _at_the_bottom(axes: Any, places: Sequence[float], **style: Any) -> None:
    edge = blended_transform_factory(axes.transData, axes.transAxes)
    # Marks in data coordinates would widen the axis of scores down to 0.
    axes.scatter(places, [_EDGE] * len(places), transform=edge, zorder=3, clip_on=False, **style)


def legend_of(search: Search, scores: ScoreRange | None, with_failed: bool) -> list[Line2D]:
    """Legend entries for the marks that occur."""
    states = {one.state for one in search.trials}
    has_below = scores is not None and any(one.score < scores.low for one in search.trials)
    marks = [
        ("complete" in states, "complete", _mark("o", COMPLETE, COMPLETE)),
        ("pruned" in states, "pruned, its last score", _mark("o", "none", PRUNED)),
        (has_below, "lower than the axis", _mark("v", "none", PRUNED)),
        (with_failed and "failed" in states, "failed", _mark("x", FAILED, FAILED)),
        (with_failed and "interrupted" in states, "interrupted", _mark("+", PRUNED, PRUNED)),
        (search.default is not None and is_scored(search.default), "the default recipe", _mark("D", "none", DEFAULT)),
        (search.best is not None, "the best", _mark("*", BEST, BEST)),
    ]
    for _, label, line in marks:
        line.set_label(label)
    return [line for is_there, _, line in marks if is_there]


def _mark(marker: str, face: str, edge: str) -> Line2D:
    size = 11 if marker == "*" else 6
    return Line2D([], [], linestyle="", marker=marker, markersize=size, markerfacecolor=face, markeredgecolor=edge)


def headline(search: Search) -> str:
    """Name the search and count its trials by state."""
    n_trials, states = len(search.trials), [one.state for one in search.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    return f"{shown(search.name)}: " + (f"{n_trials} trials, {counted}" if n_trials > 1 else f"1 trial, {states[0]}")


# ---- history.png: the score of each trial in order, and the curves that pruning used

_THICK, _THIN = 2.0, 0.8
_INK = 25.0  # number of opaque lines in one place that look black: with more curves each is fainter


def search_history_figure(search: Search) -> Figure:
    """Draw the history of a search, also one without a score yet."""
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
        complete = [one for one in search.trials if one.state == "complete"]
        if complete:
            numbers = [one.number for one in complete] + [last]
            best = np.maximum.accumulate([one.score for one in complete])
            style: dict[str, Any] = {"color": COMPLETE, "linewidth": _THIN * 2, "alpha": 0.6, "zorder": 1}
            axes.step(numbers, [*best, best[-1]], where="post", **style)
        # Smaller dots in a long search, so that they do not overlap.
        draw_trials(axes, search, lambda one: one.number, scores, size=max(12.0, 40.0 - last / 8))
        show_range(axes, scores)
    if search.default is not None and search.default.state == "complete":
        axes.axhline(search.default.score, color=DEFAULT, linestyle="--", linewidth=1.0, zorder=1)
    if search.best is not None:
        at, text = (search.best.number, search.best.score), f"{search.best.score:.4f}, trial {search.best.number}"
        # Towards the middle, so that the text stays within the axes.
        side = "right" if search.best.number > last / 2 else "left"
        axes.annotate(text, at, textcoords="offset points", xytext=(0, 9), ha=side, va="bottom")
    mark_failed(axes, search, lambda one: one.number)
    margin = 0.02 * last + 0.6
    _finish(axes, search, "score of each trial", "trial", (-margin, last + margin))


def _draw_curves(axes: Any, search: Search) -> None:
    with_curve = [one for one in search.trials if len(one.curve.steps)]
    if not with_curve:
        _say_nothing(axes, "no trial has a curve")
    faint = min(0.6, max(0.1, _INK / max(1, len(with_curve)) * 0.6))
    for one in with_curve:
        colour = PRUNED if one.state in {"pruned", "failed", "interrupted"} else COMPLETE
        _draw_curve(axes, one, colour, alpha=faint, linewidth=_THIN)
    ends = [(one.curve.steps[-1], one.curve.scores[-1]) for one in with_curve if one.state == "pruned"]
    steps, scores = zip(*ends, strict=True) if ends else ((), ())
    axes.scatter(steps, scores, s=18, facecolors="white", edgecolors=PRUNED, linewidths=0.9, zorder=3)
    # The default's dashes last: if it is the best, both are visible.
    for thick, colour, style in ((search.best, BEST, "-"), (search.default, DEFAULT, "--")):
        if thick is not None and len(thick.curve.steps):
            _draw_curve(axes, thick, colour, linestyle=style, linewidth=_THICK, zorder=4)
    last = max((int(one.curve.steps[-1]) for one in with_curve), default=1)
    margin = 0.02 * last + 0.1
    _finish(
        axes, search, "what pruning went by", "step (epochs, one fold after the other)", (1 - margin, last + margin)
    )


def _draw_curve(axes: Any, trial: Trial, colour: str, **style: Any) -> None:
    # A single step is a point; a line of it would be invisible.
    marker = "o" if len(trial.curve.steps) == 1 and trial.state != "pruned" else ""
    axes.plot(trial.curve.steps, trial.curve.scores, color=colour, marker=marker, markersize=4, **style)


def _say_nothing(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="grey")
    axes.set_yticks([])


def _finish(axes: Any, search: Search, title: str, along: str, limits: tuple[float, float]) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set(xlabel=along, ylabel=SCORES.get(search.score, search.score), xlim=limits)
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


# ---- The axis for the values of a searched key: linear, logarithmic, or words side by side

_LOG_FROM = 20.0  # a greater factor between numbers means a logarithmic axis, unless the space says otherwise
_MOST_MARKED = 6  # up to this number of integers (batch sizes), each one has a label
_MARGIN = 0.05
_LETTERS_ABREAST = 40  # letters that fit under axes in one line
_MOST_LETTERS = 22


class Scale(NamedTuple):
    """An axis for the values of one key."""

    words: tuple[str, ...]  # from left to right; empty for numbers
    numbers: tuple[float, ...]  # each once, ascending; empty for words

    layout: Layout  # linear or logarithmic; words are always linear

    @property
    def n_values(self) -> int:
        """Number of different values."""
        return len(self.words) + len(self.numbers)

    def place(self, text: str) -> float:
        """Return the position of a value; nan if the axis does not have it."""
        if self.words:
            return float(self.words.index(text)) if text in self.words else math.nan
        return _number(text)


def scale_of(texts: Sequence[str], drawn: Layout | None = None) -> Scale:
    """Choose the axis for values, as trials.csv spells them: numbers if each is one, else words.

    >>> scale_of(["1e-4", "1e-2"]).layout
    'log'

    Empty texts have no position. ``drawn`` is how the space samples the values; None if it does not say.
    """
    known = dict.fromkeys(text for text in texts if text)
    numbers = {_number(text) for text in known}
    if not known or any(math.isnan(each) for each in numbers):
        return Scale(tuple(sorted(known)), (), "linear")
    low, high = min(numbers), max(numbers)
    is_wide = high > _LOG_FROM * low if drawn is None else drawn == "log"
    return Scale((), tuple(sorted(numbers)), "log" if is_wide and low > 0 else "linear")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def mark_axis(axes: Any, scale: Scale) -> None:
    """Set the scale, the limits and the labels of the horizontal axis."""
    if scale.words:
        _mark_words(axes, scale.words)
    elif scale.numbers:
        _show_all(axes, scale)
        _mark_numbers(axes, scale)


def _show_all(axes: Any, scale: Scale) -> None:
    """From the lowest to the highest number: matplotlib does not count the marks at the bottom."""
    low, high = scale.numbers[0], scale.numbers[-1]
    if scale.layout == "log":
        axes.set_xscale("log")
        margin = (high / low) ** _MARGIN
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = _MARGIN * ((high - low) or abs(high) or 1.0)
        axes.set_xlim(low - margin, high + margin)


def _mark_numbers(axes: Any, scale: Scale) -> None:
    if len(scale.numbers) <= _MOST_MARKED and all(each.is_integer() for each in scale.numbers):
        axes.xaxis.set_major_locator(FixedLocator(scale.numbers))
        axes.xaxis.set_minor_locator(NullLocator())
    elif scale.layout == "log":
        n_decades = math.log10(scale.numbers[-1] / scale.numbers[0])
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if n_decades <= 2 else (1.0,), numticks=6))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if scale.layout == "log":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _mark_words(axes: Any, words: Sequence[str]) -> None:
    names = [shown(word if len(word) <= _MOST_LETTERS else f"{word[: _MOST_LETTERS - 1]}…") for word in words]
    is_wide = len(names) * max(map(len, names)) > _LETTERS_ABREAST
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if is_wide else {}
    axes.set_xticks(range(len(names)), names, fontsize="small", **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)


# ---- importance.png: how much each key matters, and the scores over its values

_MOST_KEYS = 6  # keys whose values are shown
_MOST_BARS = 20
_LEAST_INCHES = 8.0
_LEGEND_INCHES = 2.3  # width of the longest entry of the legend
_BARS = "b"


def importance_figure(search: Search) -> Figure | None:
    """Draw the importance of keys; None if no two trials with a score differ in a key."""
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
        first, *others = [axes[name] for name in row if name.isdigit()]
        first.set_ylabel(SCORES.get(search.score, search.score))
        for other in others:
            other.tick_params(labelleft=False)
    figure.suptitle(headline(search), x=0.01, ha="left")
    has_words = any(_scale(search, key).words for key in keys)
    medians = [Line2D([], [], color=COMPLETE, label="median of the complete")] if has_words else []
    handles = [*legend_of(search, scores, with_failed=False), *medians]
    figure.legend(handles=handles, loc="outside lower center", ncols=int(width / _LEGEND_INCHES), frameon=False)
    return figure


def _shown_keys(search: Search) -> list[str]:
    """Keys with more than one value, the most important first; in the order of the space if that is not known."""
    ranked = sorted(search.keys, key=lambda key: -search.importance.get(key, 0.0))
    return [key for key in ranked if _scale(search, key).n_values > 1][:_MOST_KEYS]


def _layout(n_keys: int, with_bars: bool) -> list[str]:
    """A letter per axes, row by row: ``b`` for the bars, digits for keys, a dot for nothing."""
    n_columns = 3 if n_keys in {3, 5, 6} else min(n_keys, 2)
    n_rows = math.ceil(n_keys / n_columns)
    letters = "".join(map(str, range(n_keys))).ljust(n_rows * n_columns, ".")
    rows = [letters[row * n_columns : (row + 1) * n_columns] for row in range(n_rows)]
    return [(_BARS if with_bars else "") + row for row in rows]


def _draw_bars(axes: Any, importance: Mapping[str, float]) -> None:
    keys, shares = list(importance)[:_MOST_BARS], list(importance.values())[:_MOST_BARS]
    # Few bars stay thin.
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
        complete = [one for one in search.trials if one.state == "complete"]
        own = [one.score for one in complete if one.values[key] == word]
        if len(own) > 1:
            axes.plot([place - 0.3, place + 0.3], [np.median(own)] * 2, color=COMPLETE, linewidth=1.5, zorder=1)
    axes.set_title(shown(key), loc="left", fontsize="medium")
    axes.grid(alpha=0.25)


def _scale(search: Search, key: str) -> Scale:
    return scale_of([one.values[key] for one in search.trials if is_scored(one)], search.layouts.get(key))


# ---- Files

HISTORY_PICTURE, IMPORTANCE_PICTURE = "history.png", "importance.png"


def draw_search(study_dir: Path) -> list[Path]:
    """Draw a search into its own folder: history.png, and importance.png if two trials with a score differ in a key.

    Returns the files written.

    Raises:
        InputNotFoundError: there is no such search, or no trial in it.
        MetadataError: one of its files is damaged.
        OutputError: a picture cannot be written.
    """
    return draw_search_as(study_dir, study_dir / HISTORY_PICTURE, study_dir / IMPORTANCE_PICTURE)


def draw_search_as(study_dir: Path, history: Path, importance: Path) -> list[Path]:
    """Draw a search into a pair of pictures; return the files that were written.

    ``history`` has the scores of all trials and their curves; ``importance`` that of each key and the scores over its
    values, if two trials with a score differ in a key. Raises as :func:`draw_search`.
    """
    search = read_search(study_dir)
    save(search_history_figure(search), history)
    figure = importance_figure(search)
    if figure is None:
        return [history]
    save(figure, importance)
    return [history, importance]
