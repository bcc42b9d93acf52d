"""Picture of a calibration: how often detections are right by their confidence, a panel for each curve -> one PNG.

In: the fits of species and classes. A panel shows the curve with its 90 % band, the share of right reviews in groups of
equal size, every review as a tick (right ones above, wrong ones below), and the threshold with its interval.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from birdinfer.evaluation.calibrate import Fit, Sample
from birdinfer.evaluation.platt import widest_interval
from birdinfer.inference.calibration import logits_of, share_right
from birdinfer.plots.style import PALETTE, save, shown

MOST_PANELS = 12
"""Those with the most reviews."""
_COLUMNS = 3
_CURVE, _REVIEWS, _THRESHOLD = PALETTE[0], PALETTE[6], PALETTE[1]
_GRID = np.linspace(0.005, 0.995, 67)
_GROUPS = 8
_LEAST_IN_GROUP = 5


def draw_reliability(path: Path, fits: Mapping[str, Fit], precision: float) -> None:
    """Draw fits, at least one, by their titles as the PNG ``path``; ``precision`` is the wanted one, 0 to 1."""
    save(reliability_figure(fits, precision), path)


def reliability_figure(fits: Mapping[str, Fit], precision: float) -> Figure:
    """Make the figure of :func:`draw_reliability`."""
    largest = sorted(fits, key=lambda title: -len(fits[title].sample.right))[:MOST_PANELS]
    n_columns = min(_COLUMNS, len(largest))
    n_rows = -(-len(largest) // n_columns)
    figure = Figure(figsize=(4 * n_columns + 0.4, 3.2 * n_rows + 0.8), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, title in zip(panels, largest, strict=False):
        _draw_fit(axes, fits[title], precision)
        axes.set_title(shown(title), loc="left", fontsize="medium")
    for axes in panels[len(largest) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(largest) - n_columns) : len(largest)]:
        axes.set_xlabel("confidence")
        axes.tick_params(labelbottom=True)
    figure.supylabel("share of detections that are right", fontsize="medium")
    drawn = {line.get_label(): line for axes in panels for line in axes.get_legend_handles_labels()[0]}
    figure.legend(handles=list(drawn.values()), loc="outside lower center", ncols=len(drawn), frameon=False)
    return figure


def _draw_fit(axes: Any, fit: Fit, precision: float) -> None:
    x, curve = logits_of(_GRID), fit.curve
    band = np.array([widest_interval(fit.resampled, lambda curves, at=at: curves @ (at, 1.0)) for at in x])  # type: ignore[misc]
    low, high = (0.5 + 0.5 * np.tanh(0.5 * band)).T
    axes.fill_between(_GRID, low, high, color=_CURVE, alpha=0.15, linewidth=0)
    axes.plot(_GRID, share_right(curve, _GRID), color=_CURVE, label="curve, 90 % band")
    axes.axhline(precision, color="grey", linewidth=0.8, linestyle="--", label=f"wanted: {precision:g}")
    if curve.threshold is not None:
        begin, end = (1.0 if each is None else each for each in curve.threshold_interval)
        axes.axvspan(begin, end, color=_THRESHOLD, alpha=0.12, linewidth=0)
        axes.axvline(curve.threshold, color=_THRESHOLD, linewidth=1.2, label="threshold, 90 % interval")
    axes.plot(*_groups(fit.sample), "o", color=_REVIEWS, markersize=4, label="reviews in groups")
    for is_right, height in ((True, 1.04), (False, -0.04)):
        confidences = fit.sample.confidences[fit.sample.right == is_right]
        axes.plot(confidences, np.full(len(confidences), height), "|", color=_REVIEWS, markersize=6, alpha=0.4)
    axes.set(xlim=(0, 1), ylim=(-0.09, 1.09))
    axes.grid(alpha=0.25)
    axes.text(
        0.98, 0.1, f"{curve.n_right} of {len(fit.sample.right)} right, {curve.n_files} recordings",
        transform=axes.transAxes, ha="right", fontsize="small",
    )  # fmt: skip


def _groups(sample: Sample) -> tuple[list[float], list[float]]:
    """Mean confidence and share of right reviews of groups of equal size, from low to high confidences."""
    n_groups = max(1, min(_GROUPS, len(sample.right) // _LEAST_IN_GROUP))
    groups = np.array_split(np.argsort(sample.confidences, kind="stable"), n_groups)
    confidences = [float(sample.confidences[each].mean()) for each in groups]
    return confidences, [float(sample.right[each].mean()) for each in groups]
