"""Members with different front ends, windows, rates and labels in one bundle give rows on one grid."""

import msgspec
import numpy as np
import pytest
import soundfile
import soxr
from external_graphs import write_external_graph
from make_bundles import (
    FRONTEND,
    LABELS,
    SAMPLE_RATE,
    linear_member,
    tone,
    write_bundle,
    write_framewise_graph,
    write_linear_graph,
    write_sound,
)
from msgspec.structs import replace

from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.config import AggregationConfig, AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BundleError, ConfigError
from birdinfer.features.log_mel import windows_to_input
from birdinfer.inference.bundle import file_sha256, save_manifest
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.manifest import Graph, Manifest, Member, Outputs
from birdinfer.inference.predictor import make_plan, share_in
from birdinfer.postprocess.calibration import HistogramMatch
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.steps import parse_steps
from birdinfer.postprocess.taxonomy import MirrorGroups
from birdinfer.tables.step_tables import Quantiles, write_quantiles

LONG = FrontEndConfig(AudioConfig(), WindowConfig(10.0), MelConfig(n_fft=1024, n_mels=16, normalisation="none"))
"""Ten seconds of sixteen bands."""
EXTERNAL_LABELS = ("absent", "0012", "other", "comcuc")


@pytest.fixture
def mixed(tmp_path):
    """Two linear folds of 5 s, one of 10 s (weight 2), a external one of 3 s at 48 kHz that knows two labels."""
    folder = write_bundle(tmp_path / "mixed", kernel=(1.0,))
    write_linear_graph(folder / "long.onnx", 7, n_mels=16)
    write_external_graph(folder / "external.onnx", len(EXTERNAL_LABELS), ("batch", 144_000), seed=5)
    external = Member(
        name="external",
        graphs={"fp32": Graph("external.onnx", file_sha256(folder / "external.onnx"))},
        waveform=WaveformConfig(AudioConfig(48_000), WindowConfig(3.0)),
        outputs=Outputs("scores"),
        label_columns={"0012": 1, "comcuc": 3},
        weight=0.5,
    )
    long = replace(linear_member(folder / "long.onnx", LONG, 0), weight=2.0)
    return with_members(folder, long, external)


