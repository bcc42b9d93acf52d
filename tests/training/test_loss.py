import pytest
import torch

from birdinfer.errors import ConfigError
from birdinfer.training.loss import build_loss
from birdinfer.training.recipe_data import LabelConfig
from birdinfer.training.recipe_learning import LossConfig

LOGITS = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def test_bce_is_torchs_mean():
    expected = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, TARGETS)
    torch.testing.assert_close(build_loss(LossConfig(), LabelConfig())(LOGITS, TARGETS, torch.ones(2)), expected)


def test_clips_without_weight_do_not_count():
    loss = build_loss(LossConfig(), LabelConfig())
    alone = loss(LOGITS[:1], TARGETS[:1], torch.ones(1))
    torch.testing.assert_close(loss(LOGITS, TARGETS, torch.tensor([1.0, 0.0])), alone)
    assert loss(LOGITS, TARGETS, torch.zeros(2)) == 0


def test_smoothing_moves_targets_towards_an_even_guess():
    smoothed = build_loss(LossConfig(), LabelConfig(smoothing=0.2))(LOGITS, TARGETS, torch.ones(2))
    torch.testing.assert_close(
        smoothed, build_loss(LossConfig(), LabelConfig())(LOGITS, TARGETS * 0.8 + 0.1, torch.ones(2))
    )


def test_huge_logits_in_half_precision_stay_finite():
    """Pitfall 12: log(1 + exp(x)) overflows in fp16."""
    loss = build_loss(LossConfig(), LabelConfig())(LOGITS.half() * 1e4, TARGETS, torch.ones(2))
    assert torch.isfinite(loss)


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"loss\.name: 'bbce' is unknown - known are bce"):
        build_loss(LossConfig(name="bbce"), LabelConfig())
