"""Labels cut out of a graph's last layer: the same bits in ONNX Runtime, and graphs that are left whole."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_bundles import SAMPLE_RATE, tone, write_bundle, write_sound
from onnx import TensorProto, helper, numpy_helper

from birdinfer import Bundle, Predictor
from birdinfer.inference import last_layer
from birdinfer.inference.last_layer import cut_columns
from birdinfer.inference.member_group import load_member_groups
from birdinfer.inference.predictor import make_plan

N_FEATURES, N_LABELS = 40, 150


@pytest.fixture(autouse=True)
def _small_graphs_are_cut_too(monkeypatch):
    monkeypatch.setattr(last_layer, "LEAST_BYTES", 1)


def weights(*shape, name):
    seed = sum(map(ord, name))
    return numpy_helper.from_array(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32), name)


W, WT = weights(N_FEATURES, N_LABELS, name="w"), weights(N_LABELS, N_FEATURES, name="wt")
B, ROW, ONE = weights(N_LABELS, name="b"), weights(1, N_LABELS, name="row"), weights(1, name="one")
NODE = helper.make_node
LAST_LAYERS = {
    "MatMul": ([NODE("MatMul", ["x", "w"], ["y"])], [W]),
    "Gemm": ([NODE("Gemm", ["x", "w", "b"], ["y"], alpha=0.5)], [W, B]),
    "Gemm, transposed": ([NODE("Gemm", ["x", "wt", "row"], ["y"], transB=1)], [WT, ROW]),
    "Gemm without bias": ([NODE("Gemm", ["x", "wt"], ["y"], transB=1)], [WT]),
    "bias behind": ([NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "b"], ["y"])], [W, B]),
    "bias before, sigmoid": (
        [NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["row", "p"], ["s"]), NODE("Sigmoid", ["s"], ["y"])],
        [W, ROW],
    ),
    "named again": ([NODE("MatMul", ["x", "w"], ["p"]), NODE("Identity", ["p"], ["y"])], [W]),
}
WHOLE = {
    "softmax": ([NODE("MatMul", ["x", "w"], ["p"]), NODE("Softmax", ["p"], ["y"])], [W]),
    "one bias for all": ([NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "one"], ["y"])], [W, ONE]),
    "weights of two layers": (
        [NODE("MatMul", ["x", "w"], ["y"]), NODE("MatMul", ["x", "w"], ["z"])],
        [W],
    ),
    "columns that are read again": (
        [NODE("MatMul", ["x", "w"], ["y"]), NODE("ReduceMax", ["y"], ["z"])],
        [W],
    ),
    "an operator of another domain": ([NODE("MatMul", ["x", "w"], ["y"], domain="own")], [W]),
    "computed weights": ([NODE("Neg", ["w"], ["v"]), NODE("MatMul", ["x", "v"], ["y"])], [W]),
    "no product": ([NODE("Neg", ["x"], ["y"])], []),
    "half precision": (
        [NODE("MatMul", ["x", "h"], ["y"])],
        [numpy_helper.from_array(numpy_helper.to_array(W).astype(np.float16), "h")],
    ),
}


def graph_of(nodes, tensors, **more):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", N_FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", N_LABELS])],
        tensors,
        value_info=[helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", N_LABELS])],
        **more,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"a": "b"})
    return model


def run(content, x):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("kind", LAST_LAYERS)
@settings(max_examples=4)
@given(
    columns=st.lists(st.integers(0, N_LABELS - 1), min_size=1, max_size=N_LABELS - 1),
    n_windows=st.integers(1, 4),
)
def test_columns_have_the_same_bits(kind, columns, n_windows):
    whole = graph_of(*LAST_LAYERS[kind]).SerializeToString()
    cut = cut_columns(whole, "y", columns)
    x = np.random.default_rng(len(columns)).normal(0, 1, (n_windows, N_FEATURES)).astype(np.float32)
    np.testing.assert_array_equal(run(cut, x), run(whole, x)[:, columns])
    assert len(cut) < len(whole)
    model = onnx.load_from_string(cut)
    onnx.checker.check_model(model)
    assert [(each.key, each.value) for each in model.metadata_props] == [("a", "b")]


@pytest.mark.parametrize("kind", WHOLE)
def test_other_graphs_stay_whole(kind):
    assert cut_columns(graph_of(*WHOLE[kind]).SerializeToString(), "y", [0]) is None


def test_a_graph_within_the_graph_may_read_the_columns():
    branch = helper.make_graph(
        [NODE("Identity", ["y"], ["z"])], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    )
    nodes = [NODE("MatMul", ["x", "w"], ["y"]), NODE("If", ["c"], ["o"], then_branch=branch, else_branch=branch)]
    assert cut_columns(graph_of(nodes, [W]).SerializeToString(), "y", [0]) is None


def test_weights_that_are_an_input_stay():
    model = graph_of(*LAST_LAYERS["MatMul"])
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [N_FEATURES, N_LABELS]))
    assert cut_columns(model.SerializeToString(), "y", [0]) is None


def test_what_is_not_worth_it_stays_whole(monkeypatch):
    content = graph_of(*LAST_LAYERS["Gemm"]).SerializeToString()
    assert cut_columns(content, "y", range(N_LABELS)) is None
    assert cut_columns(content, "z", [0]) is None
    monkeypatch.setattr(last_layer, "LEAST_BYTES", 4 * N_LABELS * N_FEATURES)
    assert cut_columns(content, "y", range(40)) is None


CONTENT = graph_of(*LAST_LAYERS["bias before, sigmoid"]).SerializeToString()
HEAD = len(CONTENT) - 2 * 4 * N_LABELS * N_FEATURES // 2
"""Bytes without most of the weights."""


@given(data=st.data())
def test_a_damaged_graph_is_cut_or_left_alone(data):
    """No other error comes out, whatever is read."""
    damaged = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 400) | st.integers(len(CONTENT) - 700, len(CONTENT) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut_at = data.draw(st.none() | st.integers(0, len(CONTENT)))
    cut_columns(bytes(damaged[:cut_at]), "y", [0, 5])


def test_a_member_is_loaded_with_the_labels_it_is_asked_for(tmp_path):
    labels = tuple(f"s{index}" for index in range(50))
    whole = Bundle.load(write_bundle(tmp_path / "b", labels=labels))
    part = whole.with_species(labels[7:10])
    (group,) = load_member_groups(part, make_plan("onnxruntime", 1, 1))
    assert [loaded.member.label_columns for loaded in group.members] == [{"s7": (0,), "s8": (1,), "s9": (2,)}] * 2
    write_sound(tmp_path / "a.wav", tone(12.0), SAMPLE_RATE)
    found = [Predictor(each).predict(tmp_path / "a.wav") for each in (part, whole)]
    np.testing.assert_array_equal(found[0], found[1][:, 7:10])
