"""16-bit graphs: the same names, half the size, answers next to those of fp32, the same in any company."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from make_bundles import LABELS
from onnx import TensorProto, helper, numpy_helper
from shallow_networks import make_networks_shallow
from tiny_models import TINY, windows

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import ConfigError, OutputError
from birdinfer.export.onnx.frontend import put_front_end_before
from birdinfer.export.onnx.half import FRONT_END, write_bf16, write_fp16
from birdinfer.export.onnx.torch_export import OUTPUT_NAME, export_graph
from birdinfer.export.soup import compute_statistics
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.engines.openvino import has_bf16
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig

PICTURE = FrontEndConfig(mel=MelConfig(resize=(64, 64)))
STAMP = {"labels_sha256": "abc"}
LARGE = {
    "efficientnet_b0": ModelConfig("sed", "efficientnet_b0"),
    "eca_nfnet_l0": ModelConfig(backbone="eca_nfnet_l0", pooling="gem"),
}


BF16_TO_FP16 = 16
"""How much more bf16 may change: its steps are 8 times as wide."""


def spread(model, inputs):
    """Scale a network's last layers until its logits differ as a trained one's do: rounding then shows."""
    with torch.no_grad():
        std = model(inputs).clip.std(dim=0).mean()
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and module.out_features == len(LABELS) and name != "attention":
                module.weight.mul_(1.5 / std)
    return model.eval()


def exported(config, input_config, inputs, path):
    """The fp32 graph of a network, and the names of its outputs."""
    torch.manual_seed(0)
    model = build_model(config, len(LABELS), input_config, start=False).eval()
    compute_statistics(model, inputs.numpy())  # without, an untrained network's maps fade to nothing
    return export_graph(spread(model, inputs), input_config, path, STAMP, "torchscript")


def probabilities(path, outputs, inputs, engine="onnxruntime", batch_size=4):
    plan = EnginePlan(parse_spec(engine), batch_size=batch_size)
    answer = load_engine(plan, path, outputs, inputs.shape[1:]).run(inputs)
    return np.concatenate([sigmoid(answer[name]).reshape(len(inputs), -1) for name in outputs], axis=1)


VARIANTS = {"cnn-gem", "cnn-stages", "sed-stages", "lstm"}
"""Of families that are there in another form."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in TINY],
)
def family(request, tmp_path_factory):
    """(fp32 graph, outputs, windows) of each family."""
    path = tmp_path_factory.mktemp("fp32") / f"{request.param}.onnx"
    input_config, inputs = windows(TINY[request.param], n=6)
    # As loud or faint as recordings are: a network's outputs differ.
    inputs = inputs * torch.tensor([0.3, 0.6, 1.0, 1.5, 2.0, 3.0]).reshape(-1, *[1] * (inputs.ndim - 1))
    return path, exported(TINY[request.param], input_config, inputs, path), inputs.numpy()


@pytest.mark.parametrize("write", [write_fp16, write_bf16])
def test_every_family_answers_as_in_fp32_in_both_engines_and_any_company(family, write, tmp_path):
    graph, outputs, inputs = family
    write(graph, tmp_path / "half.onnx")
    wanted = probabilities(graph, outputs, inputs)
    assert wanted.std(axis=0).max() > 0.02
    allowed = 8e-3 if write is write_fp16 else BF16_TO_FP16 * 5e-3
    for engine in ("onnxruntime", "openvino"):
        pytest.importorskip(engine)
        together = probabilities(tmp_path / "half.onnx", outputs, inputs, engine, 6)
        assert np.abs(together - wanted).max() < allowed
        alone = [probabilities(tmp_path / "half.onnx", outputs, inputs[[index]], engine, 1) for index in (5, 0)]
        np.testing.assert_allclose(np.concatenate(alone), together[[5, 0]], atol=1e-4)


