import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinfer.training.augment import augment_spectrograms
from birdinfer.training.augment import spectrogram as module
from birdinfer.training.augment.spectrogram import SPREAD_DB, change_brightness, filter_bands, raise_power
from birdinfer.training.data.targets import Targets
from birdinfer.training.recipe.schema import AugmentConfig

STEPS = ["filter", "power", "brightness", "mixup", "cutmix", "mask"]


def rng(*seed):
    return np.random.default_rng(seed or 0)


@pytest.mark.parametrize("step", STEPS)
class TestEveryStep:
    @pytest.fixture
    def config(self, step, only):
        return only(**{f"{step}_probability": 1.0}, mixup_on="spectrogram")

    def test_changes_pictures_and_nothing_about_their_form(self, config, spectrograms, targets):
        before = spectrograms.clone()
        after, mixed = augment_spectrograms(spectrograms, targets, config, rng(1))
        assert torch.equal(spectrograms, before)
        assert not torch.equal(after, spectrograms)
        assert (after.shape, after.dtype) == (spectrograms.shape, torch.float32)
        assert [tensor.shape for tensor in mixed[:3]] == [tensor.shape for tensor in targets[:3]]

    def test_same_generator_same_picture(self, config, spectrograms, targets):
        once, again, other = (augment_spectrograms(spectrograms, targets, config, rng(s))[0] for s in (1, 1, 2))
        assert torch.equal(once, again)
        assert not torch.equal(once, other)

    def test_what_is_not_chosen_keeps_its_bits(self, step, only, spectrograms, targets):
        config = only(**{f"{step}_probability": 0.5}, mixup_on="spectrogram")
        untouched = 0
        for seed in range(20):
            after, _ = augment_spectrograms(spectrograms, targets, config, rng(seed))
            untouched += (after == spectrograms).flatten(1).all(1).sum().item()
        assert 20 <= untouched <= 65

    def test_a_channel_goes_by_its_own_range(self, config, spectrograms, targets):
        """Decibels beside PCEN: one does not become louder by the other's scale."""
        both = torch.cat([spectrograms, 100 * spectrograms + 7], dim=1)
        after, _ = augment_spectrograms(both, targets, config, rng(1))
        alone, _ = augment_spectrograms(spectrograms, targets, config, rng(1))
        torch.testing.assert_close(after[:, :1], alone)
        torch.testing.assert_close(after[:, 1:], 100 * alone + 7, rtol=1e-4, atol=1e-2)

    @pytest.mark.parametrize("level", [0.0, -100.0])
    def test_a_silent_picture_stays_one(self, level, config, targets):
        silent = torch.full((4, 1, 16, 40), level)
        assert torch.equal(augment_spectrograms(silent, targets, config, rng())[0], silent)

    @pytest.mark.parametrize("shape", [(1, 1, 16, 40), (3, 1, 17, 39), (2, 1, 1, 1)])
    def test_odd_sizes_and_batches_of_one_will_do(self, shape, config):
        n = shape[0]
        pictures = torch.from_numpy(rng(9).normal(size=shape).astype(np.float32))
        targets = Targets(torch.eye(n), torch.ones(n, n), torch.ones(n))
        after, _ = augment_spectrograms(pictures, targets, config, rng())
        assert after.shape == shape
        assert after.isfinite().all()

    @settings(max_examples=20)
    @given(
        seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 12.0]), shift=st.sampled_from([-60.0, 0.0, 0.5])
    )
    def test_is_the_same_to_a_picture_however_it_was_normalised(self, step, seed, scale, shift):
        off = {name: 0.0 for name in AugmentConfig.__struct_fields__ if name.endswith("_probability")}
        config = AugmentConfig(**off | {f"{step}_probability": 1.0}, mixup_on="spectrogram")
        pictures = torch.from_numpy(rng(seed).normal(size=(3, 1, 8, 12)))
        targets = Targets(torch.eye(3), torch.ones(3, 3), torch.ones(3))
        plain, _ = augment_spectrograms(pictures, targets, config, rng(seed))
        other, _ = augment_spectrograms(pictures * scale + shift, targets, config, rng(seed))
        torch.testing.assert_close(other, plain * scale + shift, rtol=1e-5, atol=1e-5 * scale)


