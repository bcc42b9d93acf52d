"""Other precisions of a member's graph: kept if they are accepted, else removed, and reported in either case."""

import importlib.util

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_clips import LABELS, TINY_FRONTEND
from tiny_models import TINY
from untrained_runs import RecordingCallback, few_windows, hasten, seeded

from birdinfer.errors import ConfigError, MissingExtraError
from birdinfer.export import variants
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.acceptance.labelled import LabelledWindows
from birdinfer.export.acceptance.measure import AcceptanceTest
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.export.variants import VariantMaker, summary
from birdinfer.inference.bundle import file_sha256
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.manifest import Figures, Outputs, Variant
from birdinfer.training.recipe.schema import Recipe

NOTHING_KEEPS = Limits(min_spearman=1.0)


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def inputs():
    """Each window has a loudness and a tilt of its own."""
    random = np.random.default_rng(0)
    tilt = np.linspace(-1, 1, TINY_FRONTEND.input_shape[0])[:, None] * random.normal(0, 1, (24, 1, 1, 1))
    noise = random.normal(0, 1, (24, 1, *TINY_FRONTEND.input_shape))
    return (noise * random.uniform(0.3, 1.5, (24, 1, 1, 1)) + tilt).astype(np.float32)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """By family; read only."""
    folder = tmp_path_factory.mktemp("graphs")
    for family in ("cnn", "vit"):
        torch.manual_seed(0)
        network = seeded(Recipe(frontend=TINY_FRONTEND, model=TINY[family]), 0).eval()
        export_graph(network, TINY_FRONTEND, folder / f"{family}.onnx", {"labels_sha256": "abc"}, "torchscript")
    return folder


@pytest.fixture
def make(graphs, inputs, tmp_path):
    """Options -> (the fp32 graph, what became of it, what was reported)."""

    def made(family="cnn", **wishes):
        fp32, callback = tmp_path / "fold0.onnx", RecordingCallback()
        fp32.write_bytes((graphs / f"{family}.onnx").read_bytes())
        truth = np.random.default_rng(1).random((12, len(LABELS))) < 0.4
        known, recordings = np.ones_like(truth), np.arange(12)
        labelled = LabelledWindows(inputs=inputs[12:], truth=truth, known=known, recordings=recordings)
        acceptance = AcceptanceTest(fp32, Outputs(), LABELS, labelled)
        maker = VariantMaker(
            fp32=fp32,
            windows=np.split(inputs[:12], 12),
            acceptance=acceptance,
            settings=few_windows(**wishes),
            callback=callback,
        )
        return fp32, maker.make(), callback

    return made


def files(fp32):
    return sorted(path.name for path in fp32.parent.iterdir())


def test_fp32_alone_where_nothing_else_is_wanted(make):
    fp32, made, callback = make()
    assert (made.graphs, made.int8_settings, callback.lines) == ({}, None, [])
    assert [variant.name for variant in made.tried] == ["fp32"]
    assert files(fp32) == ["fold0.onnx"]


def test_what_passes_is_kept_under_its_precision(make):
    fp32, made, callback = make(quantize=("static",))
    graph, (_, variant) = made.graphs["int8"], made.tried
    path = fp32.with_name("fold0.int8.onnx")
    assert (graph.file, graph.sha256) == (path.name, file_sha256(path))
    assert graph.max_probability_difference == variant.figures.max_probability_difference > 0
    assert str(made.int8_settings) == variant.made_by
    (line,) = callback.lines
    assert line == f"fold0: int8 static taken: {summary(variant)}"


def test_what_fails_is_removed_and_reported(make):
    fp32, made, callback = make(quantize=("static",), limits=NOTHING_KEEPS)
    assert (made.graphs, made.int8_settings) == ({}, None)
    assert files(fp32) == ["fold0.onnx"]
    assert "needed is 1; tried: ranges by percentile, minmax; sets of" in made.tried[1].refused
    assert callback.lines == [f"fold0: int8 static refused: {made.tried[1].refused}"]


def test_the_first_int8_that_passes_is_kept_and_the_others_are_measured(make):
    fp32, made, _ = make(quantize=("dynamic", "static"))
    assert [variant.name for variant in made.tried] == ["fp32", "int8 dynamic", "int8 static"]
    assert not any(variant.refused for variant in made.tried)
    assert made.graphs["int8"].file == "fold0.dynamic.onnx"
    assert files(fp32) == ["fold0.dynamic.onnx", "fold0.onnx"]


def test_where_the_first_is_refused_the_next_has_its_turn(make, monkeypatch):
    """Dynamic INT8 of a convolutional network is slow."""
    speed = {"fold0.dynamic.onnx": 20.0, "fold0.onnx": 100.0, "fold0.int8.onnx": 200.0}
    monkeypatch.setattr(
        "birdinfer.export.acceptance.measure.compare_speed", lambda graphs, *_: [speed[path.name] for path, _ in graphs]
    )
    fp32, made, callback = make(quantize=("dynamic", "static"))
    assert made.tried[1].refused == "0.2 times as fast as fp32, needed is 1.1"
    assert made.graphs["int8"].file == "fold0.int8.onnx"
    assert files(fp32) == ["fold0.int8.onnx", "fold0.onnx"]
    assert callback.lines[0] == f"fold0: int8 dynamic refused: {made.tried[1].refused}"


