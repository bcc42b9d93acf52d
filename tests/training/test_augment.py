import numpy as np
import pytest
import torch
from tiny_clips import RATE, TINY_FRONTEND, call

from birdinfer.errors import ConfigError
from birdinfer.training.augment import WaveformAugment, find_background, mask, mix_at_snr, mix_up
from birdinfer.training.recipe_augment import AugmentConfig

OFF = {"gain_probability": 0.0, "roll_probability": 0.0, "mixup_probability": 0.0, "mask_probability": 0.0}


def rng(*seed):
    return np.random.default_rng(seed or 0)


def decibels(ratio):
    return 20 * np.log10(ratio)


def rms(samples):
    return np.sqrt(np.mean(np.square(samples, dtype=np.float64)))


@pytest.fixture
def samples():
    return call("0012", 1.5, seed=0)[: TINY_FRONTEND.window_samples + 2 * TINY_FRONTEND.margin_samples]


class TestFindBackground:
    def test_nothing_asked_for(self, tmp_path):
        assert find_background("", tmp_path) == ()

    def test_relative_to_the_data(self, background_dir):
        files = find_background(background_dir.name, background_dir.parent)
        assert [path.name for path in files] == ["noise0.wav", "noise1.wav"]

    def test_missing(self, tmp_path):
        with pytest.raises(ConfigError, match=r"augment\.background_dir: 'none' is no folder.*--set"):
            find_background("none", tmp_path)

    def test_without_sound(self, tmp_path):
        with pytest.raises(ConfigError, match="holds no sound files"):
            find_background(str(tmp_path), tmp_path)


class TestWaveformAugment:
    def test_same_generator_same_sound(self, samples, background_dir):
        augment = WaveformAugment(AugmentConfig(), TINY_FRONTEND, find_background(str(background_dir), background_dir))
        once, again, other = (augment(samples, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(once, again)
        assert not np.array_equal(once, other)
        assert once.dtype == np.float32
        assert once.shape == samples.shape

    def test_off_is_off(self, samples):
        assert WaveformAugment(AugmentConfig(**OFF), TINY_FRONTEND)(samples, rng()) is samples

    def test_gain_stays_in_range(self, samples):
        augment = WaveformAugment(AugmentConfig(**OFF | {"gain_probability": 1.0, "gain_db": 6.0}), TINY_FRONTEND)
        gains = [decibels(rms(augment(samples, rng(seed))) / rms(samples)) for seed in range(50)]
        assert -6.001 < min(gains) < -3
        assert 3 < max(gains) < 6.001

    def test_roll_keeps_every_sample(self, samples):
        rolled = WaveformAugment(AugmentConfig(**OFF | {"roll_probability": 1.0}), TINY_FRONTEND)(samples, rng())
        assert not np.array_equal(rolled, samples)
        np.testing.assert_array_equal(np.sort(rolled), np.sort(samples))

    def test_background_at_the_ratio_asked_for(self, samples, background_dir):
        config = AugmentConfig(**OFF | {"background_probability": 1.0, "background_snr_db": (10.0, 10.0)})
        augment = WaveformAugment(config, TINY_FRONTEND, find_background(str(background_dir), background_dir))
        added = augment(samples, rng()) - samples
        assert decibels(rms(samples) / rms(added)) == pytest.approx(10.0, abs=0.01)

    def test_background_that_cannot_be_decoded_adds_nothing(self, samples, tmp_path):
        (tmp_path / "broken.ogg").write_text("no sound")
        config = AugmentConfig(**OFF | {"background_probability": 1.0})
        augment = WaveformAugment(config, TINY_FRONTEND, find_background(str(tmp_path), tmp_path))
        np.testing.assert_array_equal(augment(samples, rng()), samples)


@pytest.mark.parametrize("silent", ["signal", "noise"])
def test_silence_has_no_ratio(silent):
    tone, zeros = call("0012", 0.1, 0), np.zeros(RATE // 10, np.float32)
    signal, noise = (zeros, tone) if silent == "signal" else (tone, zeros)
    assert mix_at_snr(signal, noise, 3.0) is signal


class TestMixUp:
    WAVEFORMS = torch.eye(4) * 8
    TARGETS = torch.eye(4)

    @pytest.mark.parametrize("labels", ["max", "mixed"])
    def test_waveforms_and_labels_go_together(self, labels):
        config = AugmentConfig(mixup_probability=1.0, mixup_labels=labels, mixup_alpha=1.0)
        waveforms, targets = mix_up(self.WAVEFORMS, self.TARGETS, config, rng())
        torch.testing.assert_close(waveforms.sum(1), torch.full((4,), 8.0))
        assert (waveforms != self.WAVEFORMS).any()
        if labels == "mixed":
            torch.testing.assert_close(targets, waveforms / 8)
        else:
            assert torch.equal(targets, (waveforms > 0).float())

    def test_off_is_off(self):
        waveforms, targets = mix_up(self.WAVEFORMS, self.TARGETS, AugmentConfig(mixup_probability=0.0), rng())
        assert torch.equal(waveforms, self.WAVEFORMS)
        assert torch.equal(targets, self.TARGETS)

    def test_same_generator_same_mix(self):
        config = AugmentConfig(mixup_probability=0.5)
        once, again = (mix_up(self.WAVEFORMS, self.TARGETS, config, rng(7)) for _ in range(2))
        assert torch.equal(once[0], again[0])
        assert torch.equal(once[1], again[1])


class TestMask:
    SPECTROGRAMS = torch.from_numpy(rng().normal(size=(6, 1, 16, 40)).astype(np.float32))

    def test_hides_bands_and_stretches_behind_the_mean(self):
        config = AugmentConfig(mask_probability=1.0, time_mask_share=0.5, frequency_mask_share=0.5)
        masked = mask(self.SPECTROGRAMS, config, rng())
        hidden = masked != self.SPECTROGRAMS
        mean = self.SPECTROGRAMS.mean((2, 3), keepdim=True).expand_as(masked)
        assert 0 < hidden.float().mean() < 1
        assert torch.equal(masked[hidden], mean[hidden])

    def test_width_stays_within_the_share(self):
        config = AugmentConfig(mask_probability=1.0, time_masks=1, frequency_masks=0, time_mask_share=0.1)
        for seed in range(20):
            hidden = (mask(self.SPECTROGRAMS, config, rng(seed)) != self.SPECTROGRAMS)[:, 0, 0]
            assert hidden.sum(1).max() <= 5

    @pytest.mark.parametrize("off", [{"mask_probability": 0.0}, {"time_masks": 0, "frequency_masks": 0}])
    def test_off_is_off(self, off):
        assert torch.equal(mask(self.SPECTROGRAMS, AugmentConfig(**off), rng()), self.SPECTROGRAMS)
