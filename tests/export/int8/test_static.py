"""A member's static INT8 graph: what is tried, in which order, and what is said where nothing passes."""

import msgspec
import numpy as np
import onnx
import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY
from untrained_runs import Told, hasten

from birdinfer.errors import ParityError
from birdinfer.export.graphs.onnx import export_graph
from birdinfer.export.int8 import search as int8_search
from birdinfer.export.int8 import static as static_int8
from birdinfer.export.int8.number_format import FORMATS
from birdinfer.export.int8.quantize import Int8Settings
from birdinfer.export.int8.static import make_static_int8
from birdinfer.export.judging.gate import Limits
from birdinfer.export.options import ExportOptions
from birdinfer.manifest import Figures, Variant
from birdinfer.training.models import build_model

FIGURES = Figures(0.1, 60.0, 2.0, 0.01, 0.001, 40, 20, 0.9, 0.0, (0.0, 0.0), 0.99, 0.995)
OPTIONS = ExportOptions(quantize=("static",), n_calibration_windows=8)


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def windows(awkward_windows):
    return np.split(awkward_windows[:16], 16)


class Saying:
    """A judge that refuses the first few graphs; the rank correlation of the second is the best."""

    def __init__(self, n_refused):
        self.n_refused, self.asked = n_refused, []

    def variant(self, name, made_by, graph, spec, limits):
        self.asked.append((name, made_by, str(spec), graph.read_bytes()))
        n_asked = len(self.asked)
        spearman = 0.9 if n_asked == 2 else 0.5
        refused = f"refused {n_asked}" if n_asked <= self.n_refused else ""
        return Variant(name, made_by, msgspec.structs.replace(FIGURES, least_spearman=spearman), refused)


def test_the_first_that_passes_is_what_lies_there(awkward_graph, windows, tmp_path):
    judge, told = Saying(0), Told()
    made = make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, judge, OPTIONS, told)
    ((name, made_by, spec, content),) = judge.asked
    assert (name, spec, made.variant.refused, made.why_not) == ("int8 static", "onnxruntime:int8", "", "")
    assert made_by == str(made.settings)
    assert (tmp_path / "int8.onnx").read_bytes() == content
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert [step for step in told.steps if step[0] == "calibrating"][-1][1:] == (16, 16)


def test_ranges_are_for_the_processors_that_were_named(awkward_graph, windows, tmp_path):
    for target in ("any-x86", "vnni"):
        options = msgspec.structs.replace(OPTIONS, target=target)
        made = make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, Saying(0), options, Told())
        assert made.settings.numbers == FORMATS[target]


def test_what_another_fold_was_taken_with_is_tried_first_and_nothing_is_searched(
    awkward_graph, windows, tmp_path, monkeypatch
):
    monkeypatch.setattr(static_int8, "Int8Search", None)
    known = Int8Settings("minmax", (), FORMATS["any-x86"])
    judge = Saying(0)
    made = make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, judge, OPTIONS, Told(), known)
    assert made.settings == known
    assert [asked[1] for asked in judge.asked] == [str(known)]


def test_what_another_fold_was_taken_with_may_not_do_here(awkward_graph, windows, tmp_path):
    known = Int8Settings("entropy", (), FORMATS["any-x86"])
    judge = Saying(1)
    made = make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, judge, OPTIONS, Told(), known)
    assert made.variant.refused == ""
    assert made.settings != known
    assert len(judge.asked) == 2


def test_where_nothing_passes_the_nearest_is_shown_with_all_that_was_tried(
    awkward_graph, windows, tmp_path, monkeypatch
):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 2.0)
    judge, options = Saying(100), msgspec.structs.replace(OPTIONS, limits=Limits(min_spearman=-1.0))
    made = make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, judge, options, Told())
    assert len(judge.asked) == 4
    reason, tried, kept = made.variant.refused.split("; ")
    assert (made.settings, reason, made.variant.figures.least_spearman) == (None, "refused 2", 0.9)
    assert made.variant.made_by == judge.asked[1][1]
    assert tried == "tried: ranges by percentile, minmax"
    assert kept.startswith("sets of activations left in fp32: 2, the largest of ")


def test_a_network_without_convolutions_is_no_error(tmp_path):
    """Its patches are cut by one that reads the spectrogram, which stays fp32."""
    torch.manual_seed(0)
    network = build_model(TINY["vit"], 4, TINY_FRONTEND, start=False).eval()
    export_graph(network, TINY_FRONTEND, tmp_path / "vit.onnx", {"labels_sha256": "abc"}, "torchscript")
    window = np.zeros((1, 1, *TINY_FRONTEND.input_shape), np.float32)
    made = make_static_int8(tmp_path / "vit.onnx", tmp_path / "int8.onnx", [window] * 3, Saying(0), OPTIONS, Told())
    assert (made.variant, made.settings) == (None, None)
    assert made.why_not == "has no fp32 convolution that could be INT8"
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("n_windows", [1, 2, 4])
def test_few_windows_serve_both_ends(awkward_graph, windows, tmp_path, n_windows):
    """Two thirds calibrate, the others choose; where there is one other at most, all choose."""
    told = Told()
    make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows[:n_windows], Saying(0), OPTIONS, told)
    (n_passes_over_windows,) = {of for what, _, of in told.steps if what == "calibrating"}
    assert n_passes_over_windows == 2 * max(1, 2 * n_windows // 3)
    assert (tmp_path / "int8.onnx").exists()


def test_answers_that_are_no_numbers_name_the_option(awkward_graph, windows, tmp_path):
    class Dumbfounded:
        def variant(self, name, made_by, graph, spec, limits):
            raise ParityError(graph, "logits holds what is no number", "leave this variant out")

    with pytest.raises(ParityError, match=r"^int8.onnx: logits holds what is no number - leave --quantize out$"):
        make_static_int8(awkward_graph, tmp_path / "int8.onnx", windows, Dumbfounded(), OPTIONS, Told())
