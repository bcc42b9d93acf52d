"""What a run trains on: laid once, written down, and read again."""

import csv

import msgspec
import pytest
from making import write_sound
from tiny_clips import LABELS, RATE, call, write_clips

from birdinfer.errors import ConfigError
from birdinfer.training.clips.sources import CachedSource, DecodedSource
from birdinfer.training.folds.laying import TEST
from birdinfer.training.preparation import lay, open_source
from birdinfer.training.report import Silent


class Recorder(Silent):
    def __init__(self):
        self.messages, self.prepared = [], []

    def message(self, line):
        self.messages.append(line)

    def preparing(self, what, done, total):
        self.prepared.append((what, done, total))


def with_data(recipe, **keys):
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, **keys))


def rows_of(run_dir):
    with (run_dir / "folds.csv").open(newline="") as file:
        return {row["filename"]: int(row["fold"]) for row in csv.DictReader(file)}


class TestLay:
    def test_the_same_again_from_the_file(self, plain_recipe, clips_dir, tmp_path):
        first = lay(plain_recipe, clips_dir, tmp_path, Silent())
        assert lay(plain_recipe, clips_dir, tmp_path, Silent()) == first
        assert {len(first.held_out(fold)) for fold in range(3)} == {8}
        assert set(first.training(0)) == set(first.clips) - set(first.held_out(0))

    def test_a_few_clips_are_chosen_and_the_others_named(self, plain_recipe, clips_dir, tmp_path):
        recipe = with_data(plain_recipe, max_clips=9)
        laid = lay(recipe, clips_dir, tmp_path, Silent())
        assert len(laid.clips) == 9
        assert list(rows_of(tmp_path).values()).count(-3) == 24 - 9
        assert lay(recipe, clips_dir, tmp_path, Silent()) == laid

    def test_test_clips_are_in_no_fold(self, plain_recipe, clips_dir, tmp_path):
        laid = lay(with_data(plain_recipe, test_share=0.25), clips_dir, tmp_path, Silent())
        test = set(laid.held_out(TEST))
        assert len(test) == 6
        for fold in range(3):
            assert not test & {*laid.training(fold), *laid.held_out(fold)}

    def test_one_split_in_three(self, plain_recipe, clips_dir, tmp_path):
        laid = lay(with_data(plain_recipe, val_share=0.25, test_share=0.25), clips_dir, tmp_path, Silent())
        assert [len(laid.training(0)), len(laid.held_out(0)), len(laid.held_out(TEST))] == [12, 6, 6]

    def test_everything_trains(self, plain_recipe, clips_dir, tmp_path):
        laid = lay(with_data(plain_recipe, all_data=True), clips_dir, tmp_path, Silent())
        assert (len(laid.training(0)), laid.held_out(0)) == (24, ())

    def test_rare_species_lose_their_column(self, plain_recipe, tmp_path):
        data = write_clips(tmp_path / "data", clips_per_label=3)
        table = (data / "train.csv").read_text().splitlines()
        (data / "train.csv").write_text("\n".join(row for row in table if not row.startswith(f"{LABELS[0]},") or
                                                  "XC0" in row))  # fmt: skip
        reporter = Recorder()
        laid = lay(with_data(plain_recipe, min_clips_per_species=2), data, tmp_path, reporter)
        assert [species.label for species in laid.species] == list(LABELS[1:])
        assert any("species" in line for line in reporter.messages)

    @pytest.mark.parametrize("mode", ["group", "remove"])
    def test_recordings_that_sound_alike(self, mode, plain_recipe, tmp_path):
        """The same sound twice under two authors: told, and kept on one side or left out."""
        data = tmp_path / "data"
        write_clips(data, clips_per_label=3)
        for name in ("XC0", "XC1"):
            write_sound(data / "train_audio" / LABELS[0] / f"{name}.wav", song(), RATE)
        reporter = Recorder()
        laid = lay(with_data(plain_recipe, duplicates=mode), data, tmp_path, reporter)
        folds = rows_of(tmp_path)
        first, second = (folds[f"{LABELS[0]}/{name}.wav"] for name in ("XC0", "XC1"))
        assert second == (-3 if mode == "remove" else first)
        assert len(laid.clips) == (11 if mode == "remove" else 12)
        assert any("sound like another one" in line for line in reporter.messages)
        assert reporter.prepared[-1] == ("searching for duplicates", 12, 12)
        # A second fold reads what was decided instead of searching again.
        again = Recorder()
        assert lay(with_data(plain_recipe, duplicates=mode), data, tmp_path, again) == laid
        assert again.prepared == []

    def test_folds_of_another_run(self, plain_recipe, clips_dir, tmp_path):
        first = lay(plain_recipe, clips_dir, tmp_path / "a", Silent())
        recipe = with_data(msgspec.structs.replace(plain_recipe, seed=5), folds_file=str(tmp_path / "a" / "folds.csv"))
        assert lay(recipe, clips_dir, tmp_path / "b", Silent()).folds == first.folds


class TestOpenSource:
    def test_decodes_or_caches_as_the_recipe_says(self, plain_recipe, clips_dir, tmp_path):
        laid = lay(plain_recipe, clips_dir, tmp_path, Silent())
        decoded = open_source(plain_recipe, laid.clips, None, Silent(), lambda: None)
        assert isinstance(decoded, DecodedSource)
        reporter = Recorder()
        cached = open_source(
            with_data(plain_recipe, cache=True), laid.clips, tmp_path / "cache", reporter, lambda: None
        )
        assert isinstance(cached, CachedSource)
        assert reporter.prepared[-1] == ("decoding clips", 24, 24)
        assert any("24 clips decoded in the cache" in line for line in reporter.messages)
        for clip in laid.clips[:3]:
            assert cached.window(clip, 0.2) == pytest.approx(decoded.window(clip, 0.2), abs=1e-4)

    def test_a_column_of_folds_that_does_not_fit_is_refused(self, plain_recipe, clips_dir, tmp_path):
        with pytest.raises(ConfigError, match=r"data\.n_folds"):
            lay(with_data(plain_recipe, n_folds=3, fold_column="author"), clips_dir, tmp_path, Silent())


def song():
    """Sound that changes all the time, as a fingerprint needs: calls of all pitches, one after another."""
    import numpy as np

    return np.concatenate([call(label, 0.4, seed) for seed in range(3) for label in LABELS])
