"""What may be fp16: graphs of a few nodes, each with something that must not be."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from birdinfer.export.onnx.half import LARGEST, half_nodes

WEIGHT = np.full((4, 4), 0.5, np.float32)


def half_of(body, **constants):
    """Outputs of the nodes that become fp16, in a graph from x [n, 4] to y."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> g (float[n,4] x) => (float y) {{{body}}}')
    tensors = {"w": WEIGHT, "v": WEIGHT, "last": np.array([1])} | constants
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in tensors.items() if name in used
    )
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    return {str(node.outputs[0].name) for node in half_nodes(graph)}


def test_products_and_activations_are_but_the_classifier_is_not():
    assert half_of("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)") == {"a", "b"}


def test_what_follows_the_last_product_is_not():
    assert half_of("a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Abs(c) y = Neg(d)") == {"a", "b"}


def test_all_classifiers_of_a_graph_stay_fp32():
    assert half_of("a = MatMul(x, w) c = MatMul(a, v) d = MatMul(a, w) y = Add(c, d)") == {"a"}


def test_a_last_convolution_is_work_and_becomes_fp16():
    body = "a = Unsqueeze(x, last) b = Conv<kernel_shape = [1]>(a, k) y = Relu(b)"
    assert half_of(body, k=np.ones((2, 1, 1), np.float32)) == {"a", "b"}


@pytest.mark.parametrize("kind", ["Exp", "Softplus", "Softmax", "Sqrt", "Reciprocal"])
def test_pitfall_12_what_overflows_in_fp16_stays_fp32(kind):
    assert half_of(f"a = MatMul(x, w) b = {kind}(a) y = MatMul(b, v)") == {"a"}


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceL2"])
def test_pitfall_12_sums_over_many_places_stay_fp32(kind):
    assert half_of(f"a = MatMul(x, w) b = {kind}(a, last) y = MatMul(b, v)") == {"a"}


def test_pitfall_12_light_nodes_between_fp32_nodes_stay_fp32():
    body = "a = MatMul(x, w) b = Exp(a) c = Add(b, one) d = Neg(c) e = Softmax(d) y = MatMul(e, v)"
    assert half_of(body, one=np.float32(1)) == {"a"}


def test_light_nodes_between_fp32_and_fp16_are_fp16():
    assert half_of("a = Softmax(x) b = Relu(a) c = MatMul(b, w) y = MatMul(c, v)") == {"b", "c"}


def test_light_nodes_before_a_sum_are_fp16_if_they_read_fp16():
    assert half_of("a = MatMul(x, w) b = Relu(a) c = ReduceMean(b, last) y = MatMul(c, v)") == {"a", "b"}


def test_a_front_end_is_found_by_its_logarithm():
    body = "a = MatMul(x, w) b = Mul(a, a) c = Log(b) d = MatMul(c, v) e = Relu(d) y = MatMul(e, v)"
    assert half_of(body) == {"d", "e"}


def test_a_front_end_is_found_by_its_name():
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[n,4] x) => (float[n,4] y) '
    model = onnx.parser.parse_model(text + "{a = MatMul(x, x) b = Mul(a, a) c = MatMul(b, b) y = MatMul(c, c)}")
    for node in model.graph.node[:2]:
        node.name = f"front_end/{node.op_type}"
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    assert {node.outputs[0].name for node in half_nodes(graph)} == {"c"}


def test_a_logarithm_after_the_classifier_makes_no_front_end():
    assert half_of("a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) y = Log(c)") == {"a", "b"}


@pytest.mark.parametrize("outlier", [LARGEST * 1.001, -1e5, np.inf])
def test_a_weight_beyond_the_range_keeps_its_node_in_fp32(outlier):
    weight = WEIGHT.copy()
    weight[1, 2] = outlier
    assert half_of("a = MatMul(x, big) b = MatMul(a, w) y = MatMul(b, v)", big=weight) == {"b"}
    weight[1, 2] = LARGEST
    assert half_of("a = MatMul(x, big) b = MatMul(a, w) y = MatMul(b, v)", big=weight) == {"a", "b"}


@pytest.mark.parametrize(("number", "fits"), [(0.5, True), (0.1, True), (1e-6, False), (1e-12, False), (7e4, False)])
def test_a_lone_number_that_fp16_would_change_keeps_its_node_in_fp32(number, fits):
    found = half_of("a = MatMul(x, w) b = Max(a, least) c = MatMul(b, v) y = MatMul(c, v)", least=np.float32(number))
    assert ("b" in found) == fits
    assert {"a", "c"} <= found


def test_a_quotient_is_safe_by_a_constant_alone():
    by = "a = MatMul(x, w) b = Div(a, {}) c = MatMul(b, v) y = MatMul(c, v)"
    assert "b" in half_of(by.format("two"), two=np.float32(2))
    assert "b" not in half_of(by.format("x"))


def test_asking_for_a_shape_casts_nothing():
    body = "a = MatMul(x, w) s = Shape(a) b = Expand(a, s) c = MatMul(b, v) y = MatMul(c, v)"
    assert half_of(body) == {"a", "s", "b", "c"}


def test_nodes_of_another_domain_stay_fp32():
    text = '<ir_version: 9, opset_import: ["": 18, "com.acme": 1]> g (float[n,4] x) => (float[n,4] y) '
    model = onnx.parser.parse_model(text + "{a = com.acme.Relu(x) b = MatMul(a, a) y = MatMul(b, b)}")
    graph = ir.from_proto(model).graph
    for node in graph:
        node.outputs[0].dtype = ir.DataType.FLOAT
    assert {node.outputs[0].name for node in half_nodes(graph)} == {"b"}


def test_a_graph_of_thousands_of_nodes_takes_moments():
    n = 3_000
    body = "a0 = MatMul(x, w) " + " ".join(f"a{i + 1} = Relu(a{i})" for i in range(n)) + f" y = MatMul(a{n}, v)"
    assert len(half_of(body)) == n + 1
