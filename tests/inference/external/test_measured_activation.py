import re
from pathlib import Path

import numpy as np
import pytest
from external_graphs import write_external_graph

from birdinfer.config import AudioConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BundleError
from birdinfer.inference.external.known_models import find_model
from birdinfer.inference.external.measured_activation import measure_activation
from birdinfer.inference.external.onnx_probe import open_external_graph, probe

WAVEFORM = WaveformConfig(AudioConfig(), WindowConfig())
MANY = 200


@pytest.fixture
def graph(tmp_path):
    """Write and open a graph."""
    return lambda **more: open_external_graph(write_external_graph(tmp_path / "g.onnx", 6, **more))


class TestActivation:
    @pytest.mark.parametrize(
        ("ending", "activation", "reason"),
        [
            ("", "sigmoid", "logits .*--activation softmax"),
            ("Sigmoid", "none", "ends with sigmoid"),
            ("Softmax", "none", "ends with softmax"),
        ],
    )
    def test_activation_is_measured(self, graph, ending, activation, reason):
        scores = probe(graph(ending=ending), WAVEFORM).alone["scores"]
        measured = measure_activation(Path("g.onnx"), [scores], "auto")
        assert measured.activation == activation
        assert re.search(reason, measured.reason)

    def test_activation_is_what_the_user_requests(self):
        logits, probabilities = np.array([[-3.0, 2.0]], np.float32), np.array([[0.1, 0.2]], np.float32)
        assert measure_activation(Path("g"), [logits], "softmax").activation == "softmax"
        assert "could be probabilities already" in measure_activation(Path("g"), [probabilities], "sigmoid").reason
        with pytest.raises(BundleError, match="no probabilities"):
            measure_activation(Path("g"), [logits], "none")

    def test_pitfall_6_nan_on_silence_is_refused(self, graph):
        scores = probe(graph(ending="Log"), WAVEFORM).alone["scores"]
        with pytest.raises(BundleError, match="returns NaN or Inf"):
            measure_activation(Path("g.onnx"), [scores], "auto")

    def test_values_that_can_be_neither_are_refused(self):
        with pytest.raises(BundleError, match=r"from 0 to 3, which are neither logits nor probabilities - .*--output"):
            measure_activation(Path("g"), [np.array([[0.0, 3.0]], np.float32)], "auto")

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.02, 0.5])
    def test_a_network_that_finds_species_in_noise_is_refused(self, share):
        """Pitfall: logits of a softmax under a sigmoid; half of the species are "over 0.5" on noise."""
        logits = np.full((6, MANY), -3.0, np.float32)
        logits[2, : round(share * MANY)] = 1
        if share > 0.01:
            with pytest.raises(BundleError, match=f"scores {100 * share:.0f} % of its labels above 0.5 on noise"):
                measure_activation(Path("g"), [logits], "auto")
            assert measure_activation(Path("g"), [logits], "sigmoid").activation == "sigmoid"
        else:
            assert measure_activation(Path("g"), [logits], "auto").activation == "sigmoid"

    def test_calls_may_score_high(self):
        logits = np.full((6, MANY), -3.0, np.float32)
        logits[3:] = 5
        assert measure_activation(Path("g"), [logits], "auto").activation == "sigmoid"

    def test_what_is_known_of_a_model_is_taken(self):
        logits = np.random.default_rng(0).normal(0, 2, (6, MANY)).astype(np.float32)
        found = measure_activation(Path("g"), [logits], "auto", find_model("perch-v2"))
        assert found[0] == "sigmoid"
        assert found[2:] == (0.97, -10.0)
        assert "Perch v2: sigmoid, 0.97 x logit -10, as is known of it" in found.reason

    def test_a_request_comes_before_what_is_known(self):
        logits = np.random.default_rng(0).normal(0, 2, (6, MANY)).astype(np.float32)
        found = measure_activation(Path("g"), [logits], "softmax", find_model("perch-v2"))
        assert (found.activation, found.slope) == ("softmax", 1)

    def test_a_conversion_with_the_sigmoid_inside_gets_none(self):
        probabilities = np.random.default_rng(0).uniform(0, 0.4, (6, MANY)).astype(np.float32)
        assert measure_activation(Path("g"), [probabilities], "auto", find_model("birdnet-2.4")).activation == "none"
