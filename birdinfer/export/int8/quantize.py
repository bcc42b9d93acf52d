"""fp32 graph -> INT8 graph with nearly the same answers, in QDQ form, any batch size.

ONNX Runtime turns it into chains of INT8 kernels in channels-last layout, with nothing converted or transposed between
them. ``prepare.py`` rewrites the graph until no node between the convolutions lacks an INT8 kernel, ``calibration.py``
measures activations on real windows and chooses ranges, ``qdq.py`` inserts QDQ pairs; at last the amount by which the
logits of the median window move is subtracted from the classifier's bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

import onnx
from birdinfer.errors import ConfigError
from birdinfer.export.int8 import calibration as ranges
from birdinfer.export.int8.calibration import HARD_SWISH, SILU, Follower, Observed, Progress, Range, logits_of, observe
from birdinfer.export.int8.prepare import (
    int8_values,
    is_int8,
    is_read_by_hard_swish_alone,
    is_read_by_silu_alone,
    rewrite,
)
from birdinfer.export.int8.qdq import FORMATS, Int8Format, insert_qdq
from birdinfer.export.onnx.edit import add_constant, array_of, drop_unused, input_of
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

Method = Literal["window_error", "percentile", "minmax", "moving_average", "entropy"]
METHODS: tuple[Method, ...] = ("window_error", "percentile", "minmax", "moving_average", "entropy")
"""How ranges can be chosen, best first; see :mod:`birdinfer.export.int8.calibration`."""


class Int8Settings(NamedTuple):
    """How a graph becomes INT8; ``str`` of it is the text that a manifest stores."""

    method: Method = "window_error"
    fp32_activations: tuple[str, ...] = ()  # activations that stay fp32
    number_format: Int8Format = FORMATS["vnni"]

    def __str__(self) -> str:
        n_fp32 = len(self.fp32_activations)
        in_fp32 = f"{n_fp32} activation{'s' * (n_fp32 > 1)} left in fp32" if n_fp32 else "nothing left in fp32"
        return f"{self.method.replace('_', ' ')}; {self.number_format.name}; {in_fp32}"


DEFAULT = Int8Settings()


@dataclass(frozen=True)
class Calibrated:
    """A rewritten graph and the statistics of its activations: ready to be written in INT8 in several ways."""

    graph: bytes  # the rewritten fp32 model
    observed: Observed
    windows: Sequence[Float32]  # [1, ...] each; what it was calibrated on
    logits: Float32  # [windows, labels], of fp32 on these windows
    _ranges: dict[Method, dict[str, Range]] = field(init=False, default_factory=dict, repr=False)

    def model(self) -> ir.Model:
        """Return a copy of the rewritten fp32 model."""
        return ir.from_proto(onnx.load_from_string(self.graph))

    def ranges(self, method: Method) -> dict[str, Range]:
        """The range of every activation that can become 8-bit, by name; kept, because a search asks many times."""
        if method not in self._ranges:
            self._ranges[method] = chosen_ranges(self.model().graph, self.observed, method)
        return self._ranges[method]


def calibrate_graph(graph: Path, windows: Sequence[Float32], progress: Progress = lambda done, of: None) -> Calibrated:
    """Rewrite an fp32 graph and observe its activations on real windows, 32 or more [1, ...], decoded on demand.

    Raises ConfigError for no windows, windows that are not finite, or a graph without convolutions that could be INT8.
    """
    if not len(windows):
        raise ConfigError("calibration", "holds no windows", "give 32 or more windows of real sound")
    model = ir.load(graph)
    rewrite(model.graph)
    if not any(is_int8(node) for node in model.graph if node.op_type == "Conv"):
        raise ConfigError(graph, "has no fp32 convolution that could be INT8", "quantise a convolutional network")
    logits = logits_of(model, windows)
    if not np.isfinite(logits).all():
        raise ConfigError("calibration", "holds windows whose logits are not finite", "leave those out")
    observed = observe(model, windows, progress)
    return Calibrated(ir.to_proto(model).SerializeToString(), observed, windows, logits)


def int8_model(calibrated: Calibrated, settings: Int8Settings = DEFAULT) -> ir.Model:
    """Make the INT8 form of a graph; input, outputs, batch axis and ``metadata_props`` stay as they are."""
    model = calibrated.model()
    insert_qdq(
        model.graph,
        calibrated.ranges(settings.method),
        calibrated.observed.channel_means,
        fp32_activations=settings.fp32_activations,
        number_format=settings.number_format,
    )
    correct_logits(model, calibrated)
    return model


def write_int8(calibrated: Calibrated, out: Path, settings: Int8Settings = DEFAULT) -> None:
    """Write the INT8 form of a graph."""
    proto = ir.to_proto(int8_model(calibrated, settings))
    onnx.checker.check_model(proto, full_check=True)
    write_atomic(out, proto.SerializeToString())


def chosen_ranges(graph: ir.Graph, observed: Observed, method: Method) -> dict[str, Range]:
    """Choose the range of every activation that can become 8-bit, by name."""
    if method == "window_error":
        alone = followers(graph)
        return {name: ranges.window_error(seen, alone.get(name)) for name, seen in observed.seen.items()}
    choose = {
        "percentile": ranges.percentile,
        "minmax": ranges.minmax,
        "moving_average": ranges.moving_average,
        "entropy": ranges.entropy,
    }[method]
    return {name: choose(seen) for name, seen in observed.seen.items()}


def followers(graph: ir.Graph) -> dict[str, Follower]:
    """Find the activations that only a SiLU or hard-swish reads."""
    values = [value for node in graph if is_int8(node) for value in int8_values(node)]
    silus = {str(value.name): SILU for value in values if is_read_by_silu_alone(value)}
    return silus | {str(value.name): HARD_SWISH for value in values if is_read_by_hard_swish_alone(value)}


def correct_logits(model: ir.Model, calibrated: Calibrated) -> None:
    """Subtract from the classifier's bias what the logits have moved by in the median calibration window.

    Not the mean: a window of silence may move a hundred times as far as all others and would shift them as well. (A
    trained efficientnet_b0: mean difference of probability on held-out windows 0.014 by the median, 0.071 by the mean.)
    The model is changed in place if its last node is a Gemm with a bias.
    """
    last = model.graph.outputs[0].producer()
    if last is None or last.op_type != "Gemm" or len(last.inputs) != 3:
        return
    moved = np.median(logits_of(model, calibrated.windows) - calibrated.logits, axis=0)
    bias = array_of(input_of(last, 2)) - moved
    last.replace_input_with(2, add_constant(model.graph, f"{last.name}_bias_corrected", bias.astype(np.float32)))
    drop_unused(model.graph)
