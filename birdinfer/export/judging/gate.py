"""May another graph stand in for fp32? Figures and limits -> "" or one line on every limit that failed.

What cannot be told counts as failed: a graph that nobody could judge is not taken.
"""

import math
from typing import TypeGuard

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.manifest import Figures


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a graph must keep to be taken instead of fp32."""

    max_auc_fall: float = 0.002
    """How far macro ROC-AUC may fall from fp32 on the labelled windows."""
    min_spearman: float = 0.98
    """Rank correlation with fp32's logits over the windows, of every species."""
    min_times_fp32: float = 1.1
    """Windows per second over those of fp32: a graph that is not faster is of no use."""
    max_auc_fall_upper: float | None = None
    """How high the upper end of the fall's 95 % interval may lie; None leaves it open. It holds only where the labelled
    windows are many: of a few hundred the interval is wider than the fall."""

    def __post_init__(self) -> None:
        _check("max_auc_fall", self.max_auc_fall, -1.0, 1.0)
        _check("min_spearman", self.min_spearman, -1.0, 1.0)
        _check("min_times_fp32", self.min_times_fp32, 0.0, 1000.0)
        if self.max_auc_fall_upper is not None:
            _check("max_auc_fall_upper", self.max_auc_fall_upper, -1.0, 1.0)


def judge(figures: Figures, limits: Limits, least_similar: str = "") -> str:
    """Hold a graph's figures against the limits.

    Args:
        figures: of the graph.
        limits: what it must keep; a figure that equals its limit keeps it.
        least_similar: the species whose rank correlation is least, to be named.

    Returns:
        "" if it may be taken; else each limit that failed, what was found and what is allowed, in one line.
    """
    failed = (
        _judge_fall(figures, limits),
        _judge_upper(figures, limits),
        _judge_spearman(figures, limits, least_similar),
        _judge_speed(figures, limits),
    )
    return "; ".join(reason for reason in failed if reason)


def _judge_fall(figures: Figures, limits: Limits) -> str:
    fall = figures.auc_fall
    if not _is_number(fall):
        return f"no labelled windows tell whether macro AUC falls, allowed is {limits.max_auc_fall:g}"
    if fall <= limits.max_auc_fall:
        return ""
    interval = figures.auc_fall_interval
    bounds = f" (95 % interval {interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
    return f"macro AUC falls by {_shown(fall, limits.max_auc_fall)}{bounds}, allowed is {limits.max_auc_fall:g}"


def _judge_upper(figures: Figures, limits: Limits) -> str:
    most = limits.max_auc_fall_upper
    if most is None:
        return ""
    upper = figures.auc_fall_interval[1] if figures.auc_fall_interval else None
    if not _is_number(upper):
        return f"too few recordings tell how far macro AUC may fall, allowed is {most:g}"
    if upper <= most:
        return ""
    return f"macro AUC may fall by {_shown(upper, most)} (upper end of 95 %), allowed is {most:g}"


def _judge_spearman(figures: Figures, limits: Limits, least_similar: str) -> str:
    least = figures.least_spearman
    if not _is_number(least):
        return f"no windows tell its rank correlation with fp32, needed is {limits.min_spearman:g}"
    if least >= limits.min_spearman:
        return ""
    of_whom = f"of {least_similar!r}" if least_similar else "of one species"
    return f"Spearman {_shown(least, limits.min_spearman)} {of_whom}, needed is {limits.min_spearman:g}"


def _judge_speed(figures: Figures, limits: Limits) -> str:
    times = figures.times_fp32
    if times >= limits.min_times_fp32:  # never true for NaN
        return ""
    return f"{_shown(times, limits.min_times_fp32)} times as fast as fp32, needed is {limits.min_times_fp32:g}"


def _shown(value: float, limit: float) -> str:
    """Three digits, or as many more as tell it from the limit that it missed."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if float(text) != limit)


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also true for NaN
        raise ConfigError(name, f"is {value:g}, allowed are {least:g} to {most:g}")
