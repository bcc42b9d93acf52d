import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from fused_bundles import share_one_graph
from make_bundles import LABELS, write_linear_graph

from birdinfer import Bundle, Predictor
from birdinfer.config import AggregationConfig
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, LabelError, MissingExtraError
from birdinfer.inference import bundle as bundle_module
from birdinfer.inference.bundle import demo_bundle_path, file_sha256, overlapping, sharing


def edit(folder, change):
    """Change the manifest as a text editor would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_good_bundle_loads(bundle):
    loaded = Bundle.load(bundle)
    assert loaded.labels == LABELS
    assert [member.graphs["fp32"].file for member in loaded.manifest.members] == ["fold0.onnx", "fold1.onnx"]


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"is not a bundle \(no manifest.json\)"):
        Bundle.load(tmp_path)


def test_one_changed_byte_is_found(make_bundle):
    folder = make_bundle()
    graph = folder / "fold1.onnx"
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(BundleError, match=r"fold1.onnx: has changed \(sha256"):
        Bundle.load(folder)


def with_weights_beside(folder):
    """The bundle's first graph with its weights in w.bin, as the manifest states it; returns its path."""
    graph = folder / "fold0.onnx"
    model = onnx.load(graph)
    graph.unlink()
    onnx.save(model, graph, save_as_external_data=True, location="w.bin", size_threshold=50)
    edit(folder, put("members", 0, "graphs", "fp32", "sha256", value=file_sha256(graph)))
    return graph


@pytest.mark.parametrize("is_there", [True, False])
def test_weights_that_no_sha256_covers_are_refused_until_they_are_in_the_graph(make_bundle, is_there):
    folder = make_bundle()
    graph = with_weights_beside(folder)
    whole = onnx.load(graph)
    if not is_there:
        (folder / "w.bin").unlink()
    with pytest.raises(BundleError, match=r"fold0\.onnx: keeps weights in 'w\.bin', .* - save it as one file, "):
        Bundle.load(folder)
    onnx.save(whole, graph)
    edit(folder, put("members", 0, "graphs", "fp32", "sha256", value=file_sha256(graph)))
    Bundle.load(folder)


def test_a_pointer_of_git_lfs_is_named_instead_of_a_changed_graph(make_bundle):
    folder = make_bundle()
    (folder / "fold1.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BundleError, match=r"fold1\.onnx: is a Git LFS pointer, not the graph itself - git lfs pull"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "fold0.onnx"])
def test_a_file_that_cannot_be_read_is_one_line(make_bundle, monkeypatch, name):
    folder, open_it = make_bundle(), Path.open

    def refuse(path, *arguments, **options):
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return open_it(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BundleError, match=rf"{name}: cannot be read \(Permission denied\) - check its permissions"):
        Bundle.load(folder)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.parent.rmdir()])
def test_a_manifest_that_is_no_file_is_no_bundle(tmp_path, make):
    (tmp_path / "bundle").mkdir()
    make(tmp_path / "bundle" / "manifest.json")
    with pytest.raises(InputNotFoundError, match="is not a bundle"):
        Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("place", ["provenance", "post", "format"])
def test_a_manifest_that_is_nested_without_end_is_refused_in_one_line(make_bundle, place):
    folder = make_bundle()
    path = folder / "manifest.json"
    deep = "[" * 100_000 + "]" * 100_000
    path.write_text(f'{{"format": 2, "{place}": {{"recipe": {{"a": {deep}}}}},' + path.read_text().lstrip(" {"))
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("label", ["row_id", "a;b", "a\x07", " a", "e\u0301"])
def test_labels_obey_the_law_of_labels(make_bundle, label):
    folder = make_bundle()
    edit(folder, put("species", 1, "label", value=label))
    with pytest.raises(LabelError, match=r"manifest.json: label 2 \("):
        Bundle.load(folder)


