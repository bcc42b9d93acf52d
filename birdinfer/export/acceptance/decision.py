"""The decision of the acceptance test: a graph's figures and limits -> "" or the reasons to reject it, on one line.

A figure that is not known counts as a limit that failed: a graph that could not be evaluated is not accepted.
"""

import math
from dataclasses import dataclass
from typing import TypeGuard

from birdinfer.errors import ConfigError
from birdinfer.inference.manifest import Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a graph must keep to be accepted in place of fp32; ConfigError for a limit out of its figure's range."""

    max_auc_drop: float = 0.002  # how far macro ROC-AUC on the labelled windows may lie below that of fp32
    min_spearman: float = 0.98  # rank correlation with fp32's logits over the windows, for every species
    min_times_fp32: float = 1.1  # windows per second divided by those of fp32: a graph that is not faster is of no use
    max_auc_drop_upper: float | None = None
    """Highest upper end of the drop's 95 % interval; None: no limit. Useful only with many labelled windows: of a few
    hundred the interval is wider than the drop."""

    def __post_init__(self) -> None:
        _check("max_auc_drop", self.max_auc_drop, -1.0, 1.0)
        _check("min_spearman", self.min_spearman, -1.0, 1.0)
        _check("min_times_fp32", self.min_times_fp32, 0.0, 1000.0)
        if self.max_auc_drop_upper is not None:
            _check("max_auc_drop_upper", self.max_auc_drop_upper, -1.0, 1.0)


def reasons_to_reject(figures: Figures, limits: Limits, least_similar: str = "") -> str:
    """Compare a graph's figures with the limits; a figure that equals its limit keeps it.

    Returns "" to accept it; else each limit that failed, with what was found and what is allowed, on one line. The
    species ``least_similar`` has the lowest rank correlation and is named there.
    """
    failed = (
        _auc_drop(figures, limits),
        _auc_drop_upper(figures, limits),
        _spearman(figures, limits, least_similar),
        _speed(figures, limits),
    )
    return "; ".join(reason for reason in failed if reason)


def _auc_drop(figures: Figures, limits: Limits) -> str:
    drop, most = figures.auc_fall, limits.max_auc_drop
    if not _is_number(drop):
        return f"no labelled windows show whether macro AUC falls, allowed is {most:g}"
    if drop <= most:
        return ""
    interval = figures.auc_fall_interval
    bounds = f" (95 % interval {interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
    return f"macro AUC falls by {_digits(drop, most)}{bounds}, allowed is {most:g}"


def _auc_drop_upper(figures: Figures, limits: Limits) -> str:
    most = limits.max_auc_drop_upper
    if most is None:
        return ""
    upper = figures.auc_fall_interval[1] if figures.auc_fall_interval else None
    if not _is_number(upper):
        return f"too few recordings to bound how far macro AUC may fall, allowed is {most:g}"
    if upper <= most:
        return ""
    return f"macro AUC may fall by {_digits(upper, most)} (upper end of 95 %), allowed is {most:g}"


def _spearman(figures: Figures, limits: Limits, least_similar: str) -> str:
    lowest, least = figures.least_spearman, limits.min_spearman
    if not _is_number(lowest):
        return f"no windows to correlate its ranks with those of fp32, needed is {least:g}"
    if lowest >= least:
        return ""
    species = repr(least_similar) if least_similar else "one species"
    return f"Spearman {_digits(lowest, least)} of {species}, needed is {least:g}"


def _speed(figures: Figures, limits: Limits) -> str:
    times, least = figures.times_fp32, limits.min_times_fp32
    if times >= least:  # never true for NaN
        return ""
    return f"{_digits(times, least)} times as fast as fp32, needed is {least:g}"


def _digits(value: float, limit: float) -> str:
    """Three digits, or more if the value would else look like the limit."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if float(text) != limit)


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also true for NaN
        raise ConfigError(name, f"is {value:g}, allowed are {least:g} to {most:g}")
