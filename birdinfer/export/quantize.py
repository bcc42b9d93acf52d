"""fp32 graph -> INT8 graph with the same answers: U8 activations, S8 weights per channel, in QDQ form, any batch size.

In: a graph of :mod:`birdinfer.export.onnx` and real log-mel [windows, 1, n_mels, frames]. Out: a graph that ONNX
Runtime turns into one chain of INT8 kernels in channels-last layout, with nothing converted or transposed between them.

1. Rewrites that keep every answer, but leave no node between the convolutions that lacks an INT8 kernel.
2. Ranges of all activations, from calibration.
3. QDQ pairs; weights are rounded, and what rounding them shifts on average is given back through the bias
   (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2).

U8 times S8, because that is what x86 multiplies natively: S8 times S8 is twelve times slower in ONNX Runtime.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

import onnx
from birdinfer.errors import ConfigError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PERCENTILE = 99.999
"""Of an activation's values, how many are kept in range; the others are clipped. Clipping costs more than coarse steps:
99.9 doubles the error of 99.99, and the largest value of all (100) lets one odd calibration window decide."""

_SILU_ERROR_POWER = 3.0
"""Squares clip loud values for the sake of the many quiet ones. On a trained efficientnet_b0 the root mean square error
of the logits was 0.19 of their spread with 2, 0.16 with 3, 0.18 with 4, and 0.22 by percentile."""

_N_BINS = 4096
_U8_STEPS = 255
_S8_LARGEST = 127
_SIGMOID_STEP = 1.0 / 256.0
"""A sigmoid's range is known without calibration."""


class Range(NamedTuple):
    """The values that an 8-bit activation can take, in the activation's own unit."""

    low: float
    high: float

    def scale(self) -> np.float32:
        """The size of one step; the range is widened to hold 0, which padding needs exactly."""
        return np.float32(max(max(self.high, 0.0) - min(self.low, 0.0), 1e-8) / _U8_STEPS)

    def zero_point(self) -> np.uint8:
        """Which of the 256 values stands for 0."""
        return np.uint8(np.clip(np.rint(-min(self.low, 0.0) / self.scale()), 0, _U8_STEPS))


class Activations(NamedTuple):
    """What calibration has seen, by name of the activation."""

    ranges: dict[str, Range]
    channel_means: dict[str, Float64]
    """[channels]; of what convolutions read."""


def quantize_static(graph: Path, out: Path, calibration: Iterable[Float32], percentile: float = PERCENTILE) -> None:
    """Write the INT8 form of a graph. Input, output, batch axis and ``metadata_props`` stay as they are.

    The convolution that reads the spectrogram, whatever works on one number a channel (squeeze-excite, ECA) and the
    classifier stay fp32: together they are less than a hundredth of the work, and exact.

    Args:
        graph: an fp32 graph, log-mel [batch, 1, n_mels, frames] in, logits [batch, species] out.
        out: where to.
        calibration: batches [n, 1, n_mels, frames] of real windows, 32 or more in all; the windows are held, of their
            activations only histograms.
        percentile: of an activation's values, how many are kept in range, in (50, 100]; before a SiLU the range is
            chosen by what the SiLU makes of it instead.

    Raises:
        ConfigError: no calibration windows, windows that are not finite, or a graph without convolutions.
    """
    windows = [batch[index : index + 1] for batch in calibration for index in range(len(batch))]
    _refuse_calibration(windows, percentile)
    model = ir.load(graph)
    rewrite(model.graph)
    if not any(_is_int8(node) for node in model.graph if node.op_type == "Conv"):
        raise ConfigError(graph, "has no fp32 convolution that could be INT8", "quantise a convolutional network")
    activations = calibrate(model, windows, percentile)
    wanted = _mean_logits(model, windows)
    insert_qdq(model.graph, activations)
    correct_logits(model, windows, wanted)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, out)


def _refuse_calibration(windows: Sequence[Float32], percentile: float) -> None:
    if not 50.0 < percentile <= 100.0:
        raise ConfigError("percentile", f"{percentile:g} is not in (50, 100]", f"leave it at {PERCENTILE:g}")
    if not windows:
        raise ConfigError("calibration", "holds no windows", "give 32 or more windows of real sound")
    if not all(np.isfinite(window).all() for window in windows):
        raise ConfigError("calibration", "holds values that are not finite", "leave those windows out")


