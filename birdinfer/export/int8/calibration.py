"""Real windows -> what the activations of a graph look like: all that is needed to lay 8-bit ranges over them.

In: a rewritten fp32 model and windows as it takes them. Out: :class:`Observed`. Windows are run one by one, and of
their activations only extremes, some samples and histograms are held: 3 kB of each activation and window.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from birdinfer.export.graphs.graph_edit import input_of
from birdinfer.export.int8.nodes import int8_values, is_int8
from birdinfer.export.int8.ranges import Range, Seen

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Progress = Callable[[int, int], None]
"""Is told how much is done, of how much."""

N_SAMPLES = 768
"""Values held of each activation and window."""
_N_BINS = 4096


class Observed(NamedTuple):
    """What calibration has seen."""

    seen: dict[str, Seen]
    """By name of the activation."""
    channel_means: dict[str, Float64]
    """[channels]; of what convolutions read, by its name."""


def observe(model: ir.Model, windows: Sequence[Float32], progress: Progress = lambda done, of: None) -> Observed:
    """Run the windows twice: once for extremes, samples and means, once for histograms between the extremes.

    Args:
        model: the rewritten fp32 model.
        windows: [1, ...] each; may be decoded when they are asked for.
        progress: is told of every window.

    Returns:
        What was seen of all that becomes INT8.
    """
    int8 = [node for node in model.graph if is_int8(node)]
    names = list(dict.fromkeys(str(value.name) for node in int8 for value in int8_values(node)))
    convolved = {str(input_of(node).name) for node in int8 if node.op_type == "Conv"}
    session = _session_with(model, names)
    n_windows = len(windows)

    def told(first: int) -> Iterator[tuple[str, Float32]]:
        for index, window in enumerate(windows):
            found = session.run(names, {session.get_inputs()[0].name: window})
            yield from zip(names, found, strict=True)
            progress(first + index + 1, 2 * n_windows)

    first_pass = _FirstPass(n_windows, convolved)
    for name, values in told(0):
        first_pass.add(name, values)
    counts = {name: np.zeros(_N_BINS, np.int64) for name in names}
    extremes = {name: first_pass.extremes(name) for name in names}
    for name, values in told(n_windows):
        counts[name] += histogram(values, *extremes[name])
    return Observed(
        {name: first_pass.seen(name, counts[name]) for name in names},
        {name: total / n_windows for name, total in first_pass.sums.items()},
    )


class _FirstPass:
    """Extremes and samples of each window, and sums of each channel."""

    def __init__(self, n_windows: int, convolved: Collection[str]) -> None:
        self._n_windows, self._convolved = n_windows, convolved
        self._lows: dict[str, list[float]] = {}
        self._highs: dict[str, list[float]] = {}
        self._samples: dict[str, list[Float32]] = {}
        self._places: dict[str, Int64] = {}
        self.sums: dict[str, Float64] = {}

    def add(self, name: str, values: Float32) -> None:
        """One window's values of an activation."""
        if name not in self._places:
            # The same places in every window, so that windows are compared channel by channel.
            self._places[name] = np.random.default_rng(0).integers(0, values.size, N_SAMPLES)
        self._lows.setdefault(name, []).append(float(values.min()))
        self._highs.setdefault(name, []).append(float(values.max()))
        self._samples.setdefault(name, []).append(values.ravel()[self._places[name]])
        if name in self._convolved:
            self.sums[name] = self.sums.get(name, 0.0) + values.mean(axis=(0, 2, 3), dtype=np.float64)

    def extremes(self, name: str) -> Range:
        return Range(min(self._lows[name]), max(self._highs[name]))

    def seen(self, name: str, counts: Int64) -> Seen:
        lows, highs = (np.array(values[name], np.float32) for values in (self._lows, self._highs))
        return Seen(lows, highs, np.stack(self._samples[name]), counts)


def histogram(values: Float32, low: float, high: float) -> Int64:
    """Counts in equal bins; ten times faster than ``np.histogram``, whose bins are exact to the last bit."""
    bins_per_unit = np.float32(_N_BINS / max(high - low, 1e-12))
    bins = ((values.ravel() - np.float32(low)) * bins_per_unit).astype(np.int32)
    return np.bincount(bins.clip(0, _N_BINS - 1), minlength=_N_BINS)


def logits_of(model: ir.Model, windows: Sequence[Float32]) -> Float32:
    """The first output's logits [windows, labels] of windows [1, ...]."""
    session = open_session(ir.to_proto(model))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: window})[0] for window in windows])


def _session_with(model: ir.Model, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that gives out activations as well."""
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return open_session(proto)


def open_session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of one thread for a model in memory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
