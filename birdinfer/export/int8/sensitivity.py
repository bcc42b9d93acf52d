"""Which activations a network can least afford to have in 8 bits, and what it costs to leave them in fp32.

In: a calibrated graph and windows that calibration has not seen. Out: for each activation how much its 256 steps alone
move the logits, and how much work goes back to fp32 with it. Errors lie far apart: in most networks a handful of
activations near the classifier does most of the harm, and they are small.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer.export.graphs.graph_edit import array_of, input_of
from birdinfer.export.int8.calibration import Progress, open_session
from birdinfer.export.int8.nodes import int8_values, is_int8
from birdinfer.export.int8.qdq import insert_qdq
from birdinfer.export.int8.quantize import Calibrated, Int8Settings

Float32 = npt.NDArray[np.float32]

_N_GROUPS, _N_OPENED = 32, 6
"""Groups of neighbours that are tried together, and how many of them are then tried one by one."""

_WORK_PER_VALUE = 16.0
"""Multiplications that take as long as one pass over one fp32 value more: both are bound by other things."""


class Sensitivity(NamedTuple):
    """Of one activation."""

    name: str
    error: float
    """By how much the logits move: the middle window's change over the labels' interquartile range, mean of labels."""
    work: float
    """Share of the network's work that is done in fp32 if the activation is, 0 to 1."""


def sensitivities(
    calibrated: Calibrated,
    windows: Float32,
    settings: Int8Settings,
    progress: Progress = lambda done, of: None,
) -> list[Sensitivity]:
    """Put each activation into 8 bits alone, or with its neighbours if those do little harm, and look at the logits.

    Args:
        calibrated: the graph.
        windows: [windows, ...], that calibration has not seen.
        settings: how ranges are chosen; nothing is kept.
        progress: is told of each activation.

    Returns:
        Of every activation that can become 8-bit, the most harm for the least work first.
    """
    reference = calibrated.model()
    wanted = logits_together(reference, windows)
    ranges = calibrated.ranges(settings.method)
    work = _work_of_values(reference.graph)

    def error_of(names: Sequence[str]) -> float:
        model = calibrated.model()
        others = [other for other in ranges if other not in names]
        insert_qdq(model.graph, ranges, calibrated.observed.channel_means, others, settings.numbers)
        return logit_error(wanted, logits_together(model, windows))

    errors = _errors(list(ranges), error_of, progress)
    found = [Sensitivity(name, error, work.get(name, 0.0)) for name, error in errors.items()]
    # A hundredth of all work is what nobody would miss: below it only the harm counts.
    return sorted(found, key=lambda one: one.error / (one.work + 0.01), reverse=True)


def _errors(names: Sequence[str], error_of: Callable[[Sequence[str]], float], progress: Progress) -> dict[str, float]:
    """Error of each activation: neighbours are tried together first, and one by one where they do much harm.

    To load a graph takes longer than to run it, and nine of ten activations do no harm to speak of.

    Args:
        names: in the graph's order.
        error_of: of activations that are in 8 bits together.
        progress: is told of each trial.
    """
    size = -(-len(names) // _N_GROUPS)
    groups = [names[at : at + size] for at in range(0, len(names), size)]
    n_opened = _N_OPENED if size > 1 else 0
    n_trials = len(groups) + n_opened * size
    together = []
    for index, group in enumerate(groups):
        together.append(error_of(group))
        progress(index + 1, n_trials)
    # Independent errors add up as squares.
    errors = {name: error / size**0.5 for group, error in zip(groups, together, strict=True) for name in group}
    worst = sorted(range(len(groups)), key=lambda index: -together[index])[:n_opened]
    for index, name in enumerate([name for group in worst for name in groups[group]]):
        errors[name] = error_of([name])
        progress(len(groups) + index + 1, n_trials)
    return errors


def logits_together(model: ir.Model, windows: Float32) -> Float32:
    """The first output's logits [windows, labels], eight windows at a time."""
    session = open_session(ir.to_proto(model))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: windows[at : at + 8]})[0] for at in range(0, len(windows), 8)])


def logit_error(wanted: Float32, found: Float32) -> float:
    """The middle window's |change of logit| over the label's interquartile range, mean of labels.

    Middle values on both sides: a window of silence, whose logits may lie a hundred times as far out, tells nothing
    about the ranks of the others. Fewer windows are needed than for a rank correlation.

    Args:
        wanted: [windows, labels].
        found: of the same shape.
    """
    high, low = np.percentile(wanted, [75, 25], axis=0)
    return float(np.mean(np.median(np.abs(found - wanted), axis=0) / np.maximum(high - low, 1e-6)))


def _work_of_values(graph: ir.Graph) -> dict[str, float]:
    """Share of the work of the nodes that read or write each activation."""
    work: dict[str, float] = {}
    total = 0.0
    for node in graph:
        own = _work(node) if is_int8(node) else 0.0
        total += own
        for value in int8_values(node) if own else ():
            work[str(value.name)] = work.get(str(value.name), 0.0) + own
    return {name: own / total for name, own in work.items()}


def _work(node: ir.Node) -> float:
    """Multiplications of a node for one window, or what takes as long."""
    written = node.outputs[0]
    size = math.prod(_sizes(written))
    if node.op_type != "Conv":
        return _WORK_PER_VALUE * max(size, math.prod(_sizes(input_of(node))))
    return float(size * math.prod(array_of(input_of(node, 1)).shape[1:])) + _WORK_PER_VALUE * size


def _sizes(value: ir.Value) -> Iterator[int]:
    """Sizes of an activation but for the batch; 1 where the graph leaves one open."""
    yield from (size if isinstance(size, int) else 1 for size in list(value.shape or ())[1:])