# Rewrites: the answers stay the same to fp32 rounding.


def rewrite(graph: ir.Graph) -> None:
    """All rewrites, each on its own the same function of the input."""
    drop_expands(graph)
    merge_scalars(graph)
    scalars_into_gates(graph)
    scalars_into_convolutions(graph)
    average_pools_as_convolutions(graph)
    means_as_pools(graph)


def drop_expands(graph: ir.Graph) -> None:
    """Expand -> Mul becomes Mul, which broadcasts by itself without laying the repeated values out in memory."""
    for node in _nodes(graph, "Expand"):
        if all(reader.op_type == "Mul" for reader in node.outputs[0].consumers()):
            _replace(node.outputs[0], _read(node))
    _drop_unused(graph)


def merge_scalars(graph: ir.Graph) -> None:
    """(x a) b = x (a b): normaliser-free residuals are scaled twice."""
    for node in _nodes(graph, "Mul"):
        outer = _scaled_value(node)
        before = outer[0].producer() if outer else None
        inner = _scaled_value(before) if before else None
        if outer and inner and len(outer[0].uses()) == 1:
            node.replace_input_with(0, inner[0])
            node.replace_input_with(1, _constant(graph, f"{node.name}_factor", np.float32(inner[1] * outer[1])))
            _drop_unused(graph)


def scalars_into_gates(graph: ir.Graph) -> None:
    """(x gate) a = x (gate a), where the gate is one number a channel: a whole activation less to scale."""
    for node in _nodes(graph, "Mul"):
        scaled = _scaled_value(node)
        product = scaled[0].producer() if scaled else None
        if not scaled or not product or product.op_type != "Mul" or len(scaled[0].uses()) != 1:
            continue
        gates = [index for index, value in enumerate(product.inputs) if value is not None and _size(value) == (1, 1)]
        if gates:
            factor = _constant(graph, f"{node.name}_gain", np.float32(scaled[1]))
            gate = _read(product, gates[0])
            smaller = _insert(product, "Mul", [gate, factor], f"{node.name}_gate", gate.shape)
            product.replace_input_with(gates[0], smaller)
            _replace(node.outputs[0], scaled[0])
    _drop_unused(graph)


def scalars_into_convolutions(graph: ir.Graph) -> None:
    """conv(x a) = (conv a)(x), where convolutions alone read the product: their weights take the scalar."""
    for node in _nodes(graph, "Mul"):
        scaled = _scaled_value(node)
        readers = list(_linear_readers(node.outputs[0])) if scaled else []
        if not scaled or not readers or not all(_has_constant_weight(reader) for reader in readers):
            continue
        for reader in readers:
            weight = _array(_read(reader, 1)) * np.float32(scaled[1])
            reader.replace_input_with(1, _constant(graph, f"{reader.name}_scaled", weight))
        _replace(node.outputs[0], scaled[0])
    _drop_unused(graph)


def _linear_readers(value: ir.Value) -> Iterator[ir.Node]:
    """Who reads a value, seen through average pools, which pass a factor on."""
    for reader in value.consumers():
        if reader.op_type == "AveragePool":
            yield from _linear_readers(reader.outputs[0])
        else:
            yield reader


