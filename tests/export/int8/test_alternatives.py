"""Dynamic INT8: near to fp32, one window a call whatever the batch, and nothing else about the graph changed."""

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from tiny_models import TINY, windows

from birdinfer.errors import ConfigError
from birdinfer.export.int8.alternatives import PRODUCTS, int8_operators, quantize_dynamic
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.inference.activation import activate
from birdinfer.inference.engines import EnginePlan, load_engine
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig

NETWORKS = {
    "cnn": (TINY["cnn"], "convolutions", {"ConvInteger", "MatMulInteger"}),
    "vit": (TINY["vit"], "products", {"MatMulInteger"}),
    "lstm": (ModelConfig("rnn", "lstm", hidden=32, layers=1), "LSTMs", {"MatMulInteger", "DynamicQuantizeLSTM"}),
    "raw": (TINY["raw"], "products", {"MatMulInteger"}),
}
EXPORTERS = {"vit": "torchscript", "lstm": "torchscript", "raw": "torchscript"}
"""The older one is far quicker; each exporter makes some of the graphs."""


@pytest.fixture(scope="module", params=NETWORKS)
def made(request, tmp_path_factory):
    """(fp32 graph, INT8 graph, what was done, windows of unlike loudness, names of outputs); read only."""
    config, *_ = NETWORKS[request.param]
    input_config, inputs = windows(config, n=5)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    model = build_model(config, 7, input_config, start=False).eval()
    stamp = {"labels_sha256": "abc", "birdinfer": "1"}
    outputs = export_graph(model, input_config, folder / "fp32.onnx", stamp, EXPORTERS.get(request.param, "dynamo"))
    done = quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx")
    loudness = torch.tensor([0.1, 1.0, 3.0, 0.3, 10.0]).reshape(-1, *[1] * (inputs.ndim - 1))
    return request.param, folder, done, (inputs * loudness).numpy(), outputs


def probabilities(path, inputs, outputs, batch_size=1, order=None):
    engine = load_engine(EnginePlan(batch_size=batch_size), path, outputs, inputs.shape[1:])
    found = engine.run(np.ascontiguousarray(inputs if order is None else inputs[order]))
    return {name: activate(logits, "sigmoid") for name, logits in found.items()}


def test_it_answers_nearly_as_fp32(made):
    """In exact integer arithmetic, which ONNX defines and a processor with VNNI has.

    Others add two products in 16 bits, which overflow: that is theirs, and measured where a graph is accepted.
    """
    name, folder, _, inputs, outputs = made
    wanted = probabilities(folder / "fp32.onnx", inputs, outputs)
    if name == "lstm":  # its operator is ONNX Runtime's own
        found = probabilities(folder / "int8.onnx", inputs, outputs)
    else:
        reference = ReferenceEvaluator(onnx.load(folder / "int8.onnx"))
        answers = [reference.run(list(outputs), {reference.input_names[0]: window[None]}) for window in inputs]
        logits = dict(zip(outputs, map(np.concatenate, zip(*answers, strict=True)), strict=True))
        found = {each: activate(logits[each], "sigmoid") for each in outputs}
    for each in outputs:
        assert 0 < np.abs(found[each] - wanted[each]).max() < 0.03


def test_no_score_depends_on_its_company(made):
    """A range over a batch would let the loudest window coarsen the steps of all others."""
    _, folder, _, inputs, outputs = made
    alone = probabilities(folder / "int8.onnx", inputs, outputs)
    for batch_size, order in ((5, [0, 1, 2, 3, 4]), (3, [4, 2, 0, 1, 3]), (2, [4, 0, 0, 4])):
        found = probabilities(folder / "int8.onnx", inputs, outputs, batch_size, order)
        for name in outputs:
            assert np.array_equal(found[name], alone[name][order])


def test_with_a_free_batch_it_would(made, tmp_path):
    _, folder, _, inputs, outputs = made
    graph = onnx.load(folder / "int8.onnx")
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(graph, tmp_path / "free.onnx")
    alone, together = (probabilities(tmp_path / "free.onnx", inputs, outputs, n)["logits"] for n in (1, 5))
    assert np.abs(alone - together).max() > 1e-5, "a hundred times what fp32 rounds"


def test_what_was_done_is_returned_and_found_in_the_graph(made):
    name, folder, done, _, _ = made
    _, what, expected = NETWORKS[name]
    assert what in done
    assert done.endswith("in INT8; one window a call")
    kinds = {node.op_type for node in onnx.load(folder / "int8.onnx").graph.node}
    assert {kind for kind in kinds if "Integer" in kind or kind == "DynamicQuantizeLSTM"} == expected
    assert not {"Gemm", "LSTM"} & kinds


def test_weights_are_of_8_bits_with_a_step_per_channel(made):
    _, folder, _, _, _ = made
    graph = onnx.load(folder / "int8.onnx").graph
    stored = {each.name: each for each in graph.initializer}
    weights = [stored[node.input[1]] for node in graph.node if node.op_type == "MatMulInteger"]
    for weight in weights:
        scale = stored[weight.name.removesuffix("_quantized") + "_scale"]
        assert weight.data_type == onnx.TensorProto.INT8
        assert list(scale.dims) == [weight.dims[1]]


def test_names_and_metadata_stay(made):
    _, folder, _, _, _ = made
    before, after = (onnx.load(folder / name) for name in ("fp32.onnx", "int8.onnx"))
    assert [each.name for each in after.graph.input] == [each.name for each in before.graph.input]
    assert [each.name for each in after.graph.output] == [each.name for each in before.graph.output]
    callback = [{each.key: each.value for each in graph.metadata_props} for graph in (before, after)]
    assert callback[0] == callback[1]
    assert callback[0].items() >= {"labels_sha256": "abc", "birdinfer": "1"}.items()


def test_no_advice_is_logged(tmp_path, caplog):
    input_config, _ = windows(TINY["cnn"])
    model = build_model(TINY["cnn"], 3, input_config, start=False).eval()
    export_graph(model, input_config, tmp_path / "a.onnx", {}, "torchscript")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        quantize_dynamic(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def graph_of(nodes, weights):
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("convolution", "product", "expected"),
    [((8, 8, 3, 3), (4, 4), (*PRODUCTS, "Conv")), ((2, 2, 1, 1), (4, 4), PRODUCTS)],
)
def test_convolutions_only_where_they_hold_most_of_the_weights(convolution, product, expected):
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["c"]), onnx.helper.make_node("MatMul", ["c", "v"], ["y"])]
    assert int8_operators(graph_of(nodes, {"w": convolution, "v": product})) == expected


def test_a_graph_with_nothing_to_quantise_is_refused(tmp_path):
    onnx.save(graph_of([onnx.helper.make_node("Relu", ["x"], ["y"])], {}), tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"a\.onnx: has no product with stored weights .* - leave it in fp32"):
        quantize_dynamic(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
