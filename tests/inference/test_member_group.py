import msgspec
import numpy as np
import pytest
from fused_bundles import share_one_graph
from make_bundles import FRONTEND, linear_member, write_bundle

from birdinfer.cli.bundle import input_text
from birdinfer.config import FrontEndConfig, MelConfig, WaveformConfig
from birdinfer.errors import BundleError
from birdinfer.features import log_mel as mel
from birdinfer.inference import member_group as group_module
from birdinfer.inference.bundle import Bundle, save_manifest
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.inference.manifest import Graph
from birdinfer.inference.member_group import members_of_equal_cost
from birdinfer.inference.predictor import Predictor
from birdinfer.postprocess.config import PostConfig

PICTURES = FrontEndConfig(
    FRONTEND.audio,
    FRONTEND.window,
    MelConfig(n_fft=1024, n_mels=40, compression="pcen", normalisation="frequency", resize=(32, 48)),
)


@pytest.fixture(scope="module")
def pictures_bundle(tmp_path_factory):
    """A member that takes 40 mel bands as a picture of 32 x 48, beside one that takes log-mels."""
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "pictures")
    manifest = Bundle.load(folder).manifest
    stretched = linear_member(folder / "fold1.onnx", PICTURES, 1)
    save_manifest(folder, msgspec.structs.replace(manifest, members=(manifest.members[0], stretched)))
    return folder


def test_make_input_resizes_pictures(pictures_bundle, soundscapes):
    predictor = Predictor(Bundle.load(pictures_bundle), post=PostConfig((1.0,)))
    plain, stretched = predictor.member_groups
    with predictor.open(soundscapes / "site_2.ogg") as reader:
        runs = list(reader.batches())
    for member_group, config in ((plain, FRONTEND), (stretched, PICTURES)):
        inputs = member_group.make_input(runs[0])
        assert inputs.shape == (runs[0].n_windows, 1, *config.input_shape)
        assert np.array_equal(inputs, mel.windows_to_input(runs[0].samples, runs[0].n_windows, config))
        assert member_group.score(0, inputs)[0].clip.shape == (runs[0].n_windows, 4)


def test_pitfall_1_a_picture_is_scored_alike_in_every_batch(pictures_bundle, soundscapes):
    loaded, path = Bundle.load(pictures_bundle), soundscapes / "site_1.ogg"
    scores = [Predictor(loaded, EnginePlan(batch_size=size)).predict(path) for size in (1, 2)]
    assert np.ptp(scores[0], axis=0).min() > 0
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_an_input_as_text():
    assert input_text(FRONTEND) == "mel 32 x 320 of 5 s at 32 kHz"
    assert input_text(PICTURES) == "mel 32 x 48 of 5 s at 32 kHz"
    assert input_text(WaveformConfig()) == "waveform of 5 s at 32 kHz"


@pytest.fixture
def no_number(monkeypatch):
    """The second call of an activation gives a NaN."""
    real, calls = group_module.activate, []

    def activate(*arguments, **options):
        calls.append(1)
        found = real(*arguments, **options).copy()
        if len(calls) == 2:
            found[0, 0] = np.nan
        return found

    monkeypatch.setattr(group_module, "activate", activate)


def test_a_member_that_answers_nan_is_named(bundle, soundscapes, no_number):
    with pytest.raises(BundleError, match=r"fold1: returns NaN"):
        Predictor(Bundle.load(bundle)).predict(soundscapes / "site_1.ogg")


def test_no_table_with_nan_is_ever_written(birdinfer, bundle, soundscapes, tmp_path, no_number):
    """Pitfall 6: one NaN in a submission is a scoring error for all of it."""
    out = tmp_path / "submission.csv"
    code, _, err = birdinfer("predict", soundscapes, "--bundle", bundle, "-o", out, "--jobs", "1")
    assert code == 3
    assert "fold1: returns NaN" in err
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert len(rows) == 5  # those of the files for which it returned none
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[1:])


@pytest.fixture
def fused_and_separate(make_bundle, tmp_path):
    """The same three members in one graph and in three."""
    return Bundle.load(share_one_graph(make_bundle(members=3))), Bundle.load(write_bundle(tmp_path / "separate", 3))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("names", [("fold0", "fold1", "fold2"), ("fold1",), ("fold2", "fold0")])
def test_members_of_one_graph_say_what_they_say_in_their_own(fused_and_separate, soundscapes, engine, names):
    pytest.importorskip(engine)
    fused, separate = (Predictor(each.with_members(names), engine) for each in fused_and_separate)
    path = soundscapes / "site_1.ogg"
    np.testing.assert_allclose(fused.predict(path), separate.predict(path), atol=1e-6)
    (member_group,) = fused.member_groups
    assert len({id(loaded.graph.engine) for loaded in member_group.members}) == 1


def test_a_graph_that_members_share_is_loaded_and_run_once(fused_and_separate, soundscapes, monkeypatch):
    opened, ran = [], []
    start, run = OnnxRuntimeEngine.__init__, OnnxRuntimeEngine.run
    monkeypatch.setattr(
        OnnxRuntimeEngine, "__init__", lambda self, path, *rest: opened.append(path.name) or start(self, path, *rest)
    )
    monkeypatch.setattr(OnnxRuntimeEngine, "run", lambda self, batch: ran.append(1) or run(self, batch))
    fused, separate = fused_and_separate
    for each, n_files in ((fused, 1), (separate, 3)):
        opened.clear()
        ran.clear()
        Predictor(each).predict(soundscapes / "site_1.ogg")
        assert len(opened) == n_files
        assert len(ran) == n_files


def test_members_that_share_a_graph_are_alike_as_a_whole(fused_and_separate):
    fused, separate = ([*each.manifest.members] for each in fused_and_separate)
    assert members_of_equal_cost(separate) == [[[member] for member in separate]]
    assert members_of_equal_cost(fused) == [[fused]]
    another = msgspec.structs.replace(separate[0], name="another", backbone="resnet")
    assert members_of_equal_cost([*fused, another]) == [[fused], [[another]]]
    # Two graphs of three members each are one kind.
    second = [
        msgspec.structs.replace(member, name=f"second{index}", graphs={"fp32": Graph("second.onnx", "")})
        for index, member in enumerate(fused)
    ]
    assert members_of_equal_cost([*fused, *second]) == [[fused, second]]


def test_an_int8_member_is_of_another_kind_than_one_that_has_none(fused_and_separate):
    first, second, third = fused_and_separate[1].manifest.members
    int8 = msgspec.structs.replace(second, graphs={**second.graphs, "int8": Graph("int8.onnx", "")})
    assert members_of_equal_cost([first, int8, third]) == [[[first], [third]], [[int8]]]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_member_group_times_its_parts(fused_and_separate, soundscapes, engine):
    """Members that an engine runs together share its time equally."""
    pytest.importorskip(engine)
    fused, separate = fused_and_separate
    for bundle, is_equal in ((fused, True), (separate, engine == "openvino")):
        predictor = Predictor(bundle, engine)
        assert predictor.member_groups[0].watch.shares() == {}
        predictor.predict(soundscapes / "site_1.ogg")
        (member_group,) = predictor.member_groups
        shares = member_group.watch.shares()
        assert set(shares) == {member_group.input_config, "fold0", "fold1", "fold2"}
        assert sum(shares.values()) == pytest.approx(1)
        assert (len({shares["fold0"], shares["fold1"], shares["fold2"]}) == 1) == is_equal
