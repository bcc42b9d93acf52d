"""A graph beside fp32: what is measured of it, and when it may be taken."""

import functools
from dataclasses import replace

import numpy as np
import onnx
import pytest
from awkward_network import graph_logits
from make_bundles import write_framewise_graph
from onnx import numpy_helper

from birdinfer.errors import BundleError, ParityError
from birdinfer.export.acceptance import measure as measure
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.acceptance.labelled import LabelledWindows
from birdinfer.export.acceptance.measure import FP32, AcceptanceTest, compare
from birdinfer.inference.activation import activate
from birdinfer.inference.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.inference.engines import benchmark as throughput
from birdinfer.inference.manifest import Outputs

LABELS = tuple(f"species{index}" for index in range(12))
FOUR = LABELS[:4]
OPEN = Limits(max_auc_drop=1.0, min_spearman=-1.0, min_times_fp32=0.0)
"""All is taken."""


@pytest.fixture(autouse=True)
def speeds(monkeypatch):
    """Which graphs were measured beside each other; the first is always twice as fast as the second."""
    measured = []

    def compare_speed(graphs, outputs, inputs):
        measured.append([path for path, _ in graphs])
        return [60.0, 30.0]

    monkeypatch.setattr(measure, "compare_speed", compare_speed)
    return measured


@pytest.fixture(scope="module")
def labelled(awkward_windows, awkward_graph):
    """Windows whose labels are what fp32 ranks highest, but for some: macro AUC is below 1."""
    logits = graph_logits(awkward_graph, awkward_windows)
    truth = logits > np.quantile(logits, 0.7, axis=0)
    truth[::5] = ~truth[::5]
    recordings = np.arange(len(truth)) // 2
    return LabelledWindows(inputs=awkward_windows, truth=truth, known=np.ones_like(truth), recordings=recordings)


@pytest.fixture(scope="module")
def acceptance(awkward_graph, labelled):
    return AcceptanceTest(awkward_graph, Outputs(), LABELS, labelled)


def changed(graph, out, change):
    """The graph with its classifier's weights, or bias, changed in place."""
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if len(LABELS) in values.shape and values.dtype == np.float32:
            change(values)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, out)
    return out


def frames_of(path, inputs):
    return load_engine(EnginePlan(batch_size=len(inputs)), path, ["frames"], inputs.shape[1:]).run(inputs)["frames"]


@pytest.fixture
def noisy(awkward_graph, tmp_path):
    """A graph that answers otherwise."""

    def spoil(values):
        values += np.random.default_rng(0).normal(0, 0.5 * values.std() + 0.01, values.shape).astype(np.float32)

    return changed(awkward_graph, tmp_path / "noisy.onnx", spoil)


def test_fp32_is_its_own_measure(acceptance, awkward_graph):
    fp32 = acceptance.fp32()
    figures = fp32.figures
    assert (fp32.name, fp32.made_by, fp32.refused) == ("fp32", "", "")
    assert figures.size_mb == awkward_graph.stat().st_size / 1e6
    assert (figures.windows_per_second, figures.times_fp32) == (60.0, 1.0)
    assert (figures.max_probability_difference, figures.auc_fall, figures.least_spearman) == (0.0, 0.0, 1.0)
    assert (figures.n_windows, figures.n_recordings) == (40, 20)
    assert 0.5 < figures.macro_auc < 1.0


def test_a_graph_is_measured_in_turns_with_fp32(acceptance, noisy, awkward_graph, speeds):
    figures = acceptance.variant("noisy", "noise", noisy, FP32, OPEN).figures
    assert speeds == [[noisy, awkward_graph]]
    assert (figures.windows_per_second, figures.times_fp32) == (60.0, 2.0)
    assert figures.size_mb == noisy.stat().st_size / 1e6


