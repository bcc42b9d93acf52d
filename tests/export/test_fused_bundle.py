"""Members in one file each precision, or untouched: which it is, is measured."""

import msgspec
import numpy as np
import pytest
from tiny_clips import LABELS, write_clips
from tiny_models import TINY
from untrained_runs import RECIPE, RecordingCallback, export_bundle, hasten, loud, seeded, write_run

from birdinfer import Bundle, Predictor
from birdinfer.errors import ConfigError
from birdinfer.export import fuse as fused_bundle
from birdinfer.export.int8.search import Int8Search
from birdinfer.inference.bundle import file_sha256


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def times(monkeypatch):
    """Say how many times as fast the fused graph is."""

    def said(times_as_fast):
        monkeypatch.setattr(fused_bundle, "faster_fused", lambda *_: times_as_fast)

    return said


@pytest.fixture
def export(data, tmp_path):
    """Bundle of a run of two folds, and what was reported, under a name."""

    def exported(name, n_folds=2, network_of=seeded, recipe=RECIPE, **wishes):
        callback, run = RecordingCallback(), tmp_path / f"run_{name}"
        write_run(run, data, n_folds, recipe, network_of)
        return export_bundle(run, tmp_path / name, callback=callback, **wishes), callback

    return exported


def quiet_then_loud(recipe, fold):
    """The second fold cannot become INT8."""
    return (loud if fold else seeded)(recipe, fold)


def files(bundle):
    return sorted(path.name for path in bundle.folder.iterdir())


def graphs_of(bundle, precision):
    return {member.graphs[precision].file for member in bundle.manifest.members}


def scores(bundle, data, engine="onnxruntime"):
    return Predictor(bundle, engine).predict(data / "train_audio" / LABELS[0] / "XC0.wav")


def test_faster_is_kept_as_one_file_that_says_the_same(export, data, times):
    times(2.0)
    apart, _ = export("apart")
    fused, callback = export("fused", fuse=True)
    assert files(fused) == ["folds.csv", "fused.onnx", "manifest.json"]
    assert graphs_of(fused, "fp32") == {"fused.onnx"}
    assert [member.outputs.clip for member in fused.manifest.members] == ["fold0/logits", "fold1/logits"]
    assert callback.lines[-1] == "fused: 2.00 times as fast as 2 files: kept"
    np.testing.assert_array_equal(scores(fused, data), scores(apart, data))


@pytest.mark.parametrize(("times_as_fast", "is_kept"), [(1.09, False), (1.1, True)])
def test_hardly_faster_is_not_worth_a_file_that_cannot_be_exchanged(export, times, times_as_fast, is_kept):
    times(times_as_fast)
    bundle, callback = export("bundle", fuse=True)
    assert (files(bundle) == ["folds.csv", "fused.onnx", "manifest.json"]) == is_kept
    if not is_kept:
        assert files(bundle) == ["fold0.onnx", "fold1.onnx", "folds.csv", "manifest.json"]
        assert [member.outputs.clip for member in bundle.manifest.members] == ["logits", "logits"]
        assert callback.lines[-1].endswith("worth it from 1.1 on: not kept")


def test_int8_is_shared_as_well(export, data, times):
    times(2.0)
    wishes = {"quantize": ("static",), "halves": ("bf16",)}
    apart, _ = export("apart", **wishes)
    fused, _ = export("fused", fuse=True, **wishes)
    assert all(set(member.graphs) == {"fp32", "int8", "bf16"} for member in apart.manifest.members)
    assert files(fused) == ["folds.csv", "fused.bf16.onnx", "fused.int8.onnx", "fused.onnx", "manifest.json"]
    for precision, file in (("int8", "fused.int8.onnx"), ("bf16", "fused.bf16.onnx")):
        assert graphs_of(fused, precision) == {file}
    np.testing.assert_array_equal(scores(fused, data, "onnxruntime:int8"), scores(apart, data, "onnxruntime:int8"))


def test_a_member_without_int8_is_in_the_shared_file_in_fp32(export, data, times, monkeypatch):
    monkeypatch.setattr(Int8Search, "_with_some_fp32", lambda *_: [])  # a search that fails in any case
    times(2.0)
    fused, callback = export("fused", fuse=True, network_of=quiet_then_loud, quantize=("static",))
    first, second = Bundle.load(fused.folder).manifest.members
    assert (first.variants[1].refused, bool(second.variants[1].refused)) == ("", True)
    assert first.graphs == second.graphs
    assert first.graphs["int8"].sha256 == file_sha256(fused.folder / "fused.int8.onnx")
    fp32, int8 = ({m.name: scores(fused.with_members({m.name}), data, engine) for m in (first, second)}
                  for engine in ("onnxruntime", "onnxruntime:int8"))  # fmt: skip
    assert 0 < np.abs(int8["fold0"] - fp32["fold0"]).max() < 0.05
    np.testing.assert_array_equal(int8["fold1"], fp32["fold1"])
    assert any("fold1: int8 static refused" in line for line in callback.lines)


def test_what_takes_one_window_a_call_is_not_shared_with_what_takes_many(export, times):
    """Dynamic INT8 of one member beside fp32 of the other, whose batches are free."""
    times(2.0)
    fused, callback = export("fused", fuse=True, network_of=quiet_then_loud, quantize=("dynamic",))
    assert [set(member.graphs) for member in fused.manifest.members] == [{"fp32"}] * 2
    assert files(fused) == ["folds.csv", "fused.onnx", "manifest.json"]
    assert callback.lines[-1].startswith("fused: int8 left out: fold1 takes log_mel FLOAT [?, 1, 16, 64], fold0 takes ")


class TestRefusal:
    """Before anything is exported."""

    @pytest.fixture(autouse=True)
    def _no_export(self, monkeypatch):
        monkeypatch.setattr("birdinfer.export.run.MemberMaker", None)

    @pytest.mark.parametrize("wishes", [{"n_folds": 1}, {"n_folds": 2, "soup": True}])
    def test_of_one_member_alone(self, export, tmp_path, wishes):
        with pytest.raises(ConfigError, match="--fuse: needs two members or more, got 1"):
            export("bundle", fuse=True, **wishes)
        assert not (tmp_path / "bundle").exists()

    def test_of_members_with_other_inputs(self, data, tmp_path):
        run = write_run(tmp_path / "run", data)
        other = write_run(tmp_path / "other", data, 2, msgspec.structs.replace(RECIPE, model=TINY["raw"]))
        (other / "fold1").rename(run / "fold1")
        with pytest.raises(ConfigError, match="--fuse: needs members with the same input"):
            export_bundle(run, tmp_path / "bundle", fuse=True)
        assert not (tmp_path / "bundle").exists()


def test_speed_is_measured_on_real_windows(export, monkeypatch):
    asked = []

    def faster_fused(separate, fused, inputs, plan):
        asked.append((sorted(path.name for path in separate), fused.name, inputs.shape, fused.is_file()))
        return 1.0

    monkeypatch.setattr(fused_bundle, "faster_fused", faster_fused)
    export("bundle", fuse=True)
    ((separate, fused, shape, was_there),) = asked
    assert (separate, fused, was_there) == (["fold0.onnx", "fold1.onnx"], "fused.onnx", True)
    assert shape[0] == 9  # eight held-out clips, and silence
