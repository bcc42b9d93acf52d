import pickle
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import write_sound
from stand_ins import AsTheyAre, CountsThreads, OneHot, RandomGain, Shuffled
from tiny_clips import LABELS, RATE, TINY_FRONTEND

from birdinfer.training.data.cache import CacheSettings, build_cache
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import (
    EpochBatches,
    TrainingWindows,
    ValidationWindows,
    WindowKey,
    training_loader,
    validation_loader,
    window_starts,
)
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, Recipe

MARGIN = TINY_FRONTEND.margin_samples
SAMPLES = TINY_FRONTEND.window_samples + 2 * MARGIN
TINY = Recipe(frontend=TINY_FRONTEND)
AS_THEY_ARE = AsTheyAre()


@pytest.fixture(scope="module")
def clips(clips_dir):
    return read_metadata(clips_dir).clips


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """4 s; a sample's value is its place in seconds / 4."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    write_sound(path, np.linspace(0, 1, RATE * 4, dtype=np.float32), RATE, subtype="FLOAT")
    return Clip("ramp.wav", path, "0012", duration_seconds=4.0)


@pytest.fixture
def gone(tmp_path, clips):
    """A clip that was well when its header was read and is not any more."""
    return clips[0]._replace(path=tmp_path / "gone.wav", filename="gone.wav")


def windows_of(clips, recipe=TINY, augment=AS_THEY_ARE, source=None):
    source = source or DecodedSource(recipe.input_config, recipe.data.max_seconds)
    return TrainingWindows(clips, recipe, source, OneHot(), augment)


def start_of(samples):
    """Where a window of the ramp begins, in seconds."""
    return samples[MARGIN] * 4


def reciped(**data):
    return msgspec.structs.replace(TINY, data=DataConfig(**data))


class TestTrainingWindows:
    def test_an_item_is_a_function_of_seed_epoch_and_place(self, clips):
        windows = windows_of(clips, augment=RandomGain())
        item = windows[WindowKey(3, 5, 7)]
        again = windows_of(clips, augment=RandomGain())[WindowKey(3, 5, 7)]
        np.testing.assert_array_equal(item.samples, again.samples)
        assert item.samples.shape == (SAMPLES,)
        assert (item.targets.tolist(), item.cell_weights.tolist()) == ([1, 0, 0, 0], [1, 0.5, 1, 1])
        assert (item.window_weight, item.failed) == (0.75, "")
        other_seed = windows_of(clips, msgspec.structs.replace(TINY, seed=1), RandomGain())
        for other in (windows[WindowKey(4, 5, 7)], windows[WindowKey(3, 5, 8)], other_seed[WindowKey(3, 5, 7)]):
            assert not np.array_equal(item.samples, other.samples)

    def test_random_windows_come_from_all_over_the_clip(self, ramp):
        windows = windows_of([ramp])
        starts = [start_of(windows[WindowKey(0, 0, place)].samples) for place in range(60)]
        assert min(starts) < 0.4
        assert 2.6 < max(starts) < 3.01
        assert windows.items == ((0, None),)

    @pytest.mark.parametrize(("mode", "start"), [("first", 0.0), ("centre", 1.5)])
    def test_one_place(self, ramp, mode, start):
        windows = windows_of([ramp], reciped(windows=mode))
        assert windows.items == ((0, start),)
        assert start_of(windows[WindowKey(2, 0, 9)].samples) == pytest.approx(start, abs=1e-3)

    @pytest.mark.parametrize(("seconds", "n_windows"), [(0.2, 1), (1.0, 1), (2.49, 2), (2.5, 3), (2.51, 3), (4.0, 4)])
    def test_all_windows_side_by_side_and_a_rest_only_if_it_is_long_enough(self, ramp, clips, seconds, n_windows):
        clip = ramp._replace(duration_seconds=seconds)
        windows = windows_of([clips[0], clip], reciped(windows="all"))
        assert windows.items == ((0, 0.0), (0, 1.0), *((1, float(start)) for start in range(n_windows)))
        labels = tuple(clip.primary_label for clip in windows.item_clips)
        assert labels == (LABELS[0],) * 2 + ("0012",) * n_windows
        assert len(windows) == 2 + n_windows
        for item in range(n_windows):
            assert start_of(windows[WindowKey(0, 2 + item, 0)].samples) == pytest.approx(item, abs=1e-3)

    def test_nothing_beyond_max_seconds_is_used(self, ramp):
        limited = reciped(windows="random", max_seconds=2.25)
        starts = [start_of(windows_of([ramp], limited)[WindowKey(0, 0, place)].samples) for place in range(60)]
        assert 1.1 < max(starts) < 1.26
        assert windows_of([ramp], reciped(windows="centre", max_seconds=2.0)).items == ((0, 0.5),)
        last = windows_of([ramp], reciped(windows="all", max_seconds=2.5))
        assert last.items == ((0, 0.0), (0, 1.0), (0, 2.0))
        assert not last[WindowKey(0, 2, 0)].samples[MARGIN + RATE // 2 : MARGIN + RATE].any()

    def test_a_clip_that_cannot_be_decoded_is_silence_without_weight(self, gone):
        """Pitfall 13: skipped and named; it neither ends the run nor vanishes, and mixes no bird into others."""
        item = windows_of([gone], augment=RandomGain())[WindowKey(0, 0, 0)]
        assert not item.samples.any()
        assert not item.targets.any()
        assert (item.window_weight, item.failed) == (0.0, "gone.wav (no such file)")

    def test_a_header_that_lies_about_its_length(self, clips):
        """Truncated files claim more than they hold: then the clip's beginning is used."""
        liar = clips[0]._replace(duration_seconds=1_000.0)
        item = windows_of([liar])[WindowKey(0, 0, 0)]
        assert item.failed == ""
        assert np.array_equal(item.samples, windows_of([liar], reciped(windows="first"))[WindowKey(0, 0, 0)].samples)

    @pytest.mark.parametrize("mode", ["random", "centre", "first", "all"])
    def test_the_cache_gives_what_decoding_gives(self, clips, gone, tmp_path, mode):
        recipe = reciped(windows=mode, max_seconds=1.4)
        chosen = [*clips[:3], gone]
        cached = build_cache(chosen, CacheSettings(TINY_FRONTEND, 1.4), tmp_path)
        one, other = windows_of(chosen, recipe), windows_of(chosen, recipe, source=cached)
        for item in range(3):
            assert np.array_equal(one[WindowKey(1, item, item)].samples, other[WindowKey(1, item, item)].samples)
        assert other[WindowKey(1, len(other) - 1, 3)].failed == "gone.wav (no such file)"

    def test_50_000_clips_travel_to_a_worker_in_a_few_megabytes(self):
        many = [
            Clip(
                f"species{n % 200}/XC{n}.ogg",
                Path(f"/data/birdclef/train_audio/species{n % 200}/XC{n}.ogg"),
                f"species{n % 200}",
                (f"species{n * 7 % 200}",),
                author=f"Recordist Number {n % 3_000}",
                duration_seconds=n / 7,
                rating=n % 10 / 2,
                url=f"https://example.org/{n}",
                collection="XC",
                site=f"{n % 90}.25,{n % 180}.75",
                recording=f"https://example.org/{n}",
            )
            for n in range(50_000)
        ]
        assert len(pickle.dumps(windows_of(many), pickle.HIGHEST_PROTOCOL)) < 15e6


