"""Two exporters: the faster graph is kept, a failing exporter costs nothing, a wrong graph never gets through."""

import numpy as np
import onnx
import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY, windows

from birdinfer.errors import MissingExtraError, ParityError
from birdinfer.export.onnx import choose_exporter as faster_export
from birdinfer.export.onnx import torch_export
from birdinfer.export.onnx.choose_exporter import GAIN_TO_CHANGE, export_faster, faster, is_recurrent
from birdinfer.export.onnx.torch_export import OPSET, OUTPUT_NAME
from birdinfer.training.models.base import Logits
from birdinfer.training.models.registry import build_model

INPUTS = np.random.default_rng(0).normal(size=(5, 1, *TINY_FRONTEND.input_shape)).astype(np.float32)


class Tiny(torch.nn.Module):
    """One convolution and a head."""

    def __init__(self, gain=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(gain * torch.randn(4, 1, 3, 3, generator=generator))

    def forward(self, log_mel):
        return Logits(torch.relu(torch.nn.functional.conv2d(log_mel, self.weight)).mean(dim=(2, 3)))


@pytest.fixture
def model():
    return Tiny().eval()


@pytest.fixture
def speeds(monkeypatch):
    """Pretended windows per second of the graphs that are compared, by exporter."""
    pretended = {"dynamo": 100.0, "torchscript": 100.0}

    def compare(graphs, outputs, inputs, rounds, seconds):
        return [pretended[path.stem] for path, _ in graphs]

    monkeypatch.setattr(faster_export, "compare_speed", compare)
    return pretended


def breaks(*_):
    raise RuntimeError("cannot trace this\nand here come\nthree pages")


def stamp_of(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize(
    ("dynamo", "torchscript", "kept"),
    [(100, 90, "dynamo"), (100, 102.9, "dynamo"), (100, 103.1, "torchscript"), (100, 300, "torchscript")],
)
def test_the_default_is_kept_unless_the_other_is_more_than_3_percent_faster(dynamo, torchscript, kept):
    assert GAIN_TO_CHANGE == 1.03
    assert faster({"dynamo": dynamo, "torchscript": torchscript}) == kept
    assert faster({"torchscript": torchscript, "dynamo": dynamo}) == kept


def test_one_that_is_alone_is_kept():
    assert faster({"torchscript": 1.0}) == "torchscript"


@pytest.mark.parametrize("kept", ["dynamo", "torchscript"])
def test_the_faster_graph_is_written_and_says_who_made_it(kept, model, speeds, tmp_path):
    speeds[kept] = 200.0
    exported = export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {"labels_sha256": "abc"}, inputs=INPUTS)
    assert (exported.exporter, exported.outputs, exported.failures) == (kept, (OUTPUT_NAME,), {})
    assert exported.windows_per_second == speeds
    assert 0 <= exported.max_probability_difference < 1e-5
    stamp = {"labels_sha256": "abc", "opset": str(OPSET), "exporter": kept}
    assert stamp_of(tmp_path / "a.onnx") == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    other = "torchscript" if kept == "dynamo" else "dynamo"
    assert f"exported by {kept}" in exported.summary()
    assert f"{other} 100.0 windows/s" in exported.summary()


def test_both_graphs_are_really_measured(model, tmp_path, monkeypatch):
    monkeypatch.setattr(faster_export, "TURN_SECONDS", 0.05)
    exported = export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS[:1])
    assert set(exported.windows_per_second) == {"dynamo", "torchscript"}
    assert exported.exporter == faster(exported.windows_per_second)
    assert all(speed > 100 for speed in exported.windows_per_second.values())


@pytest.mark.parametrize(("broken", "works"), [("dynamo", "torchscript"), ("torchscript", "dynamo")])
def test_a_failing_exporter_does_not_cost_the_export(broken, works, model, monkeypatch, tmp_path):
    monkeypatch.setitem(torch_export.EXPORTERS, broken, breaks)
    exported = export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS)
    assert (exported.exporter, exported.windows_per_second) == (works, {})
    assert exported.failures == {broken: "RuntimeError: cannot trace this"}
    assert exported.summary() == f"exported by {works}; {broken} failed: RuntimeError: cannot trace this"
    assert stamp_of(tmp_path / "a.onnx")["exporter"] == works


def test_a_graph_that_answers_otherwise_is_never_kept_however_fast(model, speeds, monkeypatch, tmp_path):
    honest = torch_export.EXPORTERS["torchscript"]
    monkeypatch.setitem(
        torch_export.EXPORTERS, "torchscript", lambda _, *rest: honest(torch_export._Flat(Tiny(1.1)), *rest)
    )
    speeds["torchscript"] = 1e6
    exported = export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS)
    assert exported.exporter == "dynamo"
    assert "differs from its torch model" in exported.failures["torchscript"]


def test_where_no_exporter_works_one_line_says_what_each_failed_with(model, monkeypatch, tmp_path):
    for exporter in ("dynamo", "torchscript"):
        monkeypatch.setitem(torch_export.EXPORTERS, exporter, breaks)
    with pytest.raises(ParityError, match=r"dynamo: RuntimeError: cannot trace this; torchscript: Runtime") as caught:
        export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_engine_is_no_exporters_fault(model, monkeypatch, tmp_path):
    def missing(*_, **__):
        raise MissingExtraError("openvino", "openvino")

    monkeypatch.setattr(faster_export, "check_parity", missing)
    with pytest.raises(MissingExtraError):
        export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS, engines=["openvino"])


def test_a_full_disk_is_no_exporters_fault(model, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(torch_export.EXPORTERS, "dynamo", full)
    with pytest.raises(OSError, match="No space left"):
        export_faster(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, inputs=INPUTS)


@pytest.mark.parametrize("backbone", ["gru", "lstm"])
def test_recurrent_networks_go_through_the_older_exporter_alone(backbone, monkeypatch, tmp_path):
    monkeypatch.setitem(torch_export.EXPORTERS, "dynamo", breaks)
    input_config, inputs = windows(TINY[backbone], n=5)
    network = build_model(TINY[backbone], 6, input_config, start=False).eval()
    assert is_recurrent(network)
    exported = export_faster(
        network, input_config, tmp_path / "a.onnx", {}, inputs=inputs.numpy(), engines=["onnxruntime", "openvino"]
    )
    assert (exported.exporter, exported.failures) == ("torchscript", {})


@pytest.mark.slow
def test_recurrent_networks_fall_back_on_the_newer_exporter(monkeypatch, tmp_path):
    monkeypatch.setitem(torch_export.EXPORTERS, "torchscript", breaks)
    input_config, inputs = windows(TINY["lstm"], n=3)
    network = build_model(TINY["lstm"], 6, input_config, start=False).eval()
    exported = export_faster(network, input_config, tmp_path / "a.onnx", {}, inputs=inputs.numpy())
    assert (exported.exporter, list(exported.failures)) == ("dynamo", ["torchscript"])
