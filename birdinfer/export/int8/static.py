"""A member's static INT8 graph: calibrated, searched for, tried on held-out windows until the gate lets one through.

In: an fp32 graph and windows of the clips its model learnt from. Out: the graph that was taken, or the one that came
nearest, with its figures. Folds of one network are alike: what one of them needed is tried first on the next.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.engines import EngineSpec
from birdinfer.errors import ConfigError, ParityError
from birdinfer.export.int8.number_format import find_format
from birdinfer.export.int8.quantize import Calibrated, Int8Settings, calibrate_graph, write_int8
from birdinfer.export.int8.search import Int8Search
from birdinfer.export.judging.gate import Limits
from birdinfer.export.judging.judge import Judge
from birdinfer.export.options import ExportOptions, Reporter
from birdinfer.manifest import Variant

Float32 = npt.NDArray[np.float32]

NAME = "int8 static"
SPEC = EngineSpec("onnxruntime", "int8")


class StaticInt8(NamedTuple):
    """What became of it."""

    variant: Variant | None
    """Of the graph that was written last; None where there was nothing to quantise."""
    settings: Int8Settings | None
    """Of the graph that was taken; None if none was."""
    why_not: str = ""
    """Why there was nothing to quantise."""


def make_static_int8(
    graph: Path,
    out: Path,
    windows: Sequence[Float32],
    judge: Judge,
    options: ExportOptions,
    reporter: Reporter,
    first_try: Int8Settings | None = None,
) -> StaticInt8:
    """Write the INT8 form of a graph that the gate lets through, or else the one that came nearest.

    Args:
        graph: the fp32 graph.
        out: where to.
        windows: [1, ...] each, of training clips: the first calibrate, the others choose settings.
        judge: holds the result against fp32.
        options: how many windows calibrate, which processors it is for, what it must keep.
        reporter: is told of each step.
        first_try: settings that another fold of this network was taken with.
    """
    numbers = find_format(options.target)
    n_calibration = min(options.n_calibration_windows, max(1, 2 * len(windows) // 3))
    try:
        calibrated = calibrate_graph(
            graph, windows[:n_calibration], lambda done, of: reporter.step("calibrating", done, of)
        )
    except ConfigError as error:  # a network without convolutions is no error of the user's
        return StaticInt8(None, None, error.what)
    if first_try is not None:
        variant = _tried(calibrated, out, judge, options.limits, first_try)
        if not variant.refused:
            return StaticInt8(variant, first_try)
    unseen = range(n_calibration, len(windows))
    # Of one window alone there are no ranks: then all choose, those that calibrated, too.
    tuning = np.concatenate([windows[index] for index in (unseen if len(unseen) > 1 else range(len(windows)))])
    found = Int8Search(calibrated, tuning, numbers, options.limits.min_spearman, reporter.step)
    return _first_that_passes(calibrated, out, judge, options.limits, found)


def _first_that_passes(
    calibrated: Calibrated, out: Path, judge: Judge, limits: Limits, found: Int8Search
) -> StaticInt8:
    """The attempts in turn; if none passes, the one nearest to it, with all that was tried added to the reason."""
    nearest: Variant | None = None
    for attempt in found.attempts():
        variant = _tried(calibrated, out, judge, limits, attempt.settings)
        if not variant.refused:
            return StaticInt8(variant, attempt.settings)
        if nearest is None or _nearness(variant) > _nearness(nearest):
            nearest = variant
    assert nearest is not None  # there is always one attempt
    return StaticInt8(msgspec.structs.replace(nearest, refused=f"{nearest.refused}; {_what_was_tried(found)}"), None)


def _what_was_tried(found: Int8Search) -> str:
    methods = ", ".join(name.replace("_", " ") for name in found.methods)
    sets = [settings.kept for settings in found.tried if settings.kept]
    largest = max(map(len, sets), default=0)
    kept = f"; sets of activations left in fp32: {len(sets)}, the largest of {largest}" if sets else ""
    return f"tried: ranges by {methods}{kept}"


def _nearness(variant: Variant) -> float:
    """The rank correlation: what is hardest to keep."""
    return variant.figures.least_spearman or -1.0


def _tried(calibrated: Calibrated, out: Path, judge: Judge, limits: Limits, settings: Int8Settings) -> Variant:
    write_int8(calibrated, out, settings)
    try:
        return judge.variant(NAME, str(settings), out, SPEC, limits)
    except ParityError as error:
        raise ParityError(out.name, error.what, "leave --quantize out") from error
