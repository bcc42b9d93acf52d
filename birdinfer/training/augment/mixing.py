"""Windows of a batch mixed with one another, and their targets along with them, on the batch's device.

Overlay and mixup of waveforms [windows, samples]; mixup and cutmix of spectrograms [windows, 1, rows, frames]. Who
meets whom and what is then asked of them stands in :mod:`birdinfer.training.augment.pairs`.
"""

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.training.augment.chance import beside, chosen
from birdinfer.training.augment.level import are_sounds, batch_rms
from birdinfer.training.augment.pairs import draw_pairs, mixed_targets, overlaid_targets
from birdinfer.training.recipe.augment import AugmentConfig
from birdinfer.training.targets import Targets

Rng = np.random.Generator
Mixed = tuple[torch.Tensor, Targets]


def mix_waveforms(waveforms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Overlay, then mixup where the recipe wants it on waveforms.

    Args:
        waveforms: float32 [windows, samples], margins included.
        targets: what is asked of them, on the same device.
        config: how often and how much.
        rng: decides; the same generator gives the same result on every device.

    Returns:
        Waveforms and targets of the same shapes; those that nothing happens to have the same bits.
    """
    waveforms, targets = overlay(waveforms, targets, config, rng)
    if config.mixup_on == "waveform":
        waveforms, targets = mixup(waveforms, targets, config, rng)
    return waveforms, targets


def overlay(waveforms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Lay windows over another one of the batch, made quieter than they are by ``overlay_snr_db``.

    Where one of the two is silent there is no ratio, and nothing is laid over anything.

    Args:
        waveforms: float32 [windows, samples].
        targets: what is asked of them.
        config: how often, how much quieter, and by what share the quieter one's targets count.
        rng: decides.

    Returns:
        Waveforms and targets of the same shapes; the louder window's level is what it was.
    """
    if not config.overlay_probability:
        return waveforms, targets
    n_windows = len(waveforms)
    pairs = draw_pairs(chosen(n_windows, config.overlay_probability, rng).astype(np.float32), targets, rng)
    ratio = beside(10 ** (-rng.uniform(*config.overlay_snr_db, n_windows) / 20), targets.window_weights)
    levels = batch_rms(waveforms)
    sounds = are_sounds(levels)
    laid = (pairs.share > 0) & sounds & sounds[pairs.second]
    scale = torch.where(laid, ratio * levels / torch.where(sounds, levels, 1.0)[pairs.second], 0.0)
    mixed = torch.where(laid[:, None], waveforms + waveforms[pairs.second] * scale[:, None], waveforms)
    return mixed, overlaid_targets(targets, pairs, laid, config.overlay_target)


def mixup(batch: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Mixup (Zhang 2018, "mixup: beyond empirical risk minimization"): (1 - share) of a window plus share of another.

    Args:
        batch: float32 [windows, ...], waveforms or spectrograms.
        targets: what is asked of them.
        config: how often, which share, and how labels go along.
        rng: decides.

    Returns:
        Batch and targets of the same shapes.
    """
    if not config.mixup_probability:
        return batch, targets
    shares = _beta(len(batch), config.mixup_alpha, rng)
    if config.mixup_lambda:
        shares = np.full(len(batch), config.mixup_lambda)
    pairs = draw_pairs(shares * chosen(len(batch), config.mixup_probability, rng), targets, rng)
    share = pairs.share.reshape(-1, *(1,) * (batch.dim() - 1))
    mixed = batch * (1 - share) + batch[pairs.second] * share
    return mixed, mixed_targets(targets, pairs, config.mixup_labels)


def cutmix(spectrograms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Cutmix (Yun 2019) in time: a stretch of a window is replaced by the same stretch of another.

    Args:
        spectrograms: float32 [windows, 1, rows, frames].
        targets: what is asked of them.
        config: how often, Beta's alpha, and how labels go along.
        rng: decides.

    Returns:
        Spectrograms and targets of the same shapes; the share is that of the frames replaced, counted in whole ones.
    """
    if not config.cutmix_probability:
        return spectrograms, targets
    n_windows, n_frames = len(spectrograms), spectrograms.shape[-1]
    is_cut = chosen(n_windows, config.cutmix_probability, rng)
    width = np.rint(_beta(n_windows, config.cutmix_alpha, rng) * is_cut * n_frames)
    begin = rng.integers(n_frames - width.astype(np.int64) + 1)
    pairs = draw_pairs(width / n_frames, targets, rng)
    place = np.arange(n_frames)
    within = (place >= begin[:, None]) & (place < (begin + width)[:, None])
    replaced = beside(within[:, None, None], spectrograms) & (pairs.share > 0)[:, None, None, None]
    cut = torch.where(replaced, spectrograms[pairs.second], spectrograms)
    return cut, mixed_targets(targets, pairs, config.mixup_labels)


def _beta(n_windows: int, alpha: float, rng: Rng) -> npt.NDArray[np.float64]:
    """Shares of the second window, 0 to 1."""
    return rng.beta(alpha, alpha, n_windows)
