from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.sampling import EpochSampler
from birdinfer.training.recipe.schema import DataConfig

LABELS = ["b"] * 9 + ["a"] * 3 + ["0012"]


def output(labels, config, epoch=0, seed=0):
    """How many items of each species an epoch has."""
    counts = Counter(labels[item] for item in EpochSampler(labels, config, seed).epoch(epoch))
    return {label: counts[label] for label in set(labels)}


@st.composite
def draws(draw):
    """Items of up to six species, and any combination of the three keys."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    labels = draw(st.permutations([f"s{index}" for index, size in enumerate(sizes) for _ in range(size)]))
    upsample_to = draw(st.integers(0, 15))
    cap_at = draw(st.one_of(st.just(0), st.integers(max(1, upsample_to), 20)))
    power = draw(st.sampled_from([0.0, -0.3, -0.5, -1.0]))
    return list(labels), DataConfig(sampling_power=power, upsample_to=upsample_to, cap_at=cap_at)


class TestConstraints:
    @given(draws(), st.integers(0, 50), st.integers(0, 2**31 - 1))
    def test_every_epoch_has_the_same_length_and_real_items(self, drawn, epoch, seed):
        labels, config = drawn
        draw = EpochSampler(labels, config, seed)
        items = draw.epoch(epoch)
        assert (items.dtype, len(items)) == (np.intp, draw.n_items)
        assert items.min() >= 0
        assert items.max() < len(labels)

    @given(draws(), st.integers(0, 50), st.integers(0, 2**31 - 1))
    def test_species_keep_to_their_bounds_in_every_epoch(self, drawn, epoch, seed):
        labels, config = drawn
        counts = output(labels, config, epoch, seed)
        assert min(counts.values()) >= config.upsample_to
        assert not config.cap_at or max(counts.values()) <= config.cap_at

    @given(draws(), st.integers(0, 50), st.integers(0, 2**31 - 1))
    def test_an_epoch_follows_from_seed_and_epoch_alone(self, drawn, epoch, seed):
        labels, config = drawn
        used, fresh = EpochSampler(labels, config, seed), EpochSampler(labels, config, seed)
        used.epoch(epoch + 1)
        np.testing.assert_array_equal(used.epoch(epoch), fresh.epoch(epoch))

    @given(draws(), st.integers(0, 20))
    def test_without_a_power_items_of_a_species_are_repeated_evenly(self, drawn, epoch):
        labels, config = drawn
        config = DataConfig(upsample_to=config.upsample_to, cap_at=config.cap_at)
        times = np.bincount(EpochSampler(labels, config, 0).epoch(epoch), minlength=len(labels))
        for label in set(labels):
            own = times[[each == label for each in labels]]
            assert own.max() - own.min() <= 1

    @given(draws())
    def test_every_item_has_its_turn_under_a_cap(self, drawn):
        labels, config = drawn
        config = DataConfig(upsample_to=config.upsample_to, cap_at=config.cap_at)
        draw = EpochSampler(labels, config, 0)
        cycle = -(-max(Counter(labels).values()) // (config.cap_at or len(labels)))
        # Cycles of species differ; two of the longest contain one of each.
        seen = np.concatenate([draw.epoch(epoch) for epoch in range(2 * cycle)])
        assert set(seen) == set(range(len(labels)))


class TestDraw:
    def test_by_default_each_item_is_used_once_in_an_order_of_the_epochs_own(self):
        draw = EpochSampler(LABELS, DataConfig(), 1)
        first, second = draw.epoch(0), draw.epoch(1)
        assert sorted(first) == sorted(second) == list(range(len(LABELS)))
        assert first.tolist() != second.tolist()
        assert first.tolist() != EpochSampler(LABELS, DataConfig(), 2).epoch(0).tolist()

    def test_rare_species_are_repeated(self):
        assert output(LABELS, DataConfig(upsample_to=5)) == {"b": 9, "a": 5, "0012": 5}

    def test_frequent_species_are_capped_with_others_in_the_next_epoch(self):
        config = DataConfig(cap_at=3)
        assert output(LABELS, config) == {"b": 3, "a": 3, "0012": 1}
        draw = EpochSampler(LABELS, config, 0)
        turns = [set(draw.epoch(epoch)) & set(range(9)) for epoch in range(6)]
        assert set.union(*turns[:3]) == set.union(*turns[3:]) == set(range(9))
        assert turns[:3] != turns[3:]

    @pytest.mark.parametrize(("power", "shares"), [(-1.0, (1 / 3, 1 / 3, 1 / 3)), (-0.5, (3, 3**0.5, 1))])
    def test_power_weighs_species_as_it_says(self, power, shares):
        draw = EpochSampler(LABELS, DataConfig(sampling_power=power), 0)
        drawn = Counter(LABELS[item] for epoch in range(600) for item in draw.epoch(epoch))
        measured = np.array([drawn[label] for label in ("b", "a", "0012")]) / drawn.total()
        np.testing.assert_allclose(measured, np.array(shares) / sum(shares), atol=0.02)

    def test_power_draws_with_replacement_and_all_items_of_a_species_alike(self):
        draw = EpochSampler(LABELS, DataConfig(sampling_power=-0.5), 0)
        assert len(set(draw.epoch(0))) < draw.n_items
        times = np.bincount(np.concatenate([draw.epoch(epoch) for epoch in range(600)]), minlength=len(LABELS))
        assert times[:9].max() < 1.2 * times[:9].min()

    def test_power_under_a_cap_takes_only_those_whose_turn_it_is(self):
        draw = EpochSampler(LABELS, DataConfig(sampling_power=-0.5, cap_at=3), 0)
        assert {len(set(draw.epoch(epoch)) & set(range(9))) for epoch in range(20)} <= {1, 2, 3}
        assert set(range(9)) <= {int(item) for epoch in range(40) for item in draw.epoch(epoch)}

    def test_no_items_make_empty_epochs(self):
        draw = EpochSampler([], DataConfig(sampling_power=-0.5), 0)
        assert (draw.n_items, len(draw.epoch(3))) == (0, 0)

    @pytest.mark.parametrize("power", [0.0, -0.5])
    def test_50_000_items_of_2_000_species_are_drawn(self, power):
        labels = [str(label) for label in np.random.default_rng(0).zipf(1.3, 50_000) % 2_000]
        draw = EpochSampler(labels, DataConfig(sampling_power=power, upsample_to=10, cap_at=200), 0)
        assert len(draw.epoch(0)) == draw.n_items
