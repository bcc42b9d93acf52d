import numpy as np
import pytest
import torch

from birdinfer.training.augment import mix_waveforms
from birdinfer.training.augment.level import LOUDEST_RMS, batch_rms
from birdinfer.training.augment.mixing import cutmix, mixup, overlay
from birdinfer.training.data.targets import Targets


def rng(*seed):
    return np.random.default_rng(seed or 0)


def equal(once, again):
    return torch.equal(once[0], again[0]) and all(
        torch.equal(a, b) for a, b in zip(once[1][:3], again[1][:3], strict=True)
    )


EYE = torch.eye(4) * 8
"""Waveforms that say by themselves who is in them, and how much."""


class TestMixup:
    @pytest.mark.parametrize("labels", ["max", "mixed"])
    def test_waveforms_and_labels_go_together(self, labels, only, targets):
        config = only(mixup_probability=1.0, mixup_labels=labels, mixup_alpha=1.0)
        waveforms, mixed = mixup(EYE, targets, config, rng())
        torch.testing.assert_close(waveforms.sum(1), torch.full((4,), 8.0))
        assert (waveforms != EYE).any()
        torch.testing.assert_close(mixed.values, waveforms / 8 if labels == "mixed" else (waveforms > 0).float())

    def test_a_fixed_share(self, only, targets):
        waveforms, _ = mixup(EYE, targets, only(mixup_probability=1.0, mixup_lambda=0.25), rng(3))
        assert set(waveforms.unique().tolist()) <= {0.0, 2.0, 6.0, 8.0}
        assert (waveforms == 2.0).any()

    def test_all_of_the_second_is_the_second(self, only, targets):
        waveforms, mixed = mixup(EYE, targets, only(mixup_probability=1.0, mixup_lambda=1.0), rng(3))
        assert torch.equal(waveforms / 8, mixed.values)
        assert not torch.equal(waveforms, EYE)

    def test_shares_are_those_of_beta(self, only):
        n = 4000
        targets = Targets(torch.zeros(n, 1), torch.ones(n, 1), torch.ones(n))
        before = torch.stack([torch.ones(n), torch.arange(n).float()], 1)
        after, _ = mixup(before, targets, only(mixup_probability=1.0, mixup_alpha=2.0), rng(1))
        # What a window's number has moved towards another's: Beta(2, 2) has the mean 1/2 and the variance 1/20.
        second = torch.from_numpy(_partner(n, 2.0, rng(1)))
        moved = ((after[:, 1] - before[:, 1]) / (second - before[:, 1]))[second != before[:, 1]]
        assert moved.mean().item() == pytest.approx(0.5, abs=0.02)
        assert moved.var().item() == pytest.approx(0.05, abs=0.005)

    def test_happens_as_often_as_asked_for(self, only):
        n = 1000
        targets = Targets(torch.zeros(n, 1), torch.ones(n, 1), torch.ones(n))
        before = torch.arange(n).float()[:, None]
        after, _ = mixup(before, targets, only(mixup_probability=0.3, mixup_lambda=0.5), rng())
        assert (after != before).float().mean().item() == pytest.approx(0.3, abs=0.05)

    def test_a_batch_of_one_stays_as_it_is(self, only):
        before = torch.randn(1, 100, generator=torch.Generator().manual_seed(0))
        targets = Targets(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))
        assert equal(mixup(before, targets, only(mixup_probability=1.0, mixup_lambda=0.5), rng()), (before, targets))

    def test_pitfall_13_a_failed_clip_makes_no_one_quieter(self, only, targets, waveforms):
        waveforms[1] = 0.0
        targets.window_weights[1] = 0.0
        config = only(mixup_probability=1.0, mixup_lambda=0.5)
        for seed in range(10):
            after, mixed = mixup(waveforms, targets, config, rng(seed))
            assert not after[1].any()
            assert mixed.window_weights.tolist() == [1.0, 0.0, 1.0, 1.0]
            changed = (after != waveforms).any(1)
            assert torch.equal(changed, mixed.values.sum(1) == 2)


def _partner(n, alpha, generator):
    """Who is second, drawn as mixup draws it."""
    generator.beta(alpha, alpha, n)
    generator.random(n)
    return generator.permutation(n)


