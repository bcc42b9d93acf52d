import subprocess
import sys

import numpy as np
import onnx
import pytest
from external_graphs import N_FRAMES, loudness_logits, write_external_graph, write_list
from make_bundles import LABELS, tone, write_bundle, write_sound
from onnx import TensorProto, helper, numpy_helper

from birdinfer import Bundle, Predictor
from birdinfer.config import AggregationConfig
from birdinfer.errors import BirdinferError, BundleError, ConfigError, LabelError, OutputError
from birdinfer.inference.activation import activate
from birdinfer.inference.external import add_model as home
from birdinfer.inference.external import write_member
from birdinfer.inference.external.add_model import AddOptions, add_model
from birdinfer.postprocess.config import PostConfig

GRAPH_LABELS = ("stranger", "1161364", "Homo sapiens", "comcuc", "0012", "another stranger")
"""Three labels of the bundle in another order, among three that it does not have; 47158son16 is not known."""
KNOWN = {"comcuc": 3, "0012": 4, "1161364": 1}


@pytest.fixture
def labels(tmp_path):
    return write_list(tmp_path / "labels.txt", *GRAPH_LABELS)


@pytest.fixture
def graph(tmp_path):
    """Write an external graph."""
    return lambda *options, **more: write_external_graph(tmp_path / "perch.onnx", len(GRAPH_LABELS), *options, **more)


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
    """The expected blend: two folds of weight 1, and the external member where it knows the label."""
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
    added = add_model(graph(ending=ending), labels, folder, AddOptions(weight=0.5))
    assert added.member.outputs.activation == activation
    assert added.member.label_columns == KNOWN
    assert added.unknown_labels == ("47158son16",)
    assert added.rules == {"label": 3}
    assert added.n_unused_columns == 3
    logits = loudness_logits(samples.reshape(3, -1), len(GRAPH_LABELS))
    scores = activate(logits, "softmax" if ending == "Softmax" else "sigmoid")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 0.5, KNOWN), atol=2e-5)


def test_softmax_of_logits_is_over_all_the_graphs_columns(graph, labels, folder, sound):
    path, samples = sound
    folds = predict(folder, path)
    add_model(graph(), labels, folder, AddOptions(activation="softmax"))
    scores = activate(loudness_logits(samples.reshape(3, -1), len(GRAPH_LABELS)), "softmax")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 1, KNOWN), atol=2e-5)


def test_a_member_of_another_rate_and_window(graph, labels, folder, tmp_path):
    """48 kHz and 3 s, as BirdNET 2.4, on files of 32 kHz and rows of 5 s."""
    steady = (0.4 * np.sin(2 * np.pi * 2_000 * np.arange(20 * 32_000) / 32_000)).astype(np.float32)
    write_sound(tmp_path / "steady.wav", steady, subtype="FLOAT")
    folds = predict(folder, tmp_path / "steady.wav")
    member = add_model(graph(("batch", 144_000)), labels, folder).member
    assert member.waveform.audio.sample_rate == 48_000
    assert member.aggregation == AggregationConfig(overlap="max"), "a call is in one of two windows of a row"
    scores = activate(loudness_logits(steady[None], len(GRAPH_LABELS)), "sigmoid").repeat(4, axis=0)
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
    add_model(graph(shape), labels, folder)
    scores = activate(loudness_logits(samples.reshape(3, -1), len(GRAPH_LABELS)), "sigmoid")
    found = Predictor(Bundle.load(folder), engine, post=PostConfig((1.0,))).predict(path)
    np.testing.assert_allclose(found, blend(folds, scores, 1, KNOWN), atol=2e-5)


