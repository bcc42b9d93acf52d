"""Static INT8 of a member: which settings are tried, in which order, and the reason if no graph is accepted."""

import dataclasses
import shutil

import msgspec
import numpy as np
import onnx
import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY
from untrained_runs import RecordingCallback, hasten

from birdinfer.errors import ParityError
from birdinfer.export import variants
from birdinfer.export.acceptance import decision
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.int8 import search as int8_search
from birdinfer.export.int8.qdq import FORMATS
from birdinfer.export.int8.quantize import Int8Settings
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.export.settings import ExportSettings
from birdinfer.export.variants import VariantMaker
from birdinfer.inference.manifest import Figures, Variant
from birdinfer.training.models.registry import build_model

FIGURES = Figures(0.1, 60.0, 2.0, 0.01, 0.001, 40, 20, 0.9, 0.0, (0.0, 0.0), 0.99, 0.995)
SETTINGS = ExportSettings(quantize=("static",), n_calibration_windows=8)


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def windows(awkward_windows):
    return np.split(awkward_windows[:16], 16)


class Rejecting:
    """An acceptance test that rejects the first few graphs; the rank correlation of the second is the best."""

    def __init__(self, n_rejected):
        self.n_rejected, self.tested = n_rejected, []

    def fp32(self):
        return Variant("fp32", "", FIGURES)

    def variant(self, name, made_by, graph, spec, limits):
        self.tested.append((name, made_by, str(spec), graph.read_bytes()))
        n_tested = len(self.tested)
        spearman = 0.9 if n_tested == 2 else 0.5
        refused = f"refused {n_tested}" if n_tested <= self.n_rejected else ""
        return Variant(name, made_by, msgspec.structs.replace(FIGURES, least_spearman=spearman), refused)


@pytest.fixture
def make(awkward_graph, windows, tmp_path):
    """Acceptance test and changes of the maker -> the variants of the awkward network."""
    fp32 = shutil.copy(awkward_graph, tmp_path / "fold0.onnx")

    def made(acceptance, **changes):
        usual = {"fp32": fp32, "windows": windows, "settings": SETTINGS, "callback": RecordingCallback()}
        return VariantMaker(**{**usual, "acceptance": acceptance, **changes}).make()

    return made


@pytest.mark.parametrize(("there", "spearman", "engines"), [
    (0.5, 0.99, ["onnxruntime:int8", "openvino:int8"]),  # slow in the first alone
    (0.5, 0.5, ["onnxruntime:int8"]),  # its ranks are lost whatever runs it
    (2.0, 0.99, ["onnxruntime:int8"]),
])  # fmt: skip
def test_a_graph_that_is_slow_in_onnx_runtime_is_tested_in_openvino(make, monkeypatch, there, spearman, engines):
    class Slow(Rejecting):
        def variant(self, name, made_by, graph, spec, limits):
            super().variant(name, made_by, graph, spec, limits)
            times = 1.6 if spec.engine == "openvino" else there
            figures = msgspec.structs.replace(FIGURES, times_fp32=times, least_spearman=spearman)
            return Variant(name, made_by, figures, decision.reasons_to_reject(figures, limits))

    monkeypatch.setattr(variants, "find_spec", lambda name: object())
    acceptance = Slow(0)
    made = make(acceptance, first_try=Int8Settings())
    found = [spec for _, _, spec, _ in acceptance.tested]
    assert found[: len(engines)] == engines
    assert ("openvino:int8" in found) == ("openvino:int8" in engines)
    assert ("int8" in made.graphs) == (spearman == 0.99)


def test_static_int8_first_accepted_graph_is_kept(make, tmp_path):
    acceptance, callback = Rejecting(0), RecordingCallback()
    made = make(acceptance, callback=callback)
    ((name, made_by, spec, content),) = acceptance.tested
    assert (name, spec, made.tried[1].refused) == ("int8 static", "onnxruntime:int8", "")
    assert made_by == str(made.int8_settings)
    assert (tmp_path / "fold0.int8.onnx").read_bytes() == content
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "fold0.int8.onnx").graph.node}
    assert [step for step in callback.steps if step[0] == "calibrating"][-1][1:] == (16, 16)