def average_pools_as_convolutions(graph: ir.Graph) -> None:
    """AveragePool of steps without overlap -> depthwise convolution: sixteen times faster in INT8, for it stays NHWC.

    Where 2 does not divide the size, the pool's last window holds one value, and its mean is that value; a convolution
    gets the same from an edge repeated once.
    """
    for node in _nodes(graph, "AveragePool"):
        value, kernel = _read(node), _ints(node, "kernel_shape")
        size, channels = _size(value), _channels(value)
        if size is None or channels is None or kernel != _ints(node, "strides") or any(_ints(node, "pads")):
            continue
        rest = [-length % step for length, step in zip(size, kernel, strict=True)]
        if any(rest) and not (kernel == [2, 2] and "ceil_mode" in node.attributes and _int(node, "ceil_mode")):
            continue
        if any(rest):
            pads = _constant(graph, f"{node.name}_pads", np.array([0, 0, 0, 0, 0, 0, *rest], np.int64))
            longer = [value.shape[0] if value.shape else None, channels, size[0] + rest[0], size[1] + rest[1]]
            value = _insert(node, "Pad", [value, pads], f"{node.name}_edge", ir.Shape(longer), mode="edge")
        weight = np.full((channels, 1, *kernel), 1.0 / math.prod(kernel), np.float32)
        inputs = [value, _constant(graph, f"{node.name}_weight", weight)]
        shape, name = node.outputs[0].shape, f"{node.name}_conv"
        mean = _insert(node, "Conv", inputs, name, shape, kernel_shape=kernel, strides=kernel, group=channels)
        _replace(node.outputs[0], mean)
    _drop_unused(graph)


def means_as_pools(graph: ir.Graph) -> None:
    """ReduceMean over both axes of a gate -> GlobalAveragePool, which has an INT8 kernel.

    The mean that leads to the classifier alone stays: it is read by fp32, and its rounding would be the logits' error.
    """
    for node in _nodes(graph, "ReduceMean"):
        value, mean = _read(node), node.outputs[0]
        axes = sorted(int(axis) % 4 for axis in _array(_read(node, 1))) if len(node.inputs) == 2 else []
        kept = "keepdims" not in node.attributes or _int(node, "keepdims")
        reshaped = all(reader.op_type == "Reshape" for reader in mean.consumers())
        if _size(value) is None or axes != [2, 3] or not (kept or reshaped) or _leads_to_logits(mean):
            continue
        assert value.shape is not None
        shape = ir.Shape([value.shape[0], value.shape[1], 1, 1])
        _replace(mean, _insert(node, "GlobalAveragePool", [value], f"{node.name}_pool", shape))
    _drop_unused(graph)


def _leads_to_logits(value: ir.Value) -> bool:
    """Whether the classifier alone reads a value, seen through reshapes."""
    if value.is_graph_output():
        return True
    return all(
        reader.op_type in ("Gemm", "MatMul")
        or (reader.op_type in ("Reshape", "Flatten", "Squeeze", "Identity") and _leads_to_logits(reader.outputs[0]))
        for reader in value.consumers()
    )


# Calibration


def calibrate(model: ir.Model, windows: Sequence[Float32], percentile: float) -> Activations:
    """Run the windows one by one, twice: once for extremes and means, once for histograms between the extremes.

    Args:
        model: the rewritten fp32 model.
        windows: [1, 1, n_mels, frames] each.
        percentile: of an activation's values, how many are kept in range.

    Returns:
        Ranges of all that becomes INT8, and the mean of each channel that a convolution reads.
    """
    int8 = [node for node in model.graph if _is_int8(node)]
    names = list(dict.fromkeys(str(value.name) for node in int8 for value in _int8_values(node)))
    read = {str(_read(node).name) for node in int8 if node.op_type == "Conv"}
    lowest, highest = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    sums: dict[str, Float64] = {}
    for name, values in _activations(model, windows, names):
        lowest[name] = min(lowest[name], float(values.min()))
        highest[name] = max(highest[name], float(values.max()))
        if name in read:
            sums[name] = sums.get(name, 0.0) + values.mean(axis=(0, 2, 3), dtype=np.float64)
    counts = {name: np.zeros(_N_BINS, np.int64) for name in names}
    for name, values in _activations(model, windows, names):
        counts[name] += _histogram(values, lowest[name], highest[name])
    behind_silu = {str(value.name) for node in int8 for value in _int8_values(node) if _read_by_silu_alone(value)}
    ranges = {
        name: range_behind_silu(lowest[name], highest[name], counts[name])
        if name in behind_silu
        else central_range(lowest[name], highest[name], counts[name], percentile)
        for name in names
    }
    return Activations(ranges, {name: total / len(windows) for name, total in sums.items()})


