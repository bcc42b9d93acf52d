"""Which values of a graph are quantised in which way."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from birdinfer.export.int8.prepare import (
    is_int8,
    is_past_convolutions,
    is_read_by_hard_swish_alone,
    is_read_by_silu_alone,
    rewrite,
)
from birdinfer.export.onnx.edit import add_constant

CHANNELS = 8


def read_graph(body):
    """Nodes in ONNX's own text, from ``x`` [n, 8, 6, 6] to ``logits``; ``w`` is the weight of a 1 x 1 convolution."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[n,{CHANNELS},6,6] x) => (float[n,m] logits)'
        f"<float[{CHANNELS},{CHANNELS},1,1] w, int64[2] axes, int64[2] flat, float[{CHANNELS},3] classes> {{ {body} }}"
    )
    given = {
        "w": np.ones((CHANNELS, CHANNELS, 1, 1), np.float32),
        "axes": np.array([2, 3]),
        "flat": np.array([0, -1]),
        "classes": np.ones((CHANNELS, 3), np.float32),
    }
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in given.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True)).graph


def int8_outputs(graph):
    return [node.outputs[0].name for node in graph if is_int8(node)]


STEM = "stem = Conv(x, w) first = Relu(stem)"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (f"{STEM} a = Conv(first, w) p = ReduceMean(a, axes) f = Reshape(p, flat) logits = MatMul(f, classes)", ["a"]),
        (f"{STEM} a = Conv(first, w) p = GlobalAveragePool(a) f = Flatten(p) logits = MatMul(f, classes)", ["a"]),
        # A SiLU, or a residual, before the mean
        (
            f"{STEM} a = Conv(first, w) s = Sigmoid(a) b = Mul(a, s) p = GlobalAveragePool(b) f = Flatten(p)"
            " logits = MatMul(f, classes)",
            ["a"],
        ),
        (
            f"{STEM} a = Conv(first, w) b = Add(a, first) c = Relu(b) p = GlobalAveragePool(c) f = Flatten(p)"
            " logits = MatMul(f, classes)",
            ["a"],
        ),
        # A convolution of one number a channel follows the mean, as in mobilenetv3
        (
            f"{STEM} a = Conv(first, w) p = GlobalAveragePool(a) h = Conv(p, w) f = Flatten(h)"
            " logits = MatMul(f, classes)",
            ["a"],
        ),
        # The mean of a gate comes back to the activation, and a convolution reads it
        (
            f"{STEM} p = GlobalAveragePool(first) h = Conv(p, w) gate = Sigmoid(h) m = Mul(first, gate)"
            " a = Conv(m, w) q = GlobalAveragePool(a) f = Flatten(q) logits = MatMul(f, classes)",
            ["p", "m", "a"],
        ),
    ],
)
def test_what_comes_after_the_last_convolution_stays_fp32(body, wanted):
    assert [name for name in int8_outputs(read_graph(body)) if name != "stem"] == wanted


def test_a_convolution_without_a_stored_weight_stays_fp32():
    graph = read_graph(
        f"{STEM} moved = Identity(w) a = Conv(first, moved) p = GlobalAveragePool(a) f = Flatten(p)"
        " logits = MatMul(f, classes)"
    )
    assert int8_outputs(graph) == []


def test_a_product_with_a_constant_stays_fp32():
    graph = read_graph(
        f"{STEM} m = Mul(first, first) a = Conv(m, w) p = GlobalAveragePool(a) f = Flatten(p)"
        " logits = MatMul(f, classes)"
    )
    (product,) = (node for node in graph if node.op_type == "Mul")
    assert is_int8(product)
    product.replace_input_with(1, add_constant(graph, "half", np.float32(0.5)))
    assert not is_int8(product)


def test_an_answer_is_past_all_convolutions_and_the_input_before_them():
    graph = read_graph(f"{STEM} p = GlobalAveragePool(first) f = Flatten(p) logits = MatMul(f, classes)")
    assert is_past_convolutions(graph.outputs[0])
    assert not is_past_convolutions(graph.inputs[0])


def test_which_values_a_silu_alone_reads(awkward_graph):
    rewritten = ir.load(awkward_graph)
    rewrite(rewritten.graph)
    alone = {node.op_type: [] for node in rewritten.graph}
    for node in rewritten.graph:
        alone[node.op_type].append(is_read_by_silu_alone(node.outputs[0]))
    # The stem, expand, depthwise, squeeze and the last lead to a SiLU alone; so do both sums.
    assert (sum(alone["Conv"]), sum(alone["Add"])) == (5, 2)


@pytest.mark.parametrize(
    ("gate", "is_hard_swish"),
    [
        ("HardSigmoid<alpha = 0.16666667, beta = 0.5>(first)", True),
        ("HardSigmoid<alpha = 0.16666667>(first)", True),
        ("HardSigmoid(first)", False),  # ONNX's own slope is 0.2
        ("HardSigmoid<alpha = 0.16666667, beta = 0.4>(first)", False),
        ("Sigmoid(first)", False),
    ],
)
def test_a_hard_swish_is_known_by_its_slope(gate, is_hard_swish):
    graph = read_graph(
        f"{STEM} g = {gate} m = Mul(first, g) a = Conv(m, w) p = GlobalAveragePool(a) f = Flatten(p)"
        " logits = MatMul(f, classes)"
    )
    (value,) = (node.outputs[0] for node in graph if node.op_type == "Relu")
    assert is_read_by_hard_swish_alone(value) == is_hard_swish
    assert ("g" in int8_outputs(graph)) == (is_hard_swish or gate.startswith("Sigmoid"))


def test_a_hard_swish_whose_values_others_read_as_well_stays_fp32():
    graph = read_graph(
        f"{STEM} g = HardSigmoid<alpha = 0.16666667>(first) m = Mul(first, g) b = Add(m, first) a = Conv(b, w)"
        " p = GlobalAveragePool(a) f = Flatten(p) logits = MatMul(f, classes)"
    )
    assert int8_outputs(graph) == ["m", "b", "a"]