def entries(model):
    return {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize("write", [write_fp16, write_bf16])
def test_names_axes_and_metadata_stay(family, write, tmp_path):
    graph, _, _ = family
    write(graph, tmp_path / "half.onnx")
    before, after = onnx.load(graph), onnx.load(tmp_path / "half.onnx")
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert entries(after) == entries(before)
    assert entries(after)["labels_sha256"] == "abc"
    assert after.opset_import[0].version == before.opset_import[0].version


def ridges():
    """Six windows [6, 1, 64, 64], each with a call in a band of its own: what a trained network distinguishes."""
    inputs = np.random.default_rng(0).normal(size=(6, 1, 64, 64)).astype(np.float32)
    for index in range(6):
        inputs[index, 0, 10 * index : 10 * index + 6, 10 * index :: 3] += 4
    return inputs


@pytest.mark.parametrize("name", LARGE)
def test_networks_in_use_are_half_as_large_and_answer_alike(name, tmp_path, monkeypatch):
    make_networks_shallow(monkeypatch)
    inputs = ridges()
    graph = tmp_path / "fp32.onnx"
    outputs = exported(LARGE[name], PICTURE, torch.from_numpy(inputs), graph)
    wanted = probabilities(graph, outputs, inputs)
    assert wanted.std(axis=0).max() > 0.02
    # Eighty BatchNorms over random weights make much of any rounding.
    largest = 2e-2 if name == "efficientnet_b0" else 5e-3
    for write, allowed in ((write_fp16, largest), (write_bf16, BF16_TO_FP16 * largest)):
        write(graph, tmp_path / "half.onnx")
        assert (tmp_path / "half.onnx").stat().st_size < 0.54 * graph.stat().st_size
        difference = np.abs(probabilities(tmp_path / "half.onnx", outputs, inputs) - wanted).max()
        assert 1e-5 < difference < allowed


def types(path):
    """Type of each node's first input, by the node's output, and of each stored array, by name."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    known |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {node.output[0]: (node.op_type, known[node.input[0]]) for node in graph.node}, known


def test_pitfall_12_a_generalised_mean_is_computed_in_fp32(tmp_path):
    config = TINY["cnn-gem"]
    input_config, inputs = windows(config)
    exported(config, input_config, inputs, tmp_path / "fp32.onnx")
    write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    read, _ = types(tmp_path / "fp16.onnx")
    kinds = {(kind, TensorProto.DataType.Name(read_type)) for kind, read_type in read.values()}
    assert {kind for kind, name in kinds if name == "FLOAT16"} >= {"Conv", "Mul", "Sigmoid"}
    assert {("Pow", "FLOAT"), ("ReduceMean", "FLOAT"), ("Gemm", "FLOAT")} <= kinds
    assert not {("Pow", "FLOAT16"), ("ReduceMean", "FLOAT16"), ("Gemm", "FLOAT16")} & kinds


def test_a_bf16_file_answers_openvinos_bf16_bit_for_bit_and_onnx_runtime_folds_its_casts(tmp_path):
    input_config, inputs = windows(TINY["cnn"], n=4)
    outputs = exported(TINY["cnn"], input_config, inputs, tmp_path / "fp32.onnx")
    write_bf16(tmp_path / "fp32.onnx", tmp_path / "bf16.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(tmp_path / "bf16.onnx"), options, providers=["CPUExecutionProvider"])
    assert "Cast" not in {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    pytest.importorskip("openvino")
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    paths = (tmp_path / "fp32.onnx", tmp_path / "bf16.onnx")
    from_fp32, from_bf16 = (probabilities(path, outputs, inputs.numpy(), "openvino:bf16") for path in paths)
    np.testing.assert_array_equal(from_bf16, from_fp32)


@pytest.mark.parametrize("write", [write_fp16, write_bf16])
def test_a_front_end_within_the_graph_stays_fp32(write, tmp_path):
    """Its powers reach 1e-10, beyond fp16; and in bf16 its tables would give a log-mel of 8 bits."""
    input_config, inputs = windows(TINY["cnn"], n=6)
    exported(TINY["cnn"], input_config, inputs, tmp_path / "member.onnx")
    model = ir.load(tmp_path / "member.onnx")
    put_front_end_before(model.graph, input_config)
    onnx.save(onnx.shape_inference.infer_shapes(ir.to_proto(model)), tmp_path / "fp32.onnx")
    write(tmp_path / "fp32.onnx", tmp_path / "half.onnx")
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(6, input_config.window_samples)) * np.array([[1e-4], [1e-3], [0.01], [0.1], [0.3], [1.0]])
    found, wanted = (
        probabilities(tmp_path / name, [OUTPUT_NAME], sound.astype(np.float32)) for name in ("half.onnx", "fp32.onnx")
    )
    assert np.abs(found - wanted).max() < (5e-3 if write is write_fp16 else 3e-2)
    stored = {array.tobytes() for array in tables(tmp_path / "fp32.onnx")}
    assert stored
    assert stored <= {numpy_helper.to_array(x).tobytes() for x in onnx.load(tmp_path / "half.onnx").graph.initializer}


def tables(path):
    """Matrices that a front end's nodes read."""
    graph = onnx.load(path).graph
    read = {name for node in graph.node if node.name.startswith(FRONT_END) for name in node.input}
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in read]
    return [array for array in arrays if array.ndim > 1 and array.dtype == np.float32]


def small(path, weight, tail="y = Relu(a)"):
    """x [n, 4] times a weight, and more."""
    text = f'<ir_version: 9, opset_import: ["": 18]> g (float[n,4] x) => (float[n,4] y) {{a = MatMul(x, w) {tail}}}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    helper.set_model_props(model, STAMP)
    onnx.save(model, path)


