import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.data.targets import Targets
from birdinfer.training.losses import LOSSES, build_loss, class_weights
from birdinfer.training.models.base import Logits
from birdinfer.training.recipe.schema import LossConfig

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [-0.3, 0.1, 1.0]])
VALUES = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.3]])
CLIPS = (100, 25, 4)
CONFIGS = {
    **{name: LossConfig(name) for name in LOSSES},
    "focal, gamma 0.5": LossConfig("focal", focal_gamma=0.5),
    "focal, gamma 0": LossConfig("focal", focal_gamma=0.0, focal_alpha=-1.0),
    "asymmetric, no clip": LossConfig("asymmetric", asymmetric_clip=0.0, asymmetric_gamma_negative=0.5),
    "bce, weighted": LossConfig("bce", class_weight_power=-0.5),
}
each_loss = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def targets(values=VALUES, cells=None, windows=None):
    values = torch.as_tensor(values, dtype=torch.float32)
    cells = torch.ones_like(values) if cells is None else torch.as_tensor(cells, dtype=torch.float32)
    windows = torch.ones(len(values)) if windows is None else torch.as_tensor(windows, dtype=torch.float32)
    return Targets(values, cells, windows)


def loss_of(config, wanted=None, logits=LOGITS, clips=CLIPS):
    return build_loss(config, clips)(Logits(logits), wanted or targets())


class TestEveryLoss:
    @each_loss
    def test_a_window_without_weight_does_not_count(self, config):
        alone = loss_of(config, targets(VALUES[:2]), LOGITS[:2])
        logits = torch.cat([LOGITS[:2], torch.full((1, 3), 30.0)])
        torch.testing.assert_close(loss_of(config, targets(windows=[1, 1, 0]), logits), alone)

    @each_loss
    def test_a_masked_cell_does_not_count_and_gets_no_gradient(self, config):
        cells = torch.tensor([[1.0, 1, 1], [1, 0, 1], [1, 1, 0]])
        wanted = targets(cells=cells)
        logits = LOGITS.clone().requires_grad_()
        loss = loss_of(config, wanted, logits)
        loss.backward()
        assert (logits.grad[cells == 0] == 0).all()
        assert (logits.grad[cells == 1] != 0).any()
        torch.testing.assert_close(loss_of(config, wanted, torch.where(cells == 0, 40.0, LOGITS)), loss.detach())

    @each_loss
    def test_a_heavy_window_counts_like_several(self, config):
        twice = torch.tensor([0, 1, 2, 2])
        # Of soft labels, the copies would make one pair more.
        values = VALUES.round() if config.name == "soft_auc" else VALUES
        heavy = targets(values, windows=[1, 1, 2])
        torch.testing.assert_close(loss_of(config, heavy), loss_of(config, targets(values[twice]), LOGITS[twice]))

    @each_loss
    @pytest.mark.parametrize("weightless", [{"windows": [0, 0, 0]}, {"cells": torch.zeros(3, 3)}])
    def test_a_batch_without_weight_is_0_with_gradients_of_0(self, config, weightless):
        logits = LOGITS.clone().requires_grad_()
        loss = loss_of(config, targets(**weightless), logits)
        loss.backward()
        assert loss == 0
        assert (logits.grad == 0).all()

    @each_loss
    def test_pitfall_12_huge_logits_in_half_precision_stay_finite(self, config):
        """Pitfall 12: log(1 + exp(x)) overflows in fp16."""
        logits = (LOGITS.half() * 2e4).requires_grad_()
        loss = loss_of(config, logits=logits)
        loss.backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()

    @each_loss
    def test_autocast_changes_nothing(self, config):
        with torch.autocast("cpu", torch.bfloat16):
            mixed = loss_of(config)
        torch.testing.assert_close(mixed, loss_of(config), rtol=0, atol=0)

    @each_loss
    def test_gradients_are_those_of_the_loss(self, config):
        logits = LOGITS.clone().requires_grad_()
        loss_of(config, logits=logits).backward()
        step = 1e-2
        for cell in np.ndindex(3, 3):
            moved = torch.zeros(3, 3)
            moved[cell] = step
            slope = (loss_of(config, logits=LOGITS + moved) - loss_of(config, logits=LOGITS - moved)) / (2 * step)
            assert logits.grad[cell].item() == pytest.approx(slope.item(), abs=2e-4)

    @each_loss
    def test_better_logits_cost_less(self, config):
        hard = VALUES.round()
        assert loss_of(config, targets(hard), 8 * hard - 4) < loss_of(config, targets(hard), LOGITS)
        assert loss_of(config, targets(hard), LOGITS) < loss_of(config, targets(hard), 4 - 8 * hard)

    @each_loss
    @given(data=st.data())
    def test_the_order_of_windows_does_not_matter(self, config, data):
        order = data.draw(st.permutations(range(3)))
        shuffled = loss_of(config, targets(VALUES[order]), LOGITS[order])
        torch.testing.assert_close(shuffled, loss_of(config))

    @each_loss
    def test_a_window_alone_is_scored(self, config):
        assert torch.isfinite(loss_of(config, targets(VALUES[:1]), LOGITS[:1]))


