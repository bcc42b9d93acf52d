"""A batch in parts: what each part counts, so that they add up to the whole however it is cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.targets import Targets
from birdinfer.training.losses import LOSSES, build_loss, build_weight
from birdinfer.training.models.base import Logits
from birdinfer.training.recipe.schema import LossConfig

CLIPS = (100, 25, 4)


def batch(seed, n_windows=8):
    """Windows and cells that weigh unlike; some of either weigh nothing."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(3, n_windows, 3, generator=generator)
    cells = torch.where(draw[1] < 0.2, 0.0, draw[1])
    windows = torch.rand(n_windows, generator=generator) * 3
    windows[torch.rand(n_windows, generator=generator) < 0.3] = 0.0
    return Logits(draw[2] * 6 - 3), Targets((draw[0] > 0.6).float(), cells, windows)


def part_of(logits, targets, own):
    return Logits(logits.clip[own]), targets.each(lambda tensor: tensor[own])


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"soft_auc"}))
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 7), power=st.sampled_from([0.0, -0.5]))
def test_shares_of_the_parts_losses_are_the_loss_of_the_whole(name, seed, cut, power):
    config = LossConfig(name, class_weight_power=power)
    loss, weight = build_loss(config, CLIPS), build_weight(config, CLIPS)
    whole = batch(seed)
    parts = [part_of(*whole, slice(0, cut)), part_of(*whole, slice(cut, None))]
    total = sum(weight(targets) for _, targets in parts)
    torch.testing.assert_close(total, weight(whole[1]))
    together = sum(weight(targets) * loss(logits, targets) for logits, targets in parts)
    torch.testing.assert_close(together, total * loss(*whole), rtol=1e-4, atol=1e-5)


def test_halves_that_weigh_unlike_would_not_add_up_by_their_mean():
    """By hand: of two windows, one of weight 3, the other of weight 1, the first counts three quarters."""
    config = LossConfig("bce")
    loss, weight = build_loss(config, CLIPS), build_weight(config, CLIPS)
    logits = Logits(torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]))
    targets = Targets(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([3.0, 1.0]))
    heavy, light = part_of(logits, targets, slice(0, 1)), part_of(logits, targets, slice(1, 2))
    assert (weight(heavy[1]), weight(light[1])) == (9.0, 3.0)
    torch.testing.assert_close(0.75 * loss(*heavy) + 0.25 * loss(*light), loss(logits, targets))
    assert abs(0.5 * loss(*heavy) + 0.5 * loss(*light) - loss(logits, targets)) > 0.1
