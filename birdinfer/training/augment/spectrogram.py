"""Pictures of a batch: float32 [windows, 1, rows, frames] -> the same shape, augmented, on the batch's device.

The order is: what the air and the microphone do (filter), what the picture looks like (power, brightness), what is
seen with it (mixup, cutmix), and what is hidden (masks).

Pictures come normalised per window to mean 0 and deviation 1, to 0 .. 1, band by band, or not at all, of decibels or of
PCEN. So every operation measures by the window's own spread and range: scaling or shifting a picture before it is
augmented scales and shifts the result, and nothing else.
"""

import numpy as np
import torch

from birdinfer.training.augment.chance import beside, chosen
from birdinfer.training.augment.masks import mask
from birdinfer.training.augment.mixing import cutmix, mixup
from birdinfer.training.recipe.augment import AugmentConfig
from birdinfer.training.targets import Targets

Rng = np.random.Generator

SPREAD_DB = 10.0
"""What a window's standard deviation is taken to be in decibels, for pictures do not tell: the median over clips of
BirdCLEF's kind, half of which lie between 8 and 12, whatever the front end's resolution."""


def augment_spectrograms(
    spectrograms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng
) -> tuple[torch.Tensor, Targets]:
    """All that the recipe does to pictures.

    Args:
        spectrograms: float32 [windows, 1, rows, frames], low frequencies first.
        targets: what is asked of them, on the same device.
        config: how often and how much.
        rng: decides; the same generator gives the same result on every device.

    Returns:
        Spectrograms and targets of the same shapes; those that nothing happens to have the same bits.
    """
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

    Args:
        spectrograms: float32 [windows, 1, rows, frames].
        config: how often, how many bands, how much.
        rng: decides.

    Returns:
        The same shape.
    """
    if not config.filter_probability:
        return spectrograms
    n_windows, _, n_rows, _ = spectrograms.shape
    is_chosen = chosen(n_windows, config.filter_probability, rng)
    fewest, most = config.filter_bands
    n_bands = rng.integers(fewest, most + 1, n_windows)
    cuts = rng.random((n_windows, most - 1))
    # A window with fewer bands than another has its further cuts above the picture.
    cuts[np.arange(1, most) >= n_bands[:, None]] = 2.0
    band = ((np.arange(n_rows) + 0.5) / n_rows >= cuts[:, :, None]).sum(axis=1)
    gains = rng.uniform(-config.filter_db, config.filter_db, (n_windows, most)) / SPREAD_DB
    curve = np.take_along_axis(gains, band, axis=1)[:, None, :, None]
    filtered = spectrograms + beside(curve, spectrograms) * _mean_and_spread(spectrograms)[1]
    return torch.where(beside(is_chosen, spectrograms), filtered, spectrograms)


def raise_power(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Raise pictures, scaled to 0 .. 1 by the window's own least and greatest value, to ``power_exponent``; scale back.

    Args:
        spectrograms: float32 [windows, 1, rows, frames].
        config: how often, and which exponents: above 1 what is quiet is drowned, below 1 it is lifted.
        rng: decides.

    Returns:
        The same shape, within the same range; a picture of one value stays as it is.
    """
    if not config.power_probability:
        return spectrograms
    n_windows = len(spectrograms)
    is_chosen = chosen(n_windows, config.power_probability, rng)
    exponent = beside(rng.uniform(*config.power_exponent, n_windows), spectrograms)
    low = spectrograms.amin((1, 2, 3), keepdim=True)
    span = spectrograms.amax((1, 2, 3), keepdim=True) - low
    scaled = (spectrograms - low) / torch.where(span > 0, span, 1.0)
    raised = low + span * scaled**exponent
    return torch.where(beside(is_chosen, spectrograms), raised, spectrograms)


def change_brightness(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Add up to ``brightness`` standard deviations, and scale the spread about the mean by 1 -+ ``contrast``.

    Args:
        spectrograms: float32 [windows, 1, rows, frames].
        config: how often and how much.
        rng: decides.

    Returns:
        The same shape.
    """
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
    """Mean and standard deviation of each picture, [windows, 1, 1, 1]."""
    mean = spectrograms.mean((1, 2, 3), keepdim=True)
    return mean, (spectrograms - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
