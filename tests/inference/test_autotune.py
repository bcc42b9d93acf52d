"""The fastest plan within the tolerance: measured here, cached, and always with a reason."""

import json

import msgspec
import numpy as np
import pytest
from fused_bundles import share_one_graph
from make_bundles import tone, write_sound

from birdinfer import Bundle, Predictor
from birdinfer.errors import BundleError, ConfigError, MissingExtraError
from birdinfer.inference import autotune as home
from birdinfer.inference import predictor
from birdinfer.inference.autotune import autotune, candidate_specs
from birdinfer.inference.engines import EngineSpec, cuda
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.inference.manifest import Figures, Variant


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(home, "MEASURE_SECONDS", 0.01)


@pytest.fixture
def paths(soundscapes):
    return sorted(soundscapes.glob("*.ogg"))


@pytest.fixture
def loaded(bundle):
    return Bundle.load(bundle)


def only(monkeypatch, *specs):
    monkeypatch.setattr(home, "candidate_specs", lambda bundle: [EngineSpec(*spec.split(":")) for spec in specs])


def speeds(monkeypatch, table):
    """Set how fast each spec and batch is, instead of measuring."""

    def windows_per_second(run, inputs, plan, seconds):
        return table.get((str(plan.spec), plan.batch_size), table.get(str(plan.spec), 1.0))

    monkeypatch.setattr(home, "windows_per_second", windows_per_second)


def moved(scores, by):
    """Every probability of every member, moved."""
    return {member: probabilities + np.float32(by) for member, probabilities in scores.items()}


def with_int8(bundle, n_members=2):
    """The first members get an INT8 graph, which is that of fp32."""
    members = tuple(
        msgspec.structs.replace(member, graphs={**member.graphs, "int8": member.graphs["fp32"]})
        if index < n_members
        else member
        for index, member in enumerate(bundle.manifest.members)
    )
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))


def test_autotune_measures_and_gives_a_reason(loaded, paths):
    measurements = []
    result = autotune(loaded, paths, report=measurements.append)
    assert [each.plan for each in result.measurements] == [each.plan for each in measurements]
    assert [each.plan.spec for each in measurements][: len(candidate_specs(loaded))] == candidate_specs(loaded)
    assert result.plan in [each.plan for each in measurements if not each.refused]
    assert result.reason
    assert not result.is_from_cache
    assert max(each.rows_per_second for each in measurements) > 0
    assert Predictor(loaded, result.plan).predict(paths[0]).shape == (12, 4)


