"""The fastest that keeps the tolerance, measured here, remembered, and always explained."""

import json

import msgspec
import numpy as np
import pytest
from fused_bundles import share_one_graph
from making import tone, write_sound

from birdinfer import Bundle, Predictor, choices, predictor
from birdinfer import chooser as room
from birdinfer.chooser import candidate_specs, choose
from birdinfer.engines import EngineSpec
from birdinfer.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.errors import BundleError, ConfigError, MissingExtraError
from birdinfer.manifest import Figures, Variant


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "MEASURE_SECONDS", 0.01)


@pytest.fixture
def paths(soundscapes):
    return sorted(soundscapes.glob("*.ogg"))


@pytest.fixture
def loaded(bundle):
    return Bundle.load(bundle)


def only(monkeypatch, *specs):
    monkeypatch.setattr(room, "candidate_specs", lambda bundle: [EngineSpec(*spec.split(":")) for spec in specs])


def speeds(monkeypatch, table):
    """Say how fast each spec and batch is, instead of measuring."""

    def windows_per_second(run, inputs, plan, seconds):
        return table.get((str(plan.spec), plan.batch_size), table.get(str(plan.spec), 1.0))

    monkeypatch.setattr(room, "windows_per_second", windows_per_second)


def moved(said, by):
    """Every probability of every member, moved."""
    return {member: probabilities + np.float32(by) for member, probabilities in said.items()}


def with_int8(bundle, n_members=2):
    """The first members say that they have an INT8 graph, which is that of fp32."""
    members = tuple(
        msgspec.structs.replace(member, graphs={**member.graphs, "int8": member.graphs["fp32"]})
        if index < n_members
        else member
        for index, member in enumerate(bundle.manifest.members)
    )
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))


def test_a_choice_is_measured_and_explained(loaded, paths):
    trials = []
    choice = choose(loaded, paths, report=trials.append)
    assert choice.trials == tuple(trials)
    assert [trial.plan.spec for trial in trials][: len(candidate_specs(loaded))] == candidate_specs(loaded)
    assert choice.plan in [trial.plan for trial in trials if not trial.refused]
    assert choice.reason
    assert not choice.is_from_cache
    assert max(trial.rows_per_second for trial in trials) > 0
    assert Predictor(loaded, choice.plan).predict(paths[0]).shape == (12, 4)


