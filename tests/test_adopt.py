import numpy as np
import onnx
import pytest
from foreign_graphs import N_FRAMES, loudness_logits, write_foreign_graph, write_list
from making import LABELS, tone, write_bundle, write_sound
from onnx import TensorProto

from birdinfer import Bundle, Predictor
from birdinfer import adopt as room
from birdinfer.adopt import adopt
from birdinfer.config import PostConfig, TimelineConfig
from birdinfer.errors import BirdinferError, BundleError, ConfigError, LabelError, OutputError
from birdinfer.scores import activate

FOREIGN = ("stranger", "1161364", "Homo sapiens", "comcuc", "0012", "another stranger")
"""Three labels of the bundle in another order, among three that it does not have; 47158son16 is not known."""
KNOWN = {"comcuc": 3, "0012": 4, "1161364": 1}


@pytest.fixture
def labels(tmp_path):
    return write_list(tmp_path / "labels.txt", *FOREIGN)


@pytest.fixture
def graph(tmp_path):
    """Write a foreign graph."""
    return lambda *options, **more: write_foreign_graph(tmp_path / "perch.onnx", len(FOREIGN), *options, **more)


@pytest.fixture
def folder(tmp_path):
    """A bundle of two folds, without smoothing."""
    return write_bundle(tmp_path / "bundle", kernel=(1.0,))


@pytest.fixture
def sound(tmp_path):
    """Three rows of 5 s, each louder than the last."""
    path = tmp_path / "sound.wav"
    samples = tone(15.0) * np.repeat(np.float32([0.2, 0.6, 1.2]), 5 * 32_000)
    write_sound(path, samples, subtype="FLOAT")
    return path, samples


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def predict(folder, path):
    return Predictor(Bundle.load(folder)).predict(path)


def blend(folds, scores, weight, columns):
    """What the whole must say: two folds of weight 1, and the adopted member where it knows the label."""
    expected = folds.copy()
    for index, label in enumerate(LABELS):
        if label in columns:
            expected[:, index] = (2 * folds[:, index] + weight * scores[:, columns[label]]) / (2 + weight)
    return expected


@pytest.mark.parametrize(("ending", "activation"), [("", "sigmoid"), ("Sigmoid", "none"), ("Softmax", "none")])
def test_the_bundle_says_the_weighted_mean_where_the_member_knows_a_label(
    graph, labels, folder, sound, ending, activation
):
    path, samples = sound
    folds = predict(folder, path)
    adopted = adopt(graph(ending=ending), labels, folder, weight=0.5)
    assert adopted.member.outputs.activation == activation
    assert adopted.member.label_columns == KNOWN
    assert adopted.unknown_labels == ("47158son16",)
    assert adopted.rules == {"label": 3}
    assert adopted.n_foreign == 3
    logits = loudness_logits(samples.reshape(3, -1), len(FOREIGN))
    scores = activate(logits, "softmax" if ending == "Softmax" else "sigmoid")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 0.5, KNOWN), atol=2e-5)


def test_softmax_of_logits_is_over_all_the_graphs_columns(graph, labels, folder, sound):
    path, samples = sound
    folds = predict(folder, path)
    adopt(graph(), labels, folder, activation="softmax")
    scores = activate(loudness_logits(samples.reshape(3, -1), len(FOREIGN)), "softmax")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 1, KNOWN), atol=2e-5)


def test_a_member_of_another_rate_and_window(graph, labels, folder, tmp_path):
    """48 kHz and 3 s, as BirdNET 2.4, on files of 32 kHz and rows of 5 s."""
    steady = (0.4 * np.sin(2 * np.pi * 2_000 * np.arange(20 * 32_000) / 32_000)).astype(np.float32)
    write_sound(tmp_path / "steady.wav", steady, subtype="FLOAT")
    folds = predict(folder, tmp_path / "steady.wav")
    member = adopt(graph(("batch", 144_000)), labels, folder).member
    assert member.waveform.audio.sample_rate == 48_000
    assert member.timeline == TimelineConfig()
    scores = activate(loudness_logits(steady[None], len(FOREIGN)), "sigmoid").repeat(4, axis=0)
    found = predict(folder, tmp_path / "steady.wav")
    assert found.shape == (4, 4)
    # Not the last row: its last window reaches beyond the file, where there is silence.
    np.testing.assert_allclose(found[:3], blend(folds, scores, 1, KNOWN)[:3], atol=5e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 160_000),
        (4, 160_000),
        ("batch", 1, 160_000),
        (1, 1, 160_000),
    ],
)
def test_fixed_batches_and_a_channel_axis(graph, labels, folder, sound, shape, engine):
    pytest.importorskip(engine)
    path, samples = sound
    folds = predict(folder, path)
    adopt(graph(shape), labels, folder)
    scores = activate(loudness_logits(samples.reshape(3, -1), len(FOREIGN)), "sigmoid")
    found = Predictor(Bundle.load(folder), engine, post=PostConfig((1.0,))).predict(path)
    np.testing.assert_allclose(found, blend(folds, scores, 1, KNOWN), atol=2e-5)


