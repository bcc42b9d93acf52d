"""Weights that stay in their file: the same graph, read with less memory."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from birdinfer.errors import BundleError
from birdinfer.inference import weights_in_place
from birdinfer.inference.engines.onnxruntime import open_session
from birdinfer.inference.weights_in_place import name_places

CPU = ["CPUExecutionProvider"]
SOUND = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A graph with a large tensor and a small one; what follows the file's name misaligns them."""
    monkeypatch.setattr(weights_in_place, "LEAST_BYTES", 1)
    monkeypatch.setattr(weights_in_place, "LARGE_BYTES", 1000)
    rng, shape = np.random.default_rng(1), [helper.make_tensor_value_info("x", 1, ["batch", 40])]
    constants = {"large": rng.normal(size=(40, 50)), "bias": rng.normal(size=50), "scales": rng.normal(size=(6, 50))}
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Gather", ["scales", "places"], ["scale"]),
        helper.make_node("Mul", ["sum", "scale"], ["scores"]),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([4]), "places"))
    made = helper.make_graph(nodes, "odd", shape, [helper.make_tensor_value_info("scores", 1, None)], tensors)
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def scores(session):
    return session.run(["scores"], {"x": SOUND})[0]


def test_name_places_of_large_weights_alone(graph):
    light = onnx.load_from_string(name_places(graph))
    where = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in light.graph.initializer
    }
    assert (where["large"]["location"], where["large"]["length"], where["bias"]) == ("g.onnx", "8000", {})
    begin = int(where["large"]["offset"])
    (large, *_) = onnx.load(graph).graph.initializer
    assert graph.read_bytes()[begin : begin + 8000] == large.raw_data


@pytest.mark.parametrize("is_linked", [False, True])
def test_open_session_gives_the_same_scores(graph, tmp_path, is_linked):
    expected = scores(onnxruntime.InferenceSession(str(graph)))
    path = graph
    if is_linked:
        (tmp_path / "other").mkdir()
        path = tmp_path / "other" / "linked.onnx"
        path.symlink_to(graph)
    np.testing.assert_array_equal(scores(open_session(path, CPU)), expected)


def test_open_session_reads_weights_in_place(graph, monkeypatch):
    opened = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda source, *a, **k: opened.append(source) or real(source, *a, **k)
    )
    session = open_session(graph, CPU)
    assert [type(each) for each in opened] == [bytes]
    # What another process puts in the file's place is another file.
    new = graph.with_name("new")
    new.write_bytes(b"x")
    expected = scores(session)
    new.replace(graph)
    np.testing.assert_array_equal(scores(session), expected)


def test_open_session_falls_back_to_the_whole_file(graph, monkeypatch):
    """For an ONNX Runtime that does not know the setting."""
    expected = scores(open_session(graph, CPU))
    monkeypatch.setattr("birdinfer.inference.engines.onnxruntime.FOLDER_KEY", "session.unknown")
    np.testing.assert_array_equal(scores(open_session(graph, CPU)), expected)


@pytest.mark.parametrize("keep", [10, 4_000, -1])
def test_a_file_that_is_cut_off_is_refused_as_before(graph, keep):
    graph.write_bytes(graph.read_bytes()[:keep])
    assert name_places(graph) is None
    with pytest.raises(BundleError, match="damaged, or no ONNX graph"):
        open_session(graph, CPU)


def test_name_places_leaves_small_graphs_and_what_is_none(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_in_place, "LEAST_BYTES", 10_000)
    assert name_places(graph) is None
    assert name_places(tmp_path / "missing.onnx") is None
    (tmp_path / "empty.onnx").touch()
    assert name_places(tmp_path / "empty.onnx") is None
