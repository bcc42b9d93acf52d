import re
from pathlib import Path

import numpy as np
import pytest
from foreign_graphs import loudness_logits, write_foreign_graph
from onnx import TensorProto

from birdinfer.config import AudioConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BirdinferError, BundleError, ConfigError, InputNotFoundError
from birdinfer.foreign import (
    ask,
    check_company,
    choose_outputs,
    hearing_of,
    measure_activation,
    open_foreign,
    probe_windows,
)
from birdinfer.manifest import Outputs

N_LABELS = 6


@pytest.fixture
def graph(tmp_path):
    """Write and open a graph."""
    return lambda *options, **more: open_foreign(write_foreign_graph(tmp_path / "g.onnx", N_LABELS, *options, **more))


class TestHearing:
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
    def test_options_then_metadata_then_what_is_known_of_the_length(self, graph, n_samples, metadata, options, found):
        hearing = hearing_of(graph(("batch", n_samples), metadata=metadata), *options)
        assert (hearing.audio.sample_rate, hearing.window.window_seconds) == found

    @pytest.mark.parametrize(
        ("n_samples", "options", "complaint"),
        [
            (96_000, (None, None), "takes 96000 samples and does not say .* - say --sample-rate and --window"),
            ("samples", (None, None), "takes any number of samples .* - say --sample-rate and --window"),
            ("samples", (32_000, None), "say --window"),
            ("samples", (None, 5.0), "say --sample-rate"),
            (160_000, (32_000, 3.0), "makes 96000 samples, the graph takes 160000"),
            (160_000, (None, 7.0), "160000 samples in 7 s are no whole rate"),
            (160_000, (100, None), "window_seconds is 1600.0|sample_rate is 100"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_options(self, graph, n_samples, options, complaint):
        with pytest.raises(ConfigError, match=complaint) as caught:
            hearing_of(graph(("batch", n_samples)), *options)
        assert "\n" not in str(caught.value)

    def test_a_window_shorter_than_a_usual_rest(self, graph):
        assert hearing_of(graph(("batch", 9_600)), 32_000, None).window == WindowConfig(0.3, 0.3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shape": ("batch", 1, 128, 320)}, r"takes \[\?, 1, 128, 320\], which is no waveform"),
        ({"shape": ("batch", 2, 160_000)}, "which is no waveform"),
        ({"element": TensorProto.FLOAT16}, r"takes tensor\(float16\), a member takes float32"),
        ({"inputs": 2}, r"takes 2 inputs \(waveform, more1\)"),
    ],
)
def test_what_takes_no_waveform_is_refused(graph, options, complaint):
    with pytest.raises(BundleError, match=complaint):
        graph(**options)


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        open_foreign(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BundleError, match="cannot be loaded") as caught:
        open_foreign(tmp_path / "text.onnx")
    assert "\n" not in str(caught.value)


HEARING = WaveformConfig()


def test_probes_are_finite_and_loud_as_real_sound_and_always_the_same():
    windows = probe_windows(HEARING)
    assert windows.shape == (6, 160_000)
    assert windows.dtype == np.float32
    np.testing.assert_array_equal(windows, probe_windows(HEARING))
    peaks = np.abs(windows).max(axis=1)
    assert peaks[0] == 0
    assert ((peaks[2:] >= 0.09) & (peaks[2:] <= 1)).all()


@pytest.mark.parametrize(
    "shape", [("batch", 160_000), (1, 160_000), (4, 160_000), ("batch", 1, 160_000), (1, 1, 160_000)]
)
def test_any_batch_and_rank_is_answered_alike(graph, shape):
    windows = probe_windows(HEARING)
    answers = ask(graph(shape), windows)
    for each in answers:
        np.testing.assert_allclose(each["scores"], loudness_logits(windows, N_LABELS), atol=1e-4)


class TestOutputs:
    def ask(self, foreign):
        return ask(foreign, probe_windows(HEARING))

    def test_the_only_one_of_as_many_labels(self, graph):
        foreign = graph(frames=True)
        assert choose_outputs(foreign, self.ask(foreign), N_LABELS, None, None) == ("scores", None)
        assert choose_outputs(foreign, self.ask(foreign), N_LABELS, None, "frame_scores") == ("scores", "frame_scores")

    def test_a_name_wins(self, graph):
        foreign = graph(second_output=True)
        answers = self.ask(foreign)
        assert choose_outputs(foreign, answers, N_LABELS, "again", None) == ("again", None)
        with pytest.raises(BundleError, match=r"2 outputs of 6 labels \(scores, again\) - say --output"):
            choose_outputs(foreign, answers, N_LABELS, None, None)

    @pytest.mark.parametrize(
        ("n_labels", "clip", "frames", "complaint"),
        [
            (7, None, None, r"has no output of 7 labels.* it has scores \[\?, 6\], embedding \[\?, 1\]"),
            (6, "embedding", None, r"--output: 'embedding' is no output \[batch, 6\]"),
            (6, "gone", None, "--output: 'gone' is no output"),
            (6, None, "scores", r"--frames: 'scores' is no output \[batch, frames, 6\]"),
        ],
    )
    def test_others_are_refused_with_a_list(self, graph, n_labels, clip, frames, complaint):
        foreign = graph()
        with pytest.raises(BirdinferError, match=complaint):
            choose_outputs(foreign, self.ask(foreign), n_labels, clip, frames)


class TestActivation:
    @pytest.mark.parametrize(
        ("ending", "activation", "reason"),
        [
            ("", "sigmoid", "logits .*--activation softmax"),
            ("Sigmoid", "none", "ends with sigmoid"),
            ("Softmax", "none", "ends with softmax"),
        ],
    )
    def test_is_measured(self, graph, ending, activation, reason):
        scores = ask(graph(ending=ending), probe_windows(HEARING)).alone["scores"]
        measured = measure_activation(Path("g.onnx"), [scores], "auto")
        assert measured.activation == activation
        assert re.search(reason, measured.reason)

    def test_is_what_the_user_says(self):
        logits, probabilities = np.array([[-3.0, 2.0]], np.float32), np.array([[0.1, 0.2]], np.float32)
        assert measure_activation(Path("g"), [logits], "softmax").activation == "softmax"
        assert "could be probabilities already" in measure_activation(Path("g"), [probabilities], "sigmoid").reason
        with pytest.raises(BundleError, match="no probabilities"):
            measure_activation(Path("g"), [logits], "none")

    def test_pitfall_6_nan_on_silence_is_refused(self, graph):
        scores = ask(graph(ending="Log"), probe_windows(HEARING)).alone["scores"]
        with pytest.raises(BundleError, match="answers NaN or Inf"):
            measure_activation(Path("g.onnx"), [scores], "auto")


def test_pitfall_1_scores_that_depend_on_their_company_are_refused(graph):
    answers = ask(graph(company=True), probe_windows(HEARING))
    with pytest.raises(BundleError, match="otherwise in company than alone"):
        check_company(Path("g.onnx"), answers, Outputs("scores"))
    alone = ask(graph((1, 160_000), company=True), probe_windows(HEARING))
    check_company(Path("g.onnx"), alone, Outputs("scores"))


def test_a_graph_that_fails_on_the_length_says_what_to_do(graph):
    foreign = graph(("batch", "samples"))
    wrong = graph(("batch", 160_000), frames=True)
    assert hearing_of(foreign, 32_000, 3.0) == WaveformConfig(AudioConfig(), WindowConfig(3.0))
    with pytest.raises(BundleError, match=r"cannot be run on a waveform .* - see --window and --sample-rate"):
        wrong.run(np.zeros((1, 1_000), np.float32), 1)
