"""INT8 graphs of a tiny network that has all that is awkward to quantise."""

import importlib.util
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from awkward_network import INPUT_CONFIG, SHAPE, LogitsOf, graph_logits
from onnx import TensorProto, helper
from tiny_models import TINY
from tiny_models import windows as tiny_windows

from birdinfer.errors import ConfigError, OutputError
from birdinfer.export.int8.qdq import FORMATS, TARGETS, native_target
from birdinfer.export.int8.quantize import (
    METHODS,
    Int8Settings,
    calibrate_graph,
    chosen_ranges,
    int8_model,
    write_int8,
)
from birdinfer.export.onnx.torch_export import INPUT_NAME, OUTPUT_NAME, export_graph
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.inference.engines.openvino_graph import unite_activations
from birdinfer.training.models.registry import build_model


@pytest.fixture(scope="module")
def int8(awkward_calibrated, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "int8.onnx"
    write_int8(awkward_calibrated, path)
    return path


def optimised_graph(path):
    """The graph that ONNX Runtime really runs, which it writes beside."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


@pytest.fixture(scope="module")
def optimised(int8):
    return optimised_graph(int8)


def test_answers_stay_near_fp32_on_windows_that_calibration_has_not_seen(awkward_graph, int8, awkward_windows):
    wanted, found = (graph_logits(path, awkward_windows[24:]) for path in (awkward_graph, int8))
    assert np.abs(sigmoid(found) - sigmoid(wanted)).max() < 0.05
    assert np.sqrt(np.square(found - wanted).mean()) < 0.05 * wanted.std()
    assert not np.array_equal(found, wanted)


def test_the_middle_calibration_window_is_answered_as_by_fp32(awkward_graph, int8, awkward_windows):
    wanted, found = (graph_logits(path, awkward_windows[:24]) for path in (awkward_graph, int8))
    np.testing.assert_allclose(np.median(found - wanted, axis=0), 0, atol=1e-4)


def test_pitfall_4_int8_answers_do_not_depend_on_the_batch(int8, awkward_windows):
    together = graph_logits(int8, awkward_windows)
    np.testing.assert_allclose(
        np.concatenate([graph_logits(int8, window[None]) for window in awkward_windows]), together, atol=1e-5
    )
    np.testing.assert_allclose(graph_logits(int8, awkward_windows[::-1])[::-1], together, atol=1e-5)


def test_names_batch_axis_and_metadata_are_kept(int8, awkward_graph):
    loaded, fp32 = onnx.load(int8), onnx.load(awkward_graph)
    (given,), (answer,) = loaded.graph.input, loaded.graph.output
    assert (given.name, answer.name) == (INPUT_NAME, OUTPUT_NAME)
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 1, *SHAPE]
    kept, given = ({entry.key: entry.value for entry in proto.metadata_props} for proto in (loaded, fp32))
    assert kept == given
    assert kept["labels_sha256"] == "abc"


def test_the_runtime_runs_int8_kernels_from_end_to_end(optimised):
    count = Counter(node.op_type for node in optimised.graph.node)
    # expand, depthwise, project, grouped, shortcut, last, and the pool
    assert count["QLinearConv"] == 7
    # SiLU of the stem, expand, depthwise and both blocks; every one a Mul as well, and two gates
    assert (count["QLinearSigmoid"], count["QLinearMul"], count["QLinearAdd"]) == (5, 7, 2)
    assert count["QLinearGlobalAveragePool"] == 2
    # Squeeze, excite and ECA, one number a channel, and the stem.
    assert count["Conv"] + count["FusedConv"] == 4
    # Into INT8: the stem's output and the two gates. Out of it: the two pooled means, and the last convolution for its
    # SiLU, the mean and the classifier.
    assert (count["QuantizeLinear"], count["DequantizeLinear"], count["ReduceMean"]) == (3, 4, 1)
    assert count["QuickGelu"] + count["Sigmoid"] == 2


def test_activations_are_u8_and_weights_s8(int8):
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(int8).graph.initializer}
    types = {}
    for node in onnx.load(int8).graph.node:
        if node.op_type == "QuantizeLinear":
            types.setdefault("activation", set()).add(stored[node.input[2]])
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            types.setdefault(node.name.rpartition("_")[2], set()).add(stored[node.input[0]])
    assert types["activation"] == {TensorProto.UINT8}
    assert {kind for name, kinds in types.items() if name != "activation" for kind in kinds} == {
        TensorProto.INT8,
        TensorProto.INT32,
    }


def openvino_logits(path, windows):
    """As ``--engine openvino:int8`` computes them."""
    plan = EnginePlan(EngineSpec("openvino", "int8"), 1, 4)
    return load_engine(plan, path, [OUTPUT_NAME], windows.shape[1:]).run(windows)[OUTPUT_NAME]


def rms(found, wanted):
    return np.sqrt(np.square(found - wanted).mean())


def test_openvino_joins_each_silu_and_comes_nearer_to_fp32(int8, awkward_graph, awkward_windows):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(int8)
    unite_activations(model)
    count = Counter(node.get_type_name() for node in model.get_ordered_ops())
    # Stem, expand, depthwise and both blocks; the two gates, and what stays in fp32, keep their sigmoids.
    assert (count["Swish"], count["Sigmoid"]) == (5, 4)
    fp32 = graph_logits(awkward_graph, awkward_windows)
    apart, joined = graph_logits(int8, awkward_windows), openvino_logits(int8, awkward_windows)
    assert np.abs(sigmoid(joined) - sigmoid(apart)).max() < 0.05
    assert rms(joined, fp32) < 1.1 * rms(apart, fp32)


def test_relu_and_max_pool(tmp_path, awkward_windows):
    torch.manual_seed(0)
    net = torch.nn
    model = net.Sequential(
        net.Conv2d(1, 8, 3), net.ReLU(), net.MaxPool2d(2), net.Conv2d(8, 8, 3), net.ReLU(), net.Conv2d(8, 8, 1),
        net.AdaptiveAvgPool2d(1), net.Flatten(), net.Linear(8, 4),
    )  # fmt: skip
    export_graph(LogitsOf(model), INPUT_CONFIG, tmp_path / "fp32.onnx", {})
    write_int8(calibrate_graph(tmp_path / "fp32.onnx", np.split(awkward_windows, 40)), tmp_path / "int8.onnx")
    wanted, found = (graph_logits(tmp_path / name, awkward_windows) for name in ("fp32.onnx", "int8.onnx"))
    assert np.sqrt(np.square(found - wanted).mean()) < 0.05 * wanted.std()


@pytest.fixture(scope="module")
def swishes(tmp_path_factory, awkward_windows):
    """(fp32 graph, calibrated) of a network of hard swishes. Read only."""
    torch.manual_seed(0)
    net = torch.nn
    model = net.Sequential(
        net.Conv2d(1, 16, 3), net.Hardswish(), net.Conv2d(16, 16, 3, groups=16), net.Hardswish(),
        net.Conv2d(16, 16, 1), net.Hardswish(), net.Conv2d(16, 16, 1), net.Hardswish(),
        net.AdaptiveAvgPool2d(1), net.Flatten(), net.Linear(16, 12),
    )  # fmt: skip
    for layer in (model[0], model[2], model[4]):
        layer.weight.data *= 4  # values on both sides of -3 and 3
    path = tmp_path_factory.mktemp("swishes") / "fp32.onnx"
    export_graph(LogitsOf(model.eval()), INPUT_CONFIG, path, {})
    return path, calibrate_graph(path, np.split(awkward_windows[:24], 24))


@pytest.mark.parametrize("target", TARGETS)
def test_hard_swishes_run_in_int8_and_answer_as_fp32(swishes, tmp_path, awkward_windows, target):
    fp32, calibrated = swishes
    write_int8(calibrated, tmp_path / "int8.onnx", Int8Settings(number_format=FORMATS[target]))
    wanted, found = (graph_logits(path, awkward_windows[24:]) for path in (fp32, tmp_path / "int8.onnx"))
    assert np.sqrt(np.square(found - wanted).mean()) < 0.05 * wanted.std()
    count = Counter(node.op_type for node in optimised_graph(tmp_path / "int8.onnx").graph.node)
    if importlib.util.find_spec("openvino"):
        assert rms(openvino_logits(tmp_path / "int8.onnx", awkward_windows[24:]), wanted) < 0.05 * wanted.std()
    if target == "arm" and native_target() != "arm":
        return  # elsewhere ONNX Runtime computes S8 in fp32
    assert (count["QLinearConv"], count["QLinearLeakyRelu"], count["QLinearMul"]) == (3, 3, 3)
    # In: the first convolution. Out: the last, for its gate and its product.
    assert (count["QuantizeLinear"], count["DequantizeLinear"]) == (1, 2)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([], "calibration: holds no windows - give 32 or more windows of real sound"),
        (
            [np.zeros((1, 1, *SHAPE), np.float32), np.full((1, 1, *SHAPE), np.nan, np.float32)],
            "calibration: holds windows whose logits are not finite - leave those out",
        ),
    ],
)
def test_calibration_that_says_nothing_is_refused(awkward_graph, windows, message):
    with pytest.raises(ConfigError, match=message):
        calibrate_graph(awkward_graph, windows)


def test_a_graph_without_convolutions_is_refused(tmp_path, awkward_windows, int8):
    node = helper.make_node("Flatten", [INPUT_NAME], [OUTPUT_NAME])
    given = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 1, *SHAPE])
    answer = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", SHAPE[0] * SHAPE[1]])
    proto = helper.make_model(helper.make_graph([node], "g", [given], [answer]))
    onnx.save(proto, tmp_path / "flat.onnx")
    for path in (tmp_path / "flat.onnx", int8):  # what is INT8 already is not quantised again
        with pytest.raises(ConfigError, match="onnx: has no fp32 convolution that could be INT8"):
            calibrate_graph(path, [awkward_windows[:1]])


def test_a_place_that_cannot_be_written_is_refused(awkward_calibrated, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_int8(awkward_calibrated, tmp_path / "file" / "int8.onnx")


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_choose_ranges_makes_a_graph_that_answers_nearly_as_fp32(
    awkward_graph, awkward_calibrated, awkward_windows, tmp_path, method
):
    write_int8(awkward_calibrated, tmp_path / "int8.onnx", Int8Settings(method))
    wanted, found = (graph_logits(path, awkward_windows[24:]) for path in (awkward_graph, tmp_path / "int8.onnx"))
    assert 0 < np.sqrt(np.square(found - wanted).mean()) < 0.1 * wanted.std()


def test_one_odd_window_does_not_spoil_the_ranges_of_all_others(awkward_graph, awkward_windows, tmp_path):
    odd = 300 * awkward_windows[:1]
    calibrated = calibrate_graph(awkward_graph, [*np.split(awkward_windows[:23], 23), odd])
    wanted, errors = graph_logits(awkward_graph, awkward_windows[24:]), {}
    for method in ("window_error", "percentile", "minmax"):
        path = tmp_path / f"{method}.onnx"
        write_int8(calibrated, path, Int8Settings(method))
        found = graph_logits(path, awkward_windows[24:])
        errors[method] = float(np.sqrt(np.square(found - wanted).mean()) / wanted.std())
    assert errors["window_error"] < 0.06
    assert errors["percentile"] > 4 * errors["window_error"]
    assert errors["minmax"] > 4 * errors["window_error"]


def test_with_everything_kept_in_fp32_answers_are_those_of_fp32(
    awkward_graph, awkward_calibrated, awkward_windows, tmp_path
):
    kept = tuple(chosen_ranges(awkward_calibrated.model().graph, awkward_calibrated.observed, "minmax"))
    write_int8(awkward_calibrated, tmp_path / "kept.onnx", Int8Settings(fp32_activations=kept))
    assert not [node for node in onnx.load(tmp_path / "kept.onnx").graph.node if node.op_type == "QuantizeLinear"]
    wanted, found = (graph_logits(path, awkward_windows) for path in (awkward_graph, tmp_path / "kept.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_calibrated_graph_is_not_changed_by_writing_it(awkward_calibrated):
    first, again = (ir.to_proto(int8_model(awkward_calibrated)).SerializeToString() for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Int8Settings(), "window error; U8S8; nothing left in fp32"),
        (
            Int8Settings("minmax", ("a",), FORMATS["any-x86"]),
            "minmax; U8S8, weights of 7 bits; 1 activation left in fp32",
        ),
        (Int8Settings("moving_average", ("a", "b")), "moving average; U8S8; 2 activations left in fp32"),
    ],
)
def test_settings_say_what_was_done(settings, text):
    assert str(settings) == text


@pytest.mark.parametrize("name", ["cnn-stages", "sed-stages"])
def test_maps_of_several_stages_are_quantised_up_to_their_pooling(name, tmp_path):
    input_config, windows = tiny_windows(TINY[name], 12, seed=1)
    torch.manual_seed(0)
    model = build_model(TINY[name], 3, input_config, start=True)
    with torch.no_grad():
        model(windows)  # norms of noise, not of nothing
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_graph(model.eval(), input_config, fp32, {}, "torchscript")
    write_int8(calibrate_graph(fp32, np.split(windows.numpy(), 12)), int8)
    wanted, found = (graph_logits(path, windows.numpy()) for path in (fp32, int8))
    # Logits of noise hardly differ: what INT8 adds is held against how much they do.
    assert np.sqrt(np.square(found - wanted).mean()) < 0.3 * wanted.std(axis=0).min()
    quantised = [node.op_type for node in onnx.load(int8).graph.node].count("DequantizeLinear")
    assert quantised > 2 * [node.op_type for node in onnx.load(fp32).graph.node].count("Conv")
