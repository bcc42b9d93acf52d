"""In bf16 the front end of a graph that takes the waveform stays in fp32."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.engines import openvino as openvino_module
from birdinfer.inference.engines.waveform_fp32 import split

openvino = pytest.importorskip("openvino")

SAMPLES, FRAME, BANDS = 1600, 40, 16


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Frames times cosines, squared, compared with their own mean over 80 dB, and a convolution over that image."""
    rng = np.random.default_rng(0)
    phases = np.outer(np.arange(BANDS) + 1, np.arange(FRAME)) * np.pi / BANDS
    weights = {
        "cosines": np.cos(phases)[:, None, None].astype(np.float32),
        "bands": rng.uniform(0, 1, (BANDS, BANDS, 1, 1)).astype(np.float32),
        "kernel": rng.normal(0, 0.05, (4, 1, 3, 3)).astype(np.float32),
        "scores": rng.normal(0, 1, (4, 5)).astype(np.float32),
        "as_row": np.array([0, 1, 1, SAMPLES]),
        "as_image": np.array([0, 1, BANDS, -1]),
        "as_list": np.array([0, 4]),
        "least": np.array(1e-8, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["waveform", "as_row"], ["row"]),
        helper.make_node("Conv", ["row", "cosines"], ["frames"], strides=[1, FRAME // 2]),
        helper.make_node("Mul", ["frames", "frames"], ["power"]),
        helper.make_node("Conv", ["power", "bands"], ["mel"]),
        helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Sub", ["mel", "mean"], ["above"]),
        helper.make_node("Mul", ["above", "above"], ["squared"]),
        helper.make_node("Add", ["squared", "least"], ["positive"]),
        helper.make_node("Log", ["positive"], ["spectrogram"]),
        helper.make_node("Reshape", ["spectrogram", "as_image"], ["image"]),
        helper.make_node("Conv", ["image", "kernel"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "as_list"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "scores"], ["logits"]),
    ]
    values = {name: ["batch", size] for name, size in (("embedding", 4), ("logits", 5))}
    values["spectrogram"] = ["batch", BANDS, 1, "frames"]
    made = helper.make_graph(
        nodes,
        "waveform",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", SAMPLES])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("graphs") / "waveform.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(1).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)


def parts_of(graph, outputs):
    model = openvino.Core().read_model(graph)
    model.reshape([3, SAMPLES])
    return split(model, outputs)


def test_both_parts_compute_what_the_whole_does(graph, windows):
    outputs = ["logits", "embedding"]
    whole = load_engine(EnginePlan(parse_spec("openvino:fp32"), batch_size=3), graph, outputs, (SAMPLES,)).run(windows)
    front_end, network = parts_of(graph, outputs)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    image = openvino.compile_model(front_end, "CPU", settings)([windows])[0]
    assert image.shape == (3, 1, BANDS, (SAMPLES - FRAME) // (FRAME // 2) + 1)
    answer = openvino.compile_model(network, "CPU", settings)([image])
    for index, name in enumerate(outputs):
        np.testing.assert_allclose(answer[index], whole[name], rtol=1e-4, atol=1e-5)


def test_a_graph_that_answers_with_its_front_end_stays_whole(graph):
    assert parts_of(graph, ["logits", "spectrogram"]) is None


def test_in_bf16_it_is_nearer_than_the_whole_graph_in_bf16(graph, windows):
    if not openvino_module.has_bf16():
        pytest.skip("this processor has no bf16")
    names = ["logits", "embedding"]
    wanted, found = (
        load_engine(EnginePlan(parse_spec(spec), batch_size=3), graph, names, (SAMPLES,)).run(windows)
        for spec in ("openvino:fp32", "openvino:bf16")
    )
    all_bf16 = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})([windows])["logits"]
    assert found["embedding"].shape == (3, 4)
    error, before = (np.abs(each - wanted["logits"]).max() for each in (found["logits"], all_bf16))
    assert 0 < error < 0.8 * before
