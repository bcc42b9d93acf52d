"""PyTorch's two exporters beside each other, and 16-bit graphs beside fp32: time, size, nodes, speed.

Weights are random: neither exporter nor engine looks at them. What 16 bits change in the answers, the tests
say. Log-mels of 256 x 256, 206 labels.
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.export.onnx.half import write_bf16, write_fp16
from birdinfer.export.onnx.torch_export import OUTPUT_NAME, TOLERANCE, check_parity, export_graph
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig
from bundles import FRONTENDS, LABELS

INPUT = FRONTENDS["efficientnet_b0"]
SMALL = FrontEndConfig(mel=MelConfig(resize=(64, 64)))
"""Input of recurrent networks and the small transformer: their time goes with its length alone."""
NETWORKS = {
    "efficientnet_b0": (ModelConfig(backbone="efficientnet_b0"), INPUT),
    "efficientnet_b0 sed": (ModelConfig("sed", "efficientnet_b0"), INPUT),
    "eca_nfnet_l0": (ModelConfig(backbone="eca_nfnet_l0"), INPUT),
    "tf_efficientnetv2_s": (ModelConfig(backbone="tf_efficientnetv2_s"), INPUT),
    "gru": (ModelConfig("rnn", "gru"), SMALL),
    "vit (test_vit)": (ModelConfig("vit", "test_vit"), SMALL),
}
BATCH_SIZE = 3

pytestmark = pytest.mark.slow


class Graph(NamedTuple):
    """What an exporter made of a network."""

    path: Path
    seconds: float
    outputs: tuple[str, ...]

    @property
    def size_mb(self) -> float:
        """Of the file."""
        return self.path.stat().st_size / 1e6

    @property
    def n_nodes(self) -> int:
        """All of them, after simplifying."""
        return len(onnx.load(self.path).graph.node)


def make(name):
    """(network, front end, windows) of that name, the same each time."""
    config, input_config = NETWORKS[name]
    torch.manual_seed(0)
    model = build_model(config, len(LABELS), input_config, start=False).eval()
    windows = np.random.default_rng(0).normal(size=(BATCH_SIZE, 1, *input_config.input_shape)).astype(np.float32)
    return model, input_config, windows


def export(model, input_config, path, exporter):
    """A network's graph by one exporter, timed."""
    began = time.perf_counter()
    outputs = export_graph(model, input_config, path, {}, exporter)
    return Graph(path, time.perf_counter() - began, outputs)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NETWORKS)
def test_exporters(name, table, tmp_path):
    model, input_config, windows = make(name)
    dynamo, torchscript = (
        export(model, input_config, tmp_path / f"{which}.onnx", which) for which in ("dynamo", "torchscript")
    )
    for graph in (dynamo, torchscript):
        assert check_parity(model, graph.path, windows, ["onnxruntime"]) < TOLERANCE
    plan = EnginePlan(batch_size=BATCH_SIZE)
    speeds = compare_speed([(dynamo.path, plan), (torchscript.path, plan)], dynamo.outputs, windows, 7, 0.5)
    table.append(
        {
            "what": f"torchscript's graph of {name} against dynamo's, windows/s, one thread",
            "measured": f"{speeds[1] / speeds[0]:.3f}",
            "bound": "",
            "detail": "; ".join(
                f"{which} {graph.seconds:.1f} s, {graph.size_mb:.1f} MB, {graph.n_nodes} nodes, {speed:.1f} windows/s"
                for which, graph, speed in zip(("dynamo", "torchscript"), (dynamo, torchscript), speeds, strict=True)
            ),
        }
    )
    assert torchscript.size_mb < 1.1 * dynamo.size_mb  # no weight is stored twice
    assert speeds[1] > 0.5 * speeds[0]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["efficientnet_b0", "eca_nfnet_l0"])
@pytest.mark.parametrize("write", [write_fp16, write_bf16])
def test_16_bits(name, write, table, tmp_path):
    model, input_config, windows = make(name)
    fp32 = export(model, input_config, tmp_path / "fp32.onnx", "torchscript")
    write(fp32.path, tmp_path / "half.onnx")
    half = Graph(tmp_path / "half.onnx", 0.0, fp32.outputs)
    plans = [EnginePlan(parse_spec(engine), batch_size=BATCH_SIZE) for engine in ("onnxruntime", "openvino")]
    runs = [(graph.path, plan) for graph in (fp32, half) for plan in plans]
    loads = [load_seconds(path, plan, windows) for path, plan in runs]
    speeds = compare_speed(runs, [OUTPUT_NAME], windows, 5, 0.5)
    table.append(
        {
            "what": f"size of {name} in {write.__name__.removeprefix('write_')} against fp32",
            "measured": f"{half.size_mb / fp32.size_mb:.3f}",
            "bound": "<= 0.54",
            "detail": f"{half.size_mb:.1f} MB; fp32, then 16 bits: ONNX Runtime "
            f"{speeds[0]:.1f}, {speeds[2]:.1f} windows/s, loaded in {loads[0]:.2f}, {loads[2]:.2f} s; "
            f"OpenVINO {speeds[1]:.1f}, {speeds[3]:.1f} windows/s, loaded in {loads[1]:.2f}, {loads[3]:.2f} s",
        }
    )
    assert half.size_mb <= 0.54 * fp32.size_mb


def load_seconds(path, plan, windows):
    """Time from a file to the first answer."""
    began = time.perf_counter()
    load_engine(plan, path, [OUTPUT_NAME], windows.shape[1:]).run(windows)
    return time.perf_counter() - began