def test_windows_are_scaled_to_a_peak_if_the_model_was_fed_so(graph, labels, folder, sound):
    path, samples = sound
    folds = predict(folder, path)
    member = adopt(graph(), labels, folder, peak=0.25).member
    assert member.waveform.peak == 0.25
    windows = samples.reshape(3, -1)
    centred = windows - windows.mean(axis=1, keepdims=True)
    scaled = 0.25 * centred / np.abs(centred).max(axis=1, keepdims=True)
    scores = activate(loudness_logits(scaled, len(FOREIGN)), "sigmoid")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 1, KNOWN), atol=2e-5)
    silence = path.with_name("silence.wav")
    write_sound(silence, np.zeros(160_000, np.float32))
    assert np.isfinite(predict(folder, silence)).all()
    with pytest.raises(ConfigError, match="--peak: peak is 2"):
        adopt(graph(), labels, folder, peak=2.0, replace=True)


def test_free_length_and_overlap(graph, labels, folder, sound):
    member = adopt(
        graph(("batch", "samples")), labels, folder, sample_rate=32_000, window_seconds=5.0, overlap_seconds=2.5
    ).member
    assert member.timeline.stride_seconds == 2.5
    assert predict(folder, sound[0]).shape == (3, 4)


def test_frames_are_used_if_asked_for(graph, labels, folder, sound):
    path, _ = sound
    clip_alone = adopt(graph(frames=True), labels, folder).member
    assert (clip_alone.outputs.frames, clip_alone.timeline.frame_share) == (None, 0)
    without = predict(folder, path)
    both = adopt(graph(frames=True), labels, folder, frames="frame_scores", replace=True).member
    assert (both.outputs.clip, both.outputs.frames) == ("scores", "frame_scores")
    assert both.timeline.frame_share == room.FRAME_SHARE
    assert np.abs(predict(folder, path) - without).max() > 1e-6


def test_its_entry_says_where_it_comes_from(graph, labels, folder):
    before = Bundle.load(folder).manifest
    adopt(graph(), labels, folder, name="perch_v2")
    after = Bundle.load(folder).manifest
    assert (after.provenance, after.species, after.members[:2]) == (before.provenance, before.species, before.members)
    member = after.members[2]
    assert (member.name, member.backbone, member.graphs["fp32"].file) == ("perch_v2", "perch", "perch_v2.onnx")


def test_names_are_files(graph, labels, folder, tmp_path):
    spaced = write_foreign_graph(tmp_path / "Perch (v2) è.onnx", len(FOREIGN))
    assert adopt(spaced, labels, folder).member.name == "Perch_v2_"
    (folder / "perch.onnx").write_text("somebody else's")
    assert adopt(graph(), labels, folder).member.graphs["fp32"].file == "perch-2.onnx"
    assert (folder / "perch.onnx").read_text() == "somebody else's"


def test_a_namesake_gives_way_if_asked(graph, labels, folder):
    adopt(graph(), labels, folder)
    with pytest.raises(ConfigError, match="there is a member 'perch' already - choose another name, or say --replace"):
        adopt(graph(), labels, folder)
    adopt(graph(seed=1), labels, folder, replace=True, weight=2.0)
    members = Bundle.load(folder).manifest.members
    assert [(member.name, member.weight) for member in members] == [("fold0", 1), ("fold1", 1), ("perch", 2)]
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["fold0.onnx", "fold1.onnx", "perch-2.onnx"]


