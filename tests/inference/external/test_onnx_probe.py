from pathlib import Path

import numpy as np
import pytest
from external_graphs import loudness_logits, write_external_graph
from onnx import TensorProto

from birdinfer.config import AudioConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BirdinferError, BundleError, ConfigError, InputNotFoundError
from birdinfer.inference.external.onnx_probe import (
    check_batch_independence,
    choose_outputs,
    input_config_of,
    open_external_graph,
    probe,
    probe_windows,
)
from birdinfer.inference.manifest import Outputs

N_LABELS = 6


@pytest.fixture
def graph(tmp_path):
    """Write and open a graph."""
    return lambda *options, **more: open_external_graph(
        write_external_graph(tmp_path / "g.onnx", N_LABELS, *options, **more)
    )


class TestInputConfig:
    @pytest.mark.parametrize(
        ("n_samples", "metadata", "options", "found"),
        [
            (160_000, {}, (None, None), (32_000, 5.0)),
            (144_000, {}, (None, None), (48_000, 3.0)),
            (160_000, {}, (16_000, None), (16_000, 10.0)),
            (160_000, {}, (None, 10.0), (16_000, 10.0)),
            (96_000, {"sample_rate": "24000"}, (None, None), (24_000, 4.0)),
            (96_000, {"sample_rate_hz": "24000"}, (None, None), (24_000, 4.0)),
            (80_000, {"sample_rate_hz": "24000", "window_seconds": "3.33333"}, (None, None), (24_000, 3.33333)),
            (96_000, {"sr": "many", "chunk_length": "2"}, (None, None), (48_000, 2.0)),
            (96_000, {"sample_rate": "24000"}, (32_000, None), (32_000, 3.0)),
            ("samples", {}, (32_000, 5.0), (32_000, 5.0)),
            ("samples", {"sample_rate": "32000"}, (None, 3.0), (32_000, 3.0)),
        ],
    )
    def test_input_config_takes_options_then_metadata_then_known_lengths(
        self, graph, n_samples, metadata, options, found
    ):
        input_config = input_config_of(graph(("batch", n_samples), metadata=metadata), *options)
        assert (input_config.audio.sample_rate, input_config.window.window_seconds) == found

    @pytest.mark.parametrize(
        ("n_samples", "options", "problem"),
        [
            (96_000, (None, None), "takes 96000 samples without stating .* - give --sample-rate and --window"),
            ("samples", (None, None), "takes any number of samples .* - give --sample-rate and --window"),
            ("samples", (32_000, None), "give --window"),
            ("samples", (None, 5.0), "give --sample-rate"),
            (160_000, (32_000, 3.0), "makes 96000 samples, the graph takes 160000"),
            (160_000, (None, 7.0), "160000 samples in 7 s are no whole rate"),
            (160_000, (100, None), "window_seconds is 1600.0|sample_rate is 100"),
        ],
    )
    def test_input_config_refuses_what_does_not_fit(self, graph, n_samples, options, problem):
        with pytest.raises(ConfigError, match=problem) as caught:
            input_config_of(graph(("batch", n_samples)), *options)
        assert "\n" not in str(caught.value)

    def test_input_config_of_a_short_window(self, graph):
        assert input_config_of(graph(("batch", 9_600)), 32_000, None).window == WindowConfig(0.3, 0.3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"shape": ("batch", 1, 128, 320)}, r"takes \[\?, 1, 128, 320\], which is no waveform"),
        ({"shape": ("batch", 2, 160_000)}, "which is no waveform"),
        ({"element": TensorProto.FLOAT16}, r"takes tensor\(float16\), a member takes float32"),
        ({"inputs": 2}, r"takes 2 inputs \(waveform, more1\)"),
    ],
)
def test_open_refuses_graphs_that_take_no_waveform(graph, options, problem):
    with pytest.raises(BundleError, match=problem):
        graph(**options)