class TestValidationWindows:
    @pytest.mark.parametrize(
        ("duration", "most", "starts"),
        [(0.5, 3, [0.0]), (5.0, 3, [0.0]), (5.4, 3, [0.0]), (10.0, 3, [0.0, 5.0]), (60.0, 3, [0.0, 27.5, 55.0])],
    )
    def test_starts(self, duration, most, starts):
        assert window_starts(duration, 5.0, most) == starts

    def windows(self, clips, max_seconds=0.0):
        return ValidationWindows(clips, TINY, DecodedSource(TINY_FRONTEND, max_seconds))

    def test_windows(self, clips):
        item = self.windows(clips)[4]
        assert (item.clip_index, item.waveforms.shape, item.failed) == (4, (2, SAMPLES), "")

    def test_nothing_beyond_max_seconds_is_used(self, ramp):
        starts = [start_of(samples) for samples in self.windows([ramp], max_seconds=3.0)[0].waveforms]
        np.testing.assert_allclose(starts, [0.0, 1.0, 2.0], atol=1e-3)

    def test_a_clip_that_cannot_be_decoded(self, gone):
        item = self.windows([gone])[0]
        assert (item.waveforms.shape, item.failed) == ((0, SAMPLES), "gone.wav (no such file)")

    def test_of_a_clip_shorter_than_its_header_claims_what_is_there_is_used(self, ramp):
        item = self.windows([ramp._replace(duration_seconds=5.0)])[0]
        np.testing.assert_allclose([start_of(samples) for samples in item.waveforms], [0.0, 2.0], atol=1e-3)
        assert item.failed == ""


