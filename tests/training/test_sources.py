"""A run with several sources: who validates, what leaks, and that a resumed run ends with the same bits."""

import dataclasses
import pickle

import numpy as np
import pytest
from make_bundles import write_sound
from one_fold import Killed, Recorder, assert_same_bits, changed, die_at, kill, session
from tiny_clips import LABELS, RATE, call, write_clips
from tiny_sources import soundscape, write_labels, write_pseudo, write_soundscapes

from birdinfer.errors import ConfigError
from birdinfer.export.acceptance.held_out import validated_clips
from birdinfer.runs.layout import BEST
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.data.dataset import WindowKey
from birdinfer.training.data.prepare import open_source, prepare_data
from birdinfer.training.data.targets import TargetMaker
from birdinfer.training.distributed import Distributed
from birdinfer.training.fold import Fold, FoldData
from birdinfer.training.loop import train_fold
from birdinfer.training.outputs import Outputs
from birdinfer.training.recipe.data_config import LabelConfig, SourceConfig

SOUND = {"path": "sound", "table": "labels.csv", "kind": "soundscapes"}
PSEUDO = {"path": "sound", "table": "pseudo", "kind": "pseudo_labels"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips with sources beside them. Read only."""
    folder = write_clips(tmp_path_factory.mktemp("data") / "clips", clips_per_label=3)
    write_soundscapes(folder / "sound")
    write_labels(folder / "labels.csv")
    write_pseudo(folder / "pseudo")
    return folder


@pytest.fixture
def prepare(plain_recipe, data, tmp_path):
    def run(*sources, folder=data, name="run", **keys):
        recipe = changed(plain_recipe, data={"sources": tuple(SourceConfig(**one) for one in sources), **keys})
        reporter = Recorder()
        return prepare_data(recipe, folder, tmp_path / name, reporter), reporter.messages

    return run


def of_source(clips, number=1):
    return [clip for clip in clips if clip.source == number]


class TestRoles:
    def test_each_recording_validates_where_its_role_says(self, prepare):
        plain, _ = prepare(name="plain")
        for role, n_training, n_held_out in (("train", 12, 0), ("folds", 8, 4), ("validate", 0, 12)):
            found, lines = prepare({**SOUND, "role": role}, name=role)
            assert len(of_source(found.training(0))) == n_training
            assert len(of_source(found.held_out(0))) == n_held_out
            assert len({clip.path for clip in of_source(found.held_out(0))}) == n_held_out // 4
            # The data folder's own clips validate as they did.
            assert of_source(found.held_out(0), 0) == list(plain.held_out(0))
            assert any(line.startswith("sound: 12 soundscapes of 3 recordings, ") for line in lines)
            assert prepare({**SOUND, "role": role}, name=role)[0][:3] == found[:3]

    def test_a_few_clips_are_chosen_of_each_source(self, prepare):
        found, _ = prepare(SOUND, max_clips=5)
        assert [len(of_source(found.clips, number)) for number in (0, 1)] == [5, 5]


class TestOverlap:
    def test_a_file_that_validates_gives_no_pseudo_labels(self, prepare):
        found, lines = prepare({**SOUND, "role": "validate"}, {**PSEUDO, "name": "taught"})
        assert of_source(found.clips, 2) == []
        assert "taught: nothing is left of it" in lines
        assert any(line.startswith("taught: 3 recordings overlap validation: ") for line in lines)

    def test_a_copy_under_another_name_is_found_by_its_sound(self, prepare, tmp_path):
        folder = write_clips(tmp_path / "data", clips_per_label=3)
        song = np.concatenate([call(label, 0.4, seed) for seed in range(3) for label in LABELS])
        write_sound(folder / "train_audio" / LABELS[0] / "XC1.wav", song, RATE)
        (folder / "extra" / LABELS[0]).mkdir(parents=True)
        for name, sound in (("copy", 0.5 * song[500:]), ("other", call(LABELS[0], 1.5, 77))):
            write_sound(folder / "extra" / LABELS[0] / f"{name}.wav", sound, RATE)
        found, lines = prepare({"path": "extra"}, folder=folder)
        assert [clip.path.stem for clip in of_source(found.clips)] == ["other"]
        assert f"extra: 1 recordings overlap validation: copy.wav (as {LABELS[0]}/XC1): left out" in lines
        with pytest.raises(ConfigError, match=r"data\.sources extra: 1 recordings overlap validation"):
            prepare({"path": "extra", "overlap": "refuse"}, folder=folder, name="refused")
        assert len(of_source(prepare({"path": "extra", "overlap": "keep"}, folder=folder, name="kept")[0].clips)) == 2

    def test_a_name_of_an_archive_is_the_same_in_any_folder(self, prepare, tmp_path):
        folder = write_clips(tmp_path / "data", clips_per_label=3)
        (folder / "train_audio" / LABELS[0] / "XC2.wav").rename(folder / "train_audio" / LABELS[0] / "XC4711.wav")
        (folder / "train.csv").write_text(
            (folder / "train.csv").read_text().replace(f"{LABELS[0]}/XC2", f"{LABELS[0]}/XC4711")
        )
        (folder / "extra" / LABELS[1]).mkdir(parents=True)
        write_sound(folder / "extra" / LABELS[1] / "XC4711.wav", call(LABELS[1], 1.5, 78), RATE)
        assert of_source(prepare({"path": "extra"}, folder=folder)[0].clips) == []


class TestTargets:
    def test_mixed_in_labels_are_capped_and_the_greater_counts(self, prepare):
        found, _ = prepare({**PSEUDO, "mix_probability": 1.0, "mix_label_sum": 0.5, "weight": 2.0})
        own, other = found.clips[0], of_source(found.clips)[0]
        for kind in ("hard", "soft"):
            maker = TargetMaker(
                Outputs(tuple(LABELS)), LabelConfig(kind=kind, secondary="ignored"), found.clips, found.sources
            )
            values, weights, _ = maker(own, other)
            wanted = np.array([1, 0.1, 0.15, 0.2])  # scores .1 .2 .3 .4, halved
            assert values == pytest.approx(wanted / (wanted.sum() if kind == "soft" else 1), abs=1e-3)
            assert weights.tolist() == [1, 1, 1, 1]
        assert maker(other)[2] == 2.0

    def test_a_window_without_species_has_no_target(self, prepare):
        found, _ = prepare(SOUND)
        silent = next(clip for clip in found.clips if not clip.primary_label)
        maker = TargetMaker(Outputs(tuple(LABELS)), LabelConfig(kind="soft"), found.clips, found.sources)
        assert maker(silent)[0].tolist() == [0, 0, 0, 0]


@pytest.fixture
def fold(tiny_recipe, data, tmp_path):
    """A fold with a share, a source that is mixed in and one that validates."""
    sources = (
        SourceConfig(**PSEUDO, share=0.25, drawn_by="label_sum", power=1.5, overlap="keep"),
        SourceConfig(**SOUND, name="background", mix_probability=0.5, mix_label_sum=0.5, overlap="keep"),
        SourceConfig(**SOUND, name="held", role="validate", overlap="keep"),
    )
    recipe = changed(tiny_recipe, data={"sources": sources}, loop={"epochs": 2})
    found = prepare_data(recipe, data, tmp_path)
    return Fold(
        recipe=recipe,
        species=found.species,
        number=0,
        training=found.training(0),
        validation=found.held_out(0),
        source=open_source(recipe, found.clips, None, Recorder(), lambda: None),
        sources=found.sources,
        data_dir=data,
        folder=tmp_path / "fold0",
    )


def test_a_run_with_sources_that_is_killed_ends_with_the_same_bits(fold, tmp_path, monkeypatch):
    whole = dataclasses.replace(fold, folder=tmp_path / "whole")
    train_fold(whole, session())
    with monkeypatch.context() as patch:
        die_at(patch, 3, kill)
        with pytest.raises(Killed):
            train_fold(fold, session())
    train_fold(fold, session())
    assert_same_bits(fold.folder, whole.folder)
    assert f"@held/{soundscape(0)}.wav" in (fold.folder / "oof.csv").read_text()


def test_what_workers_are_sent_gives_the_same_windows(fold):
    windows = FoldData(fold, Distributed(), pin=False).training.dataset
    sent = pickle.loads(pickle.dumps(windows))
    for item in (0, len(windows) - 1):
        for place in range(3):
            key = WindowKey(0, item, place)
            assert np.array_equal(windows[key].samples, sent[key].samples)
            assert np.array_equal(windows[key].targets, sent[key].targets)


def test_an_export_looks_for_the_data_folder_s_clips_alone(fold):
    train_fold(fold, session())
    found = validated_clips(fold.folder, load_checkpoint(fold.folder / BEST), fold.data_dir)
    assert [clip.filename for clip in found] == [clip.filename for clip in fold.validation if not clip.source]
