import numpy as np
import pytest
import torch

from birdinfer.training.augment.spectrogram import mask


def rng(*seed):
    return np.random.default_rng(seed or 0)


def test_hides_bands_and_stretches_behind_the_mean(only, spectrograms):
    config = only(mask_probability=1.0, time_mask_share=0.5, frequency_mask_share=0.5)
    masked = mask(spectrograms, config, rng())
    hidden = masked != spectrograms
    mean = spectrograms.mean((1, 2, 3), keepdim=True).expand_as(masked)
    assert 0 < hidden.float().mean() < 1
    assert torch.equal(masked[hidden], mean[hidden])
    whole_bands, whole_frames = hidden.all(3, keepdim=True), hidden.all(2, keepdim=True)
    assert torch.equal(hidden, whole_bands | whole_frames)
    assert whole_bands.any()
    assert whole_frames.any()


@pytest.mark.parametrize(("kind", "n_places", "other"), [("time", 40, "frequency"), ("frequency", 16, "time")])
def test_width_and_number_stay_within_what_is_asked_for(kind, n_places, other, only, spectrograms):
    config = only(mask_probability=1.0, **{f"{kind}_masks": 2, f"{other}_masks": 0, f"{kind}_mask_share": 0.2})
    widest = 0
    for seed in range(20):
        hidden = (mask(spectrograms, config, rng(seed)) != spectrograms)[:, 0].any(1 if kind == "time" else 2).int()
        begins = hidden.diff(dim=1, prepend=hidden.new_zeros(4, 1)).clamp(min=0).sum(1)
        assert begins.max() <= 2
        widest = max(widest, hidden.sum(1).max().item())
    assert n_places * 0.2 < widest <= 2 * (n_places * 0.2 + 1)


def test_happens_as_often_as_asked_for(only):
    many = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    config = only(mask_probability=0.4, time_mask_share=1.0, frequency_mask_share=1.0, time_masks=10)
    changed = (mask(many, config, rng()) != many).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.4, abs=0.07)


def test_masks_lie_wholly_within_the_picture(only):
    # One that hung over the end would hide the last frames more often than the first ones.
    many = torch.randn(3000, 1, 1, 9, generator=torch.Generator().manual_seed(0))
    config = only(mask_probability=1.0, time_masks=1, time_mask_share=1.0, frequency_masks=0)
    often = (mask(many, config, rng()) != many)[:, 0, 0].float().mean(0)
    torch.testing.assert_close(often, often.flip(0), atol=0.05, rtol=0)


@pytest.mark.parametrize("off", [{}, {"mask_probability": 1.0, "time_masks": 0, "frequency_masks": 0}])
def test_off_is_off(off, only, spectrograms):
    assert torch.equal(mask(spectrograms, only(**off), rng()), spectrograms)


def test_each_window_is_masked_by_itself(only, spectrograms):
    masked = mask(spectrograms, only(mask_probability=1.0), rng(4))
    changed = (masked != spectrograms).flatten(1)
    assert len({tuple(row.tolist()) for row in changed}) == 4