def put(*keys, value):
    def change(manifest):
        place = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("extra", value=1), "unknown field `extra`"),
        (
            put("members", 0, "frontend", "mel", "bands", value=1),
            r"unknown field `bands` - at `\$.members.*frontend.mel`",
        ),
        (put("members", 0, "frontend", "mel", "n_mels", value=9999), "n_mels is 9999"),
        (put("members", 0, "frontend", value=None), "member 'fold0' needs one of frontend, waveform and spectrogram"),
        (put("members", 0, "waveform", value={}), "member 'fold0' needs one of frontend, waveform and spectrogram"),
        (put("members", 0, "outputs", value={"clip": None}), "outputs name neither clip nor frames"),
        (put("members", 0, "weight", value=-1), "weight -1"),
        (put("members", 0, "name", value="fold1"), "two members have one name"),
        (
            put("members", 0, "label_columns", value={"absent": 0}),
            "scores 'absent', which is not a label of the bundle",
        ),
        (put("members", 0, "label_columns", value={}), "label_columns needs at least one label"),
        (put("members", 0, "label_columns", value={"comcuc": -1}), "columns >= 0"),
        (put("members", 0, "timeline", value={"stride_seconds": 6.0}), "member 'fold0': "),
        (
            put("members", 0, "timeline", value={"frame_share": 0.5}),
            "frame_share is 0.5, but it has no frame-wise output",
        ),
        (
            put("members", 0, "outputs", value={"clip": None, "frames": "f"}),
            "frame_share is 0, but it has no clip-wise",
        ),
        (put("members", 0, "graphs", "int8", value={"file": "x.onnx", "sha256": ""}), "is missing from the bundle"),
        (put("post", "smoothing_kernel", value=[1, 1]), "smoothing_kernel"),
        (put("post", "steps", value=[{"step": "file_max", "power": -1}]), "power is -1"),
        (put("post", "steps", value=[{"step": "dream"}]), "dream"),
        (put("post", "steps", value=[{"step": "prior_shift", "table": "/etc/passwd"}]), "lies outside the bundle"),
        (put("post", "steps", value=[{"step": "prior_shift", "table": "../prior.csv"}]), "lies outside the bundle"),
        (put("blend", value={"how": "gate", "by": "absent", "threshold": 0.5}), "by 'absent', which is no member"),
        (put("blend", value={"how": "rank"}), "no group weighs anything"),
        (put("members", 0, "graphs", "fp32", "file", value="a\0b.onnx"), "lies outside the bundle"),
        (put("format", value=7), "format 7, known is 2"),
        (put("members", value=[]), "has no members"),
        (put("species", value=[]), "no label"),
        (put("species", 1, "label", value="comcuc"), "'comcuc' stands twice"),
        (put("fallback_probabilities", value=[0.1]), "fallback_probabilities has 1 values, labels 4"),
        (put("fallback_probabilities", value=[0.1, 1e300, 0.3, 0.4]), r"fallback_probabilities holds 1e\+300"),
        (put("fallback_probabilities", value=[0.1, -0.1, 0.3, 0.4]), "fallback_probabilities holds -0.1"),
        (put("members", 0, "graphs", "fp32", "file", value="../fold0.onnx"), "lies outside the bundle"),
        (put("members", 0, "graphs", "fp32", "file", value="/etc/passwd"), "lies outside the bundle"),
        (put("members", 0, "graphs", "fp32", "file", value="..\\fold0.onnx"), "lies outside the bundle"),
        (put("members", 0, "graphs", "fp32", "file", value="gone.onnx"), "is missing from the bundle"),
        (put("members", 0, "frontend", "mel", "hop_length", value=400), "another front end"),
        (put("members", 0, "frontend_fingerprint", value=[1.0]), "another front end"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused_in_one_line(make_bundle, change, problem):
    folder = make_bundle()
    edit(folder, change)
    with pytest.raises((BundleError, LabelError), match=problem) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_that_sum_to_nothing_are_refused(make_bundle):
    folder = make_bundle()
    edit(folder, lambda manifest: [member.update(weight=0) for member in manifest["members"]])
    with pytest.raises(BundleError, match="with a sum above 0"):
        Bundle.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"format": "one"}'])
def test_a_manifest_that_is_no_manifest_is_refused_in_one_line(make_bundle, text):
    folder = make_bundle()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest.json: ") as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)


def test_a_link_that_leaves_the_folder_is_refused(make_bundle, tmp_path):
    folder = make_bundle()
    shutil.move(folder / "fold0.onnx", tmp_path / "elsewhere.onnx")
    (folder / "fold0.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="lies outside"):
        Bundle.load(folder)


@pytest.mark.parametrize("labels", [("comcuc", "0012", "1161364", "other"), ("comcuc", "0012")])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_members_whose_labels_differ_are_refused(make_bundle, labels, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    folder = make_bundle()
    write_linear_graph(folder / "fold1.onnx", 1, labels)
    edit(folder, put("members", 1, "graphs", "fp32", "sha256", value=file_sha256(folder / "fold1.onnx")))
    with pytest.raises(BundleError, match=r"fold1.onnx: (was exported with other labels|scores 2 labels)"):
        Predictor(Bundle.load(folder), engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_that_is_none_is_refused(make_bundle, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    folder = make_bundle()
    (folder / "fold0.onnx").write_bytes(b"not a graph")
    edit(folder, put("members", 0, "graphs", "fp32", "sha256", value=file_sha256(folder / "fold0.onnx")))
    with pytest.raises(BundleError, match=r"fold0.onnx: (is damaged, or is no ONNX graph|cannot be loaded by)"):
        Predictor(Bundle.load(folder), engine)


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "cpu"), ("openvino", "openvino")])
def test_a_missing_engine_says_how_to_get_it(bundle, monkeypatch, engine, extra):
    import sys

    from birdinfer.inference.engines import openvino

    monkeypatch.setattr(openvino, "_core", openvino._core.__wrapped__)  # as in a process that has not used it
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingExtraError, match=rf"birdinfer\[{extra}\]"):
        Predictor(Bundle.load(bundle), engine)