def central_range(low: float, high: float, counts: npt.NDArray[np.int64], percentile: float) -> Range:
    """The range that holds ``percentile`` % of the values, with equal parts cut off on either side.

    Args:
        low: lower edge of the first bin.
        high: upper edge of the last bin.
        counts: values in each of the equal bins between.
        percentile: in (50, 100].
    """
    cut = (100.0 - percentile) / 200.0 * counts.sum()
    first = int(np.searchsorted(np.cumsum(counts), cut, side="right"))
    last = len(counts) - int(np.searchsorted(np.cumsum(counts[::-1]), cut, side="right"))
    width = (high - low) / len(counts)
    return Range(low + first * width, low + last * width)


def range_behind_silu(low: float, high: float, counts: npt.NDArray[np.int64]) -> Range:
    """The range whose 256 steps change SiLU(x) = x / (1 + exp(-x)) of the values least.

    SiLU is 0 for all that is far below 0: steps spent there are lost to the values that matter.

    Args:
        low: lower edge of the first bin.
        high: upper edge of the last bin.
        counts: values in each of the equal bins between.
    """
    values: Float64 = np.asarray(low + (np.flatnonzero(counts) + 0.5) * ((high - low) / len(counts)), np.float64)
    wanted, weights = _silu(values), counts[counts > 0] / counts.sum()
    ends = [Range(min(low, 0.0) * part, high) for part in np.linspace(0.1, 1.0, 20)]
    spans = [Range(span.low, max(high, 0.0) * part) for span in ends for part in np.linspace(0.3, 1.0, 10)]
    errors = [float(np.abs(_silu(_restored(values, span)) - wanted) ** _SILU_ERROR_POWER @ weights) for span in spans]
    return spans[int(np.argmin(errors))]


def _silu(values: Float64) -> Float64:
    activated: Float64 = values / (1.0 + np.exp(-values.clip(-700.0)))  # exp(710) is no float64
    return activated


def _restored(values: Float64, span: Range) -> Float64:
    """Values after quantising and dequantising."""
    step, zero = float(span.scale()), float(span.zero_point())
    restored: Float64 = (np.clip(np.rint(values / step) + zero, 0, _U8_STEPS) - zero) * step
    return restored


def _read_by_silu_alone(value: ir.Value) -> bool:
    readers = {reader.op_type: reader for reader in value.consumers()}
    if len(value.uses()) != 2 or set(readers) != {"Sigmoid", "Mul"}:
        return False
    return readers["Sigmoid"].outputs[0] in readers["Mul"].inputs


def _histogram(values: Float32, low: float, high: float) -> npt.NDArray[np.int64]:
    """Counts in equal bins; ten times faster than ``np.histogram``, whose bins are exact to the last bit."""
    bins_per_unit = np.float32(_N_BINS / max(high - low, 1e-12))
    bins = ((values.ravel() - np.float32(low)) * bins_per_unit).astype(np.int32)
    return np.bincount(bins.clip(0, _N_BINS - 1), minlength=_N_BINS)


def _activations(model: ir.Model, windows: Sequence[Float32], names: Sequence[str]) -> Iterator[tuple[str, Float32]]:
    """(name, values) of every named activation, window by window."""
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = _session(proto)
    for window in windows:
        found = session.run(list(names), {session.get_inputs()[0].name: window})
        yield from zip(names, found, strict=True)


def _mean_logits(model: ir.Model, windows: Sequence[Float32]) -> Float64:
    """Mean logits [species] over all windows."""
    session = _session(ir.to_proto(model))
    name = session.get_inputs()[0].name
    mean: Float64 = np.mean([session.run(None, {name: window})[0][0] for window in windows], axis=0, dtype=np.float64)
    return mean


def _session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


# QDQ


def insert_qdq(graph: ir.Graph, activations: Activations) -> None:
    """Put QuantizeLinear -> DequantizeLinear behind every INT8 activation, and round weights and biases."""
    int8 = [node for node in graph if _is_int8(node)]
    ranges = activations.ranges | _ranges_known_beforehand(int8, activations.ranges)
    convolutions = [(node, str(_read(node).name)) for node in int8 if node.op_type == "Conv"]
    for value in {value.name: value for node in int8 for value in _int8_values(node)}.values():
        _quantise_activation(graph, value, ranges[str(value.name)])
    for node in int8:
        if node.op_type in _MOVERS:
            _move_into_int8(node)
    for node, read in convolutions:
        _quantise_weights(graph, node, ranges[read].scale(), activations.channel_means[read])
    _drop_unused(graph)


