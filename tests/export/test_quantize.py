"""INT8 graphs of a tiny network that has all that is awkward: SiLU, squeeze-excite, ECA, scalars, odd sizes, an add."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from birdinfer.errors import ConfigError
from birdinfer.export import quantize
from birdinfer.export.onnx import INPUT_NAME, OUTPUT_NAME, export_graph
from birdinfer.export.quantize import (
    Range,
    central_range,
    mean_shift,
    quantize_static,
    range_behind_silu,
    rewrite,
)
from birdinfer.scores import sigmoid

SHAPE = (32, 53)


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.expand = torch.nn.Conv2d(16, 32, 1, bias=False)
        self.depthwise = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze = torch.nn.Conv2d(32, 8, 1)
        self.excite = torch.nn.Conv2d(8, 32, 1)
        self.project = torch.nn.Conv2d(32, 16, 1)
        self.shortcut = torch.nn.Conv2d(16, 32, 1)
        self.grouped = torch.nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2, bias=False)
        self.eca = torch.nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.pool = torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.head = torch.nn.Linear(32, 12)

    def forward(self, log_mel):
        silu = torch.nn.functional.silu
        stem = silu(self.stem(log_mel))
        hidden = silu(self.depthwise(silu(self.expand(stem))))
        gate = torch.sigmoid(self.excite(silu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        block = silu(self.project(hidden * gate) + stem) * 0.8
        hidden = self.grouped(block)
        gate = torch.sigmoid(self.eca(hidden.mean((2, 3)).view(hidden.shape[0], 1, -1))).view(hidden.shape[0], -1, 1, 1)
        hidden = 0.7 * (2.0 * (hidden * gate.expand_as(hidden))) + self.shortcut(self.pool(block))
        return self.head(silu(hidden).mean((2, 3)))


def run(path, windows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(windows)})[0]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Tiny().eval()
    with torch.no_grad():
        model.head.weight.mul_(30)
    return model


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    export_graph(model, SHAPE, path, {"labels_sha256": "abc"})
    return path


@pytest.fixture(scope="module")
def windows():
    """Each window has a loudness and a tilt of its own: a network has something to tell them apart by."""
    random = np.random.default_rng(0)
    tilt = np.linspace(-1, 1, SHAPE[0])[:, None] * random.normal(0, 1, (40, 1, 1, 1))
    return (random.normal(0, 1, (40, 1, *SHAPE)) * random.uniform(0.3, 1.5, (40, 1, 1, 1)) + tilt).astype(np.float32)


@pytest.fixture(scope="module")
def int8(graph, windows, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "int8.onnx"
    quantize_static(graph, path, [windows[:5], windows[5:24]])
    return path


@pytest.fixture(scope="module")
def optimised(int8, tmp_path_factory):
    """The graph that ONNX Runtime really runs."""
    path = tmp_path_factory.mktemp("graph") / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(int8), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def test_rewrites_change_no_answer(graph, windows, tmp_path):
    rewritten = ir.load(graph)
    rewrite(rewritten.graph)
    ir.save(rewritten, tmp_path / "rewritten.onnx")
    wanted, found = (run(path, windows) for path in (graph, tmp_path / "rewritten.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    count = Counter(node.op_type for node in rewritten.graph)
    assert not {"Expand", "AveragePool", "Shape", "Concat"} & set(count)
    assert (count["ReduceMean"], count["GlobalAveragePool"], count["Pad"]) == (1, 2, 1)
    assert sum(quantize._scaled_value(node) is not None for node in rewritten.graph) == 1  # the gate's 1.4


def test_answers_stay_near_fp32_on_windows_that_calibration_has_not_seen(graph, int8, windows):
    wanted, found = (run(path, windows[24:]) for path in (graph, int8))
    assert np.abs(sigmoid(found) - sigmoid(wanted)).max() < 0.05
    assert np.sqrt(np.square(found - wanted).mean()) < 0.05 * wanted.std()
    assert not np.array_equal(found, wanted)


def test_mean_logits_of_the_calibration_windows_are_those_of_fp32(graph, int8, windows):
    wanted, found = (run(path, windows[:24]) for path in (graph, int8))
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=1e-4)


def test_pitfall_4_int8_answers_do_not_depend_on_the_batch(int8, windows):
    together = run(int8, windows)
    np.testing.assert_allclose(np.concatenate([run(int8, window[None]) for window in windows]), together, atol=1e-5)
    np.testing.assert_allclose(run(int8, windows[::-1])[::-1], together, atol=1e-5)


def test_names_batch_axis_and_metadata_are_kept(int8):
    loaded = onnx.load(int8)
    (given,), (answer,) = loaded.graph.input, loaded.graph.output
    assert (given.name, answer.name) == (INPUT_NAME, OUTPUT_NAME)
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 1, *SHAPE]
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {"labels_sha256": "abc"}


def test_the_runtime_runs_int8_kernels_from_end_to_end(optimised):
    count = Counter(node.op_type for node in optimised.graph.node)
    # expand, depthwise, project, grouped, shortcut, and the pool
    assert count["QLinearConv"] == 6
    # SiLU of the stem, expand, depthwise, block and the end; every one a Mul as well, and two gates
    assert (count["QLinearSigmoid"], count["QLinearMul"], count["QLinearAdd"]) == (5, 7, 2)
    assert count["QLinearGlobalAveragePool"] == 2
    # Squeeze, excite and ECA, one number a channel, and the stem.
    assert count["Conv"] + count["FusedConv"] == 4
    # Into INT8: the stem's output and the two gates. Out of it: the two pooled means and the classifier's input.
    assert (count["QuantizeLinear"], count["DequantizeLinear"]) == (3, 3)


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


def test_openvino_reads_it_too(int8, windows):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(int8), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.abs(sigmoid(compiled([windows])[0]) - sigmoid(run(int8, windows))).max() < 0.05


def test_relu_and_max_pool(tmp_path, windows):
    torch.manual_seed(0)
    net = torch.nn
    model = net.Sequential(
        net.Conv2d(1, 8, 3), net.ReLU(), net.MaxPool2d(2), net.Conv2d(8, 8, 3), net.ReLU(), net.Conv2d(8, 8, 1),
        net.AdaptiveAvgPool2d(1), net.Flatten(), net.Linear(8, 4),
    )  # fmt: skip
    export_graph(model, SHAPE, tmp_path / "fp32.onnx", {})
    quantize_static(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [windows])
    wanted, found = (run(tmp_path / name, windows) for name in ("fp32.onnx", "int8.onnx"))
    assert np.sqrt(np.square(found - wanted).mean()) < 0.05 * wanted.std()


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ([], "calibration: holds no windows - give 32 or more windows of real sound"),
        ([np.zeros((0, 1, *SHAPE), np.float32)], "calibration: holds no windows"),
        ([np.full((1, 1, *SHAPE), np.nan, np.float32)], "calibration: holds values that are not finite"),
    ],
)
def test_calibration_that_says_nothing_is_refused(graph, tmp_path, batches, complaint):
    with pytest.raises(ConfigError, match=complaint):
        quantize_static(graph, tmp_path / "int8.onnx", batches)
    assert not list(tmp_path.iterdir())


def test_a_percentile_out_of_range_is_refused(graph, tmp_path, windows):
    with pytest.raises(ConfigError, match=r"percentile: 0.99 is not in \(50, 100\] - leave it at 99.999"):
        quantize_static(graph, tmp_path / "int8.onnx", [windows], percentile=0.99)


def test_a_graph_without_convolutions_is_refused(tmp_path, windows, int8):
    node = helper.make_node("Flatten", [INPUT_NAME], [OUTPUT_NAME])
    given = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 1, *SHAPE])
    answer = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", SHAPE[0] * SHAPE[1]])
    proto = helper.make_model(helper.make_graph([node], "g", [given], [answer]))
    onnx.save(proto, tmp_path / "flat.onnx")
    for path in (tmp_path / "flat.onnx", int8):  # what is INT8 already is not quantised again
        with pytest.raises(ConfigError, match="onnx: has no fp32 convolution that could be INT8"):
            quantize_static(path, tmp_path / "out.onnx", [windows])


@pytest.mark.parametrize(("low", "high"), [(-0.278, 5.0), (0.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_range(low, high):
    span = Range(low, high)
    step, zero = float(span.scale()), int(span.zero_point())
    assert 0 <= zero <= 255
    assert (0 - zero) * step <= low + step
    assert (255 - zero) * step >= high - step


def test_central_range_cuts_both_ends_alike():
    counts = np.array([1, 0, 49, 49, 0, 1])
    assert central_range(0.0, 6.0, counts, 100.0) == Range(0.0, 6.0)
    assert central_range(0.0, 6.0, counts, 98.0) == Range(2.0, 4.0)
    assert central_range(0.0, 6.0, counts, 99.0) == Range(0.0, 6.0)


def test_before_a_silu_no_steps_are_spent_on_what_it_makes_zero():
    values = np.random.default_rng(0).normal(-8, 8, 100_000)
    counts, edges = np.histogram(values, 4096)
    low, high = float(edges[0]), float(edges[-1])
    span = range_behind_silu(low, high, counts)
    assert low < -35
    assert -14 < span.low < -5
    assert span.high > 0.6 * high


def test_which_values_a_silu_alone_reads(graph):
    rewritten = ir.load(graph)
    rewrite(rewritten.graph)
    alone = {node.op_type: [] for node in rewritten.graph}
    for node in rewritten.graph:
        alone[node.op_type].append(quantize._read_by_silu_alone(node.outputs[0]))
    # The stem, expand, depthwise and squeeze lead to a SiLU alone; so do both sums.
    assert (sum(alone["Conv"]), sum(alone["Add"])) == (4, 2)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_mean_shift_is_what_a_convolution_moves_by(groups):
    torch.manual_seed(0)
    values, error = torch.randn(3, 8, 9, 9) + 1, torch.randn(16, 8 // groups, 1, 1)
    moved = torch.nn.functional.conv2d(values, error, groups=groups).mean(dim=(0, 2, 3))
    means = values.mean(dim=(0, 2, 3)).numpy().astype(np.float64)
    np.testing.assert_allclose(mean_shift(error.numpy().astype(np.float64), means), moved.numpy(), atol=1e-5)