def test_windows_are_scaled_to_a_peak_if_the_model_was_fed_so(graph, labels, folder, sound):
    path, samples = sound
    folds = predict(folder, path)
    member = add_model(graph(), labels, folder, AddOptions(peak=0.25)).member
    assert member.waveform.peak == 0.25
    windows = samples.reshape(3, -1)
    centered = windows - windows.mean(axis=1, keepdims=True)
    scaled = 0.25 * centered / np.abs(centered).max(axis=1, keepdims=True)
    scores = activate(loudness_logits(scaled, len(GRAPH_LABELS)), "sigmoid")
    np.testing.assert_allclose(predict(folder, path), blend(folds, scores, 1, KNOWN), atol=2e-5)
    silence = path.with_name("silence.wav")
    write_sound(silence, np.zeros(160_000, np.float32))
    assert np.isfinite(predict(folder, silence)).all()
    with pytest.raises(ConfigError, match="--peak: peak is 2"):
        add_model(graph(), labels, folder, AddOptions(peak=2.0, replace=True))


def test_free_length_and_overlap(graph, labels, folder, sound):
    member = add_model(
        graph(("batch", "samples")),
        labels,
        folder,
        AddOptions(sample_rate=32_000, window_seconds=5.0, overlap_seconds=2.5),
    ).member
    assert member.aggregation.stride_seconds == 2.5
    assert predict(folder, sound[0]).shape == (3, 4)


def test_frames_are_used_if_asked_for(graph, labels, folder, sound):
    path, _ = sound
    clip_alone = add_model(graph(frames=True), labels, folder).member
    assert (clip_alone.outputs.frames, clip_alone.aggregation.frame_share) == (None, 0)
    without = predict(folder, path)
    both = add_model(graph(frames=True), labels, folder, AddOptions(frames="frame_scores", replace=True)).member
    assert (both.outputs.clip, both.outputs.frames) == ("scores", "frame_scores")
    assert both.aggregation.frame_share == home.FRAME_SHARE
    assert np.abs(predict(folder, path) - without).max() > 1e-6


def test_its_entry_says_where_it_comes_from(graph, labels, folder):
    before = Bundle.load(folder).manifest
    add_model(graph(), labels, folder, AddOptions(name="perch_v2"))
    after = Bundle.load(folder).manifest
    assert (after.provenance, after.species, after.members[:2]) == (before.provenance, before.species, before.members)
    member = after.members[2]
    assert (member.name, member.backbone, member.graphs["fp32"].file) == ("perch_v2", "perch", "perch_v2.onnx")


def test_names_are_files(graph, labels, folder, tmp_path):
    spaced = write_external_graph(tmp_path / "Perch (v2) è.onnx", len(GRAPH_LABELS))
    assert add_model(spaced, labels, folder).member.name == "Perch_v2_"
    (folder / "perch.onnx").write_text("another file")
    assert add_model(graph(), labels, folder).member.graphs["fp32"].file == "perch-2.onnx"
    assert (folder / "perch.onnx").read_text() == "another file"


def test_a_namesake_gives_way_if_asked(graph, labels, folder):
    add_model(graph(), labels, folder)
    with pytest.raises(ConfigError, match="there is a member 'perch' already - choose another name, or give --replace"):
        add_model(graph(), labels, folder)
    add_model(graph(seed=1), labels, folder, AddOptions(replace=True, weight=2.0))
    members = Bundle.load(folder).manifest.members
    assert [(member.name, member.weight) for member in members] == [("fold0", 1), ("fold1", 1), ("perch", 2)]
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["fold0.onnx", "fold1.onnx", "perch-2.onnx"]