class TestOverlay:
    @pytest.mark.parametrize("snr_db", [0.0, 10.0])
    def test_another_window_lies_below_at_the_ratio_asked_for(self, snr_db, only, waveforms, targets):
        config = only(overlay_probability=1.0, overlay_snr_db=(snr_db, snr_db), overlay_target=0.5)
        after, mixed = overlay(waveforms, targets, config, rng(5))
        added = after - waveforms
        overlaid = added.any(1)
        assert overlaid.any()
        ratio_db = 20 * (batch_rms(waveforms) / batch_rms(added)).log10()[overlaid]
        torch.testing.assert_close(ratio_db, torch.full_like(ratio_db, snr_db), atol=0.05, rtol=0)
        assert torch.equal(mixed.values.diagonal(), torch.ones(4))
        torch.testing.assert_close(mixed.values.sum(1), torch.where(overlaid, 1.5, 1.0))

    def test_its_sound_and_its_label_are_the_same_ones(self, only, waveforms, targets):
        config = only(overlay_probability=1.0, overlay_snr_db=(0.0, 0.0), overlay_target=0.5)
        after, mixed = overlay(waveforms, targets, config, rng(5))
        for window, added in enumerate(after - waveforms):
            likeness = torch.corrcoef(torch.cat([added[None], waveforms]))[0, 1:] if added.any() else torch.zeros(4)
            assert torch.equal(likeness > 0.9, mixed.values[window] == 0.5)

    @pytest.mark.parametrize("level", [0.0, 1e-9, 10 * LOUDEST_RMS, 1e30])
    def test_silence_and_damage_lie_below_no_one(self, level, only, waveforms, targets):
        waveforms[0] = level
        config = only(overlay_probability=1.0)
        for seed in range(10):
            after, mixed = overlay(waveforms, targets, config, rng(seed))
            assert torch.equal(after[0], waveforms[0])
            assert mixed.values[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
            assert mixed.values[0].tolist() == [1.0, 0.0, 0.0, 0.0]
            assert after.isfinite().all()

    def test_a_failed_clip_is_no_ones_background(self, only, waveforms, targets):
        targets.window_weights[3] = 0.0
        for seed in range(10):
            after, mixed = overlay(waveforms, targets, only(overlay_probability=1.0), rng(seed))
            assert torch.equal(after[3], waveforms[3])
            assert mixed.values[:3, 3].sum() == 0
            assert mixed.window_weights.tolist() == [1.0, 1.0, 1.0, 0.0]

    def test_no_one_is_mixed_with_himself(self, only):
        targets = Targets(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))
        before = torch.full((1, 100), 0.1)
        assert equal(overlay(before, targets, only(overlay_probability=1.0), rng()), (before, targets))


class TestMixWaveforms:
    def test_off_is_off(self, only, waveforms, targets):
        after, mixed = mix_waveforms(waveforms, targets, only(), rng())
        assert after is waveforms
        assert mixed is targets

    def test_mixup_waits_for_the_spectrogram_where_it_is_asked_to(self, only, waveforms, targets):
        config = only(mixup_probability=1.0, mixup_on="spectrogram")
        assert mix_waveforms(waveforms, targets, config, rng())[0] is waveforms

    @pytest.mark.parametrize("step", ["overlay", "mixup"])
    def test_same_generator_same_mix(self, step, only, waveforms, targets):
        config = only(**{f"{step}_probability": 0.5})
        once, again, other = (mix_waveforms(waveforms, targets, config, rng(seed)) for seed in (7, 7, 8))
        assert equal(once, again)
        assert not equal(once, other)

    def test_both_together_ask_for_three_species(self, only, waveforms, targets):
        config = only(overlay_probability=1.0, overlay_target=0.5, mixup_probability=1.0, mixup_lambda=0.5)
        most = max(
            mix_waveforms(waveforms, targets, config, rng(seed))[1].values.count_nonzero(1).max() for seed in range(9)
        )
        assert most >= 3


class TestCutmix:
    @pytest.mark.parametrize("labels", ["max", "mixed"])
    def test_frames_and_labels_go_together(self, labels, only, targets):
        # Every frame says whose it is, so that shares can be counted.
        pictures = torch.eye(4)[:, None, :, None].expand(4, 1, 4, 50).contiguous()
        config = only(cutmix_probability=1.0, mixup_labels=labels)
        for seed in range(10):
            cut, mixed = cutmix(pictures, targets, config, rng(seed))
            share = cut[:, 0].mean(2)
            torch.testing.assert_close(mixed.values, share if labels == "mixed" else (share > 0).float())

    def test_replaces_one_stretch_of_time_at_its_own_place(self, only, spectrograms, targets):
        cut, _ = cutmix(spectrograms, targets, only(cutmix_probability=1.0), rng(2))
        replaced = (cut != spectrograms)[:, 0]
        assert torch.equal(replaced.all(1), replaced.any(1))
        for window, frames in enumerate(replaced.any(1).int()):
            assert frames.diff(prepend=frames.new_zeros(1), append=frames.new_zeros(1)).clamp(min=0).sum() <= 1
            others = (spectrograms[:, 0] == cut[window, 0]).all(1)
            assert torch.equal(others.int().sum(0), torch.ones(40, dtype=torch.int64))
        assert replaced.any()

    def test_the_beginning_is_replaced_as_often_as_the_end_and_the_middle_more_often(self, only):
        n = 3000
        pictures = torch.arange(n).float()[:, None, None, None].expand(n, 1, 1, 9).contiguous()
        targets = Targets(torch.zeros(n, 1), torch.ones(n, 1), torch.ones(n))
        cut, _ = cutmix(pictures, targets, only(cutmix_probability=1.0), rng())
        often = (cut != pictures)[:, 0, 0].float().mean(0)
        torch.testing.assert_close(often, often.flip(0), atol=0.05, rtol=0)
        assert often[4] > 2 * often[0] > 0.2

    def test_a_failed_clip_replaces_nothing(self, only, spectrograms, targets):
        targets.window_weights[0] = 0.0
        for seed in range(10):
            cut, mixed = cutmix(spectrograms, targets, only(cutmix_probability=1.0), rng(seed))
            assert torch.equal(cut[0], spectrograms[0])
            assert mixed.values[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
            assert mixed.window_weights.tolist() == [0.0, 1.0, 1.0, 1.0]

    @pytest.mark.parametrize("n_frames", [1, 2, 7])
    def test_short_pictures_will_do(self, n_frames, only, spectrograms, targets):
        short = spectrograms[..., :n_frames]
        assert cutmix(short, targets, only(cutmix_probability=1.0), rng())[0].shape == short.shape