def _ranges_known_beforehand(int8: Sequence[ir.Node], ranges: dict[str, Range]) -> dict[str, Range]:
    """Sigmoids lie in [0, 1); who only moves values keeps their range."""
    known = {}
    for node in int8:
        name = str(node.outputs[0].name)
        if node.op_type == "Sigmoid":
            known[name] = Range(0.0, _SIGMOID_STEP * _U8_STEPS)
        elif node.op_type in _MOVERS:
            read = str(_read(node).name)
            known[name] = known.get(read, ranges[read])
    return known


def _quantise_activation(graph: ir.Graph, value: ir.Value, span: Range) -> None:
    """Let whoever reads a value read it through QuantizeLinear -> DequantizeLinear."""
    scale = _constant(graph, f"{value.name}_scale", span.scale())
    zero = _constant(graph, f"{value.name}_zero_point", span.zero_point())
    quantise = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_quantise")
    restore = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{value.name}_dequantise")
    quantise.outputs[0].name, restore.outputs[0].name = f"{value.name}_u8", f"{value.name}_dequantised"
    for reader, index in list(value.uses()):
        if reader is not quantise:
            reader.replace_input_with(index, restore.outputs[0])
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantise, restore])
    else:
        graph.insert_after(producer, [quantise, restore])


def _move_into_int8(node: ir.Node) -> None:
    """DQ -> node -> Q becomes node alone on 8-bit values; ONNX Runtime would run it in fp32."""
    restore, (quantise,) = _read(node).producer(), node.outputs[0].consumers()
    assert restore is not None
    node.replace_input_with(0, _read(restore))
    node.outputs[0].dtype = ir.DataType.UINT8
    _replace(quantise.outputs[0], node.outputs[0])


def _quantise_weights(graph: ir.Graph, node: ir.Node, input_scale: np.float32, channel_means: Float64) -> None:
    """S8 weights with a step per channel, and a bias in steps of input times weight, corrected for the rounding."""
    weight = _array(_read(node, 1)).astype(np.float64)
    largest = np.abs(weight).max(axis=(1, 2, 3))
    steps = (np.maximum(largest, 1e-8) / _S8_LARGEST).astype(np.float32)
    rounded = np.rint(weight / steps[:, None, None, None]).clip(-_S8_LARGEST, _S8_LARGEST)
    bias = _array(_read(node, 2)).astype(np.float64) if len(node.inputs) == 3 else np.zeros(len(weight))
    bias -= mean_shift(rounded * steps[:, None, None, None] - weight, channel_means)
    bias_steps = input_scale * steps
    whole = np.rint(bias / bias_steps).clip(-(2**31) + 1, 2**31 - 1)
    inputs = [
        _read(node),
        _stored(graph, node, "weight", rounded.astype(np.int8), steps),
        _stored(graph, node, "bias", whole.astype(np.int32), bias_steps),
    ]
    node.resize_inputs(3)
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def mean_shift(weight_error: Float64, channel_means: Float64) -> Float64:
    """By how much a convolution's output moves on average when its weights move.

    Args:
        weight_error: [channels out, channels in / groups, height, width].
        channel_means: mean of what it reads [channels in].

    Returns:
        [channels out]; exact but for the edges, where a convolution reads zeros as well.
    """
    n_groups = len(channel_means) // weight_error.shape[1]
    by_group = weight_error.sum(axis=(2, 3)).reshape(n_groups, -1, weight_error.shape[1])
    shift: Float64 = np.einsum("goi,gi->go", by_group, channel_means.reshape(n_groups, -1)).ravel()
    return shift


def correct_logits(model: ir.Model, windows: Sequence[Float32], wanted: Float64) -> None:
    """Give the mean logits of the calibration windows back through the classifier's bias.

    Args:
        model: the INT8 model, corrected in place where its last node is a Gemm with a bias.
        windows: [1, 1, n_mels, frames] each.
        wanted: mean logits [species] of the fp32 model.
    """
    last = model.graph.outputs[0].producer()
    if last is None or last.op_type != "Gemm" or len(last.inputs) != 3:
        return
    bias = _array(_read(last, 2)) + (wanted - _mean_logits(model, windows))
    last.replace_input_with(2, _constant(model.graph, f"{last.name}_bias_corrected", bias.astype(np.float32)))
    _drop_unused(model.graph)


