"""What a run trains on: prepared once, written down, and read again."""

import csv
import types

import msgspec
import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, call, write_clips

from birdinfer.errors import ConfigError
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.data import sources
from birdinfer.training.data.folds_file import TEST
from birdinfer.training.data.prepare import open_source, prepare_data
from birdinfer.training.data.sources import CachedSource, DecodedSource


class Recorder(TrainingCallback):
    def __init__(self):
        self.messages, self.prepared = [], []

    def on_message(self, line):
        self.messages.append(line)

    def on_progress(self, what, done, total):
        self.prepared.append((what, done, total))


def with_data(recipe, **keys):
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, **keys))


def rows_of(run_dir):
    with (run_dir / "folds.csv").open(newline="") as file:
        return {row["filename"]: int(row["fold"]) for row in csv.DictReader(file)}


class TestPrepareData:
    def test_the_same_again_from_the_file(self, plain_recipe, clips_dir, tmp_path):
        first = prepare_data(plain_recipe, clips_dir, tmp_path)
        assert prepare_data(plain_recipe, clips_dir, tmp_path) == first
        assert {len(first.held_out(fold)) for fold in range(3)} == {8}
        assert set(first.training(0)) == set(first.clips) - set(first.held_out(0))

    def test_a_few_clips_are_chosen_and_the_others_named(self, plain_recipe, clips_dir, tmp_path):
        recipe = with_data(plain_recipe, max_clips=9)
        prepared = prepare_data(recipe, clips_dir, tmp_path)
        assert len(prepared.clips) == 9
        assert list(rows_of(tmp_path).values()).count(-3) == 24 - 9
        assert prepare_data(recipe, clips_dir, tmp_path) == prepared

    def test_test_clips_are_in_no_fold(self, plain_recipe, clips_dir, tmp_path):
        prepared = prepare_data(with_data(plain_recipe, test_share=0.25), clips_dir, tmp_path)
        test = set(prepared.held_out(TEST))
        assert len(test) == 6
        for fold in range(3):
            assert not test & {*prepared.training(fold), *prepared.held_out(fold)}

    def test_one_split_in_three(self, plain_recipe, clips_dir, tmp_path):
        prepared = prepare_data(with_data(plain_recipe, val_share=0.25, test_share=0.25), clips_dir, tmp_path)
        assert [len(prepared.training(0)), len(prepared.held_out(0)), len(prepared.held_out(TEST))] == [12, 6, 6]

    def test_everything_trains(self, plain_recipe, clips_dir, tmp_path):
        prepared = prepare_data(with_data(plain_recipe, all_data=True), clips_dir, tmp_path)
        assert (len(prepared.training(0)), prepared.held_out(0)) == (24, ())

    def test_rare_species_lose_their_clips_and_keep_their_column(self, plain_recipe, tmp_path):
        data = write_clips(tmp_path / "data", clips_per_label=3)
        table = (data / "train.csv").read_text().splitlines()
        (data / "train.csv").write_text("\n".join(row for row in table if not row.startswith(f"{LABELS[0]},") or
                                                  "XC0" in row))  # fmt: skip
        reporter = Recorder()
        prepared = prepare_data(with_data(plain_recipe, min_clips_per_species=2), data, tmp_path, reporter)
        assert [species.label for species in prepared.species] == list(LABELS)
        assert {clip.primary_label for clip in prepared.clips} == set(LABELS[1:])
        assert any("species" in line for line in reporter.messages)

    @pytest.mark.parametrize("mode", ["group", "remove"])
    def test_recordings_that_sound_alike(self, mode, plain_recipe, tmp_path):
        """The same sound twice under two authors: reported, and kept on one side or left out."""
        data = tmp_path / "data"
        write_clips(data, clips_per_label=3)
        for name in ("XC0", "XC1"):
            write_sound(data / "train_audio" / LABELS[0] / f"{name}.wav", song(), RATE)
        reporter = Recorder()
        prepared = prepare_data(with_data(plain_recipe, duplicates=mode), data, tmp_path, reporter)
        folds = rows_of(tmp_path)
        first, second = (folds[f"{LABELS[0]}/{name}.wav"] for name in ("XC0", "XC1"))
        assert second == (-3 if mode == "remove" else first)
        assert len(prepared.clips) == (11 if mode == "remove" else 12)
        assert any("sound like another one" in line for line in reporter.messages)
        assert reporter.prepared[-1] == ("searching for duplicates", 12, 12)
        # A second fold reads what was decided instead of searching again.
        again = Recorder()
        assert prepare_data(with_data(plain_recipe, duplicates=mode), data, tmp_path, again) == prepared
        assert again.prepared == []

    def test_what_is_validated_is_said(self, plain_recipe, tmp_path):
        data = write_clips(tmp_path / "data", clips_per_label=3)
        rows = (data / "train.csv").read_text().splitlines()
        (data / "train.csv").write_text("\n".join(row for row in rows if LABELS[0] not in row or "XC0" in row) + "\n")
        reporter = Recorder()
        prepare_data(with_data(plain_recipe, n_folds=2), data, tmp_path / "a", reporter)
        assert reporter.messages[-1] == (
            "9 of 10 clips and 3 of 4 species are validated, the others are trained on alone "
            "(fold 0: 5 of 3 species; fold 1: 4 of 3 species)"
        )
        prepare_data(with_data(plain_recipe, val_share=0.9), data, tmp_path / "b", reporter)
        assert reporter.messages[-1].startswith("data.val_share is 0.9, fold 0 has 60.0% of the clips: species need")

    @pytest.mark.parametrize(("remove_voice", "n_left"), [(False, 11), (True, 12)])
    def test_recordings_that_share_an_announcement(self, plain_recipe, tmp_path, monkeypatch, remove_voice, n_left):
        """Alike for the longer part; searched without voices, they are two recordings."""
        announcement = types.SimpleNamespace(speech_spans=lambda samples: [(0.0, 4.8)])
        monkeypatch.setattr(sources, "VoiceDetector", lambda asked_by: announcement)
        monkeypatch.setattr(sources, "detector_version", lambda: "none")
        data = write_clips(tmp_path / "data", clips_per_label=3)
        for name, seed in (("XC0", 7), ("XC1", 8)):
            own = np.concatenate([call(label, 0.3, seed) for label in np.random.default_rng(seed).permutation(LABELS)])
            write_sound(data / "train_audio" / LABELS[0] / f"{name}.wav", np.concatenate([song(), own]), RATE)
        recipe = with_data(plain_recipe, duplicates="remove", cache=True, remove_voice=remove_voice)
        assert len(prepare_data(recipe, data, tmp_path / "a").clips) == n_left

    def test_folds_of_another_run(self, plain_recipe, clips_dir, tmp_path):
        first = prepare_data(plain_recipe, clips_dir, tmp_path / "a")
        recipe = with_data(msgspec.structs.replace(plain_recipe, seed=5), folds_file=str(tmp_path / "a" / "folds.csv"))
        assert prepare_data(recipe, clips_dir, tmp_path / "b").folds == first.folds