def test_figures_are_of_its_answers_beside_those_of_fp32(acceptance, noisy, awkward_graph, labelled):
    variant = acceptance.variant("noisy", "noise", noisy, FP32, OPEN)
    wanted, found = (graph_logits(path, labelled.inputs) for path in (awkward_graph, noisy))
    difference = np.abs(activate(found, "sigmoid") - activate(wanted, "sigmoid"))
    agreement = compare(wanted, found, labelled, "sigmoid")
    figures = variant.figures
    assert (variant.name, variant.made_by, variant.refused) == ("noisy", "noise", "")
    assert figures.max_probability_difference == pytest.approx(difference.max(), abs=1e-5)
    assert figures.mean_probability_difference == pytest.approx(difference.mean(), abs=1e-5)
    assert difference.max() > 0.01
    assert figures.auc_fall == pytest.approx(agreement.auc_drop, abs=1e-3) != 0
    assert figures.least_spearman == pytest.approx(agreement.least_spearman, abs=1e-3) != 1


def test_a_refusal_names_each_limit_and_the_species_that_missed_it(acceptance, noisy, awkward_graph, labelled):
    wanted, found = (graph_logits(path, labelled.inputs) for path in (awkward_graph, noisy))
    worst = LABELS[compare(wanted, found, labelled, "sigmoid").least_spearman_label_index]
    refused = acceptance.variant(
        "noisy", "noise", noisy, FP32, Limits(max_auc_drop=-1.0, min_spearman=1.0, min_times_fp32=3.0)
    ).refused
    fall, spearman, speed = refused.split("; ")
    assert "allowed is -1" in fall
    assert f"of {worst!r}, needed is 1" in spearman
    assert speed == "2 times as fast as fp32, needed is 3"


def test_what_is_no_number_is_an_error_not_a_decision(acceptance, awkward_graph, tmp_path):
    broken = changed(awkward_graph, tmp_path / "broken.onnx", lambda values: values.fill(np.nan))
    with pytest.raises(ParityError, match=r"broken.onnx: logits holds what is no number - leave this variant out"):
        acceptance.variant("broken", "", broken, FP32, OPEN)


def test_a_file_that_is_no_graph_is_refused(acceptance, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"no\.onnx"):
        acceptance.variant("no", "", tmp_path / "no.onnx", EngineSpec("onnxruntime", "int8"), OPEN)


def test_without_labels_no_graph_is_taken_for_as_good(awkward_graph, labelled):
    unknown = replace(labelled, known=np.zeros_like(labelled.known))
    variant = AcceptanceTest(awkward_graph, Outputs(), LABELS, unknown).variant(
        "same", "", awkward_graph, FP32, Limits()
    )
    assert variant.figures.macro_auc is variant.figures.auc_fall is None
    assert variant.refused == "no labelled windows show whether macro AUC falls, allowed is 0.002"


def test_speeds_are_measured_where_nothing_is_said_of_them(awkward_graph, labelled, monkeypatch):
    measured = functools.partial(throughput.compare_speed, rounds=3, seconds=0.05)
    monkeypatch.setattr(measure, "compare_speed", measured)
    few = LabelledWindows(**{name: getattr(labelled, name)[:4] for name in ("inputs", "truth", "known", "recordings")})
    acceptance = AcceptanceTest(awkward_graph, Outputs(), LABELS, few)
    figures = acceptance.variant("same", "", awkward_graph, FP32, OPEN).figures
    assert figures.windows_per_second > 10
    assert 0.3 < figures.times_fp32 < 3


def test_of_a_member_that_speaks_of_frames_alone_the_loudest_is_ranked(tmp_path):
    for seed in (0, 1):
        write_framewise_graph(tmp_path / f"{seed}.onnx", seed, n_frames=4)
    inputs = np.random.default_rng(0).normal(-40, 15, (12, 1, 32, 20)).astype(np.float32)
    truth = np.random.default_rng(1).random((12, len(FOUR))) < 0.4
    labelled = LabelledWindows(inputs=inputs, truth=truth, known=np.ones_like(truth), recordings=np.arange(12))
    acceptance = AcceptanceTest(tmp_path / "0.onnx", Outputs(clip=None, frames="frames"), FOUR, labelled)
    found = acceptance.variant("other", "", tmp_path / "1.onnx", FP32, OPEN).figures
    loudest = [frames_of(tmp_path / f"{seed}.onnx", inputs).max(axis=1) for seed in (0, 1)]
    assert found.least_spearman == pytest.approx(compare(*loudest, labelled, "sigmoid").least_spearman)
    assert found.max_probability_difference > 0.01
