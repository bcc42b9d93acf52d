"""SpecAugment's masks: pictures float32 [windows, 1, rows, frames] -> the same, with bands and stretches hidden.

What is hidden has the window's own mean: 0 where windows are normalised to it, and nothing new in any other case.
"""

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.training.augment.chance import beside, chosen
from birdinfer.training.recipe.augment import AugmentConfig

Rng = np.random.Generator


def mask(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """Hide bands of frequency and stretches of time (Park et al. 2019, "SpecAugment", without its time warp).

    Args:
        spectrograms: float32 [windows, 1, rows, frames].
        config: how often, how many masks, and how wide at most.
        rng: decides.

    Returns:
        The same shape.
    """
    if not config.mask_probability:
        return spectrograms
    n_windows, _, n_rows, n_frames = spectrograms.shape
    is_chosen = chosen(n_windows, config.mask_probability, rng)
    in_time = _hidden(n_windows, n_frames, config.time_masks, config.time_mask_share, rng)
    in_frequency = _hidden(n_windows, n_rows, config.frequency_masks, config.frequency_mask_share, rng)
    hidden = beside((in_time & is_chosen[:, None])[:, None, None, :], spectrograms)
    hidden = hidden | beside((in_frequency & is_chosen[:, None])[:, None, :, None], spectrograms)
    return torch.where(hidden, spectrograms.mean((1, 2, 3), keepdim=True), spectrograms)


def _hidden(n_windows: int, length: int, n_masks: int, widest_share: float, rng: Rng) -> npt.NDArray[np.bool_]:
    """Which of ``length`` places are masked, [windows, length]: ``n_masks`` intervals of 0 to the widest each."""
    width = rng.uniform(0, widest_share * length, (n_windows, n_masks, 1))
    begin = rng.uniform(0, 1, (n_windows, n_masks, 1)) * (length - width)
    place = np.arange(length) + 0.5
    return np.asarray(((place >= begin) & (place < begin + width)).any(axis=1))