def run(path, inputs):
    return load_engine(EnginePlan(batch_size=len(inputs)), path, ["y"], inputs.shape[1:]).run(inputs)["y"]


def test_pitfall_12_what_overflows_fp16_on_its_way_arrives(tmp_path):
    """100 to the power of 3 is beyond fp16, and a weight of a million, too."""
    weight = np.eye(4, dtype=np.float32)
    tail = "p = Pow(a, three) m = Neg(p) q = Pow(m, third) b = MatMul(q, w) c = MatMul(b, huge) y = MatMul(c, tiny)"
    small(tmp_path / "fp32.onnx", weight, tail.replace("Neg", "Abs"))
    model = onnx.load(tmp_path / "fp32.onnx")
    stored = {"three": np.float32(3), "third": np.float32(1 / 3), "huge": 1e6 * weight, "tiny": 1e-6 * weight}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    onnx.save(model, tmp_path / "fp32.onnx")
    write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    _, known = types(tmp_path / "fp16.onnx")
    assert known["w_fp16"] == TensorProto.FLOAT16
    assert known["huge"] == TensorProto.FLOAT
    inputs = np.array([[100, 50, 2, 0.5]], np.float32)
    np.testing.assert_allclose(run(tmp_path / "fp16.onnx", inputs), inputs, rtol=2e-3)


def test_an_output_that_fp16_computes_keeps_its_name_and_is_float32(tmp_path):
    """Two outputs: one of the middle of the network, which others read on."""
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[n,4] x) => (float[n,4] y, float[n,4] z) '
    model = onnx.parser.parse_model(text + "{y = MatMul(x, w) b = Relu(y) z = MatMul(b, w)}")
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "fp32.onnx")
    write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    assert list(onnx.load(tmp_path / "fp16.onnx").graph.output) == list(model.graph.output)
    read, known = types(tmp_path / "fp16.onnx")
    assert (known["y"], known["y_fp16"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    assert read["b"] == ("Relu", TensorProto.FLOAT16)
    inputs = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "fp16.onnx", inputs), inputs @ weight, atol=5e-3)


def test_a_weight_that_both_precisions_read_is_stored_in_both(tmp_path):
    weight = np.full((4, 4), 1 / 3, np.float32)
    small(tmp_path / "fp32.onnx", weight, "y = MatMul(a, w)")
    write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    stored = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "fp16.onnx").graph.initializer
    }
    np.testing.assert_array_equal(stored["w"], weight)
    np.testing.assert_array_equal(stored["w_fp16"], weight.astype(np.float16))


def test_bf16_weights_are_rounded_and_nothing_else(tmp_path):
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    small(tmp_path / "fp32.onnx", weight)
    write_bf16(tmp_path / "fp32.onnx", tmp_path / "bf16.onnx")
    inputs = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    rounded = torch.from_numpy(weight).bfloat16().float().numpy()
    np.testing.assert_allclose(run(tmp_path / "bf16.onnx", inputs), np.maximum(inputs @ rounded, 0), atol=1e-6)
    (stored,) = onnx.load(tmp_path / "bf16.onnx").graph.initializer
    assert stored.data_type == TensorProto.BFLOAT16


def test_bf16_holds_what_fp16_cannot(tmp_path):
    small(tmp_path / "fp32.onnx", 1e30 * np.eye(4, dtype=np.float32))
    write_bf16(tmp_path / "fp32.onnx", tmp_path / "bf16.onnx")
    inputs = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(run(tmp_path / "bf16.onnx", inputs), 1e30, rtol=0.01)


def test_a_graph_without_work_for_fp16_is_refused_in_one_line(tmp_path):
    small(tmp_path / "fp32.onnx", np.eye(4, dtype=np.float32))  # its only product is the classifier
    with pytest.raises(ConfigError, match=r"fp32\.onnx: has no convolution or matrix product that may be fp16"):
        write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    assert not (tmp_path / "fp16.onnx").exists()


def test_a_graph_without_weights_is_refused_in_one_line(tmp_path):
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[n,4] x) => (float[n,4] y) {y = Relu(x)}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fp32.onnx")
    with pytest.raises(ConfigError, match="stores no weights"):
        write_bf16(tmp_path / "fp32.onnx", tmp_path / "bf16.onnx")


@pytest.mark.parametrize("write", [write_fp16, write_bf16])
def test_where_nothing_can_be_written_is_said(write, tmp_path):
    small(tmp_path / "fp32.onnx", np.eye(4, dtype=np.float32), "y = MatMul(a, w)")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "fp32.onnx", tmp_path / "file" / "half.onnx")
