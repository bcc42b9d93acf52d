"""fp32 graph -> INT8 graph with nearly the same answers, in QDQ form, any batch size.

In: a graph of ``graphs/onnx.py`` and real windows as it takes them. Out: a graph that ONNX Runtime turns into
chains of INT8 kernels in channels-last layout, with nothing converted or transposed between them.

1. Rewrites that keep every answer, but leave no node between the convolutions that lacks an INT8 kernel
   (``rewrites.py``).
2. What activations look like on real windows (``calibration.py``), and the ranges that follow from it
   (``ranges.py``).
3. QDQ pairs (``qdq.py``); by how much the logits of the middle window move is given back through the
   classifier's bias.

The convolution that reads the spectrogram, whatever works on one number a channel (squeeze-excite, ECA) and the
classifier stay fp32: together they are less than a hundredth of the work, and exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from birdinfer.errors import ConfigError
from birdinfer.export.graphs.graph_edit import add_constant, array_of, drop_unused, input_of
from birdinfer.export.int8 import ranges
from birdinfer.export.int8.calibration import Observed, Progress, logits_of, observe
from birdinfer.export.int8.nodes import int8_values, is_int8, is_read_by_hard_swish_alone, is_read_by_silu_alone
from birdinfer.export.int8.number_format import FORMATS, Int8Format
from birdinfer.export.int8.qdq import insert_qdq
from birdinfer.export.int8.ranges import HARD_SWISH, SILU, Follower, Range
from birdinfer.export.int8.rewrites import rewrite
from birdinfer.files import write_atomic

Float32 = npt.NDArray[np.float32]
Method = Literal["window_error", "percentile", "minmax", "moving_average", "entropy"]
METHODS: tuple[Method, ...] = ("window_error", "percentile", "minmax", "moving_average", "entropy")
"""How ranges can be chosen, best first; see :mod:`birdinfer.export.int8.ranges`."""


class Int8Settings(NamedTuple):
    """How a graph becomes INT8."""

    method: Method = "window_error"
    kept: tuple[str, ...] = ()
    """Activations that stay fp32."""
    numbers: Int8Format = FORMATS["vnni"]

    def __str__(self) -> str:
        n_kept = len(self.kept)
        kept = f"{n_kept} activation{'s' * (n_kept > 1)} left in fp32" if n_kept else "nothing left in fp32"
        return f"{self.method.replace('_', ' ')}; {self.numbers.name}; {kept}"


DEFAULT = Int8Settings()


@dataclass(frozen=True)
class Calibrated:
    """A graph, rewritten, and what its activations look like: ready to be written in INT8 in several ways."""

    graph: bytes
    """The rewritten fp32 model."""
    observed: Observed
    windows: Sequence[Float32]
    """[1, ...] each; what it was calibrated on."""
    logits: Float32
    """[windows, labels], of fp32 on these windows."""
    _ranges: dict[Method, dict[str, Range]] = field(init=False, default_factory=dict, repr=False)

    def model(self) -> ir.Model:
        """The rewritten fp32 model, the caller's own."""
        return ir.from_proto(onnx.load_from_string(self.graph))

    def ranges(self, method: Method) -> dict[str, Range]:
        """The range of every activation that can become 8-bit, by name; chosen once, for a search asks many times."""
        if method not in self._ranges:
            self._ranges[method] = chosen_ranges(self.model().graph, self.observed, method)
        return self._ranges[method]


def calibrate_graph(graph: Path, windows: Sequence[Float32], progress: Progress = lambda done, of: None) -> Calibrated:
    """Rewrite a graph and watch its activations on real windows.

    Args:
        graph: an fp32 graph.
        windows: [1, ...] each, 32 or more; may be decoded when they are asked for, so that they need not be in memory.
        progress: is told of every window.

    Raises:
        ConfigError: no windows, windows that are not finite, or a graph without convolutions that could be INT8.
    """
    if not len(windows):
        raise ConfigError("calibration", "holds no windows", "give 32 or more windows of real sound")
    model = ir.load(graph)
    rewrite(model.graph)
    if not any(is_int8(node) for node in model.graph if node.op_type == "Conv"):
        raise ConfigError(graph, "has no fp32 convolution that could be INT8", "quantise a convolutional network")
    logits = logits_of(model, windows)
    if not np.isfinite(logits).all():
        raise ConfigError("calibration", "holds windows that are answered with what is no number", "leave those out")
    observed = observe(model, windows, progress)
    return Calibrated(ir.to_proto(model).SerializeToString(), observed, windows, logits)


def int8_model(calibrated: Calibrated, settings: Int8Settings = DEFAULT) -> ir.Model:
    """The INT8 form of a graph. Input, outputs, batch axis and ``metadata_props`` stay as they are."""
    model = calibrated.model()
    spans = calibrated.ranges(settings.method)
    insert_qdq(model.graph, spans, calibrated.observed.channel_means, settings.kept, settings.numbers)
    correct_logits(model, calibrated)
    return model


def write_int8(calibrated: Calibrated, out: Path, settings: Int8Settings = DEFAULT) -> None:
    """Write the INT8 form of a graph.

    Raises:
        OutputError: it cannot be written there.
    """
    proto = ir.to_proto(int8_model(calibrated, settings))
    onnx.checker.check_model(proto, full_check=True)
    write_atomic(out, proto.SerializeToString())


def chosen_ranges(graph: ir.Graph, observed: Observed, method: Method) -> dict[str, Range]:
    """The range of every activation that can become 8-bit, by name."""
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
    """Of the activations that a SiLU or hard-swish alone reads, which it is."""
    values = [value for node in graph if is_int8(node) for value in int8_values(node)]
    silus = {str(value.name): SILU for value in values if is_read_by_silu_alone(value)}
    return silus | {str(value.name): HARD_SWISH for value in values if is_read_by_hard_swish_alone(value)}


def correct_logits(model: ir.Model, calibrated: Calibrated) -> None:
    """Give back through the classifier's bias what the logits have moved by in the middle calibration window.

    Not the mean: a window of silence may move a hundred times as far as all others, and would take them along. (A
    trained efficientnet_b0: mean difference of probability on held-out windows 0.014 by the median, 0.071 by the mean.)

    Args:
        model: the INT8 model, corrected in place where its last node is a Gemm with a bias.
        calibrated: says what they are to be.
    """
    last = model.graph.outputs[0].producer()
    if last is None or last.op_type != "Gemm" or len(last.inputs) != 3:
        return
    moved = np.median(logits_of(model, calibrated.windows) - calibrated.logits, axis=0)
    bias = array_of(input_of(last, 2)) - moved
    last.replace_input_with(2, add_constant(model.graph, f"{last.name}_bias_corrected", bias.astype(np.float32)))
    drop_unused(model.graph)
