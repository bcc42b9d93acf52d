import numpy as np
import pytest
from look_alikes import SHAPES, write_labels, write_look_alike
from make_bundles import write_sound

from birdinfer import Bundle, Predictor
from birdinfer.errors import ConfigError
from birdinfer.inference.external.add_model import add_model
from birdinfer.inference.external.known_models import find_model, known_models, recognise

LARGE = {"perch-v2", "birdnet-3.0", "birdnet-2.4"}
"""So many labels that the look-alike takes seconds to tens of them."""
FOUND = {
    # rate, window, peak, scores, embedding, activation, slope
    "birdnet-2.4": (48_000, 3.0, None, "output", None, "sigmoid", 1.0),
    "birdnet-3.0": (32_000, 3.0, None, "predictions", "embeddings", "none", 1.0),
    "perch-v2": (32_000, 5.0, 0.25, "label", "embedding", "sigmoid", 0.97),
    "nighthawk": (22_050, 1.0, None, "species", None, "sigmoid", 1.0),
}


def declared(model):
    _, _, shapes, _ = SHAPES[model]
    return {
        name: (None, *(None if isinstance(size, str) else size for size in shape)) for name, shape in shapes.items()
    }


@pytest.mark.parametrize("model", SHAPES)
def test_recognise_knows_each_by_its_outputs(model):
    assert recognise(declared(model), SHAPES[model][1]).name == model


@pytest.mark.parametrize(
    ("outputs", "n_samples"),
    [
        ({"scores": (None, 6)}, 144_000),
        ({"scores": (None, 6522)}, 160_000),
        ({"scores": (None, None)}, 144_000),
        ({"label": (None, 14795)}, 160_000),
        ({"label": (None, 14795, 1), "embedding": (None, 1536)}, 160_000),
        ({"predictions": (None, 11560), "embedding": (None, 1280)}, None),
        ({}, None),
    ],
)
def test_recognise_takes_no_other(outputs, n_samples):
    assert recognise(outputs, n_samples) is None


def test_recognise_passes_over_sizes_that_are_open():
    assert recognise({"label": (None, None), "embedding": (None, None)}, None).name == "perch-v2"


def test_every_model_says_where_it_comes_from_and_what_may_be_done():
    for model in known_models().values():
        assert model.page.startswith("https://")
        assert model.licence
        assert model.terms
        assert model.obstacle or model.file.url or model.package
        assert model.file.url.startswith("https://") or not model.file.url


def test_find_model_lists_what_is_known():
    with pytest.raises(ConfigError, match=r"'birdnet' is not known - known are birdnet-2\.4, "):
        find_model("birdnet")


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in FOUND]
)
def test_look_alikes_are_adopted_without_an_option(model, tmp_path):
    """True names, shapes and lists of labels; at most 1 % of the labels over 0.5 on noise."""
    graph = write_look_alike(model, tmp_path / "graph.onnx")
    added = add_model(graph, write_labels(model, tmp_path), tmp_path / "bundle")
    member = added.member
    rate, window, peak, scores, embedding, activation, slope = FOUND[model]
    assert (member.waveform.audio.sample_rate, member.waveform.window.window_seconds) == (rate, window)
    assert (member.waveform.peak, member.outputs.clip) == (peak, scores)
    assert (member.outputs.activation, member.outputs.slope) == (activation, slope)
    assert embedding in (None, member.outputs.embedding)
    assert any(find_model(model).licence in note for note in added.notes)
    sound = tmp_path / "noise.wav"
    write_sound(sound, 0.1 * np.random.default_rng(0).normal(size=5 * 32_000), subtype="FLOAT")
    probabilities = Predictor(Bundle.load(tmp_path / "bundle")).predict(sound)
    assert (probabilities > 0.5).mean() <= 0.01