def test_an_unknown_engine_names_the_known_ones(bundle):
    with pytest.raises(ValueError, match="'tensorrt' is not an engine - choose one of onnxruntime, openvino, cuda"):
        Predictor(Bundle.load(bundle), "tensorrt")


def test_the_demo_bundle_is_found_and_loads():
    loaded = Bundle.load(demo_bundle_path())
    assert len(loaded.labels) == 8
    assert sum(path.stat().st_size for path in loaded.folder.iterdir()) <= 3_000_000


def test_an_installation_without_a_demo_bundle_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("birdinfer.inference.bundle.__file__", str(tmp_path / "birdinfer" / "inference" / "bundle.py"))
    with pytest.raises(InputNotFoundError, match="has no demo - python train"):
        demo_bundle_path()


def test_fallback_is_per_species(bundle):
    np.testing.assert_allclose(Bundle.load(bundle).manifest.fallback_probabilities, [0.1, 0.2, 0.3, 0.4])


def test_overlap_changes_the_stride_and_nothing_else(bundle):
    aggregation = AggregationConfig(overlap="max", frame_share=0.5)
    assert overlapping(aggregation, 2.0, 5.0, "windows") == AggregationConfig(
        stride_seconds=3.0, overlap="max", frame_share=0.5
    )
    members = Bundle.load(bundle).with_overlap(2.5).manifest.members
    assert [member.aggregation for member in members] == [AggregationConfig(stride_seconds=2.5)] * 2


@pytest.mark.parametrize(
    ("overlap_seconds", "problem"),
    [
        (5.0, "--overlap: 5 s, but windows of member 'fold0' last 5 s - half a window is usual"),
        (-1.0, "--overlap: -1 s, but windows"),
        (float("nan"), "--overlap: nan s, but windows"),
        (4.99, "--overlap: stride_seconds is 0.01, allowed are 0.1 to 60 - half a window is usual"),
    ],
)
def test_an_overlap_that_is_not_possible_is_refused_in_one_line(bundle, overlap_seconds, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        Bundle.load(bundle).with_overlap(overlap_seconds)
    assert "\n" not in str(caught.value)


@pytest.fixture
def fused(make_bundle):
    """Three members in one graph."""
    return share_one_graph(make_bundle(members=3))


def test_a_graph_that_members_share_is_read_once(fused, monkeypatch):
    read = []
    real = bundle_module.file_sha256
    monkeypatch.setattr(bundle_module, "file_sha256", lambda path: read.append(path.name) or real(path))
    loaded = Bundle.load(fused)
    assert read == ["fused.onnx"]
    assert [[member.name for member in group] for group in sharing(loaded.manifest.members)] == [
        ["fold0", "fold1", "fold2"]
    ]


def test_a_shared_graph_that_one_member_knows_otherwise_is_refused(fused):
    edit(fused, put("members", 1, "graphs", "fp32", "sha256", value="0" * 64))
    with pytest.raises(BundleError, match=r"fused.onnx: has changed \(sha256"):
        Bundle.load(fused)


def own_int8(*members):
    """Give members an INT8 graph that no other member has: a copy of the shared one."""

    def change(manifest):
        for index in members:
            graphs = manifest["members"][index]["graphs"]
            graphs["int8"] = {**graphs["fp32"], "file": f"int8_{index}.onnx"}

    return change


def shared_int8(*members):
    def change(manifest):
        for index in members:
            graphs = manifest["members"][index]["graphs"]
            graphs["int8"] = {**graphs["fp32"], "file": "int8_0.onnx"}

    return change


@pytest.mark.parametrize("change", [own_int8(0, 1, 2), own_int8(1), shared_int8(0, 1)])
def test_a_bundle_is_fused_in_all_its_precisions_or_in_none(fused, change):
    """A member names its outputs once: in a file of its own they could not be called as in the shared one."""
    for index in range(3):
        shutil.copy(fused / "fused.onnx", fused / f"int8_{index}.onnx")
    edit(fused, change)
    with pytest.raises(BundleError, match=r"share fused.onnx, but not their graphs of every precision") as caught:
        Bundle.load(fused)
    assert "export it again, with or without --fuse" in str(caught.value)


def test_a_bundle_that_is_fused_in_every_precision_loads(fused):
    shutil.copy(fused / "fused.onnx", fused / "int8_0.onnx")
    edit(fused, shared_int8(0, 1, 2))
    assert len(Bundle.load(fused).manifest.members) == 3


def test_members_that_share_a_graph_take_the_same_windows(fused):
    edit(fused, put("members", 2, "timeline", value={"stride_seconds": 2.5}))
    with pytest.raises(BundleError, match=r"members 'fold0' and 'fold2' share fused.onnx, but take different windows"):
        Bundle.load(fused)
