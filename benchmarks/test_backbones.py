"""What each backbone costs in each engine and precision, the model alone on one core, and how near that is to the peak.

The peak is that of a large product of matrices in the same precision, measured in the same run. Weights are random and
INT8 ranges rough: this says nothing about scores, which ``test_quantisation.py`` measures on trained networks.
"""

import statistics
import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from birdinfer.errors import BirdinferError
from birdinfer.export.int8.quantize import calibrate_graph, write_int8
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.training.models.activation import swap_for_relu
from bundles import FRONTENDS, Answering, has_bf16, has_openvino, make_model

BACKBONES = (
    "efficientnet_b0", "efficientnet_b0 ReLU", "eca_nfnet_l0", "tf_efficientnetv2_s", "regnety_008",
    "mobilenetv3_large_100", "hgnetv2_b0", "mobilenetv4_conv_small", "efficientvit_b0", "repvit_m0_9",
)  # fmt: skip
ENGINES = (
    "onnxruntime",
    "onnxruntime:int8",
    *(("openvino", "openvino:int8") if has_openvino() else ()),
    *(("openvino:bf16",) if has_bf16() else ()),
)
FRONTEND = FRONTENDS["efficientnet_b0"]  # 256 x 256
BATCH = 3
ROUNDS, SECONDS = 3, 0.2
SIZE = 1024  # of the matrices: 4 MB each in fp32

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def peaks():
    """Products of 10^9 a second on one core, by precision."""
    with one_thread_per_worker():
        a = np.ones((SIZE, SIZE), np.float32)
        runs = {"fp32": lambda: a @ a, "int8": int8_product()}
        if has_bf16():
            half = torch.ones(SIZE, SIZE, dtype=torch.bfloat16)
            runs["bf16"] = lambda: half @ half
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        seconds = {name: min(cpu_seconds({name: run}, 5)[name]) for name, run in runs.items()}
        torch.set_num_threads(n_threads)
    return {name: SIZE**3 / 1e9 / each for name, each in seconds.items()}


def int8_product():
    """U8 times S8, as ONNX Runtime computes it; weights of 7 bits, as ours are."""
    weight = numpy_helper.from_array(np.full((SIZE, SIZE), 3, np.int8), "w")
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, [SIZE, SIZE]),
            helper.make_tensor_value_info("y", TensorProto.INT32, [SIZE, SIZE])]  # fmt: skip
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "p", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.ones((SIZE, SIZE), np.uint8)
    return lambda: session.run(None, {"x": x})


def cpu_seconds(runs, rounds):
    """CPU seconds of a call, by name: in turns, so that what else the machine does meets all alike."""
    found = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            began, n_calls = time.thread_time(), 0
            while time.thread_time() - began < SECONDS:
                run()
                n_calls += 1
            found[name].append((time.thread_time() - began) / n_calls)
    return found


def multiplications(model, inputs):
    """Multiplications of convolutions and linear layers for one window."""
    counts = []

    def count(layer, _, output):
        counts.append(output[0].numel() * layer.weight[0].numel())

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(inputs)
    return sum(counts)


@pytest.mark.parametrize("name", BACKBONES)
def test_cost_of_a_backbone(name, peaks, table, tmp_path):
    backbone, _, relu = name.partition(" ")
    model = make_model(backbone, seed=0)
    if relu:
        swap_for_relu(model)
    graphs = {"fp32": tmp_path / "fp32.onnx", "int8": tmp_path / "int8.onnx"}
    export_graph(Answering(model), FRONTEND, graphs["fp32"], {})
    windows = np.random.default_rng(0).normal(0, 1, (BATCH, 1, *FRONTEND.input_shape)).astype(np.float32)
    missing = ""
    try:
        write_int8(calibrate_graph(graphs["fp32"], np.split(windows, BATCH)), graphs["int8"])
    except (BirdinferError, onnx.checker.ValidationError) as error:
        missing = f"; no INT8: {error}"
    engines = [engine for engine in ENGINES if not (missing and engine.endswith("int8"))]

    def run_of(engine):
        spec = parse_spec(engine)
        path = graphs["int8" if spec.precision == "int8" else "fp32"]
        loaded = load_engine(EnginePlan(spec, 1, BATCH), path, ["logits"], windows.shape[1:])
        return lambda: loaded.run(windows)

    with one_thread_per_worker():
        seconds = cpu_seconds({engine: run_of(engine) for engine in engines}, ROUNDS)
    per_window = {engine: statistics.median(each) / BATCH for engine, each in seconds.items()}
    count = multiplications(model, torch.from_numpy(windows[:1]))
    shares = {engine: count / each / 1e9 / peaks[parse_spec(engine).precision] for engine, each in per_window.items()}
    best = min(per_window, key=lambda engine: per_window[engine])
    n_weights = sum(each.numel() for each in model.parameters())
    table.append(
        {
            "what": f"model alone, one core, 256 x 256: {name}, {count / 1e9:.2f} G products, {n_weights / 1e6:.1f} M",
            "measured": f"{1000 * per_window[best]:.1f} ms a window in {best}",
            "bound": "-",
            "detail": "; ".join(f"{e} {1000 * per_window[e]:.1f} ms, {shares[e]:.0%} of the peak" for e in engines)
            + f"; peaks {', '.join(f'{key} {value:.0f}' for key, value in peaks.items())} G products/s{missing}",
        }
    )
    assert 0 < shares["onnxruntime"] < 1.5  # a share of more than all would say that the peak is wrong
