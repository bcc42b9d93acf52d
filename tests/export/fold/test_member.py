import numpy as np
import pytest
from external_graphs import write_external_graph, write_list
from front_ends import N_LABELS, RATE, SAMPLES, sounds, write_front_end
from make_bundles import write_sound

from birdinfer import Bundle, Predictor
from birdinfer.export.adopt import GraphChanges, adopt_model
from birdinfer.export.fold import member as home
from birdinfer.export.fold.member import fold_member
from birdinfer.inference.bundle import file_sha256
from birdinfer.inference.external.add_model import AddOptions

OPTIONS = AddOptions(sample_rate=RATE, window_seconds=SAMPLES / RATE)


@pytest.fixture
def bundle(tmp_path):
    """Adopt a graph with a front end, as it is."""

    def make(kind="stft", **more):
        labels = write_list(tmp_path / "labels.txt", *(f"bird{number}" for number in range(N_LABELS)))
        graph = write_front_end(tmp_path / "g.onnx", kind, **more)
        adopt_model(graph, labels, tmp_path / "bundle", OPTIONS, GraphChanges(fold=False))
        return tmp_path / "bundle"

    return make


def times(factor):
    """Speeds as if they had been measured."""
    return lambda old, new, outputs, windows: (100.0, factor * 100.0)


def test_fold_member_keeps_what_is_faster(bundle, tmp_path):
    folder = bundle()
    write_sound(tmp_path / "a.wav", sounds(2).ravel(), rate=RATE, subtype="FLOAT")
    before = Predictor(Bundle.load(folder)).predict(tmp_path / "a.wav")
    original = file_sha256(folder / "g.onnx")
    result = fold_member(folder, "g", speeds=times(1.5))
    assert result.is_kept
    assert result.line.startswith("front end: folded into 1 fast Fourier transform, 1.50 times as fast, largest differ")
    (member,) = Bundle.load(folder).manifest.members
    graph = member.graphs["fp32"]
    assert (graph.file, graph.original_sha256) == ("g-folded.onnx", original)
    assert sorted(path.name for path in folder.iterdir()) == ["g-folded.onnx", "manifest.json"]
    np.testing.assert_allclose(Predictor(Bundle.load(folder)).predict(tmp_path / "a.wav"), before, atol=1e-4)


def unchanged(folder, before):
    return {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_fold_member_leaves_what_is_not_faster(bundle):
    folder = bundle()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = fold_member(folder, "g", speeds=times(1.01))
    assert result == (False, "front end: left as it is, folded into 1 fast Fourier transform it is 1.01 times as fast")
    assert unchanged(folder, before)


def test_fold_member_leaves_what_scores_otherwise(bundle, monkeypatch):
    folder = bundle()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(home, "MAX_DIFFERENCE", -1.0)
    result = fold_member(folder, "g", speeds=times(2))
    assert (result.is_kept, "left as it is, for folded it differs by" in result.line) == (False, True)
    assert unchanged(folder, before)


def test_fold_member_measures_both_in_turns(bundle, monkeypatch):
    monkeypatch.setattr(home, "_SECONDS", 0.01)
    folder = bundle("matmul", pad="reflect")
    assert "times as fast" in fold_member(folder, "g").line


def test_adopt_model_folds_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "LEAST_GAIN", 0)
    monkeypatch.setattr(home, "_SECONDS", 0.01)
    labels = write_list(tmp_path / "labels.txt", *(f"bird{number}" for number in range(N_LABELS)))
    graph = write_front_end(tmp_path / "g.onnx", "dft")
    added = adopt_model(graph, labels, tmp_path / "bundle", OPTIONS)
    assert added.member.graphs["fp32"].file == "g-folded.onnx"
    assert added.notes[-1].startswith("front end: folded")


def test_adopt_model_says_nothing_where_there_is_nothing_to_fold(tmp_path):
    labels = write_list(tmp_path / "labels.txt", *"abcdef")
    added = adopt_model(write_external_graph(tmp_path / "g.onnx", 6), labels, tmp_path / "bundle", AddOptions())
    assert not any("front end" in note for note in added.notes)


def test_a_folded_graph_compiles_in_openvino(bundle):
    """It reads no STFT of a signal with three axes."""
    openvino = pytest.importorskip("openvino")
    folder = bundle("stft of 3 axes")
    with pytest.raises(RuntimeError):
        openvino.Core().compile_model(str(folder / "g.onnx"), "CPU")
    fold_member(folder, "g", speeds=times(2))
    openvino.Core().compile_model(str(folder / "g-folded.onnx"), "CPU")
