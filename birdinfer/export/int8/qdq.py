"""An fp32 graph and the ranges of its activations -> the same graph in QDQ form, which engines run as INT8.

In: a rewritten graph (``rewrites.py``) and what calibration makes of it. Activations become 8-bit,
one range each; weights become S8 with a step per channel, and what rounding them shifts on average is given back
through the bias (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
4.2).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer.export.graphs.graph_edit import (
    add_constant,
    array_of,
    drop_unused,
    input_of,
    insert_before,
    replace_value,
)
from birdinfer.export.int8.nodes import MOVERS, int8_values, is_int8
from birdinfer.export.int8.number_format import Int8Format
from birdinfer.export.int8.ranges import U8_STEPS, Range, hard_swish_range

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_SIGMOID_STEP = 1.0 / 256.0
"""A sigmoid's range is known without calibration."""


def insert_qdq(
    graph: ir.Graph,
    ranges: Mapping[str, Range],
    channel_means: Mapping[str, Float64],
    kept: Collection[str],
    numbers: Int8Format,
) -> None:
    """Put QuantizeLinear -> DequantizeLinear behind INT8 activations, and round weights and biases.

    Args:
        graph: changed in place.
        ranges: of every activation that can become 8-bit, by name.
        channel_means: of what each convolution reads [channels], by name.
        kept: activations that stay fp32. Who reads or writes one computes in fp32, a convolution with its own weights.
        numbers: what 8-bit numbers are.
    """
    int8 = [node for node in graph if is_int8(node)]
    ranges = {**ranges, **_ranges_known_beforehand(int8, ranges)}
    # What a node reads and writes is noted now: it reads other values once they are quantised.
    ends = {node: (str(input_of(node).name), str(int8_values(node)[-1].name)) for node in int8}
    for value in {value.name: value for node in int8 for value in int8_values(node)}.values():
        if value.name not in kept:
            _quantise_activation(graph, value, ranges[str(value.name)], numbers)
    for node, (read, written) in ends.items():
        if read in kept or written in kept:
            continue
        if node.op_type in MOVERS:
            _move_into_int8(node, numbers)
        elif node.op_type == "HardSigmoid":
            _requantise_as_gate(graph, node, ranges[read].scale(), numbers)
        elif node.op_type == "Conv":
            _quantise_weights(graph, node, ranges[read].scale(), channel_means[read], numbers.largest_weight)
    drop_unused(graph)


def _ranges_known_beforehand(int8: Sequence[ir.Node], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Sigmoids lie in [0, 1); a hard-swish reads steps that begin at -3; who only moves values keeps their range."""
    known: dict[str, Range] = {}
    for node in int8:
        name = str(node.outputs[0].name)
        if node.op_type == "Sigmoid":
            known[name] = Range(0.0, _SIGMOID_STEP * U8_STEPS)
        elif node.op_type == "HardSigmoid":
            read = str(input_of(node).name)
            known[read], known[name] = hard_swish_range(ranges[read]), Range(0.0, 1.0)
        elif node.op_type in MOVERS:
            read = str(input_of(node).name)
            known[name] = known.get(read, ranges[read])
    return known


def _quantise_activation(graph: ir.Graph, value: ir.Value, span: Range, numbers: Int8Format) -> None:
    """Let whoever reads a value read it through QuantizeLinear -> DequantizeLinear."""
    scale = add_constant(graph, f"{value.name}_scale", span.scale())
    zero = add_constant(graph, f"{value.name}_zero_point", numbers.activation_of(span.zero_point()))
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


def _move_into_int8(node: ir.Node, numbers: Int8Format) -> None:
    """DQ -> node -> Q becomes node alone on 8-bit values; ONNX Runtime would run it in fp32."""
    restore, (quantise,) = input_of(node).producer(), node.outputs[0].consumers()
    assert restore is not None
    node.replace_input_with(0, input_of(restore))
    node.outputs[0].dtype = ir.DataType.from_numpy(numbers.activation_of(np.uint8(0)).dtype)
    replace_value(quantise.outputs[0], node.outputs[0])


def _requantise_as_gate(graph: ir.Graph, node: ir.Node, input_scale: np.float32, numbers: Int8Format) -> None:
    """clip((x + 3) / 6, 0, 1) of 8-bit x that begin at -3: the same whole numbers, read from 0 in sixths of a step.

    They saturate at 1 when they are rounded to the gate's own steps, which is the clip. A LeakyReLU stands between,
    as it has an INT8 kernel (a table of 256); none of its values is below 0, so it changes nothing.
    """
    restore = input_of(node).producer()
    assert restore is not None
    scale = add_constant(graph, f"{node.name}_scale", np.float32(input_scale / 6))
    zero = add_constant(graph, f"{node.name}_zero_point", numbers.activation_of(np.uint8(0)))
    shape = node.outputs[0].shape
    read = insert_before(node, "DequantizeLinear", [input_of(restore), scale, zero], f"{node.name}_read", shape)
    replace_value(node.outputs[0], insert_before(node, "LeakyRelu", [read], f"{node.name}_gate", shape))


def _quantise_weights(
    graph: ir.Graph, node: ir.Node, input_scale: np.float32, channel_means: Float64, largest_whole: int
) -> None:
    """S8 weights with a step per channel, and a bias in steps of input times weight, corrected for the rounding."""
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
        _stored(graph, node, "weight", rounded.astype(np.int8), steps),
        _stored(graph, node, "bias", whole.astype(np.int32), bias_steps),
    ]
    node.resize_inputs(3)
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def _stored(
    graph: ir.Graph, node: ir.Node, what: str, whole: npt.NDArray[np.signedinteger], steps: Float32
) -> ir.Value:
    """Whole numbers [channels, ...] and their step per channel, as the fp32 values that they stand for."""
    name = f"{node.name}_{what}"
    zeros = np.zeros(len(steps), whole.dtype)
    arrays = {"whole": whole, "scale": steps, "zero_point": zeros}
    inputs = [add_constant(graph, f"{name}_{part}", array) for part, array in arrays.items()]
    return insert_before(node, "DequantizeLinear", inputs, name, ir.Shape(whole.shape), axis=0)


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