class TestNewBundle:
    def test_of_a_foreign_graph_alone_predicts(self, graph, labels, sound, tmp_path):
        path, samples = sound
        adopted = adopt(graph(), labels, tmp_path / "exports" / "perch")
        assert adopted.is_new_bundle
        bundle = Bundle.load(tmp_path / "exports" / "perch")
        assert bundle.labels == FOREIGN
        assert bundle.manifest.name == "perch"
        assert bundle.manifest.provenance.run == "adopted"
        assert bundle.manifest.members[0].label_columns is None
        found = Predictor(bundle, post=PostConfig((1.0,))).predict(path)
        expected = activate(loudness_logits(samples.reshape(3, -1), len(FOREIGN)), "sigmoid")
        np.testing.assert_allclose(found, expected, atol=2e-5)

    def test_fallback_is_what_it_says_when_nothing_calls(self, graph, labels, tmp_path):
        adopt(graph(), labels, tmp_path / "new")
        quiet = np.stack([np.zeros(160_000), np.full(160_000, 0.01)])
        expected = activate(loudness_logits(quiet, len(FOREIGN)), "sigmoid").mean(axis=0)
        found = Bundle.load(tmp_path / "new").manifest.fallback_probabilities
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_knows_the_names_of_birdnets_list(self, graph, tmp_path):
        lines = [f"Avis {letter}_Bird {letter}" for letter in "abcdef"]
        adopt(graph(("batch", 144_000)), write_list(tmp_path / "l.txt", *lines), tmp_path / "new")
        species = Bundle.load(tmp_path / "new").manifest.species
        assert (species[0].label, species[0].scientific_name, species[0].common_name) == (lines[0], "Avis a", "Bird a")

    def test_an_empty_folder_will_do_and_another_will_not(self, graph, labels, tmp_path):
        (tmp_path / "empty").mkdir()
        adopt(graph(), labels, tmp_path / "empty")
        assert sorted(files_of(tmp_path / "empty")) == ["manifest.json", "perch.onnx"]
        with pytest.raises(OutputError, match="holds other things than a bundle"):
            adopt(graph(), labels, tmp_path)

    def test_of_frames_alone(self, graph, labels, sound, tmp_path):
        member = adopt(graph(clip=False, frames=True), labels, tmp_path / "new", frames="frame_scores").member
        assert (member.outputs.clip, member.timeline.frame_share) == (None, 1.0)
        path, samples = sound
        found = Predictor(Bundle.load(tmp_path / "new"), post=PostConfig((1.0,))).predict(path)
        per_frame = activate(loudness_logits(samples.reshape(3 * N_FRAMES, -1), len(FOREIGN)), "sigmoid")
        np.testing.assert_allclose(found, per_frame.reshape(3, N_FRAMES, -1).max(axis=1), atol=2e-5)

    def test_a_place_that_takes_no_files(self, graph, labels):
        with pytest.raises(OutputError, match=r"cannot be written .* - choose another place: --bundle"):
            adopt(graph(), labels, labels / "new")

    def test_refused_leaves_nothing(self, graph, labels, tmp_path, monkeypatch):
        monkeypatch.setattr(room, "Predictor", fail_with(KeyboardInterrupt))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt):
            adopt(graph(), labels, tmp_path / "new")
        assert [path.name for path in sorted(tmp_path.iterdir()) if path not in before] == ["perch.onnx"]


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("graph_options", "options", "error", "complaint"),
    [
        ({"shape": ("batch", 96_000)}, {}, ConfigError, "say --sample-rate and --window"),
        ({"shape": ("batch", 1, 128, 320)}, {}, BundleError, "is no waveform"),
        ({"element": TensorProto.FLOAT16}, {}, BundleError, "a member takes float32"),
        ({"inputs": 2}, {}, BundleError, "takes 2 inputs"),
        ({"second_output": True}, {}, BundleError, "say --output"),
        ({"company": True}, {}, BundleError, "otherwise in company than alone"),
        ({"ending": "Log"}, {}, BundleError, "answers NaN or Inf"),
        ({}, {"output": "gone"}, ConfigError, "'gone' is no output"),
        ({}, {"frames": "scores"}, ConfigError, "'scores' is no output"),
        ({}, {"activation": "none"}, BundleError, "which are no probabilities"),
        ({}, {"sample_rate": 48_000, "window_seconds": 3.0}, ConfigError, "makes 144000 samples"),
        ({}, {"overlap_seconds": 5.0}, ConfigError, "--overlap: 5 s, but the graph's windows last 5 s"),
        ({}, {"overlap_seconds": 4.99}, ConfigError, "--overlap: stride_seconds is"),
        ({}, {"weight": -1.0}, ConfigError, "--weight"),
        ({}, {"weight": float("nan")}, ConfigError, "--weight"),
        ({}, {"name": "../perch"}, ConfigError, "--name: '../perch' cannot name a file"),
        ({}, {"name": "fold0"}, ConfigError, "there is a member 'fold0' already"),
    ],
)
def test_every_refusal_is_one_line_and_leaves_the_bundle(
    graph, labels, folder, graph_options, options, error, complaint
):
    path, before = graph(**graph_options), files_of(folder)
    with pytest.raises(error, match=complaint) as caught:
        adopt(path, labels, folder, **options)
    assert "\n" not in str(caught.value)
    assert files_of(folder) == before


