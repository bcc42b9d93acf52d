"""Pairs of windows and what is asked of them once they sound together: targets of a batch -> targets of the mix.

A window is *second* to another with some share of it. The rules, which do not care which of the two is called first:

* **values** are the greater of the two (``max``), or mixed by share (``mixed``).
* **cell weights** are those of the window with the greater value, the larger one where they are equal: a label that is
  masked in one window (weight 0, value > 0) stays masked where it is absent from the other, and is learned where the
  other has it for certain.
* **window weights** are mixed by share.
* At a share of 0, or 1, only one of the two is heard, and all is as it asks.
* A window that weighs nothing (its clip failed, it is silent) is neither first nor second: it lends no silence and
  borrows no weight.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.training.augment.chance import beside
from birdinfer.training.targets import Targets


class Pairs(NamedTuple):
    """Who sounds together with whom; on the batch's device."""

    second: torch.Tensor
    """int64 [windows]: the other window's index."""
    share: torch.Tensor
    """float32 [windows], 0 to 1: of the second window; 0 where there is none."""


def draw_pairs(shares: npt.NDArray[np.floating], targets: Targets, rng: np.random.Generator) -> Pairs:
    """Give every window another one of the batch, each being second exactly once.

    Args:
        shares: [windows], 0 to 1, wanted of the second window.
        targets: of the batch; windows that weigh nothing are left out.
        rng: decides who is second. A window may meet itself, and then nothing is mixed.
    """
    order = rng.permutation(len(shares))
    second = torch.from_numpy(order).to(targets.values.device)
    share = beside(np.where(order == np.arange(len(order)), 0.0, shares), targets.window_weights)
    heard = targets.window_weights > 0
    return Pairs(second, torch.where(heard & heard[second], share, 0.0))


def mixed_targets(targets: Targets, pairs: Pairs, labels: Literal["max", "mixed"]) -> Targets:
    """What is asked of windows mixed by share.

    Args:
        targets: of the batch before.
        pairs: who was mixed with whom.
        labels: the rule for values.

    Returns:
        Targets of the same shapes.
    """
    share = pairs.share[:, None]
    other = _seconds(targets, pairs)
    # What is not heard has less than any value, so that it decides nothing.
    first = torch.where(share < 1, targets.values, -1.0)
    second = torch.where(share > 0, other.values, -1.0)
    values = torch.maximum(first, second)
    if labels == "mixed":
        values = targets.values * (1 - share) + other.values * share
    weights = targets.window_weights * (1 - pairs.share) + other.window_weights * pairs.share
    return Targets(values, _of_the_greater(first, second, targets, other), weights)


def overlaid_targets(targets: Targets, pairs: Pairs, laid: torch.Tensor, target_share: float) -> Targets:
    """What is asked of windows laid over a quieter one, whose values count by ``target_share``.

    The rules for greater values hold, after the second window's have been multiplied; window weights are mixed as
    1 : ``target_share``, for they say how far the targets can be trusted.

    Args:
        targets: of the batch before.
        pairs: who was laid over whom; the share does not matter.
        laid: bool [windows], where anything was.
        target_share: 0 to 1; at 0 the quieter window is noise and changes nothing.

    Returns:
        Targets of the same shapes.
    """
    counts = laid & (target_share > 0)
    other = _seconds(targets, pairs)
    second = torch.where(counts[:, None], other.values * target_share, -1.0)
    share = torch.where(counts, target_share / (1 + target_share), 0.0)
    weights = targets.window_weights * (1 - share) + other.window_weights * share
    cells = _of_the_greater(targets.values, second, targets, other)
    return Targets(torch.maximum(targets.values, second), cells, weights)


def _seconds(targets: Targets, pairs: Pairs) -> Targets:
    return Targets(*(tensor[pairs.second] for tensor in targets))


def _of_the_greater(first: torch.Tensor, second: torch.Tensor, of_first: Targets, of_second: Targets) -> torch.Tensor:
    """The cell weights [windows, labels] of whichever value is greater, the larger one where they are equal."""
    both = torch.maximum(of_first.cell_weights, of_second.cell_weights)
    one = torch.where(first > second, of_first.cell_weights, of_second.cell_weights)
    return torch.where(first == second, both, one)
