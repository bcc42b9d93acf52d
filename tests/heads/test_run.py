"""From embeddings to a bundle: the packed graph scores as the head does in Python, and predicts like any other."""

import re
import shutil

import numpy as np
import onnx
import pytest
from external_graphs import write_external_graph, write_list
from fused_bundles import share_one_graph
from make_bundles import LABELS, SAMPLE_RATE, tone, write_bundle, write_sound
from onnx import TensorProto, helper, numpy_helper

from birdinfer.errors import BirdinferError
from birdinfer.heads import kinds, sequence
from birdinfer.heads.embed import let_embed
from birdinfer.heads.fitting import window_weights
from birdinfer.heads.kinds import KINDS, fit_heads
from birdinfer.heads.labels import read_labels
from birdinfer.heads.pack import own_logits
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.embeddings import read_embeddings
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.predictor import Predictor
from birdinfer.postprocess.config import PostConfig
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.species import Species


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(kinds, "_STEPS", 60)
    monkeypatch.setattr(sequence, "_EPOCHS", 1)
    monkeypatch.setattr(sequence, "_LEAST_STEPS", 30)
    monkeypatch.setattr(sequence, "_RATE", 1e-2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Tones: 15 clips of two windows, three species by their pitch."""
    folder = tmp_path_factory.mktemp("clips") / "train_audio"
    lines = ["filename,primary_label,group"]
    for number in range(15):
        label = ("low", "mid", "high")[number % 3]
        path = folder / label / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        hz = {"low": 600.0, "mid": 2_500.0, "high": 7_000.0}[label] * (1 + 0.01 * number)
        write_sound(path, tone(9.0, hz=hz, seed=number), SAMPLE_RATE)
        lines.append(f"{label}/{number}.wav,{label},g{number}")
    write_list(folder.parent / "train.csv", *lines)
    return folder


@pytest.fixture(scope="module")
def embedded_once(clips):
    """A bundle whose members give embeddings, and those of the clips."""
    folder = clips.parent
    bundle = write_bundle(folder / "encoder")
    assert set(let_embed(bundle)) == {"fold0", "fold1"}
    settings = PredictionSettings(output=folder / "scores.csv", embeddings=folder / "e")
    assert predict_to_csv(Bundle.load(bundle), [clips], settings).results
    return folder


@pytest.fixture
def embedded(embedded_once, tmp_path):
    """Both, a copy for each test."""
    for name in ("encoder", "e"):
        shutil.copytree(embedded_once / name, tmp_path / name)
    for info in (tmp_path / "e").glob("*/embeddings.json"):
        info.write_text(info.read_text().replace(str(embedded_once), str(tmp_path)))
    return tmp_path / "encoder"


def fit(birdinfer, clips, tmp_path, *options):
    folder, table = tmp_path / "e" / "fold0", clips.parent / "train.csv"
    return birdinfer("head", "fit", "--embeddings", folder, "--labels", table, "-o", tmp_path / "head", *options)


@pytest.mark.parametrize("kind", KINDS)
def test_head_is_a_bundle_that_scores_as_the_head_in_python(birdinfer, embedded, clips, tmp_path, kind):
    code, out, err = fit(birdinfer, clips, tmp_path, "--folds", "3", "--kind", kind)
    assert code == 0, err
    assert f"{kind} head, 3 species, from 15 clips and 30 windows" in out
    assert "top-1      1.000" in out
    loaded = Bundle.load(tmp_path / "head")
    assert loaded.labels == ("high", "low", "mid")
    found = read_embeddings(tmp_path / "e" / "fold0")
    labelled = read_labels(clips.parent / "train.csv", found)
    values, strength = found.values[labelled.windows].astype(np.float32), loaded.manifest.provenance.recipe["strength"]
    (head,) = fit_heads(kind, values, labelled.truth, window_weights(labelled.clips), strengths=[strength])
    predictor = Predictor(loaded, embeddings=True)
    for path in sorted(clips.rglob("*.wav"))[:4]:
        plain = head.predict(predictor.embed(path)["fold0"])
        assert np.abs(predictor.predict(path) - plain).max() < 1e-5
        assert loaded.labels[predictor.predict(path).mean(axis=0).argmax()] == path.parent.name


def test_head_with_softmax_sums_to_1(birdinfer, embedded, clips, tmp_path):
    code, out, err = fit(birdinfer, clips, tmp_path, "--activation", "softmax")
    assert code == 0, err
    assert "top-1      1.000" in out
    scores = Predictor(Bundle.load(tmp_path / "head")).predict(next(clips.rglob("*.wav")))
    assert np.allclose(scores.sum(axis=1), 1)


def test_head_drops_the_layer_that_it_replaces(birdinfer, embedded, clips, tmp_path):
    assert fit(birdinfer, clips, tmp_path)[0] == 0
    graph = onnx.load(tmp_path / "head" / "fold0.onnx").graph
    assert [node.op_type for node in graph.node] == ["ReduceMean", "Mul", "Mul", "Add", "LpNormalization", "Gemm"]
    assert "weights" not in {each.name for each in graph.initializer}


def test_head_fits_on_a_head(birdinfer, embedded, clips, tmp_path):
    assert fit(birdinfer, clips, tmp_path)[0] == 0
    again = tmp_path / "again"
    code, _, err = birdinfer(
        "predict", clips, "--bundle", tmp_path / "head", "-o", tmp_path / "s.csv", "--embeddings", again, "--quiet"
    )
    assert code == 0, err
    code, _, err = birdinfer(
        "head", "fit", "--embeddings", again, "--labels", clips.parent / "train.csv", "-o", tmp_path / "second"
    )
    assert code == 0, err
    one, other = (Predictor(Bundle.load(tmp_path / name)) for name in ("head", "second"))
    path = next(clips.rglob("*.wav"))
    assert np.allclose(one.predict(path), other.predict(path), atol=1e-4)


def test_embed_changes_no_score(birdinfer, embedded, clips, tmp_path):
    plain = Predictor(Bundle.load(write_bundle(tmp_path / "plain")))
    path = next(clips.rglob("*.wav"))
    assert np.array_equal(plain.predict(path), Predictor(Bundle.load(embedded)).predict(path))
    code, out, _ = birdinfer("bundle", "embed", embedded)
    assert (code, out) == (0, "fold0: has them, scaled\nfold1: has them, scaled\n")
    assert sorted(path.name for path in embedded.glob("*.onnx")) == ["fold0-embedding.onnx", "fold1-embedding.onnx"]


def test_embed_takes_members_that_share_a_graph(birdinfer, clips, tmp_path):
    bundle = share_one_graph(write_bundle(tmp_path / "fused"))
    path = next(clips.rglob("*.wav"))
    before = Predictor(Bundle.load(bundle)).predict(path)
    assert birdinfer("bundle", "embed", bundle)[0] == 0
    predictor = Predictor(Bundle.load(bundle), embeddings=True)
    assert np.array_equal(predictor.predict(path), before)
    assert {name: values.shape for name, values in predictor.embed(path).items()} == {
        "fold0": (2, 32),
        "fold1": (2, 32),
    }


@pytest.mark.parametrize("kind", ["gru", "attention"])
def test_sequence_head_is_a_bundle_like_any_other(birdinfer, embedded, clips, tmp_path, kind):
    """Packing holds its scores against those in Python; here the whole way, from a truth per window."""
    lines = ["row_id,high,low,mid"]
    for path in sorted(clips.rglob("*.wav")):
        name = path.relative_to(clips).with_suffix("").as_posix()
        present = ",".join(str(int(label == path.parent.name)) for label in ("high", "low", "mid"))
        lines += [f"{name}_{end},{present}" for end in (5, 10)]
    truth = write_list(tmp_path / "truth.csv", *lines)
    folder, head = tmp_path / "e" / "fold0", tmp_path / "head"
    options = ("--kind", kind, "--sequence", "3", "--folds", "3")
    code, out, err = birdinfer("head", "fit", "--embeddings", folder, "--labels", truth, "-o", head, *options)
    assert code == 0, err
    assert f"{kind} head, 3 species, from 30 windows" in out
    loaded = Bundle.load(head)
    assert loaded.manifest.members[0].sequence.n_windows == 3
    assert sorted(path.name for path in head.iterdir()) == ["fold0.onnx", "manifest.json", "sequence.onnx"]
    path = next(clips.rglob("high/*.wav"))
    assert Predictor(loaded).predict(path).shape == (2, 3)
    code, out, _ = birdinfer("bundle", "show", head)
    assert code == 0
    assert "head of 3 windows" in out


def test_own_logits_are_those_of_the_encoder(embedded, tmp_path):
    loaded = Bundle.load(embedded)
    member = loaded.manifest.members[0]
    own = own_logits(loaded, member, [Species("new"), Species(LABELS[2]), Species(LABELS[0])])
    assert own.columns.tolist() == [1, 2]
    path = tmp_path / "tone.wav"
    write_sound(path, tone(5.0), SAMPLE_RATE)
    predictor = Predictor(loaded.with_members(["fold0"]).with_scoring(Blend(), PostConfig((1.0,))), embeddings=True)
    logits = predictor.embed(path)["fold0"] @ own.weights + own.offsets
    assert np.allclose(sigmoid(logits), predictor.predict(path)[:, [2, 0]], atol=1e-6)


def test_auto_compares_kinds_and_says_whether_the_best_is_better(birdinfer, embedded, clips, tmp_path):
    code, out, err = fit(birdinfer, clips, tmp_path, "--kind", "auto", "--folds", "2")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines() if re.match("  (linear|mlp|prototypes) +[01]", line)] == [
        *KINDS
    ]
    assert re.search("  linear is taken, but mlp, prototypes may be as good", out)
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)


def test_species_of_one_group_are_named(birdinfer, embedded, clips, tmp_path):
    lines = (clips.parent / "train.csv").read_text().splitlines()
    few = [line for line in lines if ",high," not in line] + [line for line in lines if ",high," in line][:1]
    table = write_list(tmp_path / "few.csv", *few)
    folder = tmp_path / "e" / "fold0"
    code, out, err = birdinfer("head", "fit", "--embeddings", folder, "--labels", table, "-o", tmp_path / "head")
    assert code == 0, err
    assert "1 species are in one fold alone and not scored: high" in out
    assert "over 2 species" in out
    assert "top-1      1.000" in out  # without the clip of that species


def test_five_clips_a_species_work_and_say_how_sure_they_are(birdinfer, embedded, clips, tmp_path):
    table = (clips.parent / "train.csv").read_text().splitlines()
    few = write_list(tmp_path / "few.csv", *table[:16])
    folder = tmp_path / "e" / "fold0"
    code, out, err = birdinfer("head", "fit", "--embeddings", folder, "--labels", few, "-o", tmp_path / "head")
    assert code == 0, err
    assert re.search(r"macro AUC  1.000 \(95 %: 0.782 to 1.000\) over 3 species, 5 folds", out)
    assert "half of the species have at most 5 groups of recordings" in out


def write_encoder(path, *, n_frames=0):
    """The loudness of 8 pieces of a window of 5 s, or of 8 pieces of each of its frames; no scores."""
    shape = [0, n_frames or 1, 8, -1]
    nodes = [
        helper.make_node("Reshape", ["waveform", "shape"], ["pieces"]),
        helper.make_node("ReduceL1", ["pieces", "last"], ["loudness"], keepdims=0),
        helper.make_node("Identity" if n_frames else "Squeeze", ["loudness", "frame"][: 1 + (not n_frames)], ["seen"]),
    ]
    constants = {"shape": np.array(shape), "last": np.array([3]), "frame": np.array([1])}
    graph = helper.make_graph(
        nodes, "encoder", [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 160_000])],
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["batch", *([n_frames] if n_frames else []), 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("n_frames", [0, 4])
def test_a_graph_of_embeddings_alone_scores_with_a_head(birdinfer, clips, tmp_path, n_frames):
    graph = write_encoder(tmp_path / "encoder.onnx", n_frames=n_frames)
    encoder, head, embeddings = tmp_path / "encoder", tmp_path / "head", tmp_path / "e"
    code, _, err = birdinfer("bundle", "adopt", graph, "--bundle", encoder, "--sample-rate", SAMPLE_RATE)
    assert code == 0, err
    assert "gives   embeddings alone" in err
    scores = tmp_path / "scores.csv"
    code, _, err = birdinfer("predict", clips, "--bundle", encoder, "-o", scores, "--embeddings", embeddings)
    assert code == 0, err
    header, *rows = scores.read_text().splitlines()
    assert header == "row_id,unscored"
    assert {float(row.split(",")[1]) for row in rows} == {0.0}
    assert read_embeddings(embeddings).values.shape == (30, 8)
    code, _, err = birdinfer(
        "head", "fit", "--embeddings", embeddings, "--labels", clips.parent / "train.csv", "-o", head
    )
    assert code == 0, err
    assert Predictor(Bundle.load(head)).predict(next(clips.rglob("*.wav"))).shape == (2, 3)


def test_adopt_refuses_embeddings_alone_as_a_further_member(birdinfer, embedded, tmp_path):
    graph = write_encoder(tmp_path / "encoder.onnx")
    code, _, err = birdinfer("bundle", "adopt", graph, "--bundle", embedded, "--sample-rate", SAMPLE_RATE)
    assert code == 2
    assert "--labels: is needed to add a member to a bundle" in err


def test_embed_says_which_member_has_none(birdinfer, tmp_path):
    graph, labels = write_external_graph(tmp_path / "loud.onnx", len(LABELS)), write_list(tmp_path / "l.txt", *LABELS)
    assert birdinfer("bundle", "adopt", graph, "--labels", labels, "--bundle", tmp_path / "b")[0] == 0
    code, out, _ = birdinfer("bundle", "embed", tmp_path / "b")
    assert (code, out) == (0, "loud: its scores are not one linear layer of an embedding\n")


def test_head_fit_refuses_in_one_line(birdinfer, embedded, clips, tmp_path):
    def refusal(*options):
        code, _, err = fit(birdinfer, clips, tmp_path, *options)
        assert code == 2
        assert err.count("\n") == 1
        return err

    assert "at least 2" in refusal("--folds", "1")
    assert "at least 2" in refusal("--kind", "gru", "--sequence", "1")
    assert "softmax is for heads of single windows" in refusal("--kind", "gru", "--activation", "softmax")
    assert "no column nothing" in refusal("--fold-column", "nothing")
    other = write_bundle(tmp_path / "other")
    assert "with the graph that made the embeddings" in refusal("--bundle", other)
    code, _, err = birdinfer(
        "head", "fit", "--embeddings", tmp_path / "e", "--labels", clips.parent / "train.csv", "-o", tmp_path / "h"
    )
    assert code == 2
    assert "2 members (fold0, fold1)" in err
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine").touch()
    assert "holds other things than a bundle" in refusal()
    with pytest.raises(BirdinferError):
        read_embeddings(tmp_path / "nothing")
