from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import FRONTEND, write_bundle

from birdinfer.audio.windows import WindowGrid, make_grid
from birdinfer.config import AggregationConfig
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.forecast import Costs, LevelCosts, Rate, Workload, windows_in

PLAIN = make_grid(FRONTEND, AggregationConfig(), FRONTEND.window)
OVERLAPPING = make_grid(FRONTEND, AggregationConfig(stride_seconds=2.5), FRONTEND.window)


class TestRate:
    def test_is_seconds_over_units(self):
        rate = Rate()
        assert rate.per_unit() == 0.0
        rate.add(2, 1.0)
        rate.add(2, 3.0)
        assert rate.per_unit() == pytest.approx(1.0, rel=0.01)

    def test_an_estimate_weighs_as_five_measurements(self):
        rate = Rate()
        assert rate.per_unit(estimate=3.0) == 3.0
        rate.add(4, 4.0)
        assert rate.per_unit(estimate=3.0) == pytest.approx((4 + 5 * 4 * 3) / (4 + 5 * 4))

    def test_forgets_old_measurements(self):
        rate = Rate()
        for seconds in [1.0] * 1_000 + [2.0] * 1_000:
            rate.add(1, seconds)
        assert rate.per_unit() == pytest.approx(2.0, rel=0.01)


class _Watch:
    def __init__(self, shares):
        self._shares = shares

    def shares(self):
        return self._shares


def windows_of_a_hundred_minutes(grid: WindowGrid) -> int:
    return 100 * grid.n_windows(12)


@pytest.fixture
def two(tmp_path):
    return Bundle.load(write_bundle(tmp_path / "two", 2))


def test_level_costs_are_estimated_from_the_parts_by_hand(two):
    """A window takes 1 s: 0.1 s front end for 2.5 s between windows, 0.3 and 0.6 s the members.

    Without overlap the front end takes 0.2 s a window, as much a second as before; without fold1, 0.6 s less.
    """
    full = LevelCosts(two.with_overlap(2.5), windows_of_a_hundred_minutes)
    full.watches = [_Watch({FRONTEND: 0.1, "fold0": 0.3, "fold1": 0.6})]
    costs = Costs(0.01, [1.0])
    plain = LevelCosts(two, windows_of_a_hundred_minutes).estimate(full, costs)
    alone = LevelCosts(two.with_members({"fold0"}), windows_of_a_hundred_minutes).estimate(full, costs)
    assert plain.windows == pytest.approx([0.2 + 0.3 + 0.6])
    assert alone.windows == pytest.approx([0.2 + 0.3])
    # All files are read at either level: 23 windows of 2.5 s stand for them, or 12 of 5 s.
    assert plain.reading == pytest.approx(0.01 * 23 * 2.5 / (12 * 5))


def test_level_costs_are_reading_and_scoring(two):
    costs = LevelCosts(two, windows_of_a_hundred_minutes)
    assert costs.worker_seconds(Costs(0.01, [0.5]), [12]) == pytest.approx(60 * 0.01 + 12 * 0.5)


def test_level_is_measured_after_two_batches(two):
    costs = LevelCosts(two, windows_of_a_hundred_minutes)
    for wanted in (False, False, True):
        assert costs.is_measured == wanted
        costs.add(0, 6, 3.0, 0.3)
    assert costs.costs() == Costs(pytest.approx(0.01), [pytest.approx(0.5)])


@pytest.mark.parametrize(
    ("seconds", "plain", "overlapping"), [(60.0, 12, 23), (5.0, 1, 1), (1.0, 1, 1), (0.01, 1, 1), (60.001, 12, 23)]
)
def test_windows_in_a_file_by_hand(seconds, plain, overlapping):
    """60 s are 12 rows, and with a stride of 2.5 s (60 - 5) / 2.5 + 1 = 23 windows."""
    assert windows_in(seconds, PLAIN) == plain
    assert windows_in(seconds, OVERLAPPING) == overlapping


def test_workload_shrinks_with_each_file_that_begins():
    workload = Workload({Path("a"): 60.0, Path("b"): 5.0, Path("c"): 60.0})
    assert (workload.n_waiting, workload.n_windows(PLAIN)) == (3, 25)
    assert workload.begin(Path("a")) == 60.0
    assert (workload.n_waiting, workload.n_windows(PLAIN)) == (2, 13)
    # A grid that is asked for late counts the files that wait by then.
    assert workload.n_windows(OVERLAPPING) == 24
    workload.begin(Path("b"))
    assert workload.n_windows(OVERLAPPING) == 23


def test_workload_takes_unknown_lengths_for_the_median_until_such_files_are_done():
    """Median 60 s: 12 windows each. One that held nothing makes the others worth (60 + 0) / 2 s, half as much."""
    workload = Workload({Path("a"): 60.0, Path("b"): None, Path("c"): None, Path("d"): None})
    assert workload.n_windows(PLAIN) == 48
    assert workload.begin(Path("b")) is None
    assert workload.expected_seconds(None) == 60.0
    workload.find(0.0)
    assert workload.n_windows(PLAIN) == 12 + 2 * 6
    assert workload.expected_seconds(None) == 30.0
    assert workload.expected_seconds(7.0) == 7.0


def test_workload_without_a_known_length_takes_a_minute():
    assert Workload({Path("a"): None}).n_windows(PLAIN) == 12


def test_workload_ignores_headers_without_samples():
    """Were 0 the median, the share of it that an unknown file holds would be 0 / 0."""
    empty = {Path(str(index)): 0.0 for index in range(3)}
    workload = Workload({Path("a"): 30.0, Path("b"): None, **empty})
    assert workload.n_windows(PLAIN) == 6 + 6 + 3
    assert Workload(empty).expected_seconds(None) == 60.0


def test_workload_begins_a_file_once():
    workload = Workload({Path("a"): 60.0})
    workload.begin(Path("a"))
    with pytest.raises(KeyError):
        workload.begin(Path("a"))


@given(st.lists(st.one_of(st.none(), st.floats(0.01, 7_200)), min_size=1, max_size=30))
def test_workload_is_empty_when_all_files_have_begun(lengths):
    workload = Workload({Path(str(index)): seconds for index, seconds in enumerate(lengths)})
    before = workload.n_windows(OVERLAPPING)
    assert before >= len(lengths)
    for index in range(len(lengths)):
        workload.begin(Path(str(index)))
        assert workload.n_windows(OVERLAPPING) <= before
        before = workload.n_windows(OVERLAPPING)
    assert workload.n_windows(OVERLAPPING) == pytest.approx(0.0)
    assert workload.n_waiting == 0
