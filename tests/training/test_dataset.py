import numpy as np
import pytest
from making import write_sound
from tiny_clips import LABELS, RATE, TINY_FRONTEND

from birdinfer.training.augment import WaveformAugment
from birdinfer.training.dataset import (
    EpochBatches,
    TrainingWindows,
    ValidationWindows,
    build_targets,
    training_loader,
    validation_loader,
    window_starts,
)
from birdinfer.training.metadata import read_metadata
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe_augment import AugmentConfig
from birdinfer.training.recipe_data import DataConfig
from birdinfer.training.recipe_learning import LoopConfig

SAMPLES = TINY_FRONTEND.window_samples + 2 * TINY_FRONTEND.margin_samples


@pytest.fixture(scope="module")
def clips(clips_dir):
    return read_metadata(clips_dir).clips


@pytest.fixture
def broken(tmp_path, clips):
    """A clip that was well when its header was read and is not any more."""
    path = tmp_path / "gone.wav"
    return clips[0]._replace(path=path, filename="gone.wav")


def windows_of(clips, recipe=None, config=None):
    recipe = recipe or Recipe(frontend=TINY_FRONTEND)
    targets = build_targets(clips, LABELS, 0.5)
    return TrainingWindows(clips, targets, recipe, WaveformAugment(config or AugmentConfig(), TINY_FRONTEND))


class TestTargets:
    def test_primary_and_secondary(self, clips):
        first, second = build_targets(clips[:2], LABELS, 0.3)
        np.testing.assert_allclose(first, [1, 0.3, 0, 0])
        np.testing.assert_allclose(second, [1, 0, 0, 0])


class TestTrainingWindows:
    def test_an_item_is_a_function_of_epoch_and_index(self, clips):
        windows = windows_of(clips)
        samples, target, failed = windows[3, 5]
        np.testing.assert_array_equal(samples, windows_of(clips)[3, 5][0])
        assert not np.array_equal(samples, windows[4, 5][0])
        assert samples.shape == (SAMPLES,)
        assert target.tolist() == [1, 0, 0, 0]
        assert failed == ""

    def test_windows_come_from_all_over_the_clip(self, tmp_path, clips):
        ramp = np.linspace(0, 1, RATE * 4, dtype=np.float32)
        write_sound(tmp_path / "ramp.wav", ramp, RATE, subtype="FLOAT")
        clip = clips[0]._replace(path=tmp_path / "ramp.wav", duration_seconds=4.0)
        off = AugmentConfig(gain_probability=0.0)
        windows = windows_of([clip], config=off)
        starts = [windows[epoch, 0][0][TINY_FRONTEND.margin_samples] * 4 for epoch in range(60)]
        assert min(starts) < 0.4
        assert 2.6 < max(starts) < 3.01

    def test_a_clip_that_cannot_be_decoded_is_silence_without_weight(self, broken):
        """Pitfall 13: skipped and named; it neither ends the run nor vanishes."""
        samples, target, failed = windows_of([broken])[0, 0]
        assert not samples.any()
        assert not target.any()
        assert failed == "gone.wav (no such file)"

    def test_a_header_that_lies_about_its_length(self, clips):
        """Truncated files claim more than they hold: then the clip's beginning is heard."""
        liar = clips[0]._replace(duration_seconds=1_000.0)
        samples, _, failed = windows_of([liar], config=AugmentConfig(gain_probability=0.0))[0, 0]
        assert failed == ""
        assert samples.any()


class TestValidationWindows:
    @pytest.mark.parametrize(
        ("duration", "most", "starts"),
        [(0.5, 3, [0.0]), (5.0, 3, [0.0]), (5.4, 3, [0.0]), (10.0, 3, [0.0, 5.0]), (60.0, 3, [0.0, 27.5, 55.0])],
    )
    def test_starts(self, duration, most, starts):
        assert window_starts(duration, 5.0, most) == starts

    def test_windows(self, clips):
        item = ValidationWindows(clips, TINY_FRONTEND, 3)[4]
        assert (item.clip_index, item.waveforms.shape, item.failed) == (4, (2, SAMPLES), "")

    def test_a_clip_that_cannot_be_decoded(self, broken):
        item = ValidationWindows([broken], TINY_FRONTEND, 3)[0]
        assert (item.waveforms.shape, item.failed) == ((0, SAMPLES), "gone.wav (no such file)")

    def test_a_header_that_lies_about_its_length(self, clips):
        item = ValidationWindows([clips[0]._replace(duration_seconds=99.0)], TINY_FRONTEND, 3)[0]
        assert (len(item.waveforms), item.failed) == (1, "")


class TestEpochBatches:
    def batches(self, labels, epoch=0, first_step=0, power=0.0, size=4):
        recipe = Recipe(data=DataConfig(sampling_power=power), loop=LoopConfig(batch_size=size))
        batches = EpochBatches(labels, recipe)
        batches.begin(epoch, first_step)
        return list(batches)

    def test_each_clip_once(self):
        keys = [key for batch in self.batches("a" * 12, epoch=3) for key in batch]
        assert sorted(keys) == [(3, index) for index in range(12)]

    def test_another_epoch_another_order(self):
        assert [k[1] for k in self.batches("a" * 12)[0]] != [k[1] for k in self.batches("a" * 12, epoch=1)[0]]

    def test_goes_on_at_any_step(self):
        assert self.batches("a" * 12, first_step=2) == self.batches("a" * 12)[2:]

    def test_a_last_batch_that_is_not_full_is_left_out_unless_it_is_the_only_one(self):
        assert [len(batch) for batch in self.batches("a" * 11)] == [4, 4]
        assert [len(batch) for batch in self.batches("a" * 3)] == [3]

    def test_rare_species_are_drawn_more_often(self):
        labels = "a" * 396 + "b" * 4
        drawn = [labels[i] for epoch in range(9) for batch in self.batches(labels, epoch, power=-1.0) for _, i in batch]
        assert 0.4 < drawn.count("b") / len(drawn) < 0.6


class TestLoaders:
    def test_worker_processes_change_nothing(self, clips):
        """The same batches in this process and in another."""

        def load(n_workers):
            recipe = Recipe(frontend=TINY_FRONTEND, loop=LoopConfig(batch_size=8, num_workers=n_workers))
            batches = EpochBatches([clip.primary_label for clip in clips], recipe)
            return list(training_loader(windows_of(clips, recipe), batches, recipe, pin=False))

        here, there = load(0), load(1)
        assert len(here) == 3
        for one, other in zip(here, there, strict=True):
            assert one.waveforms.shape == (8, SAMPLES)
            assert np.array_equal(one.waveforms, other.waveforms)
            assert np.array_equal(one.targets, other.targets)
            assert one.failed == other.failed == ()

    def test_failed_clips_weigh_nothing(self, clips, broken):
        recipe = Recipe(frontend=TINY_FRONTEND, loop=LoopConfig(batch_size=2))
        windows = windows_of([clips[0], broken], recipe)
        (batch,) = training_loader(windows, EpochBatches("aa", recipe), recipe, pin=False)
        assert sorted(batch.weights.tolist()) == [0.0, 1.0]
        assert batch.failed == ("gone.wav (no such file)",)

    def test_validation_keeps_every_clip_in_order(self, clips):
        recipe = Recipe(frontend=TINY_FRONTEND, loop=LoopConfig(batch_size=10, val_windows=2))
        loader = validation_loader(ValidationWindows(clips, TINY_FRONTEND, 2), len(clips), recipe)
        batches = list(loader)
        assert [item.clip_index for batch in batches for item in batch] == list(range(24))
        assert len(batches[0]) == 5
