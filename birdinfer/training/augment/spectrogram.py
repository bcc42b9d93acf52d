"""Spectrograms of a batch: float32 [windows, channels, rows, frames] -> the same shape, augmented, on its device.

The order is: what the air and the microphone do (filter), contrast (power, brightness), other
windows (mixup, cutmix), and what is hidden (masks).

Spectrograms come normalised per window to mean 0 and deviation 1, to 0 .. 1, band by band, or not at all, of decibels
or of PCEN, or of both. So every operation is relative to a channel's own spread and range: scaling or shifting a
spectrogram before it is augmented scales and shifts the result, and nothing else. The same generator gives the same
result on every device, and a spectrogram that is not chosen keeps its bits.
"""

import numpy as np
import torch

from birdinfer.training.augment.mixing import beside, chosen, cutmix, mixup
from birdinfer.training.data.targets import Targets
from birdinfer.training.recipe.schema import AugmentConfig
from birdinfer.typing import Bool

# ---- Masks (SpecAugment)

Rng = np.random.Generator


def mask(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Hide bands of frequency and stretches of time (Park et al. 2019, "SpecAugment", without its time warp)."""
    if not config.mask_probability:
        return spectrograms
    n_windows, _, n_rows, n_frames = spectrograms.shape
    is_chosen = chosen(n_windows, config.mask_probability, rng)
    in_time = _hidden(n_windows, n_frames, config.time_masks, config.time_mask_share, rng)
    in_frequency = _hidden(n_windows, n_rows, config.frequency_masks, config.frequency_mask_share, rng)
    hidden = beside((in_time & is_chosen[:, None])[:, None, None, :], spectrograms)
    hidden = hidden | beside((in_frequency & is_chosen[:, None])[:, None, :, None], spectrograms)
    return torch.where(hidden, spectrograms.mean((2, 3), keepdim=True), spectrograms)


def _hidden(n_windows: int, length: int, n_masks: int, widest_share: float, rng: Rng) -> Bool:
    """Which of ``length`` places are masked, [windows, length]: ``n_masks`` intervals of 0 to the widest each."""
    width = rng.uniform(0, widest_share * length, (n_windows, n_masks, 1))
    begin = rng.uniform(0, 1, (n_windows, n_masks, 1)) * (length - width)
    place = np.arange(length) + 0.5
    return np.asarray(((place >= begin) & (place < begin + width)).any(axis=1))


SPREAD_DB = 10.0
"""A window's standard deviation in decibels, which a normalised spectrogram no longer shows: the median over clips of
BirdCLEF's kind, half of which lie between 8 and 12, whatever the front end's resolution."""


def augment_spectrograms(
    spectrograms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng
) -> tuple[torch.Tensor, Targets]:
    """Apply everything that the recipe does to spectrograms."""
    for step in (filter_bands, raise_power, change_brightness):
        spectrograms = step(spectrograms, config, rng)
    if config.mixup_on == "spectrogram":
        spectrograms, targets = mixup(spectrograms, targets, config, rng)
    spectrograms, targets = cutmix(spectrograms, targets, config, rng)
    return mask(spectrograms, config, rng), targets


def filter_bands(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """FilterAugment (Nam et al. 2022, "FilterAugment: an acoustic environmental data augmentation method"), its steps.

    The rows are cut at random into ``filter_bands`` bands, and each is made louder or quieter by up to ``filter_db``,
    :data:`SPREAD_DB` of which are one standard deviation of the window.
    """
    if not config.filter_probability:
        return spectrograms
    n_windows, _, n_rows, _ = spectrograms.shape
    is_chosen = chosen(n_windows, config.filter_probability, rng)
    fewest, most = config.filter_bands
    n_bands = rng.integers(fewest, most + 1, n_windows)
    cuts = rng.random((n_windows, most - 1))
    # A window with fewer bands than another has its further cuts above the top row.
    cuts[np.arange(1, most) >= n_bands[:, None]] = 2.0
    band = ((np.arange(n_rows) + 0.5) / n_rows >= cuts[:, :, None]).sum(axis=1)
    gains = rng.uniform(-config.filter_db, config.filter_db, (n_windows, most)) / SPREAD_DB
    curve = np.take_along_axis(gains, band, axis=1)[:, None, :, None]
    filtered = spectrograms + beside(curve, spectrograms) * _mean_and_spread(spectrograms)[1]
    return torch.where(beside(is_chosen, spectrograms), filtered, spectrograms)


def raise_power(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Raise spectrograms, scaled to 0 .. 1 by the window's own extremes, to ``power_exponent``; scale back."""
    if not config.power_probability:
        return spectrograms
    n_windows = len(spectrograms)
    is_chosen = chosen(n_windows, config.power_probability, rng)
    exponent = beside(rng.uniform(*config.power_exponent, n_windows), spectrograms)
    low = spectrograms.amin((2, 3), keepdim=True)
    span = spectrograms.amax((2, 3), keepdim=True) - low
    scaled = (spectrograms - low) / torch.where(span > 0, span, 1.0)
    raised = low + span * scaled**exponent
    return torch.where(beside(is_chosen, spectrograms), raised, spectrograms)


def change_brightness(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Add up to ``brightness`` standard deviations, and scale the spread about the mean by 1 -+ ``contrast``."""
    if not config.brightness_probability:
        return spectrograms
    n_windows = len(spectrograms)
    is_chosen = chosen(n_windows, config.brightness_probability, rng)
    brighter = beside(rng.uniform(-config.brightness, config.brightness, n_windows), spectrograms)
    contrast = beside(rng.uniform(1 - config.contrast, 1 + config.contrast, n_windows), spectrograms)
    mean, spread = _mean_and_spread(spectrograms)
    changed = mean + (spectrograms - mean) * contrast + brighter * spread
    return torch.where(beside(is_chosen, spectrograms), changed, spectrograms)


def _mean_and_spread(spectrograms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = spectrograms.mean((2, 3), keepdim=True)
    return mean, (spectrograms - mean).square().mean((2, 3), keepdim=True).sqrt()
