"""An fp32 graph and the ranges of its activations -> the same graph in QDQ form, which engines run as INT8.

Each activation becomes 8-bit with one range; weights become S8 with a step per channel, and the mean shift that
rounding them causes is subtracted from the bias (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization
and Bias Correction", section 4.2). ONNX Runtime takes number formats as they stand, so a graph is written for a kind of
processor.
"""

import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer.errors import ConfigError
from birdinfer.export.int8.calibration import U8_STEPS, Range, hard_swish_range
from birdinfer.export.int8.prepare import PASS_THROUGH_OPS, int8_values, is_int8
from birdinfer.export.onnx.edit import add_constant, array_of, drop_unused, input_of, insert_before, replace_value
from birdinfer.typing import Float32, Float64

# ---- Number formats

Target = Literal["any-x86", "vnni", "arm"]
TARGETS: tuple[Target, ...] = get_args(Target)


class Int8Format(NamedTuple):
    """Types of activations and weights."""

    name: str
    is_activation_signed: bool
    largest_weight: int  # weights lie between this and its negative

    def activation_of(self, unsigned: np.uint8) -> np.uint8 | np.int8:
        """Convert one of 256 values, counted from the lowest, to this format's type."""
        return np.int8(int(unsigned) - 128) if self.is_activation_signed else unsigned


FORMATS: dict[Target, Int8Format] = {
    # Without VNNI an x86 adds two products of 8 bits in 16: 2 x 255 x 127 would saturate, 2 x 255 x 64 does not.
    "any-x86": Int8Format("U8S8, weights of 7 bits", is_activation_signed=False, largest_weight=64),
    "vnni": Int8Format("U8S8", is_activation_signed=False, largest_weight=127),
    # ARM multiplies signed numbers; on x86 S8S8 is twelve times slower in ONNX Runtime.
    "arm": Int8Format("S8S8", is_activation_signed=True, largest_weight=127),
}


def find_format(target: str) -> Int8Format:
    """Find the number format of a target, or of this machine's processor (``native``); ConfigError for an unknown one.

    >>> find_format("vnni").name
    'U8S8'
    """
    if target == "native":
        return FORMATS[native_target()]
    for known in TARGETS:
        if known == target:
            return FORMATS[known]
    raise ConfigError("--target", f"{target!r} is not known", f"choose one of native, {', '.join(TARGETS)}")


def native_target() -> Target:
    """Detect the target that this machine is."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "any-x86"  # safe on every x86
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "any-x86"


# ---- Quantised nodes

_SIGMOID_STEP = 1.0 / 256.0  # a sigmoid's range is known without calibration


def insert_qdq(
    graph: ir.Graph,
    ranges: Mapping[str, Range],
    channel_means: Mapping[str, Float64],
    *,
    fp32_activations: Collection[str],
    number_format: Int8Format,
) -> None:
    """Put QuantizeLinear -> DequantizeLinear behind INT8 activations, and round weights and biases, in place.

    ``ranges`` are of every activation that can become 8-bit and ``channel_means`` of what each convolution reads
    [channels], both by name. Nodes that read or write one of ``fp32_activations`` compute in fp32.
    """
    int8 = [node for node in graph if is_int8(node)]
    ranges = {**ranges, **_ranges_known_beforehand(int8, ranges)}
    # Noted now, because nodes read other values once these are quantised.
    ends = {node: (str(input_of(node).name), str(int8_values(node)[-1].name)) for node in int8}
    for value in {value.name: value for node in int8 for value in int8_values(node)}.values():
        if value.name not in fp32_activations:
            _quantise_activation(graph, value, ranges[str(value.name)], number_format)
    for node, (read, written) in ends.items():
        if read in fp32_activations or written in fp32_activations:
            continue
        if node.op_type in PASS_THROUGH_OPS:
            _move_into_int8(node, number_format)
        elif node.op_type == "HardSigmoid":
            _requantise_as_gate(graph, node, ranges[read].scale(), number_format)
        elif node.op_type == "Conv":
            _quantise_weights(node, ranges[read].scale(), channel_means[read], number_format.largest_weight)
    drop_unused(graph)


def _ranges_known_beforehand(int8: Sequence[ir.Node], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Sigmoids lie in [0, 1); a hard-swish reads steps that begin at -3; pass-through operators keep a range."""
    known: dict[str, Range] = {}
    for node in int8:
        name = str(node.outputs[0].name)
        if node.op_type == "Sigmoid":
            known[name] = Range(0.0, _SIGMOID_STEP * U8_STEPS)
        elif node.op_type == "HardSigmoid":
            read = str(input_of(node).name)
            known[read], known[name] = hard_swish_range(ranges[read]), Range(0.0, 1.0)
        elif node.op_type in PASS_THROUGH_OPS:
            read = str(input_of(node).name)
            known[name] = known.get(read, ranges[read])
    return known