class TestNewBundle:
    def test_a_bundle_of_an_external_graph_alone_predicts(self, graph, labels, sound, tmp_path):
        path, samples = sound
        added = add_model(graph(), labels, tmp_path / "exports" / "perch")
        assert added.is_new_bundle
        bundle = Bundle.load(tmp_path / "exports" / "perch")
        assert bundle.labels == GRAPH_LABELS
        assert bundle.manifest.name == "perch"
        assert bundle.manifest.provenance.run == "adopted"
        assert bundle.manifest.members[0].label_columns is None
        found = Predictor(bundle, post=PostConfig((1.0,))).predict(path)
        expected = activate(loudness_logits(samples.reshape(3, -1), len(GRAPH_LABELS)), "sigmoid")
        np.testing.assert_allclose(found, expected, atol=2e-5)

    def test_fallback_is_what_it_says_when_nothing_calls(self, graph, labels, tmp_path):
        add_model(graph(), labels, tmp_path / "new")
        quiet = np.stack([np.zeros(160_000), np.full(160_000, 0.01)])
        expected = activate(loudness_logits(quiet, len(GRAPH_LABELS)), "sigmoid").mean(axis=0)
        found = Bundle.load(tmp_path / "new").manifest.fallback_probabilities
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_knows_the_names_of_birdnets_list(self, graph, tmp_path):
        lines = [f"Avis {letter}_Bird {letter}" for letter in "abcdef"]
        add_model(graph(("batch", 144_000)), write_list(tmp_path / "l.txt", *lines), tmp_path / "new")
        species = Bundle.load(tmp_path / "new").manifest.species
        assert (species[0].label, species[0].scientific_name, species[0].common_name) == (lines[0], "Avis a", "Bird a")

    def test_an_empty_folder_will_do_and_another_will_not(self, graph, labels, tmp_path):
        (tmp_path / "empty").mkdir()
        add_model(graph(), labels, tmp_path / "empty")
        assert sorted(files_of(tmp_path / "empty")) == ["manifest.json", "perch.onnx"]
        with pytest.raises(OutputError, match="holds other things than a bundle"):
            add_model(graph(), labels, tmp_path)

    def test_of_frames_alone(self, graph, labels, sound, tmp_path):
        member = add_model(
            graph(clip=False, frames=True), labels, tmp_path / "new", AddOptions(frames="frame_scores")
        ).member
        assert (member.outputs.clip, member.aggregation.frame_share) == (None, 1.0)
        path, samples = sound
        found = Predictor(Bundle.load(tmp_path / "new"), post=PostConfig((1.0,))).predict(path)
        per_frame = activate(loudness_logits(samples.reshape(3 * N_FRAMES, -1), len(GRAPH_LABELS)), "sigmoid")
        np.testing.assert_allclose(found, per_frame.reshape(3, N_FRAMES, -1).max(axis=1), atol=2e-5)

    def test_a_place_that_takes_no_files(self, graph, labels):
        with pytest.raises(OutputError, match=r"lies in .*, a file - choose another place: --bundle"):
            add_model(graph(), labels, labels / "new")

    def test_refused_leaves_nothing(self, graph, labels, tmp_path, monkeypatch):
        monkeypatch.setattr(write_member, "Predictor", fail_with(KeyboardInterrupt))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt):
            add_model(graph(), labels, tmp_path / "new")
        assert [path.name for path in sorted(tmp_path.iterdir()) if path not in before] == ["perch.onnx"]


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("graph_options", "options", "error", "problem"),
    [
        ({"shape": ("batch", 96_000)}, {}, ConfigError, "give --sample-rate and --window"),
        ({"shape": ("batch", 1, 128, 320)}, {}, BundleError, "is no waveform"),
        ({"element": TensorProto.FLOAT16}, {}, BundleError, "a member takes float32"),
        ({"inputs": 2}, {}, BundleError, "takes 2 inputs"),
        ({"second_output": True}, {}, BundleError, "give --output"),
        ({"depends_on_batch": True}, {}, BundleError, "differently in a batch than alone"),
        ({"ending": "Log"}, {}, BundleError, "returns NaN or Inf"),
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
def test_every_refusal_is_one_line_and_leaves_the_bundle(graph, labels, folder, graph_options, options, error, problem):
    path, before = graph(**graph_options), files_of(folder)
    with pytest.raises(error, match=problem) as caught:
        add_model(path, labels, folder, AddOptions(**options))
    assert "\n" not in str(caught.value)
    assert files_of(folder) == before


def test_a_list_of_another_model_is_refused(graph, folder, tmp_path):
    before = files_of(folder)
    with pytest.raises(LabelError, match=r"none of 'a', 'b', 'c' \.\.\. is a label of the bundle, which are 'comcuc'"):
        add_model(graph(), write_list(tmp_path / "l.txt", *"abcdef"), folder)
    with pytest.raises(BundleError, match=r"no output of 2 labels, .* scores \[\?, 6\]"):
        add_model(graph(), write_list(tmp_path / "l.txt", "comcuc", "b"), folder)
    assert files_of(folder) == before


def test_weights_in_a_side_file_are_refused(graph, labels, folder, tmp_path):
    path = graph()
    # Shapes and axes must stay inside: 8 bytes and what Python holds around them are less than 50.
    onnx.save(
        onnx.load(path), tmp_path / "side.onnx", save_as_external_data=True, location="side.data", size_threshold=50
    )
    before = files_of(folder)
    with pytest.raises(BundleError, match=r"keeps its weights in a file beside it \(side.data\)") as caught:
        add_model(tmp_path / "side.onnx", labels, folder)
    assert "\n" not in str(caught.value)
    assert files_of(folder) == before
    assert "onnx.save(onnx.load('side.onnx'), 'one_file.onnx')" in str(caught.value)
    onnx.save(onnx.load(tmp_path / "side.onnx"), tmp_path / "one_file.onnx")
    add_model(tmp_path / "one_file.onnx", labels, folder)


def write_stubborn_graph(path, mixes):
    """A graph with an open batch that fails on more than one window, or gives one row for all of them."""
    n_labels, shape = len(GRAPH_LABELS), [1, -1 if mixes else 160_000]
    nodes = [
        helper.make_node("Reshape", ["waveform", "one"], ["row"]),
        helper.make_node("ReduceMax", ["row", "last"], ["loudest"], keepdims=1),
        helper.make_node("Mul", ["loudest", "slope"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 160_000])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", n_labels])],
        [numpy_helper.from_array(np.array(shape), "one"), numpy_helper.from_array(np.array([1]), "last"),
         numpy_helper.from_array(np.linspace(-2, 2, n_labels, dtype=np.float32), "slope")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("mixes", [False, True])
def test_a_graph_of_one_window_inside_gets_one_a_call(labels, folder, sound, tmp_path, capfd, mixes, engine):
    pytest.importorskip(engine)
    path, samples = sound
    folds = predict(folder, path)
    added = add_model(write_stubborn_graph(tmp_path / "stubborn.onnx", mixes), labels, folder)
    assert added.member.batch == Bundle.load(folder).manifest.members[-1].batch == "one"
    assert "takes one window a call, although its batch is open" in added.notes
    logits = samples.reshape(3, -1).max(axis=1)[:, None] * np.linspace(-2, 2, len(GRAPH_LABELS), dtype=np.float32)
    found = Predictor(Bundle.load(folder), engine).predict(path)
    np.testing.assert_allclose(found, blend(folds, activate(logits, "sigmoid"), 1, KNOWN), atol=2e-5)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime has said nothing of its own


def test_a_graph_of_any_batch_is_stated_as_one(graph, labels, folder):
    assert add_model(graph(), labels, folder).member.batch == "any"


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.FLOAT])
def test_outputs_that_are_no_scores_are_passed_over(labels, folder, tmp_path, kind):
    """Texts, and one number for all windows."""
    one = helper.make_node("ReduceMax", ["waveform"], ["y"], keepdims=0)
    texts = helper.make_node("StringConcat", ["word", "word"], ["y"])
    graph = helper.make_graph(
        [texts if kind == TensorProto.STRING else one], "g",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, 160_000])],
        [helper.make_tensor_value_info("y", kind, [1, 6] if kind == TensorProto.STRING else [])],
        [helper.make_tensor("word", TensorProto.STRING, [1, 6], [b"bird"] * 6)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "g.onnx")
    with pytest.raises(BundleError, match="has no output of 6 labels, the number in the list - it has y"):
        add_model(tmp_path / "g.onnx", labels, folder)