def test_open_refuses_what_is_no_graph(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        open_external_graph(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BundleError, match="cannot be loaded") as caught:
        open_external_graph(tmp_path / "text.onnx")
    assert "\n" not in str(caught.value)


WAVEFORM = WaveformConfig()


def test_probe_windows_are_finite_loud_and_always_the_same():
    windows = probe_windows(WAVEFORM)
    assert windows.shape == (6, 160_000)
    assert windows.dtype == np.float32
    np.testing.assert_array_equal(windows, probe_windows(WAVEFORM))
    peaks = np.abs(windows).max(axis=1)
    assert peaks[0] == 0
    assert ((peaks[2:] >= 0.09) & (peaks[2:] <= 1)).all()


@pytest.mark.parametrize(
    "shape", [("batch", 160_000), (1, 160_000), (4, 160_000), ("batch", 1, 160_000), (1, 1, 160_000)]
)
def test_probe_of_any_batch_and_rank(graph, shape):
    windows = probe_windows(WAVEFORM)
    for each in probe(graph(shape), WAVEFORM):
        np.testing.assert_allclose(each["scores"], loudness_logits(windows, N_LABELS), atol=1e-4)


class TestOutputs:
    def test_choose_outputs_takes_the_only_one_that_fits(self, graph):
        opened = graph(frames=True)
        assert choose_outputs(opened, probe(opened, WAVEFORM), N_LABELS, None, None) == ("scores", None)
        assert choose_outputs(opened, probe(opened, WAVEFORM), N_LABELS, None, "frame_scores") == (
            "scores",
            "frame_scores",
        )

    def test_choose_outputs_prefers_a_name(self, graph):
        opened = graph(second_output=True)
        results = probe(opened, WAVEFORM)
        assert choose_outputs(opened, results, N_LABELS, "again", None) == ("again", None)
        with pytest.raises(BundleError, match=r"2 outputs of 6 labels \(scores, again\) - give --output"):
            choose_outputs(opened, results, N_LABELS, None, None)

    @pytest.mark.parametrize(
        ("n_labels", "clip", "frames", "problem"),
        [
            (7, None, None, r"has no output of 7 labels.* it has scores \[\?, 6\], embedding \[\?, 1\]"),
            (6, "embedding", None, r"--output: 'embedding' is no output \[batch, 6\]"),
            (6, "gone", None, "--output: 'gone' is no output"),
            (6, None, "scores", r"--frames: 'scores' is no output \[batch, frames, 6\]"),
        ],
    )
    def test_choose_outputs_refuses_others_with_a_list(self, graph, n_labels, clip, frames, problem):
        opened = graph()
        with pytest.raises(BirdinferError, match=problem):
            choose_outputs(opened, probe(opened, WAVEFORM), n_labels, clip, frames)


def test_pitfall_1_scores_that_depend_on_the_batch_are_refused(graph):
    results = probe(graph(depends_on_batch=True), WAVEFORM)
    with pytest.raises(BundleError, match="differently in a batch than alone"):
        check_batch_independence(Path("g.onnx"), results, Outputs("scores"))
    fixed = probe(graph((4, 160_000), depends_on_batch=True), WAVEFORM)
    with pytest.raises(BundleError, match="differently in a batch than alone"):
        check_batch_independence(Path("g.onnx"), fixed, Outputs("scores"))
    alone = probe(graph((1, 160_000), depends_on_batch=True), WAVEFORM)
    check_batch_independence(Path("g.onnx"), alone, Outputs("scores"))


def test_a_graph_that_fails_on_the_length_names_the_options(graph):
    opened = graph(("batch", "samples"))
    wrong = graph(("batch", 160_000), frames=True)
    assert input_config_of(opened, 32_000, 3.0) == WaveformConfig(AudioConfig(), WindowConfig(3.0))
    with pytest.raises(BundleError, match=r"cannot be run on a waveform .* - see --window and --sample-rate"):
        wrong.run(np.zeros((1, 1_000), np.float32), 1)
