"""How a graph becomes INT8 with the least loss: which ranges, and which few activations stay fp32.

In: a calibrated graph and windows of the training clips that calibration has not seen. Out: settings to be tried, the
fastest that promises to keep the ranks first. Held-out windows are not looked at: they judge what is found here.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.export.agreement import spearman_per_label
from birdinfer.export.int8_format import Int8Format
from birdinfer.export.quantize import METHODS, Calibrated, Int8Settings, Method, int8_model
from birdinfer.export.sensitivity import Sensitivity, logits_together, sensitivities

Float32 = npt.NDArray[np.float32]

_LEAST_PROMISE = 0.99
"""Least rank correlation of a label that is worth trying on held-out windows; a little more than the gate asks for."""
_MOST_WORK = 0.3
"""Share of the work that may go back to fp32: with more of it INT8 is hardly faster."""
_N_KEPT = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_N_SENSITIVITY_WINDOWS = 16

Steps = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""


class Attempt(NamedTuple):
    """Settings, and what they promise."""

    settings: Int8Settings
    least_spearman: float
    """Rank correlation with fp32 on the tuning windows, of the label where it is least."""
    mean_spearman: float


class Search(NamedTuple):
    """What was tried."""

    methods: dict[Method, Attempt]
    """Each way to choose ranges, with nothing kept in fp32."""
    attempts: tuple[Attempt, ...]
    """Worth a trial on held-out windows, the fastest first."""


def search(calibrated: Calibrated, tuning: Float32, numbers: Int8Format, steps: Steps) -> Search:
    """Look for settings.

    Args:
        calibrated: the graph.
        tuning: windows [windows, ...] of training clips that calibration has not seen.
        numbers: what 8-bit numbers are.
        steps: is told of each step.
    """
    wanted = logits_together(calibrated.model(), tuning)

    def attempt(settings: Int8Settings) -> Attempt:
        correlations = spearman_per_label(wanted, logits_together(int8_model(calibrated, settings), tuning))
        return Attempt(settings, float(np.nanmin(correlations)), float(np.nanmean(correlations)))

    methods: dict[Method, Attempt] = {}
    for index, method in enumerate(METHODS):
        methods[method] = attempt(Int8Settings(method, (), numbers))
        steps("ways to choose ranges", index + 1, len(METHODS))
    best = max(methods.values(), key=lambda one: one.mean_spearman)
    if best.least_spearman >= _LEAST_PROMISE:
        return Search(methods, (best,))
    ranked = sensitivities(
        calibrated,
        tuning[:_N_SENSITIVITY_WINDOWS],
        best.settings,
        lambda done, of: steps("activations, each in 8 bits alone", done, of),
    )
    return Search(methods, _with_fewest_kept(best, ranked, attempt))


def _with_fewest_kept(
    best: Attempt, ranked: list[Sensitivity], attempt: Callable[[Int8Settings], Attempt]
) -> tuple[Attempt, ...]:
    """More and more activations in fp32, until the ranks are kept; and one step further, if held-out windows differ."""
    found = [best]
    n_promising = 0
    for n_kept in _N_KEPT[1:]:
        kept = ranked[:n_kept]
        if n_promising == 3 or n_kept > len(ranked) or sum(one.work for one in kept) > _MOST_WORK:
            break
        found.append(attempt(best.settings._replace(kept=tuple(one.name for one in kept))))
        n_promising += found[-1].least_spearman >= _LEAST_PROMISE
    promising = [one for one in found if one.least_spearman >= _LEAST_PROMISE]
    return tuple(promising or sorted(found, key=lambda one: one.mean_spearman)[-3:])
