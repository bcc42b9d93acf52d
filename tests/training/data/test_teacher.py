"""A teacher's answers: those of the bundle itself, for the very window, computed once."""

import pickle

import msgspec
import numpy as np
import pytest
from tiny_clips import LABELS, TINY_FRONTEND
from tiny_teachers import write_teacher

from birdinfer import Bundle, Predictor
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.features import log_mel
from birdinfer.inference.trained_on import RECORD
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.tables import pseudo_labels
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.prepare import prepare_data
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.data.starts import WindowPlan
from birdinfer.training.data.teacher import check_pseudo_labels, choose_teacher, open_teacher
from birdinfer.training.recipe.data_config import DataConfig, SourceConfig
from birdinfer.training.recipe.schema import DistilConfig, ModelConfig, Recipe
from birdinfer.training.recipe.toml import check_table

SOURCE = DecodedSource(TINY_FRONTEND)
SPECIES = tuple(Species(label) for label in LABELS)


@pytest.fixture(scope="module")
def clips(clips_dir):
    return read_metadata(clips_dir).clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "bundle")


def recipe_of(folder, windows="random", **distil):
    return Recipe(
        data=DataConfig(windows=windows), frontend=TINY_FRONTEND, distil=DistilConfig(teacher=str(folder), **distil)
    )


def chosen(recipe, held_out=(), species=SPECIES, notes=None):
    return choose_teacher(recipe, species, held_out, None, (notes if notes is not None else []).append)


def opened(recipe, clips, cache, **options):
    return open_teacher(chosen(recipe), clips, recipe, SOURCE, cache, **options)


def test_starts_of_random_windows_cover_a_clip_and_are_at_most_a_step_apart(clips, folder):
    plan = WindowPlan(recipe_of(folder, grid_seconds=0.2), SOURCE)
    starts = plan.starts(clips[0])  # 1.5 s, windows of 1 s
    assert starts == pytest.approx([0, 1 / 6, 1 / 3, 0.5])
    assert WindowPlan(recipe_of(folder), SOURCE).starts(clips[0]) == [0.0, 0.5]
    assert WindowPlan(recipe_of(folder, windows="centre"), SOURCE).starts(clips[0]) == [0.25]


def test_target_is_the_embedding_of_the_very_window(clips, folder, tmp_path):
    targets = opened(recipe_of(folder), clips[:6], tmp_path)
    predictor = Predictor(Bundle.load(folder), embeddings=True)
    assert targets.n_numbers == 16
    for clip in clips[:6]:
        start = targets.nearest(clip, 0.4)
        assert start == 0.5
        window = SOURCE.window(clip, start)[TINY_FRONTEND.margin_samples : -TINY_FRONTEND.margin_samples]
        padded = np.pad(window, TINY_FRONTEND.margin_samples, mode="reflect")
        inputs = log_mel.windows_to_input(padded, 1, TINY_FRONTEND, TINY_FRONTEND.window_samples)
        (scores,) = predictor.member_groups[0].score(0, inputs)
        np.testing.assert_allclose(targets.target(clip, start), scores.embeddings[0], atol=2e-3)


def test_centred_targets_have_a_mean_of_zero_over_all_windows(clips, folder, tmp_path):
    gone = clips[0]._replace(filename="gone.ogg", path=tmp_path / "gone.ogg")  # has no target, and is in no mean
    plain = opened(recipe_of(folder), [gone, *clips[:8]], tmp_path)
    centred = opened(recipe_of(folder, centre=True), [gone, *clips[:8]], tmp_path)
    pairs = [(clip, start) for clip in clips[:8] for start in (0.0, 0.5)]
    found = np.array([centred.target(*pair) for pair in pairs])
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    raw = np.array([plain.target(*pair) for pair in pairs])
    np.testing.assert_allclose(found, raw - raw.mean(axis=0), atol=1e-5)
    assert np.isnan(centred.target(gone, 0.0)).all()


