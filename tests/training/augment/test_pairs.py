import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from birdinfer.training.augment.mixing import Pairs, draw_pairs, mixed_targets, overlaid_targets
from birdinfer.training.data.targets import Targets

N_WINDOWS, N_LABELS = 5, 6
RULES = pytest.mark.parametrize("labels", ["max", "mixed"])

unit = st.floats(0, 1, width=32)
cells = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]) | unit, st.sampled_from([0.0, 1.0]) | unit), min_size=30, max_size=30
)


@st.composite
def batches(draw):
    values, weights = zip(*draw(cells), strict=True)
    shape = (N_WINDOWS, N_LABELS)
    of_windows = draw(st.lists(st.floats(0, 2, width=32), min_size=N_WINDOWS, max_size=N_WINDOWS))
    return Targets(torch.tensor(values).reshape(shape), torch.tensor(weights).reshape(shape), torch.tensor(of_windows))


@st.composite
def pairings(draw, shares=unit):
    second = torch.tensor(draw(st.permutations(range(N_WINDOWS))))
    return Pairs(
        second, torch.tensor(draw(st.lists(shares, min_size=N_WINDOWS, max_size=N_WINDOWS)), dtype=torch.float32)
    )


def two(first, second):
    """A batch of two windows with one label each: (value, cell weight)."""
    values, weights = zip(first, second, strict=True)
    return Targets(torch.tensor(values)[:, None], torch.tensor(weights)[:, None], torch.ones(2))


def first_of(targets):
    return targets.values[0].item(), targets.cell_weights[0].item()


def swap(share):
    return Pairs(torch.tensor([1, 0]), torch.tensor([share, share]))


class TestDrawPairs:
    def targets(self, n, failed=()):
        weights = torch.ones(n)
        weights[list(failed)] = 0.0
        return Targets(torch.eye(n), torch.ones(n, n), weights)

    def test_everyone_is_second_once_and_with_the_share_asked_for(self):
        shares = np.linspace(0.1, 0.9, 50)
        pairs = draw_pairs(shares, self.targets(50), np.random.default_rng(0))
        assert sorted(pairs.second.tolist()) == list(range(50))
        alone = (pairs.second == torch.arange(50)).numpy()
        np.testing.assert_allclose(pairs.share.numpy(), np.where(alone, 0, shares), rtol=1e-6)

    def test_who_meets_itself_is_not_mixed(self):
        for seed in range(20):
            pairs = draw_pairs(np.full(3, 0.5), self.targets(3), np.random.default_rng(seed))
            assert torch.equal(pairs.share == 0, pairs.second == torch.arange(3))

    def test_who_is_alone_is_not_mixed(self):
        pairs = draw_pairs(np.ones(1), self.targets(1), np.random.default_rng(0))
        assert pairs.share.tolist() == [0.0]

    def test_pitfall_13_a_failed_clip_is_neither_first_nor_second(self):
        for seed in range(20):
            pairs = draw_pairs(np.full(4, 0.5), self.targets(4, failed=[2]), np.random.default_rng(seed))
            assert pairs.share[2] == 0
            assert pairs.share[pairs.second == 2].tolist() == [0]

    def test_same_generator_same_pairs(self):
        once, again = (draw_pairs(np.full(9, 0.5), self.targets(9), np.random.default_rng(1)) for _ in range(2))
        assert torch.equal(once.second, again.second)