# What becomes INT8

_MOVERS = ("MaxPool", "Pad")
"""Their output holds values of their input and nothing else."""

_CLAMPS = ("Relu", "Clip")
"""They vanish into the range of the convolution before them."""


def _is_int8(node: ir.Node) -> bool:
    """Whether a node works on whole activations and has an INT8 kernel that is worth it."""
    value = node.inputs[0] if node.inputs else None
    if value is None or not (_is_map(value) or _is_map(node.outputs[0])):
        return False
    if node.op_type == "Conv":
        # One channel in: too little to multiply for INT8 to gain anything, and the spectrogram stays exact.
        return _has_constant_weight(node) and not value.is_graph_input()
    if node.op_type in ("Add", "Mul"):
        return all(factor is not None and factor.const_value is None for factor in node.inputs)
    if node.op_type == "Pad":
        return "mode" in node.attributes and node.attributes["mode"].as_string() == "edge"
    return node.op_type in ("Sigmoid", "GlobalAveragePool", "MaxPool")


def _int8_values(node: ir.Node) -> list[ir.Value]:
    """The activations that an INT8 node reads and writes."""
    n_read = 2 if node.op_type in ("Add", "Mul") else 1
    written, readers = node.outputs[0], node.outputs[0].consumers()
    if len(readers) == 1 and readers[0].op_type in _CLAMPS:
        written = readers[0].outputs[0]
    return [*(_read(node, index) for index in range(n_read)), written]


def _has_constant_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type == "Conv" else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 4


# Reading and writing a graph


def _nodes(graph: ir.Graph, op_type: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == op_type]


def _read(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _array(value: ir.Value) -> npt.NDArray[np.float32]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _ints(node: ir.Node, name: str) -> list[int]:
    return list(node.attributes[name].as_ints())


def _int(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int()


def _scaled_value(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, a) of x times a scalar constant a."""
    if node.op_type != "Mul":
        return None
    for value, factor in ((_read(node), _read(node, 1)), (_read(node, 1), _read(node))):
        if factor.const_value is not None and factor.const_value.size == 1:
            return value, float(_array(factor).item())
    return None


def _size(value: ir.Value) -> tuple[int, int] | None:
    """(height, width) of an activation [batch, channels, height, width]; None for others."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _is_map(value: ir.Value) -> bool:
    """Whether it is a whole activation and not one number a channel."""
    return _size(value) not in (None, (1, 1))


def _channels(value: ir.Value) -> int | None:
    channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return channels if isinstance(channels, int) else None


def _constant(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    tensor, shape = ir.tensor(np.asarray(array), name=name), ir.Shape(np.shape(array))
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def _stored(
    graph: ir.Graph, node: ir.Node, what: str, whole: npt.NDArray[np.signedinteger], steps: Float32
) -> ir.Value:
    """Whole numbers [channels, ...] and their step per channel, as the fp32 values that they stand for."""
    name = f"{node.name}_{what}"
    zeros = np.zeros(len(steps), whole.dtype)
    arrays = {"whole": whole, "scale": steps, "zero_point": zeros}
    inputs = [_constant(graph, f"{name}_{part}", array) for part, array in arrays.items()]
    return _insert(node, "DequantizeLinear", inputs, name, ir.Shape(whole.shape), axis=0)


def _insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    name: str,
    shape: ir.Shape | None,
    **attributes: int | str | Sequence[int],
) -> ir.Value:
    """A new node of fp32 output; returns the output."""
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name = f"{name}_output"
    node.outputs[0].shape, node.outputs[0].dtype = shape, ir.DataType.FLOAT
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def _replace(old: ir.Value, new: ir.Value) -> None:
    ir.convenience.replace_all_uses_with(old, new)


def _drop_unused(graph: ir.Graph) -> None:
    """Nodes and constants that nobody reads any more."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