@pytest.mark.parametrize(("loss", "temperature"), [("bce", 1.0), ("bce", 3.0), ("kl", 2.0)])
def test_target_is_the_score_at_a_temperature_of_the_species_that_both_know(clips, folder, tmp_path, loss, temperature):
    species = (Species("other"), Species(LABELS[2]), Species(LABELS[0]))
    recipe = recipe_of(folder, target="scores", loss=loss, temperature=temperature, windows="first")
    targets = open_teacher(chosen(recipe, species=species), clips[:3], recipe, SOURCE, tmp_path)
    found = targets.target(clips[1], 0.0)
    assert np.isnan(found[0])
    predictor = Predictor(Bundle.load(folder), post=PostConfig((1.0,)))
    path = clips[1].path
    probabilities = predictor.predict(path)[0][[2, 0]].astype(np.float64)
    logits = np.log(probabilities / (1 - probabilities)) / temperature
    expected = np.exp(logits) / np.exp(logits).sum() if loss == "kl" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(found[1:], expected, atol=0.05)  # a file's end is reflected, a window's own edge as well


def test_answers_are_computed_once_and_shared(clips, folder, tmp_path, monkeypatch):
    first = opened(recipe_of(folder), clips, tmp_path)
    monkeypatch.setattr("birdinfer.training.data.teacher._TeacherRun.__call__", lambda *_: pytest.fail("again"))
    done = []
    again = opened(recipe_of(folder, weight=3.0), clips, tmp_path, on_progress=lambda *args: done.append(args))
    assert not done
    copy = pickle.loads(pickle.dumps(again))
    for clip in clips:
        np.testing.assert_array_equal(first.target(clip, 0.5), copy.target(clip, 0.5))


def test_a_stopped_teacher_continues_and_another_one_begins_afresh(clips, folder, tmp_path):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        opened(recipe_of(folder), clips, tmp_path, between=stop)
    whole = opened(recipe_of(folder), clips, tmp_path)
    other = opened(recipe_of(folder), clips, tmp_path / "other")
    finer = opened(recipe_of(folder, grid_seconds=0.1), clips, tmp_path)
    for clip in clips:
        np.testing.assert_array_equal(whole.target(clip, 0.5), other.target(clip, 0.5))
    assert finer.nearest(clips[0], 0.21) == pytest.approx(0.2)
    assert len(list((tmp_path / "teachers").iterdir())) == 2


def test_a_clip_that_cannot_be_decoded_or_scored_teaches_nothing(clips, folder, tmp_path, monkeypatch):
    gone = clips[0]._replace(filename="gone.ogg", path=tmp_path / "gone.ogg")
    targets = opened(recipe_of(folder), [gone, *clips[1:3]], tmp_path)
    assert np.isnan(targets.target(gone, 0.0)).all()
    assert np.isfinite(targets.target(clips[1], 0.0)).all()
    real, calls = Predictor.score_batch, []

    def fail_later(self, batch):
        calls.append(1)
        if len(calls) == 3:
            raise BundleError("fold0", "returns NaN")
        return real(self, batch)

    monkeypatch.setattr(Predictor, "score_batch", fail_later)
    targets = opened(recipe_of(folder), clips[:1], tmp_path / "again")
    assert np.isnan(targets.target(clips[0], 0.5)).all()
    assert np.isfinite(targets.target(clips[0], 0.0)).all()