class TestFrames:
    FRAMES = torch.stack([LOGITS - 1, LOGITS.flip(0), LOGITS - 5], dim=1)

    @each_loss
    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_the_loudest_frame_counts_by_its_share(self, config, share):
        loss = build_loss(LossConfig(config.name, frame_share=share), CLIPS)
        both = loss(Logits(LOGITS, self.FRAMES), targets())
        loudest = torch.maximum(LOGITS - 1, LOGITS.flip(0))
        expected = (1 - share) * loss(Logits(LOGITS), targets()) + share * loss(Logits(loudest), targets())
        torch.testing.assert_close(both, expected)


class TestBce:
    def test_is_torchs_mean(self):
        torch.testing.assert_close(
            loss_of(LossConfig("bce")), functional.binary_cross_entropy_with_logits(LOGITS, VALUES)
        )

    def test_cells_count_by_their_weight(self):
        cells = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
        expected = functional.binary_cross_entropy_with_logits(LOGITS, VALUES, weight=cells, reduction="sum")
        torch.testing.assert_close(loss_of(LossConfig("bce"), targets(cells=cells)), expected / cells.sum())


class TestClassWeights:
    def test_follow_a_batch_to_its_device(self):
        loss = build_loss(LossConfig("bce", class_weight_power=-0.5), CLIPS)
        there = targets().each(lambda tensor: tensor.to("meta"))
        assert loss(Logits(LOGITS.to("meta")), there).device.type == "meta"
        assert loss(Logits(LOGITS), targets()).device.type == "cpu"

    def test_are_a_power_of_the_clips_with_a_mean_of_1(self):
        torch.testing.assert_close(class_weights([100, 25, 4], -0.5), torch.tensor([0.1, 0.2, 0.5]) * 3 / 0.8)

    def test_a_label_without_clips_counts_as_one_of_one(self):
        weights = class_weights([0, 1, 4], -1.0)
        assert torch.isfinite(weights).all()
        assert weights[0] == weights[1] == 4 * weights[2]

    @pytest.mark.parametrize("name", LOSSES)
    def test_every_loss_heeds_them(self, name):
        assert loss_of(LossConfig(name, class_weight_power=-1.0)) != loss_of(LossConfig(name))

    def test_a_cell_of_bce_weighs_what_its_class_does(self):
        weighed = loss_of(LossConfig("bce", class_weight_power=-0.5))
        costs = functional.binary_cross_entropy_with_logits(LOGITS, VALUES, reduction="none")
        torch.testing.assert_close(weighed, (costs * class_weights(CLIPS, -0.5)).mean())


class TestCe:
    def test_of_one_label_each_is_torchs(self):
        hard = torch.tensor([0, 2, 1])
        torch.testing.assert_close(
            loss_of(LossConfig("ce"), targets(functional.one_hot(hard, 3))), functional.cross_entropy(LOGITS, hard)
        )

    def test_of_soft_labels_is_torchs(self):
        soft = VALUES / VALUES.sum(dim=1, keepdim=True)
        torch.testing.assert_close(loss_of(LossConfig("ce"), targets(soft)), functional.cross_entropy(LOGITS, soft))

    def test_of_several_hard_labels_is_the_sum_over_them(self):
        log_shares = torch.log_softmax(LOGITS[1], 0)
        loss = loss_of(LossConfig("ce"), targets(VALUES[1:2]), LOGITS[1:2])
        torch.testing.assert_close(loss, -(log_shares[1] + log_shares[2]))

    def test_masked_labels_leave_the_softmax(self):
        masked = loss_of(LossConfig("ce"), targets([[1, 0, 1]], [[1, 1, 0]]), LOGITS[:1])
        torch.testing.assert_close(masked, functional.cross_entropy(LOGITS[:1, :2], torch.tensor([0])))

    def test_a_window_that_is_masked_as_a_whole_does_not_thin_the_mean(self):
        cells = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
        both = loss_of(LossConfig("ce"), targets(VALUES[:2], cells), LOGITS[:2])
        torch.testing.assert_close(both, loss_of(LossConfig("ce"), targets(VALUES[:1]), LOGITS[:1]))