def with_members(folder, *more, only=False):
    """Add members to a bundle's manifest, or put them in the place of its own."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    save_manifest(folder, replace(manifest, members=(*(() if only else manifest.members), *more)))
    return folder


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def plainly(bundle, path):
    """The definition, spelt out: window by window, member by member, nothing shared."""
    wave, _ = soundfile.read(path, dtype="float32")
    n_rows = -(-len(wave) // (5 * SAMPLE_RATE))
    wave = np.pad(wave, (0, n_rows * 5 * SAMPLE_RATE - len(wave)))
    at_48 = soxr.resample(wave, SAMPLE_RATE, 48_000)
    predictor = Predictor(bundle)
    engines = {
        one.member.name: one.graph.engine for member_group in predictor.member_groups for one in member_group.members
    }
    total, weights = np.zeros((n_rows, 4)), np.zeros((n_rows, 4))
    for name, frontend, weight in (("fold0", FRONTEND, 1), ("fold1", FRONTEND, 1), ("long", LONG, 2)):
        context = (frontend.window_samples - 5 * SAMPLE_RATE) // 2 + 512
        padded = np.pad(wave, context, mode="reflect")
        for row in range(n_rows):
            begin = row * 5 * SAMPLE_RATE
            window = windows_to_input(padded[begin : begin + frontend.window_samples + 1024], 1, frontend)
            total[row] += weight * sigmoid(engines[name].run(window)["logits"][0])
            weights[row] += weight
    # 3-s windows every 2.5 s; each speaks for the seconds that it shares with a row.
    found, seconds = np.zeros((n_rows, 2)), np.zeros((n_rows, 1))
    n_windows = int(np.ceil((n_rows * 5 - 3) / 2.5)) + 1
    reflected = np.pad(at_48, (0, 144_000), mode="reflect")
    for index in range(n_windows):
        begin = 2.5 * index
        window = reflected[int(begin * 48_000) :][:144_000]
        score = sigmoid(engines["external"].run(window[None].astype(np.float32))["scores"][0])[[3, 1]]
        for row in range(n_rows):
            shared = min(begin + 3, 5 * row + 5, 5 * n_rows) - max(begin, 5 * row)
            if shared > 0:
                found[row] += shared * score
                seconds[row] += shared
    total[:, [0, 1]] += 0.5 * found / seconds
    weights[:, [0, 1]] += 0.5
    return total / weights


def test_every_member_takes_its_own_input_and_all_give_the_same_rows(mixed, soundscapes):
    bundle = Bundle.load(mixed)
    path = soundscapes / "site_1.ogg"
    predictor = Predictor(bundle)
    assert [len(member_group.members) for member_group in predictor.member_groups] == [2, 1, 1]
    found = predictor.predict(path)
    np.testing.assert_allclose(found, plainly(bundle, path), atol=2e-3)  # the resamplers' edges differ
    assert np.abs(found - Predictor(bundle.with_members(["fold0", "fold1"])).predict(path)).max() > 0.01


@pytest.mark.parametrize("overlap", [None, 0.0, 2.5])
def test_workers_and_batches_change_no_bit(mixed, soundscapes, monkeypatch, overlap):
    bundle = Bundle.load(mixed) if overlap is None else Bundle.load(mixed).with_members(["fold0", "long"])
    bundle = bundle.with_overlap(overlap)
    paths = sorted(soundscapes.glob("*.ogg"))
    wanted = {path: Predictor(bundle).predict(path) for path in paths}
    for workers, batch_size, run_rows in ((1, 1, 1), (3, 4, 2), (2, 16, 12)):
        monkeypatch.setattr("birdinfer.inference.predictor.READ_AHEAD_ROWS", run_rows)
        predictor = Predictor(bundle, make_plan("onnxruntime", workers, batch_size))
        for result in predict_soundscapes(predictor, paths[::-1]):
            assert np.array_equal(result.probabilities, wanted[result.path])


def test_progress_of_several_member_groups_sums_to_the_files_length(mixed, soundscapes):
    seen = []
    list(
        predict_soundscapes(
            Predictor(Bundle.load(mixed)), [soundscapes / "site_0.ogg"], lambda *step: seen.append(step)
        )
    )
    assert sum(seconds for _, _, seconds in seen) == pytest.approx(60, abs=3)


def test_a_click_moves_its_row_in_every_member(mixed, tmp_path):
    """Half a second of a loud tone in row 3 of silence: with overlap and context, row 3 still changes most."""
    wave = np.zeros(40 * SAMPLE_RATE, np.float32)
    quiet = tmp_path / "quiet.wav"
    write_sound(quiet, wave)
    wave[int(17.3 * SAMPLE_RATE) :][: SAMPLE_RATE // 2] = tone(0.5)
    write_sound(tmp_path / "click.wav", wave)
    for overlap in (None, 2.5):
        bundle = Bundle.load(mixed)
        if overlap is not None:
            bundle = bundle.with_overlap(overlap)
        predictor = Predictor(bundle)
        change = np.abs(predictor.predict(tmp_path / "click.wav") - predictor.predict(quiet)).sum(axis=1)
        assert change.argmax() == 3


def test_frames_and_clip_are_blended_on_the_rows(tmp_path, soundscapes):
    """A detector with scores for each quarter second; the row takes the highest of its own frames."""
    folder = write_bundle(tmp_path / "sed", members=1, kernel=(1.0,))
    write_framewise_graph(folder / "fold0.onnx", seed=3, n_frames=20)
    member = replace(
        linear_member(folder / "fold0.onnx", FRONTEND, 0),
        outputs=Outputs("clip", "frames"),
        aggregation=AggregationConfig(frame_share=0.25),
    )
    with_members(folder, member, only=True)
    predictor = Predictor(Bundle.load(folder))
    (member_group,) = predictor.member_groups
    path = soundscapes / "site_2.ogg"
    with predictor.open(path) as reader:
        (batch,) = list(reader.batches())
    outputs = member_group.members[0].graph.engine.run(member_group.make_input(batch))
    wanted = 0.75 * sigmoid(outputs["clip"]) + 0.25 * sigmoid(outputs["frames"]).max(axis=1)
    np.testing.assert_allclose(predictor.predict(path), wanted, atol=1e-6)


def test_overlap_is_an_option_of_the_run(bundle, soundscapes):
    loaded, path = Bundle.load(bundle), soundscapes / "site_1.ogg"
    side_by_side = Predictor(loaded, post=PostConfig((1.0,))).predict(path)
    mean = Predictor(loaded.with_overlap(2.5), post=PostConfig((1.0,))).predict(path)
    highest = Predictor(loaded.with_overlap(2.5, "max"), post=PostConfig((1.0,))).predict(path)
    assert mean.shape == highest.shape == side_by_side.shape
    assert np.abs(mean - side_by_side).max() > 1e-4
    assert (highest >= side_by_side - 1e-7).all()
    with pytest.raises(ConfigError, match=r"--overlap: 5 s, but windows of member 'fold0' last 5 s - half a window"):
        loaded.with_overlap(5.0)


def test_a_graph_with_fewer_columns_than_the_manifest_claims_is_refused(mixed):
    manifest = Bundle.load(mixed).manifest
    *others, external = manifest.members
    beyond = replace(external, label_columns={"0012": 9})
    save_manifest(mixed, replace(manifest, members=(*others, beyond)))
    with pytest.raises(BundleError, match=r"external.onnx: scores 4 labels, the manifest lists 10"):
        Predictor(Bundle.load(mixed))


def test_openvino_runs_members_with_the_same_input_as_one(mixed, soundscapes):
    pytest.importorskip("openvino")
    bundle, path = Bundle.load(mixed), soundscapes / "site_1.ogg"
    predictor = Predictor(bundle, "openvino")
    assert [
        len({id(one.graph.engine) for one in member_group.members}) for member_group in predictor.member_groups
    ] == [1, 1, 1]
    assert predictor.member_groups[0].members[1].graph.output_names == {"logits": "1/logits"}
    np.testing.assert_allclose(predictor.predict(path), Predictor(bundle).predict(path), atol=1e-5)


def with_int8(folder, names):
    """A bundle some of whose members have an INT8 graph: here one of other weights, with different scores."""
    bundle = Bundle.load(folder)
    write_linear_graph(folder / "int8.onnx", seed=9)
    graph = Graph("int8.onnx", file_sha256(folder / "int8.onnx"))
    members = [
        replace(member, graphs={**member.graphs, "int8": graph}) if member.name in names else member
        for member in bundle.manifest.members
    ]
    return Bundle(folder, replace(bundle.manifest, members=tuple(members)))


@pytest.mark.parametrize("engine", ["onnxruntime:int8", "openvino:int8", "cuda:fp16"])
def test_a_precision_without_graphs_is_refused_and_never_replaced_by_fp32(bundle, engine):
    name, precision = engine.split(":")
    problem = rf"^--engine: {engine}, but no member has {precision} graphs, only fp32"
    for asked in (engine, make_plan(engine, 2, 3)):
        with pytest.raises(ConfigError, match=rf"{problem} - choose {name}:fp32, or auto$"):
            Predictor(Bundle.load(bundle), asked)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_member_that_lacks_a_graph_is_run_in_fp32_beside_the_others(make_bundle, soundscapes, engine):
    pytest.importorskip(engine)
    mixed, path = with_int8(make_bundle(), ["fold0"]), soundscapes / "site_2.ogg"

    def scores(precision, *names):
        predictor = Predictor(mixed.with_members(names), f"{engine}:{precision}", post=PostConfig((1.0,)))
        return predictor.predict(path)

    wanted = (scores("int8", "fold0") + scores("fp32", "fold1")) / 2
    np.testing.assert_allclose(scores("int8", "fold0", "fold1"), wanted, atol=1e-5)
    assert np.abs(scores("fp32", "fold0") - scores("int8", "fold0")).max() > 0.01


@pytest.mark.parametrize(
    ("names", "precision", "said"),
    [
        (["fold0"], "int8", "1 of 3 members in int8, the others in fp32"),
        (["fold0", "fold2"], "int8", "2 of 3 members in int8, the others in fp32"),
        (["fold0", "fold1", "fold2"], "int8", ""),
        (["fold0"], "fp32", ""),
        (["fold0"], "bf16", ""),
    ],
)
def test_how_much_of_an_ensemble_runs_in_a_precision_is_said(make_bundle, names, precision, said):
    assert share_in(with_int8(make_bundle(members=3), names), precision) == said


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_int8_graph_is_run_where_it_is_asked_for(make_bundle, soundscapes, engine):
    pytest.importorskip(engine)
    bundle, path = with_int8(make_bundle(), ["fold0", "fold1"]), soundscapes / "site_2.ogg"
    fp32, int8 = (Predictor(bundle, f"{engine}:{precision}").predict(path) for precision in ("fp32", "int8"))
    assert np.abs(int8 - fp32).max() > 0.01


def test_bf16_is_computed_from_the_fp32_graph(bundle, soundscapes):
    pytest.importorskip("openvino")
    from birdinfer.inference.engines.openvino import has_bf16

    if not has_bf16():
        pytest.skip("this processor has no bf16")
    loaded, path = Bundle.load(bundle), soundscapes / "site_2.ogg"
    found, wanted = Predictor(loaded, "openvino:bf16").predict(path), Predictor(loaded).predict(path)
    np.testing.assert_allclose(found, wanted, atol=0.02)


class TestPostProcessing:
    @pytest.fixture
    def with_table(self, make_bundle):
        """A bundle that turns its scores into their square roots, by a table that lies in it."""
        folder = make_bundle()
        loaded, shares = Bundle.load(folder), np.linspace(0, 1, 1001)
        write_quantiles(folder / "q.csv", {label: Quantiles(shares, np.sqrt(shares)) for label in loaded.labels})
        post = PostConfig((1.0,), (HistogramMatch(table="q.csv"),))
        save_manifest(folder, msgspec.structs.replace(loaded.manifest, post=post))
        return Bundle.load(folder)

    def test_a_bundles_table_is_found_in_it_wherever_the_run_is(self, with_table, soundscapes, tmp_path, monkeypatch):
        path = soundscapes / "site_1.ogg"
        raw = Predictor(with_table, post=PostConfig((1.0,))).predict(path)
        monkeypatch.chdir(tmp_path)
        np.testing.assert_allclose(Predictor(with_table).predict(path), np.sqrt(raw), atol=1e-3)

    def test_a_step_of_the_command_line_has_its_own_table(self, with_table, bundle, soundscapes):
        path, steps = soundscapes / "site_1.ogg", parse_steps([f"histogram_match:table={with_table.folder / 'q.csv'}"])
        found = Predictor(Bundle.load(bundle), post=PostConfig((1.0,), steps)).predict(path)
        assert np.array_equal(found, Predictor(with_table).predict(path))

    def test_a_table_outside_the_bundle_is_refused(self, with_table):
        post = PostConfig(steps=(HistogramMatch(table="../q.csv"),))
        with pytest.raises(BundleError, match="lies outside the bundle"):
            Predictor(Bundle(with_table.folder, msgspec.structs.replace(with_table.manifest, post=post)))

    def test_steps_that_do_not_fit_are_refused_before_a_graph_is_loaded(self, bundle, monkeypatch):
        monkeypatch.setattr(
            "birdinfer.inference.predictor.load_member_groups", lambda *_: pytest.fail("a graph was loaded")
        )
        post = PostConfig(steps=(MirrorGroups(groups=(("comcuc", "absent"),)),))
        with pytest.raises(ConfigError, match="'absent' is not among the species"):
            Predictor(Bundle.load(bundle), post=post)

    def test_without_any_asked_for_it_is_the_bundles(self, bundle):
        loaded = Bundle.load(bundle)
        assert Predictor(loaded).post == loaded.manifest.post
        assert Predictor(loaded, post=PostConfig((1.0,))).post == PostConfig((1.0,))


@pytest.mark.parametrize("labels", [("0012",), ("47158son16", "comcuc"), LABELS])
def test_fewer_species_have_the_same_bits(mixed, soundscapes, labels):
    post = PostConfig((0.2, 0.6, 0.2), parse_steps(["file_max:power=0.5", "local_max"]))
    whole = Bundle.load(mixed).with_scoring(Blend("geometric"), post)
    members = ["fold0", "long", "external"] if "0012" in labels or "comcuc" in labels else ["fold0", "long"]
    whole = whole.with_members(members)
    part = whole.with_species(labels)
    assert part.labels == tuple(label for label in LABELS if label in labels)
    columns = [LABELS.index(label) for label in part.labels]
    assert part.manifest.fallback_probabilities == tuple(whole.manifest.fallback_probabilities[at] for at in columns)
    path = soundscapes / "site_1.ogg"
    np.testing.assert_array_equal(Predictor(part).predict(path), Predictor(whole).predict(path)[:, columns])


def test_species_are_left_out_only_where_no_score_needs_them(mixed):
    bundle = Bundle.load(mixed)
    assert bundle.with_species(["1161364"]) is bundle  # the external member would know nothing
    mirrored = bundle.with_scoring(Blend(), PostConfig(steps=(MirrorGroups(groups=(LABELS[:2],)),)))
    assert mirrored.with_species(["0012"]) is mirrored
    assert bundle.with_species([]) is bundle