class TestChooseTeacher:
    def test_members_that_know_the_validation_clips_are_left_out_or_refused(self, clips, tmp_path):
        names = [clip.filename for clip in clips]
        folds = {name: index % 2 for index, name in enumerate(names)}
        folder, notes = write_teacher(tmp_path / "b", 2, folds=folds), []
        held_out = [clip for clip in clips if folds[clip.filename] == 1]
        teacher = chosen(recipe_of(folder), held_out, notes=notes)
        assert [member.name for member in teacher.bundle.manifest.members] == ["fold1"]
        assert notes == ["teacher: fold0 left out, trained on clips that this fold validates"]
        with pytest.raises(ConfigError, match="its score would flatter"):
            chosen(recipe_of(folder), clips)

    def test_each_fold_of_a_run_is_taught_by_its_own_alone_and_other_folds_by_none(self, clips_dir, tmp_path):
        def folds_of_run(seed):
            recipe = Recipe(seed=seed, data=DataConfig(n_folds=2), frontend=TINY_FRONTEND)
            data = prepare_data(recipe, clips_dir, tmp_path / f"run{seed}")
            return [[clip for clip, its in zip(data.clips, data.folds, strict=True) if its == n] for n in (0, 1)]

        folder, own = write_teacher(tmp_path / "b", 2), folds_of_run(0)
        (folder / RECORD).write_bytes((tmp_path / "run0" / "folds.csv").read_bytes())
        for fold, held_out in enumerate(own):
            (member,) = chosen(recipe_of(folder), held_out).bundle.manifest.members
            assert member.name == f"fold{fold}"
        for held_out in next(folds for seed in range(1, 50) if (folds := folds_of_run(seed))[0] not in own):
            with pytest.raises(ConfigError, match="every member was trained on clips that this fold validates"):
                chosen(recipe_of(folder), held_out)

    def test_what_is_not_known_of_a_teacher_is_reported(self, clips, folder):
        notes = []
        chosen(recipe_of(folder), clips, notes=notes)
        assert notes == ["teacher: no record of what fold0 was trained on, it may have been validation clips"]

    def test_a_member_is_chosen_by_name(self, tmp_path):
        folder = write_teacher(tmp_path / "b", 2)
        with pytest.raises(ConfigError, match="choose fold0 or fold1"):
            chosen(recipe_of(folder))
        (member,) = chosen(recipe_of(folder, member="fold1")).bundle.manifest.members
        assert member.name == "fold1"
        with pytest.raises(ConfigError, match="no such member"):
            chosen(recipe_of(folder, member="fold7"))

    def test_a_network_of_the_same_family_is_refused_unless_asked_for(self, folder):
        recipe = msgspec.structs.replace(recipe_of(folder), model=ModelConfig(family="cnn", backbone="linear"))
        manifest = Bundle.load(folder).manifest
        own = msgspec.structs.replace(manifest.provenance, recipe={"model": {"family": "cnn"}})
        bundle = Bundle(folder, msgspec.structs.replace(manifest, provenance=own))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bundle, "load", lambda _: bundle)
            with pytest.raises(ConfigError, match="same_family"):
                chosen(recipe)
            distil = msgspec.structs.replace(recipe.distil, same_family=True)
            assert chosen(msgspec.structs.replace(recipe, distil=distil))

    def test_a_teacher_of_other_species_and_one_that_is_not_there_are_refused(self, folder, tmp_path):
        with pytest.raises(ConfigError, match="none of the 1 species"):
            chosen(recipe_of(folder, target="scores", loss="bce"), species=(Species("other"),))
        with pytest.raises(
            InputNotFoundError, match=r"no such teacher \(distil\.teacher\) - birdinfer models get birdnet-2\.4"
        ):
            chosen(recipe_of(tmp_path / "nowhere"))
        with pytest.raises(InputNotFoundError, match="no such graph"):
            chosen(recipe_of(tmp_path / "nowhere.onnx"))


def test_pseudo_labels_of_the_same_family_are_refused_unless_asked_for(tmp_path):
    teacher = pseudo_labels.Teacher(labels=LABELS, bundle="b", families=("cnn efficientnet_b0", "birdnet"))
    rows = [("a.ogg", [(0.0, 1.0)], np.zeros((1, 4), np.float32))]
    pseudo_labels.write_pseudo_labels(tmp_path / "pseudo", teacher, rows)
    source = SourceConfig(path=str(tmp_path), kind="pseudo_labels", table=str(tmp_path / "pseudo"))

    def check(source, **model):
        check_pseudo_labels(Recipe(data=DataConfig(sources=(source,)), model=ModelConfig(**model)), tmp_path)

    with pytest.raises(ConfigError, match="scored by a cnn efficientnet_b0, as the network"):
        check(source)
    check(source, backbone="efficientnet_b1")
    check(source, family="sed")
    check(msgspec.structs.replace(source, same_family=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "unlabelled"}, "share of each batch"),
        ({"kind": "unlabelled", "share": 0.5, "role": "folds"}, "validates nothing"),
        ({"kind": "unlabelled", "share": 0.5}, "only a teacher says something"),
    ],
)
def test_unlabelled_recordings_need_a_share_and_a_teacher(source, message):
    with pytest.raises(ConfigError, match=message):
        check_table({"data": {"sources": [{"path": "x", **source}]}}, "recipe.toml")