@pytest.mark.parametrize("label", ["row_id", "a;b", "a\x07b", "a,b", "e\u0301"])
def test_a_new_bundle_obeys_the_law_of_labels(graph, tmp_path, label):
    listed = write_list(tmp_path / "l.txt", *GRAPH_LABELS[1:], label)
    with pytest.raises(LabelError, match=r"l\.txt: line 6: label "):
        add_model(graph(), listed, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_processes_that_change_a_bundle_at_once_wait_for_each_other(graph, labels, folder, tmp_path):
    """Three that add a member and one that stores a setting: all four stand in the manifest afterwards."""
    path = graph()
    adopt = ("adopt", path, "--labels", labels, "--bundle", folder, "--name")
    commands = [(*adopt, f"m{index}") for index in range(3)] + [("set", folder, "--blend", "rms")]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "birdinfer", "bundle", *map(str, command)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for command in commands
    ]  # fmt: skip
    ends = [(each.communicate(timeout=200)[1], each.returncode) for each in running]
    assert [code for _, code in ends] == [0] * 4, ends
    manifest = Bundle.load(folder).manifest
    assert sorted(member.name for member in manifest.members) == ["fold0", "fold1", "m0", "m1", "m2"]
    assert manifest.blend.how == "rms"
    assert not list(tmp_path.glob(".*.lock"))