def test_static_int8_is_written_in_the_targets_format(make):
    for target in ("any-x86", "vnni"):
        made = make(Rejecting(0), settings=dataclasses.replace(SETTINGS, target=target))
        assert made.int8_settings.number_format == FORMATS[target]


def test_static_int8_settings_of_another_fold_are_tried_first_without_a_search(make, monkeypatch):
    monkeypatch.setattr(variants, "Int8Search", None)
    known, acceptance = Int8Settings("minmax", (), FORMATS["any-x86"]), Rejecting(0)
    assert make(acceptance, first_try=known).int8_settings == known
    assert [tested[1] for tested in acceptance.tested] == [str(known)]


def test_static_int8_is_searched_for_if_settings_of_another_fold_are_rejected(make):
    known, acceptance = Int8Settings("entropy", (), FORMATS["any-x86"]), Rejecting(1)
    made = make(acceptance, first_try=known)
    assert made.tried[1].refused == ""
    assert made.int8_settings != known
    assert len(acceptance.tested) == 2


def test_static_int8_if_none_is_accepted_reports_the_nearest_and_all_that_was_tried(make, monkeypatch, tmp_path):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 2.0)
    acceptance = Rejecting(100)
    made = make(acceptance, settings=dataclasses.replace(SETTINGS, limits=Limits(min_spearman=-1.0)))
    assert len(acceptance.tested) == 4
    reason, tried, in_fp32 = made.tried[1].refused.split("; ")
    assert (made.int8_settings, reason, made.tried[1].figures.least_spearman) == (None, "refused 2", 0.9)
    assert made.tried[1].made_by == acceptance.tested[1][1]
    assert tried == "tried: ranges by percentile, minmax"
    assert in_fp32.startswith("sets of activations left in fp32: 2, the largest of ")
    assert [path.name for path in tmp_path.iterdir()] == ["fold0.onnx"]


def test_static_int8_of_a_network_without_convolutions_is_not_made(make, tmp_path):
    """The convolution that cuts its patches reads the spectrogram and stays fp32."""
    torch.manual_seed(0)
    network = build_model(TINY["vit"], 4, TINY_FRONTEND, start=False).eval()
    export_graph(network, TINY_FRONTEND, tmp_path / "vit.onnx", {"labels_sha256": "abc"}, "torchscript")
    window, callback = np.zeros((1, 1, *TINY_FRONTEND.input_shape), np.float32), RecordingCallback()
    made = make(Rejecting(0), fp32=tmp_path / "vit.onnx", windows=[window] * 3, callback=callback)
    assert (len(made.tried), made.int8_settings) == (1, None)
    assert callback.lines == ["vit: int8 static not made: has no fp32 convolution that could be INT8"]
    assert not (tmp_path / "vit.int8.onnx").exists()


@pytest.mark.parametrize("n_windows", [1, 2, 4])
def test_static_int8_of_few_windows(make, windows, tmp_path, n_windows):
    """Two thirds calibrate and the others choose settings; if only one is left, all choose."""
    callback = RecordingCallback()
    make(Rejecting(0), windows=windows[:n_windows], callback=callback)
    (n_passes_over_windows,) = {total for task, _, total in callback.steps if task == "calibrating"}
    assert n_passes_over_windows == 2 * max(1, 2 * n_windows // 3)
    assert (tmp_path / "fold0.int8.onnx").exists()


def test_static_int8_with_logits_that_are_not_finite_names_the_option(make):
    class NotFinite(Rejecting):
        def variant(self, name, made_by, graph, spec, limits):
            raise ParityError(graph, "logits holds what is no number", "leave this variant out")

    with pytest.raises(ParityError, match=r"^fold0.int8.onnx: logits holds what is no number - leave --quantize out$"):
        make(NotFinite(0))