def test_autotune_takes_the_fastest_within_tolerance(loaded, paths, monkeypatch):
    pytest.importorskip("openvino")
    only(monkeypatch, "onnxruntime:fp32", "openvino:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "openvino:fp32": 20.0, ("openvino:fp32", 6): 25.0})
    result = autotune(loaded, paths)
    assert (str(result.plan.spec), result.plan.batch_size) == ("openvino:fp32", 6)
    assert result.reason.startswith("2.50 times as fast as onnxruntime:fp32")


def test_autotune_gives_a_reason_when_nothing_is_faster(loaded, paths, monkeypatch):
    only(monkeypatch, "onnxruntime:fp32")
    speeds(monkeypatch, {("onnxruntime:fp32", predictor.BATCH_SIZE): 10.0})
    assert "nothing that keeps the tolerance is faster" in autotune(loaded, paths).reason


@pytest.mark.parametrize(
    ("error", "reason"), [(0.5, "0.5 is more than 0.05"), (0.02, "on average"), (np.nan, "nan is more than")]
)
def test_autotune_refuses_a_fast_engine_with_other_scores(loaded, paths, monkeypatch, error, reason):
    """A stand-in for INT8 on a processor whose integer products saturate."""
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    right = home._probabilities

    def wrong(predictor, inputs):
        found = right(predictor, inputs)
        return moved(found, error) if predictor.plan.spec.precision == "int8" else found

    monkeypatch.setattr(home, "_probabilities", wrong)
    result = autotune(with_int8(loaded), paths)
    assert str(result.plan.spec) == "onnxruntime:fp32"
    (refused,) = [each for each in result.measurements if each.refused]
    assert reason in refused.refused


def test_autotune_checks_the_whole_ensemble(loaded, paths, monkeypatch):
    """Two members of one kind: the first is measured, the second could exceed the tolerance."""
    pytest.importorskip("openvino")
    only(monkeypatch, "onnxruntime:fp32", "openvino:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "openvino:fp32": 20.0})
    right = home._probabilities

    def wrong(predictor, inputs):
        whole = len(predictor.bundle.manifest.members) == 2
        return moved(right(predictor, inputs), whole and predictor.plan.spec.engine == "openvino")

    monkeypatch.setattr(home, "_probabilities", wrong)
    assert str(autotune(loaded, paths).plan.spec) == "onnxruntime:fp32"


def test_autotune_keeps_fixed_workers_and_batch(loaded, paths):
    result = autotune(loaded, paths, workers=1, batch_size=5)
    assert {(each.plan.workers, each.plan.batch_size) for each in result.measurements} == {(1, 5)}


def test_autotune_tries_half_the_workers_where_cores_run_two_threads(loaded, paths, monkeypatch):
    monkeypatch.setattr(predictor, "available_cores", lambda: 4)
    monkeypatch.setattr(home, "physical_cores", lambda: 2)
    assert {each.plan.workers for each in autotune(loaded, paths).measurements} == {4, 2}


def test_autotune_begins_no_other_candidate_once_its_time_is_spent(loaded, paths, monkeypatch):
    monkeypatch.setattr(home, "MOST_SECONDS", -1.0)
    result = autotune(loaded, paths)
    assert [str(each.plan.spec) for each in result.measurements] == ["onnxruntime:fp32"]
    assert result.plan == result.measurements[0].plan


@pytest.mark.parametrize(("rates", "tried", "best"), [
    ({64: 3.0, 128: 6.0, 256: 1.0}, [64, 128, 256], 128),  # a cliff
    ({64: 3.0, 128: 2.0, 32: 2.9}, [64, 128, 32], 64),
    ({64: 3.0, 128: 1.0, 32: 4.0, 16: 5.0, 8: 4.5}, [64, 128, 32, 16, 8], 16),
    ({64: 3.0, 128: 4.0, 256: 5.0, 512: 6.0, 1024: 7.0}, [64, 128, 256, 512, 1024], 1024),
])  # fmt: skip
def test_autotune_keeps_the_best_batch_of_a_gpu(loaded, paths, monkeypatch, rates, tried, best):
    """The engine on the CPU's device: a rate that falls at some batch must not be taken."""
    monkeypatch.setattr(cuda.CudaEngine.__init__, "__defaults__", ("cpu",))
    only(monkeypatch, "onnxruntime:fp32", "cuda:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 1.0, **{("cuda:fp32", size): rate for size, rate in rates.items()}})
    result = autotune(loaded, paths)
    assert [each.plan.batch_size for each in result.measurements if each.plan.spec.engine == "cuda"] == tried
    assert (result.plan.spec.engine, result.plan.batch_size) == ("cuda", best)
    (again,) = autotune(loaded, paths, batch_size=7).measurements[1:]
    assert again.plan.batch_size == 7


def test_cache_returns_the_result(loaded, paths, monkeypatch):
    first = autotune(loaded, paths)
    monkeypatch.setattr(home, "_Autotuner", None)  # a second measurement would fail
    again = autotune(loaded, paths)
    assert again.is_from_cache
    assert (again.plan, again.measurements) == (first.plan, first.measurements)


def test_cache_key_changes_with_bundle_option_and_version(loaded, paths, monkeypatch):
    autotune(loaded, paths)
    known = home.cache_key(loaded, None, None)
    assert known in home.read_cache()
    others = {
        home.cache_key(loaded.with_members(["fold0"]), None, None),
        home.cache_key(loaded, 1, None),
        home.cache_key(loaded, None, 1),
    }
    monkeypatch.setattr(home, "_version", lambda name: "99")
    assert len(others | {known, home.cache_key(loaded, None, None)}) == 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"key": 1}', b"\xff"])
def test_a_cache_that_cannot_be_read_is_measured_again(loaded, paths, content):
    home.cache_path().parent.mkdir(parents=True)
    home.cache_path().write_bytes(content)
    assert not autotune(loaded, paths).is_from_cache
    assert len(json.loads(home.cache_path().read_bytes())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_else(loaded, paths, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert autotune(loaded, paths).plan.workers >= 1


def test_cache_drops_the_oldest(loaded, paths):
    result = autotune(loaded, paths)
    home.write_cache({str(index): result for index in range(130)})
    assert list(home.read_cache()) == [str(index) for index in range(30, 130)]


def test_autotune_skips_files_that_cannot_be_read(loaded, paths, tmp_path):
    (tmp_path / "bad.ogg").write_text("no sound")
    assert autotune(loaded, [tmp_path / "bad.ogg", *paths]).measurements
    with pytest.raises(ConfigError, match="none of 1 files can be read"):
        autotune(loaded.with_members(["fold0"]), [tmp_path / "bad.ogg"])


def test_autotune_needs_one_short_file(loaded, tmp_path):
    write_sound(tmp_path / "a.wav", tone(2.0))
    assert autotune(loaded, [tmp_path / "a.wav"]).plan


def test_autotune_without_engines_names_the_extra(loaded, paths, monkeypatch):
    monkeypatch.setattr(home, "_is_installed", lambda engine: False)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        autotune(loaded, paths)


def test_autotune_names_a_bundle_that_no_engine_can_run(make_bundle, paths, monkeypatch):
    def broken(self, *arguments):
        raise BundleError("fold0.onnx", "cannot be loaded by ONNX Runtime (opset 99)")

    only(monkeypatch, "onnxruntime:fp32")
    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", broken)
    with pytest.raises(BundleError, match=r"no engine can run it .*opset 99"):
        autotune(Bundle.load(make_bundle()), paths)


def test_candidates_are_what_is_installed(loaded, monkeypatch):
    monkeypatch.setattr(home, "_is_installed", lambda engine: True)
    monkeypatch.setattr(home, "_has_bf16", lambda: True)
    assert [str(spec) for spec in candidate_specs(loaded)] == [
        "onnxruntime:fp32", "openvino:fp32", "cuda:fp32", "openvino:bf16",
    ]  # fmt: skip
    monkeypatch.setattr(home, "_has_bf16", lambda: False)
    monkeypatch.setattr(home, "_is_installed", lambda engine: engine == "onnxruntime")
    assert [str(spec) for spec in candidate_specs(with_int8(loaded))] == ["onnxruntime:fp32", "onnxruntime:int8"]


@pytest.mark.parametrize(("n_members", "candidates"), [(0, ["fp32"]), (1, ["fp32", "int8"]), (2, ["fp32", "int8"])])
def test_a_precision_is_a_candidate_where_one_member_has_it(loaded, monkeypatch, n_members, candidates):
    monkeypatch.setattr(home, "_is_installed", lambda engine: engine == "onnxruntime")
    assert [spec.precision for spec in candidate_specs(with_int8(loaded, n_members))] == candidates


@pytest.mark.parametrize(
    ("n_members", "share"), [(1, "1 of 2 members in int8, the others in fp32; largest"), (2, None)]
)
def test_reason_counts_the_members_that_run_in_the_precision(loaded, paths, monkeypatch, n_members, share):
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    result = autotune(with_int8(loaded, n_members), paths)
    assert result.plan.spec.precision == "int8"
    assert share in result.reason if share else "members" not in result.reason


def accepted_at_export(bundle, most, mean, refused=""):
    """All members have an INT8 graph, whose export measured these differences."""
    figures = Figures(1.0, 10.0, 2.0, most, mean, 100, 20, macro_auc=0.9, auc_fall=0.001, least_spearman=0.99)
    variants = (Variant("fp32", "", figures), Variant("int8 static", "percentile", figures, refused))
    manifest = with_int8(bundle).manifest
    members = tuple(msgspec.structs.replace(member, variants=variants) for member in manifest.members)
    return Bundle(bundle.folder, msgspec.structs.replace(manifest, members=members))


@pytest.mark.parametrize(
    ("most", "mean", "refused", "reason"),
    [
        (0.15, 0.15, "", None),
        (0.15, 0.01, "", "on average is more than 0.015 (1.5 times what its export measured)"),
        (0.10, 0.10, "", "0.2 is more than 0.15 (1.5 times what its export measured)"),
        (0.01, 0.15, "", "0.2 is more than 0.05 (the bundle's tolerance)"),
        (0.15, 0.15, "AUC falls by 0.01", "0.2 is more than 0.05 (the bundle's tolerance)"),
    ],
)
def test_a_graph_accepted_at_export_may_differ_half_more_than_there(
    loaded, paths, monkeypatch, most, mean, refused, reason
):
    only(monkeypatch, "onnxruntime:fp32", "onnxruntime:int8")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0, "onnxruntime:int8": 99.0})
    right = home._probabilities
    monkeypatch.setattr(
        home, "_probabilities", lambda predictor, inputs: moved(
            right(predictor, inputs), 0.2 * (predictor.plan.spec.precision == "int8")
        )
    )  # fmt: skip
    result = autotune(accepted_at_export(loaded, most, mean, refused), paths)
    assert result.plan.spec.precision == ("fp32" if reason else "int8")
    found = [each.refused for each in result.measurements if each.plan.spec.precision == "int8"]
    assert reason in found[0] if reason else not any(found)
    assert ("its AUC and ranks passed when it was exported" in result.reason) == (not reason)


def test_members_that_share_a_graph_count_once(make_bundle, paths, monkeypatch):
    """Measuring one of five and taking it five times would run the whole graph for it, and count it five times."""
    folder = share_one_graph(make_bundle(members=3))
    only(monkeypatch, "onnxruntime:fp32")
    speeds(monkeypatch, {"onnxruntime:fp32": 10.0})
    shared = autotune(Bundle.load(folder), paths)
    alone = autotune(Bundle.load(make_bundle(members=3)), paths)
    assert shared.measurements[0].rows_per_second == pytest.approx(10.0)
    assert alone.measurements[0].rows_per_second == pytest.approx(10.0 / 3)


def test_autotune_survives_an_engine_that_fails(loaded, paths, monkeypatch):
    pytest.importorskip("openvino")
    from birdinfer.inference.engines.openvino import OpenVinoEngine

    def failing(self, batch):
        raise RuntimeError("CUDA failure 2:\nout of memory")

    only(monkeypatch, "openvino:fp32", "onnxruntime:fp32")
    monkeypatch.setattr(OpenVinoEngine, "run", failing)
    result = autotune(loaded, paths)
    assert str(result.plan.spec) == "onnxruntime:fp32"
    assert result.measurements[0].refused == "fails: fold0: cannot be computed (CUDA failure 2: out of memory)"
