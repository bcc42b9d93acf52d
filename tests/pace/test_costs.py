import math

import numpy as np
import pytest
from making import FRONTEND, write_bundle

from birdinfer.bundle import Bundle
from birdinfer.pace.costs import LevelCosts, Prices, Rate
from birdinfer.windows import Placement


class TestRate:
    def test_is_seconds_over_units(self):
        rate = Rate()
        assert rate.per_unit() == 0.0
        rate.add(2, 1.0)
        rate.add(2, 3.0)
        assert rate.per_unit() == pytest.approx(1.0, rel=0.01)

    def test_what_was_foretold_weighs_as_five_measurements(self):
        rate = Rate()
        assert rate.per_unit(foretold=3.0) == 3.0
        rate.add(4, 4.0)
        assert rate.per_unit(foretold=3.0) == pytest.approx((4 + 5 * 4 * 3) / (4 + 5 * 4))

    def test_forgets_what_is_long_ago(self):
        rate = Rate()
        for seconds in [1.0] * 1_000 + [2.0] * 1_000:
            rate.add(1, seconds)
        assert rate.per_unit() == pytest.approx(2.0, rel=0.01)

    def test_is_certain_of_what_never_varies_and_knows_nothing_of_what_it_never_saw(self):
        rate = Rate()
        assert rate.variance(10) == 0.0
        for _ in range(10):
            rate.add(3, 6.0)
        assert rate.variance(100) == pytest.approx(0.0, abs=1e-9)

    def test_variance_by_hand(self):
        """Runs of 1 and 3 s for a window each: 2 s a window, squares 1 + 1; two more: 2 x ((2/2)^2 + 2/2) = 4."""
        rate = Rate()
        rate.add(1, 1.0)
        rate.add(1, 3.0)
        assert rate.variance(2) == pytest.approx(4.0, rel=0.02)

    def test_variance_is_that_of_sums_to_come(self):
        rng, misses, expected = np.random.default_rng(0), [], []
        for _ in range(2_000):
            rate = Rate()
            for seconds in rng.normal(1, 0.2, 20):
                rate.add(1, seconds)
            misses.append(rng.normal(1, 0.2, 40).sum() - 40 * rate.per_unit())
            expected.append(rate.variance(40))
        assert math.sqrt(np.mean(np.square(misses))) == pytest.approx(math.sqrt(np.mean(expected)), rel=0.1)


class _Watch:
    def __init__(self, shares):
        self._shares = shares

    def shares(self):
        return self._shares


def windows_of_a_hundred_minutes(placement: Placement) -> int:
    return 100 * placement.n_windows(12)


@pytest.fixture
def two(tmp_path):
    return Bundle.load(write_bundle(tmp_path / "two", 2))


def test_a_level_below_is_foretold_from_the_parts_by_hand(two):
    """A window takes 1 s: 0.1 s front end for 2.5 s between windows, 0.3 and 0.6 s the members.

    Without overlap the front end takes 0.2 s a window, as much a second as before; without fold1, 0.6 s less.
    """
    full = LevelCosts(two.with_overlap(2.5), windows_of_a_hundred_minutes)
    full.watches = [_Watch({FRONTEND: 0.1, "fold0": 0.3, "fold1": 0.6})]
    prices = Prices(0.01, [1.0])
    plain = LevelCosts(two, windows_of_a_hundred_minutes).foretell(full, prices)
    alone = LevelCosts(two.with_members({"fold0"}), windows_of_a_hundred_minutes).foretell(full, prices)
    assert plain.windows == pytest.approx([0.2 + 0.3 + 0.6])
    assert alone.windows == pytest.approx([0.2 + 0.3])
    # All files are read at either level: 23 windows of 2.5 s stand for them, or 12 of 5 s.
    assert plain.reading == pytest.approx(0.01 * 23 * 2.5 / (12 * 5))


def test_what_windows_will_take_is_reading_and_scoring(two):
    costs = LevelCosts(two, windows_of_a_hundred_minutes)
    assert costs.lane_seconds(Prices(0.01, [0.5]), [12]) == pytest.approx(60 * 0.01 + 12 * 0.5)


def test_a_level_is_measured_once_two_runs_were_heard(two):
    costs = LevelCosts(two, windows_of_a_hundred_minutes)
    for wanted in (False, False, True):
        assert costs.is_measured == wanted
        costs.add(0, 6, 3.0, 0.3)
    assert costs.prices() == Prices(pytest.approx(0.01), [pytest.approx(0.5)])
    assert costs.relative_error([100]) == pytest.approx(0.0, abs=1e-6)