class TestMixedTargets:
    @pytest.mark.parametrize(("labels", "expected"), [("max", 1.0), ("mixed", 0.75)])
    def test_values_by_their_rule(self, labels, expected):
        mixed = mixed_targets(two((1.0, 1.0), (0.0, 1.0)), swap(0.25), labels)
        assert first_of(mixed) == (expected, 1.0)

    @RULES
    @pytest.mark.parametrize(
        ("first", "second", "weight"),
        [
            pytest.param((1.0, 0.0), (0.0, 1.0), 0.0, id="masked beats absent"),
            pytest.param((0.0, 1.0), (1.0, 0.0), 0.0, id="masked beats absent from the other side"),
            pytest.param((1.0, 0.0), (1.0, 1.0), 1.0, id="certainly there beats masked"),
            pytest.param((0.5, 0.0), (1.0, 1.0), 1.0, id="certainly there beats masked of less value"),
            pytest.param((0.5, 0.3), (0.2, 0.9), 0.3, id="the greater value decides"),
            pytest.param((0.0, 0.2), (0.0, 0.7), 0.7, id="the larger weight on a tie"),
        ],
    )
    def test_the_weight_of_a_cell(self, first, second, weight, labels):
        assert first_of(mixed_targets(two(first, second), swap(0.4), labels))[1] == pytest.approx(weight)

    @RULES
    @given(batches(), pairings())
    def test_stays_in_range(self, labels, targets, pairs):
        mixed = mixed_targets(targets, pairs, labels)
        assert 0 <= mixed.values.min() <= mixed.values.max() <= 1
        assert 0 <= mixed.cell_weights.min() <= mixed.cell_weights.max() <= 1
        assert mixed.window_weights.min() >= 0
        assert mixed.window_weights.max() <= targets.window_weights.max() * (1 + 1e-6)

    @RULES
    @given(batches(), pairings(st.just(0.0)))
    def test_a_share_of_nothing_changes_nothing(self, labels, targets, pairs):
        for before, after in zip(targets[:3], mixed_targets(targets, pairs, labels)[:3], strict=True):
            assert torch.equal(before, after)

    @RULES
    @given(batches(), pairings(st.just(1.0)))
    def test_a_share_of_all_is_the_second_window(self, labels, targets, pairs):
        for before, after in zip(targets[:3], mixed_targets(targets, pairs, labels)[:3], strict=True):
            assert torch.equal(before[pairs.second], after)

    @RULES
    @given(batches(), st.floats(0, 1))
    def test_does_not_care_which_one_is_first(self, labels, targets, share):
        """Window 0 with ``share`` of window 1 asks for what window 1 does with the rest of window 0."""
        pairs = Pairs(torch.tensor([1, 0, 2, 3, 4]), torch.tensor([share, 1 - share, 0.0, 0.0, 0.0]))
        # Shares that float32 rounds to all or nothing on one side only are no mirror images of each other.
        pairs.share[0] = 1 - pairs.share[1]
        assume(bool(1 - pairs.share[0] == pairs.share[1]))
        for tensor in mixed_targets(targets, pairs, labels)[:3]:
            torch.testing.assert_close(tensor[0], tensor[1], rtol=1e-5, atol=1e-6)

    @RULES
    @given(batches(), st.integers(0, 1000), st.integers(0, N_WINDOWS - 1))
    def test_a_failed_clip_lends_and_borrows_nothing(self, labels, targets, seed, failed):
        targets.window_weights[failed] = 0.0
        pairs = draw_pairs(np.full(N_WINDOWS, 0.5), targets, np.random.default_rng(seed))
        mixed = mixed_targets(targets, pairs, labels)
        for window in (failed, int((pairs.second == failed).nonzero())):
            assert all(
                torch.equal(after[window], before[window]) for before, after in zip(targets[:3], mixed[:3], strict=True)
            )


class TestOverlaidTargets:
    def overlaid(self, targets, share):
        return overlaid_targets(targets, swap(1.0), torch.tensor([True, False]), share)

    def test_the_quieter_one_counts_by_its_share(self):
        assert first_of(self.overlaid(two((0.0, 1.0), (1.0, 1.0)), 0.3)) == pytest.approx((0.3, 1.0))

    def test_the_louder_one_keeps_its_own(self):
        assert first_of(self.overlaid(two((1.0, 1.0), (1.0, 1.0)), 0.3)) == (1.0, 1.0)

    def test_masked_beats_absent_at_any_share(self):
        assert first_of(self.overlaid(two((0.0, 1.0), (1.0, 0.0)), 0.1)) == pytest.approx((0.1, 0.0))

    def test_at_no_share_it_is_noise(self):
        assert first_of(self.overlaid(two((0.0, 1.0), (1.0, 0.0)), 0.0)) == (0.0, 1.0)
        assert first_of(self.overlaid(two((0.0, 0.0), (0.0, 1.0)), 0.0)) == (0.0, 0.0)

    def test_windows_count_as_their_targets_do(self):
        targets = two((1.0, 1.0), (1.0, 1.0))._replace(window_weights=torch.tensor([1.0, 0.4]))
        assert self.overlaid(targets, 1.0).window_weights.tolist() == pytest.approx([0.7, 0.4])
        assert self.overlaid(targets, 0.0).window_weights.tolist() == pytest.approx([1.0, 0.4])

    @given(batches(), pairings(), unit)
    def test_stays_in_range_and_touches_only_what_was_overlaid(self, targets, pairs, share):
        overlaid = pairs.share > 0.5
        after = overlaid_targets(targets, pairs, overlaid, share)
        assert (after.values >= targets.values).all()
        assert after.values.max() <= 1
        assert 0 <= after.cell_weights.min() <= after.cell_weights.max() <= 1
        assert all(torch.equal(new[~overlaid], old[~overlaid]) for new, old in zip(after[:3], targets[:3], strict=True))