def test_the_fastest_within_tolerance_is_taken(loaded, paths, monkeypatch):
    pytest.importorskip("openvino")
    only(monkeypatch, "onnxruntime:fp32", "openvino:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "openvino:fp32": 20.0, ("openvino:fp32", 6): 25.0})
    choice = choose(loaded, paths)
    assert (str(choice.plan.spec), choice.plan.batch_size) == ("openvino:fp32", 6)
    assert choice.reason.startswith("2.50 times as fast as onnxruntime:fp32")


def test_the_reason_when_nothing_is_faster(loaded, paths, monkeypatch):
    only(monkeypatch, "onnxruntime:fp32")
    speeds(monkeypatch, {("onnxruntime:fp32", predictor.BATCH_SIZE): 10.0})
    assert "nothing that keeps the tolerance is faster" in choose(loaded, paths).reason


@pytest.mark.parametrize(
    ("error", "complaint"), [(0.5, "0.5 is more than 0.05"), (0.02, "on average"), (np.nan, "nan is more than")]
)
def test_a_fast_engine_that_answers_otherwise_is_thrown_out(loaded, paths, monkeypatch, error, complaint):
    """A stand-in for INT8 on a processor whose integer products saturate."""
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    right = room._probabilities

    def wrong(predictor, heard):
        found = right(predictor, heard)
        return moved(found, error) if predictor.plan.spec.precision == "int8" else found

    monkeypatch.setattr(room, "_probabilities", wrong)
    choice = choose(with_int8(loaded), paths)
    assert str(choice.plan.spec) == "onnxruntime:fp32"
    (refused,) = [trial for trial in choice.trials if trial.refused]
    assert complaint in refused.refused


def test_the_whole_ensemble_is_checked_before_it_is_taken(loaded, paths, monkeypatch):
    """Two members of one kind: the first is measured, and the second could be the one that leaves the tolerance."""
    pytest.importorskip("openvino")
    only(monkeypatch, "onnxruntime:fp32", "openvino:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "openvino:fp32": 20.0})
    right = room._probabilities

    def wrong(predictor, heard):
        whole = len(predictor.bundle.manifest.members) == 2
        return moved(right(predictor, heard), whole and predictor.plan.spec.engine == "openvino")

    monkeypatch.setattr(room, "_probabilities", wrong)
    assert str(choose(loaded, paths).plan.spec) == "onnxruntime:fp32"


def test_lanes_and_batch_that_the_user_fixed_are_kept(loaded, paths):
    choice = choose(loaded, paths, lanes=1, batch_size=5)
    assert {(trial.plan.lanes, trial.plan.batch_size) for trial in choice.trials} == {(1, 5)}


def test_half_the_lanes_are_tried_where_cores_run_two_threads(loaded, paths, monkeypatch):
    monkeypatch.setattr(predictor, "available_cores", lambda: 4)
    monkeypatch.setattr(room, "physical_cores", lambda: 2)
    assert {trial.plan.lanes for trial in choose(loaded, paths).trials} == {4, 2}


def test_a_choice_is_remembered(loaded, paths, monkeypatch):
    first = choose(loaded, paths)
    monkeypatch.setattr(room, "_Measurement", None)  # would fail, were it measured again
    again = choose(loaded, paths)
    assert again.is_from_cache
    assert (again.plan, again.trials) == (first.plan, first.trials)


def test_another_bundle_wish_or_version_is_measured_anew(loaded, paths, monkeypatch):
    choose(loaded, paths)
    known = choices.cache_key(loaded, None, None)
    assert known in choices.read_cache()
    others = {
        choices.cache_key(loaded.with_members(["fold0"]), None, None),
        choices.cache_key(loaded, 1, None),
        choices.cache_key(loaded, None, 1),
    }
    monkeypatch.setattr(choices, "_version", lambda name: "99")
    assert len(others | {known, choices.cache_key(loaded, None, None)}) == 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"key": 1}', b"\xff"])
def test_a_cache_that_cannot_be_read_is_measured_again(loaded, paths, content):
    choices.cache_path().parent.mkdir(parents=True)
    choices.cache_path().write_bytes(content)
    assert not choose(loaded, paths).is_from_cache
    assert len(json.loads(choices.cache_path().read_bytes())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_else(loaded, paths, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose(loaded, paths).plan.lanes >= 1


def test_the_cache_forgets_the_oldest(loaded, paths):
    choice = choose(loaded, paths)
    choices.write_cache({str(index): choice for index in range(130)})
    assert list(choices.read_cache()) == [str(index) for index in range(30, 130)]


def test_files_that_cannot_be_read_are_passed_over(loaded, paths, tmp_path):
    (tmp_path / "bad.ogg").write_text("no sound")
    assert choose(loaded, [tmp_path / "bad.ogg", *paths]).trials
    with pytest.raises(ConfigError, match="none of 1 files can be read"):
        choose(loaded.with_members(["fold0"]), [tmp_path / "bad.ogg"])


def test_a_short_file_is_enough(loaded, tmp_path):
    write_sound(tmp_path / "a.wav", tone(2.0))
    assert choose(loaded, [tmp_path / "a.wav"]).plan


def test_a_machine_without_engines_says_what_to_install(loaded, paths, monkeypatch):
    monkeypatch.setattr(room, "_is_installed", lambda engine: False)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        choose(loaded, paths)


def test_a_bundle_that_no_engine_can_run_is_named(make_bundle, paths, monkeypatch):
    def broken(self, *arguments):
        raise BundleError("fold0.onnx", "cannot be loaded by ONNX Runtime (opset 99)")

    only(monkeypatch, "onnxruntime:fp32")
    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", broken)
    with pytest.raises(BundleError, match=r"no engine can run it .*opset 99"):
        choose(Bundle.load(make_bundle()), paths)


def test_candidates_are_what_is_there(loaded, monkeypatch):
    monkeypatch.setattr(room, "_is_installed", lambda engine: True)
    monkeypatch.setattr(room, "_has_bf16", lambda: True)
    assert [str(spec) for spec in candidate_specs(loaded)] == [
        "onnxruntime:fp32", "openvino:fp32", "cuda:fp32", "openvino:bf16",
    ]  # fmt: skip
    monkeypatch.setattr(room, "_has_bf16", lambda: False)
    monkeypatch.setattr(room, "_is_installed", lambda engine: engine == "onnxruntime")
    assert [str(spec) for spec in candidate_specs(with_int8(loaded))] == ["onnxruntime:fp32", "onnxruntime:int8"]


@pytest.mark.parametrize(("n_members", "candidates"), [(0, ["fp32"]), (1, ["fp32", "int8"]), (2, ["fp32", "int8"])])
def test_a_precision_is_a_candidate_where_one_member_has_it(loaded, monkeypatch, n_members, candidates):
    monkeypatch.setattr(room, "_is_installed", lambda engine: engine == "onnxruntime")
    assert [spec.precision for spec in candidate_specs(with_int8(loaded, n_members))] == candidates


@pytest.mark.parametrize(("n_members", "said"), [(1, "1 of 2 members in int8, the others in fp32; largest"), (2, None)])
def test_the_reason_says_how_many_members_run_in_the_precision_taken(loaded, paths, monkeypatch, n_members, said):
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    choice = choose(with_int8(loaded, n_members), paths)
    assert choice.plan.spec.precision == "int8"
    assert said in choice.reason if said else "members" not in choice.reason


def gated(bundle, most, mean, refused=""):
    """All members have an INT8 graph, whose export measured these differences."""
    figures = Figures(1.0, 10.0, 2.0, most, mean, 100, 20, macro_auc=0.9, auc_fall=0.001, least_spearman=0.99)
    variants = (Variant("fp32", "", figures), Variant("int8 static", "percentile", figures, refused))
    manifest = with_int8(bundle).manifest
    members = tuple(msgspec.structs.replace(member, variants=variants) for member in manifest.members)
    return Bundle(bundle.folder, msgspec.structs.replace(manifest, members=members))


@pytest.mark.parametrize(
    ("most", "mean", "refused", "complaint"),
    [
        (0.15, 0.15, "", None),
        (0.15, 0.01, "", "on average is more than 0.015 (1.5 times what its export measured)"),
        (0.10, 0.10, "", "0.2 is more than 0.15 (1.5 times what its export measured)"),
        (0.01, 0.15, "", "0.2 is more than 0.05 (the bundle's tolerance)"),
        (0.15, 0.15, "AUC falls by 0.01", "0.2 is more than 0.05 (the bundle's tolerance)"),
    ],
)
def test_a_graph_that_passed_the_gate_may_differ_as_far_as_it_did_there_and_half_more(
    loaded, paths, monkeypatch, most, mean, refused, complaint
):
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    right = room._probabilities
    monkeypatch.setattr(
        room, "_probabilities", lambda predictor, heard: moved(
            right(predictor, heard), 0.2 * (predictor.plan.spec.precision == "int8")
        )
    )  # fmt: skip
    choice = choose(gated(loaded, most, mean, refused), paths)
    assert choice.plan.spec.precision == ("fp32" if complaint else "int8")
    said = [trial.refused for trial in choice.trials if trial.plan.spec.precision == "int8"]
    assert complaint in said[0] if complaint else not any(said)
    assert ("its AUC and ranks passed when it was exported" in choice.reason) == (not complaint)


def test_members_that_share_a_graph_are_measured_together_and_count_once(make_bundle, paths, monkeypatch):
    """Measuring one of five and taking it five times would run the whole graph for it, and count it five times."""
    folder = share_one_graph(make_bundle(members=3))
    only(monkeypatch, "onnxruntime:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0})
    shared = choose(Bundle.load(folder), paths)
    alone = choose(Bundle.load(make_bundle(members=3)), paths)
    assert shared.trials[0].rows_per_second == pytest.approx(10.0)
    assert alone.trials[0].rows_per_second == pytest.approx(10.0 / 3)


def test_an_engine_that_fails_at_work_costs_its_trial_and_not_the_run(loaded, paths, monkeypatch):
    pytest.importorskip("openvino")
    from birdinfer.engines.openvino import OpenVinoEngine

    def failing(self, batch):
        raise RuntimeError("CUDA failure 2:\nout of memory")

    only(monkeypatch, "openvino:fp32", "onnxruntime:fp32")
    monkeypatch.setattr(OpenVinoEngine, "run", failing)
    choice = choose(loaded, paths)
    assert str(choice.plan.spec) == "onnxruntime:fp32"
    assert choice.trials[0].refused == "fails: CUDA failure 2: out of memory"