class TestKilled:
    """Whatever fails, the old bundle is byte for byte as it was."""

    @pytest.mark.parametrize(
        ("module", "step"),
        [
            (home, "file_sha256"),
            (home, "try_out"),
            (home, "_with_member"),
            (write_member, "Predictor"),
            (write_member, "save_manifest"),
        ],
    )
    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full"), BundleError("x", "y")])
    def test_before_the_manifest(self, graph, labels, folder, monkeypatch, module, step, error):
        path, before = graph(), files_of(folder)
        monkeypatch.setattr(module, step, fail_with(error))
        with pytest.raises((KeyboardInterrupt, OSError, BundleError)):
            add_model(path, labels, folder)
        assert files_of(folder) == before

    def test_after_the_manifest(self, graph, labels, folder, monkeypatch):
        path, before, load = graph(), files_of(folder), Bundle.load
        loads = []

        def load_once(folder):
            loads.append(folder)
            return load(folder) if len(loads) == 1 else fail_with(BundleError(folder, "is bad"))()

        monkeypatch.setattr(home.Bundle, "load", load_once)
        with pytest.raises(BundleError, match="is bad"):
            add_model(path, labels, folder)
        assert files_of(folder) == before

    def test_between_copy_and_manifest_the_old_bundle_is_valid(self, graph, labels, folder, monkeypatch):
        """As if the power went: what no clean-up has touched must load, too."""
        path, seen = graph(), []

        def look(folder, manifest):
            seen.append(Bundle.load(folder).manifest)
            raise KeyboardInterrupt

        monkeypatch.setattr(home, "write_manifest", look)
        with pytest.raises(KeyboardInterrupt):
            add_model(path, labels, folder)
        assert [member.name for member in seen[0].members] == ["fold0", "fold1"]

    def test_an_engine_that_stumbles_is_named(self, graph, labels, folder, monkeypatch):
        path = graph()
        monkeypatch.setattr(write_member, "Predictor", fail_with(RuntimeError("reshape\nfailed")))
        with pytest.raises(BirdinferError, match=r"does not run as a member \(reshape failed\)"):
            add_model(path, labels, folder)


