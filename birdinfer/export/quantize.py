"""fp32 graph -> INT8 graph with the same answers: U8 activations, S8 weights per channel, in QDQ form, any batch size.

In: a graph of :mod:`birdinfer.export.onnx` and real log-mel [windows, 1, n_mels, frames]. Out: a graph that ONNX
Runtime turns into one chain of INT8 kernels in channels-last layout, with nothing converted or transposed between them.

1. Rewrites that keep every answer, but leave no node between the convolutions that lacks an INT8 kernel
   (:mod:`birdinfer.export.rewrites`).
2. Ranges of all activations, from calibration (:mod:`birdinfer.export.calibration`).
3. QDQ pairs; weights are rounded, and what rounding them shifts on average is given back through the bias
   (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2).

U8 times S8, because that is what x86 multiplies natively: S8 times S8 is twelve times slower in ONNX Runtime.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import onnx
from birdinfer.errors import ConfigError
from birdinfer.export.calibration import U8_STEPS, Activations, Range, calibrate, mean_logits
from birdinfer.export.graph_edit import (
    add_constant,
    array_of,
    drop_unused,
    input_of,
    insert_before,
    replace_value,
)
from birdinfer.export.int8_nodes import MOVERS, int8_values, is_int8
from birdinfer.export.rewrites import rewrite
from birdinfer.files import write_atomic

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PERCENTILE = 99.999
"""Of an activation's values, how many are kept in range; the others are clipped. Clipping costs more than coarse steps:
99.9 doubles the error of 99.99, and the largest value of all (100) lets one odd calibration window decide."""

_S8_LARGEST = 127
_SIGMOID_STEP = 1.0 / 256.0
"""A sigmoid's range is known without calibration."""


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
        OutputError: the graph cannot be written there.
    """
    windows = [batch[index : index + 1] for batch in calibration for index in range(len(batch))]
    _refuse_calibration(windows, percentile)
    model = ir.load(graph)
    rewrite(model.graph)
    if not any(is_int8(node) for node in model.graph if node.op_type == "Conv"):
        raise ConfigError(graph, "has no fp32 convolution that could be INT8", "quantise a convolutional network")
    activations = calibrate(model, windows, percentile)
    wanted = mean_logits(model, windows)
    insert_qdq(model.graph, activations)
    correct_logits(model, windows, wanted)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    write_atomic(out, proto.SerializeToString())


def _refuse_calibration(windows: Sequence[Float32], percentile: float) -> None:
    if not 50.0 < percentile <= 100.0:
        raise ConfigError("percentile", f"{percentile:g} is not in (50, 100]", f"leave it at {PERCENTILE:g}")
    if not windows:
        raise ConfigError("calibration", "holds no windows", "give 32 or more windows of real sound")
    if not all(np.isfinite(window).all() for window in windows):
        raise ConfigError("calibration", "holds values that are not finite", "leave those windows out")


def insert_qdq(graph: ir.Graph, activations: Activations) -> None:
    """Put QuantizeLinear -> DequantizeLinear behind every INT8 activation, and round weights and biases."""
    int8 = [node for node in graph if is_int8(node)]
    ranges = activations.ranges | _ranges_known_beforehand(int8, activations.ranges)
    convolutions = [(node, str(input_of(node).name)) for node in int8 if node.op_type == "Conv"]
    for value in {value.name: value for node in int8 for value in int8_values(node)}.values():
        _quantise_activation(graph, value, ranges[str(value.name)])
    for node in int8:
        if node.op_type in MOVERS:
            _move_into_int8(node)
    for node, read in convolutions:
        _quantise_weights(graph, node, ranges[read].scale(), activations.channel_means[read])
    drop_unused(graph)


def _ranges_known_beforehand(int8: Sequence[ir.Node], ranges: dict[str, Range]) -> dict[str, Range]:
    """Sigmoids lie in [0, 1); who only moves values keeps their range."""
    known = {}
    for node in int8:
        name = str(node.outputs[0].name)
        if node.op_type == "Sigmoid":
            known[name] = Range(0.0, _SIGMOID_STEP * U8_STEPS)
        elif node.op_type in MOVERS:
            read = str(input_of(node).name)
            known[name] = known.get(read, ranges[read])
    return known


def _quantise_activation(graph: ir.Graph, value: ir.Value, span: Range) -> None:
    """Let whoever reads a value read it through QuantizeLinear -> DequantizeLinear."""
    scale = add_constant(graph, f"{value.name}_scale", span.scale())
    zero = add_constant(graph, f"{value.name}_zero_point", span.zero_point())
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
    restore, (quantise,) = input_of(node).producer(), node.outputs[0].consumers()
    assert restore is not None
    node.replace_input_with(0, input_of(restore))
    node.outputs[0].dtype = ir.DataType.UINT8
    replace_value(quantise.outputs[0], node.outputs[0])


def _quantise_weights(graph: ir.Graph, node: ir.Node, input_scale: np.float32, channel_means: Float64) -> None:
    """S8 weights with a step per channel, and a bias in steps of input times weight, corrected for the rounding."""
    weight = array_of(input_of(node, 1)).astype(np.float64)
    largest = np.abs(weight).max(axis=(1, 2, 3))
    steps = (np.maximum(largest, 1e-8) / _S8_LARGEST).astype(np.float32)
    rounded = np.rint(weight / steps[:, None, None, None]).clip(-_S8_LARGEST, _S8_LARGEST)
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
    bias = array_of(input_of(last, 2)) + (wanted - mean_logits(model, windows))
    last.replace_input_with(2, add_constant(model.graph, f"{last.name}_bias_corrected", bias.astype(np.float32)))
    drop_unused(model.graph)
