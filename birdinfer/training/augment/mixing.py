"""Windows of a batch mixed with one another, and their targets along with them, on the batch's device.

Overlay and mixup of waveforms [windows, samples]; mixup and cutmix of spectrograms [windows, 1, rows, frames]. Pairs
are drawn at random; :func:`mixed_targets` and :func:`overlaid_targets` say what their mix is labelled. Each function
returns inputs and targets of the shapes that it was given; the same generator gives the same result on every device,
and a window that is not chosen keeps its bits.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.training.augment.level import are_sounds, batch_rms
from birdinfer.training.data.targets import Targets
from birdinfer.training.recipe.schema import AugmentConfig
from birdinfer.typing import Bool, Float64

# ---- Random numbers for a batch: drawn by numpy on the CPU, then copied to the batch's device

Rng = np.random.Generator


def chosen(n_windows: int, probability: float, rng: Rng) -> Bool:
    """Which windows it happens to, bool [windows]."""
    return rng.random(n_windows) < probability


def beside(values: npt.NDArray[np.floating] | Bool, batch: torch.Tensor) -> torch.Tensor:
    """``values`` [windows, ...] on the device of ``batch``, with ones added behind to as many dimensions as it has.

    Numbers become float32, whatever they were; truth stays truth.
    """
    kept = values if values.dtype == np.bool_ else values.astype(np.float32)
    shape = kept.shape + (1,) * (batch.dim() - kept.ndim)
    return torch.from_numpy(np.ascontiguousarray(kept).reshape(shape)).to(batch.device, non_blocking=True)


# ---- Pairs of windows, and the targets of their mix


class Pairs(NamedTuple):
    """Which window is mixed into which; on the batch's device."""

    second: torch.Tensor
    """int64 [windows]: the other window's index."""
    share: torch.Tensor
    """float32 [windows], 0 to 1: of the second window; 0 where there is none."""


def draw_pairs(shares: npt.NDArray[np.floating], targets: Targets, rng: np.random.Generator) -> Pairs:
    """Give every window another one of the batch, each being second exactly once."""
    order = rng.permutation(len(shares))
    second = torch.from_numpy(order).to(targets.values.device)
    share = beside(np.where(order == np.arange(len(order)), 0.0, shares), targets.window_weights)
    counts = targets.window_weights > 0
    return Pairs(second, torch.where(counts & counts[second], share, 0.0))


def mixed_targets(targets: Targets, pairs: Pairs, labels: Literal["max", "mixed"]) -> Targets:
    """The targets of windows mixed by share."""
    share = pairs.share[:, None]
    other = _seconds(targets, pairs)
    # A window that is not in the mix has less than any value, so that it decides nothing.
    first = torch.where(share < 1, targets.values, -1.0)
    second = torch.where(share > 0, other.values, -1.0)
    values = torch.maximum(first, second)
    if labels == "mixed":
        values = targets.values * (1 - share) + other.values * share
    weights = targets.window_weights * (1 - pairs.share) + other.window_weights * pairs.share
    cells = _of_the_greater(first, second, targets, other)
    return Targets(values, cells, weights, _mixed_teacher(targets, other, share))


def overlaid_targets(targets: Targets, pairs: Pairs, is_overlaid: torch.Tensor, target_share: float) -> Targets:
    """The targets of windows with a quieter one added, whose values count by ``target_share``.

    The rules for greater values hold, after the second window's have been multiplied; window weights are mixed as
    1 : ``target_share``, for they say how far the targets can be trusted.
    """
    counts = is_overlaid & (target_share > 0)
    other = _seconds(targets, pairs)
    second = torch.where(counts[:, None], other.values * target_share, -1.0)
    share = torch.where(counts, target_share / (1 + target_share), 0.0)
    weights = targets.window_weights * (1 - share) + other.window_weights * share
    cells = _of_the_greater(targets.values, second, targets, other)
    teacher = _mixed_teacher(targets, other, share[:, None])
    return Targets(torch.maximum(targets.values, second), cells, weights, teacher)


def _seconds(targets: Targets, pairs: Pairs) -> Targets:
    return targets.each(lambda tensor: tensor[pairs.second])


def _mixed_teacher(first: Targets, second: Targets, share: torch.Tensor) -> torch.Tensor | None:
    """What a teacher would say of the mix, by share [windows, 1]: it has processed both windows, not their mix."""
    if first.teacher is None or second.teacher is None:
        return None
    return torch.where(share > 0, first.teacher * (1 - share) + second.teacher * share, first.teacher)


def _of_the_greater(first: torch.Tensor, second: torch.Tensor, of_first: Targets, of_second: Targets) -> torch.Tensor:
    """The cell weights [windows, labels] of whichever value is greater, the larger one where they are equal."""
    both = torch.maximum(of_first.cell_weights, of_second.cell_weights)
    one = torch.where(first > second, of_first.cell_weights, of_second.cell_weights)
    return torch.where(first == second, both, one)


Mixed = tuple[torch.Tensor, Targets]


def mix_waveforms(waveforms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Overlay, then mixup where the recipe wants it on waveforms."""
    waveforms, targets = overlay(waveforms, targets, config, rng)
    if config.mixup_on == "waveform":
        waveforms, targets = mixup(waveforms, targets, config, rng)
    return waveforms, targets


def overlay(waveforms: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Add another window of the batch to windows, made quieter than they are by ``overlay_snr_db``.

    Where one of the two is silent there is no ratio, and nothing is added.
    """
    if not config.overlay_probability:
        return waveforms, targets
    n_windows = len(waveforms)
    pairs = draw_pairs(chosen(n_windows, config.overlay_probability, rng).astype(np.float32), targets, rng)
    ratio = beside(10 ** (-rng.uniform(*config.overlay_snr_db, n_windows) / 20), targets.window_weights)
    levels = batch_rms(waveforms)
    sounds = are_sounds(levels)
    is_overlaid = (pairs.share > 0) & sounds & sounds[pairs.second]
    scale = torch.where(is_overlaid, ratio * levels / torch.where(sounds, levels, 1.0)[pairs.second], 0.0)
    mixed = torch.where(is_overlaid[:, None], waveforms + waveforms[pairs.second] * scale[:, None], waveforms)
    return mixed, overlaid_targets(targets, pairs, is_overlaid, config.overlay_target)


def mixup(batch: torch.Tensor, targets: Targets, config: AugmentConfig, rng: Rng) -> Mixed:
    """Add ``share`` of another window to (1 - share) of each (Zhang et al. 2018, "mixup")."""
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
    """Cutmix (Yun 2019) in time: a stretch of a window is replaced by the same stretch of another."""
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


def _beta(n_windows: int, alpha: float, rng: Rng) -> Float64:
    return rng.beta(alpha, alpha, n_windows)
