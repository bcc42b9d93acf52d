"""NNCF's INT8, where it is installed (extra ``nncf``); and what is said where it is not."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from birdinfer.errors import ConfigError, MissingExtraError
from birdinfer.export.int8.alternatives import quantize_nncf
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec

needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs nncf (extra nncf)")


@pytest.fixture(scope="module")
def made(awkward_graph, awkward_windows, tmp_path_factory):
    """(INT8 graph, what was done). Read only."""
    path = tmp_path_factory.mktemp("nncf") / "int8.onnx"
    return path, quantize_nncf(awkward_graph, path, list(awkward_windows[:16, None]))


def logits(path, spec, windows, batch_size):
    plan = EnginePlan(parse_spec(spec), batch_size=batch_size)
    return load_engine(plan, path, ["logits"], windows.shape[1:]).run(windows)["logits"]


@needs_nncf
class TestGraph:
    @pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
    def test_says_nearly_what_fp32_says(self, made, awkward_graph, awkward_windows, engine):
        if engine == "openvino":
            pytest.importorskip("openvino")
        inputs = awkward_windows[16:]
        wanted = logits(awkward_graph, "onnxruntime", inputs, 4)
        found = logits(made[0], f"{engine}:int8", inputs, 4)
        assert np.abs(found - wanted).max() > 0
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95

    def test_no_score_depends_on_its_company(self, made, awkward_windows):
        alone, together = (logits(made[0], "onnxruntime:int8", awkward_windows[16:28], n) for n in (1, 12))
        np.testing.assert_allclose(alone, together, atol=1e-4)

    def test_names_batch_axis_and_metadata_stay(self, made, awkward_graph):
        before, after = onnx.load(awkward_graph), onnx.load(made[0])
        for kind in ("input", "output"):
            assert getattr(after.graph, kind) == getattr(before.graph, kind)
        assert [{each.key: each.value for each in graph.metadata_props} for graph in (before, after)].count(
            {each.key: each.value for each in before.metadata_props}
        ) == 2

    def test_what_was_done_is_returned(self, made):
        n_int8 = sum(node.op_type == "QuantizeLinear" for node in onnx.load(made[0]).graph.node)
        assert n_int8 > 5
        assert made[1].endswith(f"performance preset, 16 windows, {n_int8} values in INT8")

    def test_nothing_is_printed(self, awkward_graph, awkward_windows, tmp_path, capfd):
        quantize_nncf(awkward_graph, tmp_path / "int8.onnx", list(awkward_windows[:4, None]))
        assert capfd.readouterr().out == ""

    def test_telemetry_is_off(self):
        """In a process of its own: within pytest NNCF keeps quiet by itself."""
        pytest.importorskip("openvino_telemetry")
        code = (
            "import os; from birdinfer.export.int8.alternatives import import_nncf; import_nncf();"
            "from nncf.telemetry import telemetry; print(type(telemetry).__name__, 'NNCF_CI' in os.environ)"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NNCF")}
        callback = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        assert callback.stdout.split() == ["MagicMock", "False"]


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ([], "calibration: holds no windows"),
        ([np.full((1, 1, 4, 4), np.nan, np.float32)], "values that are not finite"),
    ],
)
def test_useless_windows_are_refused(tmp_path, windows, words):
    with pytest.raises(ConfigError, match=words):
        quantize_nncf(tmp_path / "a.onnx", tmp_path / "b.onnx", windows)


def test_where_it_is_missing_what_to_install_is_said(awkward_graph, awkward_windows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r'nncf: is not installed - pip install "birdinfer\[nncf\]"'):
        quantize_nncf(awkward_graph, tmp_path / "b.onnx", list(awkward_windows[:4, None]))
    assert not (tmp_path / "b.onnx").exists()
