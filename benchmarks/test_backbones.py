"""What each backbone costs in each engine and precision, the model alone on one core, and how near it is to the peak.

The peak is what the core multiplies in that precision with all numbers in registers (``peaks.py``), measured in the
same run; below ``.ci/as_avx2.py``, of AVX2. Weights are random and INT8 ranges rough: this says nothing about scores,
which ``test_quantisation.py`` measures on trained networks.
"""

import math
import time

import numpy as np
import onnx
import pytest

from birdinfer.errors import BirdinferError
from birdinfer.export.int8.quantize import calibrate_graph, write_int8
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.training.models.activation import swap_for_relu
from bundles import FRONTENDS, Answering, has_bf16, has_openvino, make_model
from classifier_fit import settle_batchnorm
from peaks import measure_peaks

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
ROUNDS, SECONDS = 5, 0.2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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


def products(path):
    """Multiplications of a graph's convolutions and matrix products for one window."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {
        each.name: [size.dim_value or 1 for size in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {each.name: list(each.dims) for each in graph.initializer}
    count = 0
    for node in graph.node:
        if node.op_type == "Conv":
            count += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            shape = shapes[node.input[0]]
            turned = node.op_type == "Gemm" and any(each.name == "transA" and each.i for each in node.attribute)
            count += math.prod(shapes[node.output[0]]) * shape[0 if turned else -1]
    return count


PEAKS: dict = {}
"""The highest found so far, by precision: measured before and after each network, for a core's clock varies."""


def note_peaks():
    """Measure them once more."""
    for precision, rate in measure_peaks().items():
        PEAKS[precision] = max(PEAKS.get(precision, 0.0), rate)


def share(engine, n_products, seconds):
    """How near a network comes to the peak, as text; empty where no peak was measured."""
    peak = PEAKS.get(parse_spec(engine).precision)
    return "" if peak is None else f", {n_products / seconds / 1e9 / peak:.0%} of the peak"


@pytest.mark.parametrize("name", BACKBONES)
def test_cost_of_a_backbone(name, table, tmp_path):
    backbone, _, relu = name.partition(" ")
    model = make_model(backbone, seed=0)
    if relu:
        swap_for_relu(model)
    windows = np.random.default_rng(0).normal(0, 1, (8, 1, *FRONTEND.input_shape)).astype(np.float32)
    settle_batchnorm(model, windows)
    windows = windows[:BATCH]
    graphs = {"fp32": tmp_path / "fp32.onnx", "int8": tmp_path / "int8.onnx"}
    export_graph(Answering(model), FRONTEND, graphs["fp32"], {}, "torchscript")  # in a tenth of the other's time
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
        note_peaks()
        seconds = cpu_seconds({engine: run_of(engine) for engine in engines}, ROUNDS)
        note_peaks()
    per_window = {engine: min(each) / BATCH for engine, each in seconds.items()}
    count = products(graphs["fp32"])
    best = min(per_window, key=lambda engine: per_window[engine])
    n_weights = sum(each.numel() for each in model.parameters())
    table.append(
        {
            "what": f"model alone, one core, 256 x 256: {name}, {count / 1e9:.2f} G products, {n_weights / 1e6:.1f} M",
            "measured": f"{1000 * per_window[best]:.1f} ms a window in {best}",
            "bound": "-",
            "detail": "; ".join(f"{e} {1000 * per_window[e]:.1f} ms{share(e, count, per_window[e])}" for e in engines)
            + f"; peaks {', '.join(f'{key} {value:.0f}' for key, value in PEAKS.items())} G products/s{missing}",
        }
    )
    for engine, each in per_window.items():
        assert count / each / 1e9 <= PEAKS.get(parse_spec(engine).precision, math.inf)