class TestOwnSpecies:
    def test_are_those_of_a_list(self, graph, labels, sound, tmp_path):
        """Those that the graph does not know get 0, and names and classes are the list's."""
        rows = (
            "primary_label,scientific_name,class_name\n0012,Rana x,Amphibia\nnew1,Avis nova,Aves\ncomcuc,Cuculus,Aves\n"
        )
        taxonomy = tmp_path / "taxonomy.csv"
        taxonomy.write_text(rows)
        added = add_model(graph(), labels, tmp_path / "own", AddOptions(species_list=taxonomy))
        bundle = Bundle.load(tmp_path / "own")
        assert bundle.labels == ("0012", "new1", "comcuc")
        assert bundle.manifest.species[0].class_name == "Amphibia"
        assert added.unknown_labels == ("new1",)
        scores = loudness_logits(sound[1].reshape(3, -1), len(GRAPH_LABELS))
        expected = activate(scores.astype(np.float32), "sigmoid")
        found = predict(tmp_path / "own", sound[0])
        np.testing.assert_allclose(found[:, [0, 2]], expected[:, [4, 3]], atol=1e-5)
        assert (found[:, 1] == 0).all()

    def test_leave_out_columns_without_a_label(self, graph, tmp_path):
        codes = write_list(
            tmp_path / "codes.csv", "ebird2021", "eurbla", "no_ebird_code", "gretit1", "no_ebird_code", "a", "b"
        )
        add_model(graph(), codes, tmp_path / "own")
        manifest = Bundle.load(tmp_path / "own").manifest
        assert manifest.members[0].label_columns == {"eurbla": 0, "gretit1": 2, "a": 4, "b": 5}
        assert len(manifest.fallback_probabilities) == 4

    def test_cannot_be_changed_in_a_bundle_that_is_there(self, graph, labels, folder):
        with pytest.raises(ConfigError, match="--species: the bundle has its species already"):
            add_model(graph(), labels, folder, AddOptions(species_list=labels))

    def test_that_are_missing_get_the_highest_score_of_their_genus(self, graph, tmp_path, sound):
        """Two columns of a genus, and the bundle's species of it is neither; another genus is not known at all."""
        listed = ["Turdus merula", "Turdus iliacus", "Parus major", "Strix aluco", "Picus viridis", "Noise"]
        names = write_list(tmp_path / "names.txt", *listed)
        rows = ["primary_label,scientific_name", "rinouz1,Turdus torquatus", "tawowl1,Strix aluco", "new1,Nova avis"]
        options = AddOptions(species_list=write_list(tmp_path / "t.csv", *rows), missing_species="genus")
        added = add_model(graph(), names, tmp_path / "own", options)
        assert (added.genus_labels, added.unknown_labels) == (("rinouz1",), ("new1",))
        assert added.member.label_columns == {"tawowl1": 3, "rinouz1": (0, 1)}
        scores = activate(loudness_logits(sound[1].reshape(3, -1), 6).astype(np.float32), "sigmoid")
        expected = np.stack([scores[:, :2].max(axis=1), scores[:, 3], np.zeros(3)], axis=1)
        np.testing.assert_allclose(predict(tmp_path / "own", sound[0]), expected, atol=1e-5)
        alone = Bundle.load(tmp_path / "own").with_species(["rinouz1"])
        np.testing.assert_allclose(Predictor(alone).predict(sound[0]), expected[:, :1], atol=1e-5)


def test_rows_merge_and_smoothing_of_a_new_bundle(graph, labels, folder, tmp_path):
    options = AddOptions(row_seconds=10.0, merge="mean", smoothing_kernel=(0.25, 0.5, 0.25))
    manifest = Bundle.load(add_model(graph(), labels, tmp_path / "new", options).folder).manifest
    assert (manifest.rows.window_seconds, manifest.post.smoothing_kernel) == (10.0, (0.25, 0.5, 0.25))
    assert manifest.members[0].aggregation.overlap == "mean"
    for name, value, option in (("row_seconds", 10.0, "rows"), ("smoothing_kernel", (1.0,), "smooth")):
        with pytest.raises(ConfigError, match=f"--{option}: the bundle has its {option} already"):
            add_model(graph(), labels, folder, AddOptions(**{name: value}))