def test_a_list_of_another_model_is_refused(graph, folder, tmp_path):
    before = files_of(folder)
    with pytest.raises(LabelError, match=r"none of 'a', 'b', 'c' \.\.\. is a label of the bundle, which are 'comcuc'"):
        adopt(graph(), write_list(tmp_path / "l.txt", *"abcdef"), folder)
    with pytest.raises(BundleError, match=r"no output of 2 labels, .* scores \[\?, 6\]"):
        adopt(graph(), write_list(tmp_path / "l.txt", "comcuc", "b"), folder)
    assert files_of(folder) == before


def test_weights_in_a_side_file_are_refused(graph, labels, folder, tmp_path):
    path = graph()
    # Shapes and axes must stay inside: 8 bytes and what Python holds around them are less than 50.
    onnx.save(
        onnx.load(path), tmp_path / "side.onnx", save_as_external_data=True, location="side.data", size_threshold=50
    )
    before = files_of(folder)
    with pytest.raises(BundleError, match="keeps its weights in a file beside it") as caught:
        adopt(tmp_path / "side.onnx", labels, folder)
    assert "\n" not in str(caught.value)
    assert files_of(folder) == before


class TestKilled:
    """Whatever fails, the old bundle is byte for byte as it was."""

    @pytest.mark.parametrize("step", ["file_sha256", "Predictor", "save_manifest", "_try_out", "_with_member"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full"), BundleError("x", "y")])
    def test_before_the_manifest(self, graph, labels, folder, monkeypatch, step, error):
        path, before = graph(), files_of(folder)
        monkeypatch.setattr(room, step, fail_with(error))
        with pytest.raises((KeyboardInterrupt, OSError, BundleError)):
            adopt(path, labels, folder)
        assert files_of(folder) == before

    def test_after_the_manifest(self, graph, labels, folder, monkeypatch):
        path, before, load = graph(), files_of(folder), Bundle.load
        loads = []

        def load_once(folder):
            loads.append(folder)
            return load(folder) if len(loads) == 1 else fail_with(BundleError(folder, "is bad"))()

        monkeypatch.setattr(room.Bundle, "load", load_once)
        with pytest.raises(BundleError, match="is bad"):
            adopt(path, labels, folder)
        assert files_of(folder) == before

    def test_between_copy_and_manifest_the_old_bundle_is_valid(self, graph, labels, folder, monkeypatch):
        """As if the power went: what no clean-up has touched must load, too."""
        path, seen = graph(), []

        def look(folder, manifest):
            seen.append(Bundle.load(folder).manifest)
            raise KeyboardInterrupt

        monkeypatch.setattr(room, "_write_manifest", look)
        with pytest.raises(KeyboardInterrupt):
            adopt(path, labels, folder)
        assert [member.name for member in seen[0].members] == ["fold0", "fold1"]

    def test_an_engine_that_stumbles_is_named(self, graph, labels, folder, monkeypatch):
        path = graph()
        monkeypatch.setattr(room, "Predictor", fail_with(RuntimeError("reshape\nfailed")))
        with pytest.raises(BirdinferError, match=r"does not run as a member \(reshape failed\)"):
            adopt(path, labels, folder)