def _quantise_activation(graph: ir.Graph, value: ir.Value, span: Range, number_format: Int8Format) -> None:
    scale = add_constant(graph, f"{value.name}_scale", span.scale())
    zero = add_constant(graph, f"{value.name}_zero_point", number_format.activation_of(span.zero_point()))
    quantise = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_quantise")
    restore = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{value.name}_dequantise")
    quantise.outputs[0].name, restore.outputs[0].name = f"{value.name}_8bit", f"{value.name}_dequantised"
    for reader, index in list(value.uses()):
        if reader is not quantise:
            reader.replace_input_with(index, restore.outputs[0])
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantise, restore])
    else:
        graph.insert_after(producer, [quantise, restore])


def _move_into_int8(node: ir.Node, number_format: Int8Format) -> None:
    """Turn DQ -> node -> Q into the node on 8-bit values; ONNX Runtime would run it in fp32."""
    restore, (quantise,) = input_of(node).producer(), node.outputs[0].consumers()
    assert restore is not None
    node.replace_input_with(0, input_of(restore))
    node.outputs[0].dtype = ir.DataType.from_numpy(number_format.activation_of(np.uint8(0)).dtype)
    replace_value(quantise.outputs[0], node.outputs[0])


def _requantise_as_gate(graph: ir.Graph, node: ir.Node, input_scale: np.float32, number_format: Int8Format) -> None:
    """Compute clip((x + 3) / 6, 0, 1) of 8-bit x that begin at -3: the same integers, read from 0 in sixths of a step.

    They saturate at 1 when they are rounded to the gate's own steps, which is the clip. A LeakyReLU stands between
    because it has an INT8 kernel (a table of 256); none of its values is below 0, so it changes nothing.
    """
    restore = input_of(node).producer()
    assert restore is not None
    scale = add_constant(graph, f"{node.name}_scale", np.float32(input_scale / 6))
    zero = add_constant(graph, f"{node.name}_zero_point", number_format.activation_of(np.uint8(0)))
    shape = node.outputs[0].shape
    read = insert_before(node, "DequantizeLinear", [input_of(restore), scale, zero], f"{node.name}_read", shape)
    replace_value(node.outputs[0], insert_before(node, "LeakyRelu", [read], f"{node.name}_gate", shape))


def _quantise_weights(node: ir.Node, input_scale: np.float32, channel_means: Float64, largest_whole: int) -> None:
    """Round weights to S8 with a step per channel, and the corrected bias to steps of input times weight."""
    weight = array_of(input_of(node, 1)).astype(np.float64)
    largest = np.abs(weight).max(axis=(1, 2, 3))
    steps = (np.maximum(largest, 1e-8) / largest_whole).astype(np.float32)
    rounded = np.rint(weight / steps[:, None, None, None]).clip(-largest_whole, largest_whole)
    bias = array_of(input_of(node, 2)).astype(np.float64) if len(node.inputs) == 3 else np.zeros(len(weight))
    bias -= mean_shift(rounded * steps[:, None, None, None] - weight, channel_means)
    bias_steps = input_scale * steps
    whole = np.rint(bias / bias_steps).clip(-(2**31) + 1, 2**31 - 1)
    inputs = [
        input_of(node),
        _stored(node, "weight", rounded.astype(np.int8), steps),
        _stored(node, "bias", whole.astype(np.int32), bias_steps),
    ]
    node.resize_inputs(3)
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def _stored(node: ir.Node, what: str, whole: npt.NDArray[np.signedinteger], steps: Float32) -> ir.Value:
    graph, name = node.graph, f"{node.name}_{what}"
    assert graph is not None
    zeros = np.zeros(len(steps), whole.dtype)
    arrays = {"whole": whole, "scale": steps, "zero_point": zeros}
    inputs = [add_constant(graph, f"{name}_{part}", array) for part, array in arrays.items()]
    return insert_before(node, "DequantizeLinear", inputs, name, ir.Shape(whole.shape), axis=0)


def mean_shift(weight_error: Float64, channel_means: Float64) -> Float64:
    """Compute the mean shift of a convolution's outputs [channels out] when its weights move.

    ``weight_error`` is [channels out, channels in / groups, height, width], ``channel_means`` [channels in] the mean of
    what it reads. Exact except at the edges, where a convolution reads zeros as well.
    """
    n_groups = len(channel_means) // weight_error.shape[1]
    by_group = weight_error.sum(axis=(2, 3)).reshape(n_groups, -1, weight_error.shape[1])
    shift: Float64 = np.einsum("goi,gi->go", by_group, channel_means.reshape(n_groups, -1)).ravel()
    return shift