class TestFilter:
    def test_bands_are_louder_or_quieter_all_along(self, only, spectrograms):
        config = only(filter_probability=1.0, filter_bands=(3, 6), filter_db=6.0)
        for seed in range(10):
            added = (filter_bands(spectrograms, config, rng(seed)) - spectrograms)[:, 0]
            torch.testing.assert_close(added, added[:, :, :1].expand_as(added), atol=1e-5, rtol=0)
            assert (added[:, :, 0].diff(dim=1).abs() > 1e-4).sum(1).max() <= 5

    def test_reaches_the_decibels_asked_for_and_no_further(self, only):
        flat = torch.from_numpy(rng().normal(size=(300, 1, 12, 40)).astype(np.float32)) * SPREAD_DB
        spread = (flat - flat.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()[:, None]
        added_db = (filter_bands(flat, only(filter_probability=1.0, filter_db=6.0), rng()) - flat)[:, 0, :, 0]
        most = (added_db / spread * SPREAD_DB).abs().max().item()
        assert 5.5 < most < 6.001

    def test_as_many_bands_as_asked_for(self, only):
        many = torch.from_numpy(rng().normal(size=(200, 1, 400, 2)).astype(np.float32))
        added = filter_bands(many, only(filter_probability=1.0, filter_bands=(2, 4)), rng()) - many
        n_bands = 1 + (added[:, 0, :, 0].diff(dim=1).abs() > 1e-4).sum(1)
        assert set(n_bands.tolist()) == {2, 3, 4}

    def test_a_single_band_is_a_gain(self, only, spectrograms):
        added = filter_bands(spectrograms, only(filter_probability=1.0, filter_bands=(1, 1)), rng()) - spectrograms
        torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)

    def test_more_bands_than_rows_will_do(self, only, spectrograms):
        after = filter_bands(spectrograms[:, :, :2], only(filter_probability=1.0, filter_bands=(32, 32)), rng())
        assert after.isfinite().all()


class TestPower:
    def test_raises_the_picture_scaled_to_its_own_range(self, only):
        ramp = torch.linspace(-3, 5, 9).reshape(1, 1, 3, 3)
        squared = raise_power(ramp, only(power_probability=1.0, power_exponent=(2.0, 2.0)), rng())
        torch.testing.assert_close(squared, torch.linspace(0, 1, 9).reshape(1, 1, 3, 3) ** 2 * 8 - 3)

    @pytest.mark.parametrize(("exponent", "sign"), [(3.0, -1), (0.5, 1)])
    def test_drowns_or_lifts_what_is_quiet_and_keeps_the_extremes(self, exponent, sign, only, spectrograms):
        after = raise_power(spectrograms, only(power_probability=1.0, power_exponent=(exponent, exponent)), rng())
        assert (sign * (after - spectrograms) >= -1e-5).all()
        for extreme in (torch.amin, torch.amax):
            torch.testing.assert_close(extreme(after, (1, 2, 3)), extreme(spectrograms, (1, 2, 3)))

    def test_keeps_which_is_louder(self, only, spectrograms):
        after = raise_power(spectrograms, only(power_probability=1.0), rng())
        for new, old in zip(after.flatten(1), spectrograms.flatten(1), strict=True):
            assert (new[old.argsort()].diff() >= -1e-6).all()


class TestBrightness:
    def moved(self, only, **keys):
        pictures = torch.from_numpy(rng().normal(3.0, 2.0, size=(300, 1, 8, 8)).astype(np.float32))
        after = change_brightness(pictures, only(brightness_probability=1.0, **keys), rng(1))
        mean, spread = pictures.mean((1, 2, 3)), pictures.std((1, 2, 3), correction=0)
        return (after.mean((1, 2, 3)) - mean) / spread, after.std((1, 2, 3), correction=0) / spread

    def test_the_mean_moves_by_standard_deviations(self, only):
        brighter, contrast = self.moved(only, brightness=0.5, contrast=0.0)
        assert -0.501 < brighter.min() < -0.45
        assert 0.45 < brighter.max() < 0.501
        torch.testing.assert_close(contrast, torch.ones(300), rtol=1e-4, atol=0)

    def test_the_spread_is_scaled_about_the_mean(self, only):
        brighter, contrast = self.moved(only, brightness=0.0, contrast=0.3)
        assert 0.699 < contrast.min() < 0.73
        assert 1.27 < contrast.max() < 1.301
        assert brighter.abs().max() < 1e-4


class TestTogether:
    def test_off_is_off(self, only, spectrograms, targets):
        after, mixed = augment_spectrograms(spectrograms, targets, only(), rng())
        assert after is spectrograms
        assert mixed is targets

    def test_mixup_is_left_to_the_waveforms_where_it_was_done_there(self, only, spectrograms, targets):
        config = only(mixup_probability=1.0, mixup_on="waveform")
        assert augment_spectrograms(spectrograms, targets, config, rng())[0] is spectrograms

    def test_masks_come_last(self, monkeypatch, only, spectrograms, targets):
        order = []
        for name in ("filter_bands", "raise_power", "change_brightness", "mixup", "cutmix", "mask"):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *given, n=name, f=original: (order.append(n), f(*given))[1])
        config = only(**{f"{step}_probability": 1.0 for step in STEPS}, mixup_on="spectrogram")
        augment_spectrograms(spectrograms, targets, config, rng())
        assert order == ["filter_bands", "raise_power", "change_brightness", "mixup", "cutmix", "mask"]

    def test_a_window_is_painted_alike_whatever_is_beside_it(self, only, spectrograms, targets):
        config = only(filter_probability=1.0, power_probability=1.0, brightness_probability=1.0, mask_probability=1.0)
        after, _ = augment_spectrograms(spectrograms, targets, config, rng())
        others = torch.cat([spectrograms[:1], spectrograms[1:] * 5 + 2])
        torch.testing.assert_close(augment_spectrograms(others, targets, config, rng())[0][0], after[0])