class TestFocal:
    @pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.9), (0.0, -1.0)])
    def test_is_lins_formula_of_hard_labels(self, gamma, alpha):
        hard = VALUES.round()
        shares = torch.sigmoid(LOGITS)
        of_true = torch.where(hard == 1, shares, 1 - shares)
        weight = torch.where(hard == 1, alpha, 1 - alpha) if alpha >= 0 else 1.0
        expected = (-weight * (1 - of_true) ** gamma * of_true.log()).mean()
        config = LossConfig("focal", focal_gamma=gamma, focal_alpha=alpha)
        torch.testing.assert_close(loss_of(config, targets(hard)), expected)

    def test_without_gamma_and_alpha_it_is_bce(self):
        torch.testing.assert_close(loss_of(CONFIGS["focal, gamma 0"]), loss_of(LossConfig("bce")))

    def test_focal_bce_adds_a_share_of_bce(self):
        expected = loss_of(LossConfig("focal")) + 0.7 * loss_of(LossConfig("bce"))
        torch.testing.assert_close(loss_of(LossConfig("focal_bce", bce_share=0.7)), expected)

    def test_an_alpha_that_is_no_share_is_refused(self):
        with pytest.raises(ConfigError, match=r"loss\.focal_alpha: is -0\.5, allowed are 0 to 1, and -1"):
            build_loss(LossConfig("focal", focal_alpha=-0.5), CLIPS)


class TestAsymmetric:
    @pytest.mark.parametrize("clip", [0.0, 0.05, 0.5])
    def test_is_ridniks_formula_of_hard_labels(self, clip):
        hard, shares = VALUES.round(), torch.sigmoid(LOGITS)
        shifted = (shares - clip).clamp(min=0)
        costs = torch.where(hard == 1, -(1 - shares) * shares.log(), -(shifted**4) * (1 - shifted).log())
        torch.testing.assert_close(loss_of(LossConfig("asymmetric", asymmetric_clip=clip), targets(hard)), costs.mean())

    def test_an_absent_species_below_the_clip_costs_nothing(self):
        quiet = torch.full((1, 3), -3.5)  # a probability of 0.03
        assert loss_of(LossConfig("asymmetric"), targets(torch.zeros(1, 3)), quiet) == 0
        assert loss_of(LossConfig("asymmetric", asymmetric_clip=0.0), targets(torch.zeros(1, 3)), quiet) > 0


class TestSoftAuc:
    def test_is_the_mean_over_all_pairs_of_present_and_absent(self):
        config = LossConfig("soft_auc", bce_share=0.0)
        # Label 0: windows 0 and 2 against 1; label 1: window 1 against 0 and 2; label 2: window 1 against 0.
        values = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 0, 0]])
        cells = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 0]])
        margins = torch.tensor([2.0 - 0.0, -0.3 - 0.0, 3.0 + 1.0, 3.0 - 0.1, -2.0 - 0.5])
        torch.testing.assert_close(loss_of(config, targets(values, cells)), functional.softplus(-margins).mean())

    def test_soft_labels_and_weights_are_weights_of_pairs(self):
        config = LossConfig("soft_auc", bce_share=0.0)
        values, cells, windows = [[0.75], [0.25], [1.0]], [[1.0], [0.5], [1.0]], [1.0, 1.0, 3.0]
        logits = torch.tensor([[1.0], [-1.0], [0.5]])
        total = weight = 0.0
        for i in range(3):
            for j in range(3):
                own = windows[i] * windows[j] * cells[i][0] * cells[j][0] * values[i][0] * (1 - values[j][0]) * (i != j)
                weight += own
                total += own * math.log1p(math.exp(-(logits[i, 0] - logits[j, 0]).item()))
        loss = loss_of(config, targets(values, cells, windows), logits, clips=(5,))
        assert loss.item() == pytest.approx(total / weight, rel=1e-5)

    def test_labels_of_one_kind_have_their_bce_only(self):
        one_kind = torch.tensor([[1.0, 0.0, 0.0]] * 3)
        config = LossConfig("soft_auc", bce_share=0.5)
        torch.testing.assert_close(
            loss_of(config, targets(one_kind)), 0.5 * loss_of(LossConfig("bce"), targets(one_kind))
        )

    def test_adds_a_share_of_bce(self):
        plain = loss_of(LossConfig("soft_auc", bce_share=0.0))
        expected = plain + 0.25 * loss_of(LossConfig("bce"))
        torch.testing.assert_close(loss_of(LossConfig("soft_auc", bce_share=0.25)), expected)

    def test_its_pairs_only_see_the_order_of_scores(self):
        config = LossConfig("soft_auc", bce_share=0.0)
        torch.testing.assert_close(loss_of(config, logits=LOGITS + torch.tensor([5.0, -3.0, 1.0])), loss_of(config))


def test_an_unknown_name_is_refused_with_the_known_ones():
    known = r"known are bce, ce, focal, focal_bce, asymmetric, soft_auc; bce\?"
    with pytest.raises(ConfigError, match=rf"loss\.name: 'bbce' is unknown - {known}"):
        build_loss(LossConfig("bbce"), CLIPS)