class TestOpenSource:
    def test_decodes_or_caches_as_the_recipe_says(self, plain_recipe, clips_dir, tmp_path):
        prepared = prepare_data(plain_recipe, clips_dir, tmp_path)
        decoded = open_source(plain_recipe, prepared.clips, None, TrainingCallback(), lambda: None)
        assert isinstance(decoded, DecodedSource)
        reporter = Recorder()
        cached = open_source(
            with_data(plain_recipe, cache=True), prepared.clips, tmp_path / "cache", reporter, lambda: None
        )
        assert isinstance(cached, CachedSource)
        assert reporter.prepared[-1] == ("decoding clips", 24, 24)
        assert any("24 clips decoded in the cache" in line for line in reporter.messages)
        for clip in prepared.clips[:3]:
            assert cached.window(clip, 0.2) == pytest.approx(decoded.window(clip, 0.2), abs=1e-4)

    def test_a_column_of_folds_that_does_not_fit_is_refused(self, plain_recipe, clips_dir, tmp_path):
        with pytest.raises(ConfigError, match=r"data\.n_folds"):
            prepare_data(with_data(plain_recipe, n_folds=3, fold_column="author"), clips_dir, tmp_path)


def song():
    """Sound that changes all the time, as a fingerprint needs: calls of all pitches, one after another."""
    return np.concatenate([call(label, 0.4, seed) for seed in range(3) for label in LABELS])