class TestEpochBatches:
    def batches(self, n_items, epoch=0, first_step=0, size=4, process=0, n_processes=1):
        recipe = Recipe(loop=LoopConfig(batch_size=size))
        batches = EpochBatches(Shuffled(n_items), recipe, process, n_processes)
        batches.begin(epoch, first_step)
        return list(batches)

    def test_each_item_once_at_its_place(self):
        keys = [key for batch in self.batches(12, epoch=3) for key in batch]
        assert [key.item for key in keys] == Shuffled(12).epoch(3).tolist()
        assert [(key.epoch, key.place) for key in keys] == [(3, place) for place in range(12)]

    def test_continues_at_any_step(self):
        assert self.batches(12, first_step=2) == self.batches(12)[2:]
        assert self.batches(12, first_step=3) == []

    def test_a_last_batch_that_is_not_full_is_left_out(self):
        assert [len(batch) for batch in self.batches(11)] == [4, 4]

    def test_fewer_items_than_a_batch_fill_it_by_coming_again_at_other_places(self):
        (batch,) = self.batches(3, size=8)
        assert [key.item for key in batch] == np.resize(Shuffled(3).epoch(0), 8).tolist()
        assert len({key.place for key in batch}) == 8

    @given(n_items=st.integers(1, 60), n_processes=st.sampled_from([1, 2, 3, 6]), first_step=st.integers(0, 3))
    def test_processes_share_each_batch_equally(self, n_items, n_processes, first_step):
        whole = self.batches(n_items, 1, first_step, 6)
        shares = [self.batches(n_items, 1, first_step, 6, process, n_processes) for process in range(n_processes)]
        for batch, *parts in zip(whole, *shares, strict=True):
            assert {len(part) for part in parts} == {6 // n_processes}
            assert sorted(key for part in parts for key in part) == sorted(batch)


class TestLoaders:
    def recipe(self, **loop):
        return msgspec.structs.replace(TINY, loop=LoopConfig(**loop))

    @pytest.mark.slow
    def test_worker_processes_change_nothing(self, clips, gone, tmp_path):
        """The same batches decoded in this process and read from the cache in two others."""
        chosen = [*clips[:15], gone]
        cached = build_cache(chosen, CacheSettings(TINY_FRONTEND), tmp_path)

        def load(n_workers, source):
            recipe = self.recipe(batch_size=8, num_workers=n_workers)
            windows = windows_of(chosen, recipe, RandomGain(), source)
            return list(training_loader(windows, EpochBatches(Shuffled(16), recipe), recipe, pin=False))

        here, there = load(0, DecodedSource(TINY_FRONTEND)), load(2, cached)
        assert len(here) == len(there) == 2
        for one, other in zip(here, there, strict=True):
            assert one.waveforms.shape == (8, SAMPLES)
            assert torch.equal(one.waveforms, other.waveforms)
            for ours, theirs in zip(one.targets[:3], other.targets[:3], strict=True):
                assert ours.dtype == torch.float32
                assert torch.equal(ours, theirs)
            assert one.failed == other.failed
        assert [line for batch in here for line in batch.failed] == ["gone.wav (no such file)"]
        weights = torch.cat([batch.targets.window_weights for batch in here])
        assert sorted(weights.tolist()) == [0.0] + [0.75] * 15

    def test_a_worker_has_one_thread(self, clips, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        recipe = self.recipe(batch_size=2, num_workers=1)
        windows = TrainingWindows(clips, recipe, DecodedSource(TINY_FRONTEND), OneHot(), CountsThreads())
        (batch, *_) = training_loader(windows, EpochBatches(Shuffled(2), recipe), recipe, pin=False)
        assert batch.waveforms.max() == 1

    def test_validation_takes_its_share_of_clips_in_order(self, clips):
        recipe = self.recipe(batch_size=10, val_windows=2)
        windows = ValidationWindows(clips, recipe, DecodedSource(TINY_FRONTEND))
        batches = list(validation_loader(windows, range(1, 24, 2), recipe))
        assert [item.clip_index for batch in batches for item in batch] == list(range(1, 24, 2))
        assert [len(batch) for batch in batches] == [5, 5, 2]
        assert list(validation_loader(windows, range(0), recipe)) == []


@pytest.mark.slow
def test_a_worker_outlives_sigterm_until_the_training_process_has_saved():
    """systemd and timeout send it to the whole group: a batch that is lost then would be a fault of the loader."""
    program = (
        "import os, signal, time\nfrom birdinfer.training.data import dataset\ndataset._GRACE_SECONDS = 1\n"
        "dataset._begin_worker(0)\nos.kill(os.getpid(), signal.SIGTERM)\nprint('works on', flush=True)\ntime.sleep(60)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout == "works on\n"
    assert ended.returncode == -signal.SIGALRM