def test_a_network_without_convolutions_stays_fp32_and_says_so(make):
    fp32, made, callback = make("vit", quantize=("static",))
    assert [variant.name for variant in made.tried] == ["fp32"]
    assert callback.lines == ["fold0: int8 static not made: has no fp32 convolution that could be INT8"]
    assert files(fp32) == ["fold0.onnx"]


def test_its_products_become_dynamic_int8(make):
    _, made, _ = make("vit", quantize=("static", "dynamic"))
    assert made.graphs["int8"].file == "fold0.dynamic.onnx"
    assert "products in INT8; one window a call; run by onnxruntime" in made.tried[1].made_by


def test_halves_are_smaller_and_their_speed_here_decides_nothing(make, monkeypatch):
    monkeypatch.setattr("birdinfer.export.acceptance.measure.compare_speed", lambda graphs, *_: [30.0, 100.0])
    fp32, made, _ = make(halves=("fp16", "bf16"))
    assert {name: graph.file for name, graph in made.graphs.items()} == {
        "fp16": "fold0.fp16.onnx",
        "bf16": "fold0.bf16.onnx",
    }
    for variant in made.tried[1:]:
        assert (variant.refused, variant.figures.times_fp32) == ("", 0.3)
        assert variant.figures.size_mb < 0.7 * made.tried[0].figures.size_mb
        assert 0 < variant.figures.max_probability_difference < 0.05
    assert files(fp32) == ["fold0.bf16.onnx", "fold0.fp16.onnx", "fold0.onnx"]


def test_a_half_that_changes_the_ranks_is_refused(make, monkeypatch):
    """With its last weights negated, whatever the processor's own rounding is."""

    def negate_last(graph, out):
        model = onnx.load(graph)
        (last,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.weight"))
        last.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(last), last.name))
        onnx.save(model, out)

    monkeypatch.setattr(variants, "write_bf16", negate_last)
    fp32, made, callback = make(halves=("bf16",), limits=Limits(max_auc_drop=1.0))
    assert made.graphs == {}
    assert callback.lines[0].startswith("fold0: bf16 refused: Spearman -")
    assert files(fp32) == ["fold0.onnx"]


def test_a_half_that_answers_with_what_is_no_number_is_left_out(make, monkeypatch):
    """As where an activation is more than 65504, the most that fp16 holds."""

    def spoil(graph, out):
        model = onnx.load(graph)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
        onnx.save(model, out)

    monkeypatch.setattr(variants, "write_fp16", spoil)
    fp32, made, callback = make(halves=("fp16", "bf16"))
    assert callback.lines[0] == "fold0: fp16 not made: logits holds what is no number"
    assert [variant.name for variant in made.tried] == ["fp32", "bf16"]
    assert files(fp32) == ["fold0.bf16.onnx", "fold0.onnx"]


def test_a_half_that_cannot_be_made_is_left_out(make, monkeypatch):
    def refuse(graph, out):
        raise ConfigError(graph, "has no convolution or matrix product that may be fp16", "keep it in fp32")

    monkeypatch.setattr(variants, "write_fp16", refuse)
    _, made, callback = make(halves=("fp16",))
    assert made.graphs == {}
    assert callback.lines == ["fold0: fp16 not made: has no convolution or matrix product that may be fp16"]


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_what_was_kept_runs_and_says_nearly_the_same(make, inputs, kind):
    fp32, made, _ = make(quantize=("static",), halves=("fp16",))

    def logits(path, spec):
        return load_engine(EnginePlan(parse_spec(spec), batch_size=4), path, ["logits"], inputs.shape[1:]).run(inputs)

    found = logits(fp32.with_name(made.graphs[kind].file), "onnxruntime:int8" if kind == "int8" else "onnxruntime")
    difference = np.abs(found["logits"] - logits(fp32, "onnxruntime")["logits"])
    assert 0 < difference.max() < 0.5


@pytest.mark.skipif(importlib.util.find_spec("nncf") is not None, reason="nncf is installed")
def test_without_nncf_one_line_says_what_to_install(make):
    with pytest.raises(MissingExtraError, match=r'pip install "birdinfer\[nncf\]"'):
        make(quantize=("nncf",))


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs nncf (extra nncf)")
def test_nncf_is_run_by_openvino(make):
    _, made, _ = make(quantize=("nncf",))
    assert made.tried[1].name == "int8 nncf"
    assert made.tried[1].made_by.endswith("run by openvino")


class TestInShort:
    FIGURES = Figures(1.25, 60.0, 1.875, 0.0312, 0.001, 40, 20)

    def test_all_figures(self):
        callback = {"auc_fall": 0.0004, "auc_fall_interval": (-0.0003, 0.0011), "least_spearman": 0.98765}
        figures = Figures(1.25, 60.0, 1.875, 0.0312, 0.001, 40, 20, macro_auc=0.9, **callback)
        assert summary(Variant("int8 static", "minmax", figures)) == (
            "1.88 times as fast as fp32, 1.2 MB, macro AUC falls by +0.0004 (-0.0003 to +0.0011), "
            "least Spearman 0.9877, largest |dp| 0.031; minmax"
        )

    def test_unknown_ones_are_left_out(self):
        assert summary(Variant("fp16", "rounded", self.FIGURES)) == (
            "1.88 times as fast as fp32, 1.2 MB, largest |dp| 0.031; rounded"
        )
