import pytest

from birdinfer.pace.laps import Laps


class Calls:
    """A clock and a caller that are set by hand."""

    def __init__(self):
        self.now, self.lane = 0.0, 0
        self.laps = Laps(lambda: self.now, lambda: self.lane)

    def lap(self, lane, now, at_least=0.0):
        self.lane, self.now = lane, now
        return self.laps.lap(at_least)


@pytest.fixture
def calls():
    return Calls()


def test_a_lap_is_all_that_passes_between_two_calls_of_one_lane(calls):
    assert calls.lap(1, 10.0, at_least=0.5) == 0.5
    assert calls.lap(2, 11.0) == 0.0
    assert calls.lap(1, 14.0) == 4.0
    assert calls.lap(2, 15.0) == 4.0


def test_a_pause_is_no_lap(calls):
    calls.lap(1, 10.0)
    calls.laps.pause()
    calls.laps.pause()
    assert calls.lap(1, 99.0) == 0.0
    assert calls.lap(1, 100.0) == 1.0


def test_the_first_run_of_each_lane_at_each_level_is_known(calls):
    heard_before = []
    for lane, level in ((1, 0), (1, 0), (2, 0), (1, 1), (2, 0), (1, 1)):
        calls.lane = lane
        heard_before.append(calls.laps.note_run(1.0, 6, level))
    assert heard_before == [False, True, False, False, True, True]


def test_the_next_run_may_take_as_long_as_the_longest_of_the_latest(calls):
    assert calls.laps.next_run_seconds(100) == 0.0
    calls.laps.note_run(9.0, 6, 0)
    assert calls.laps.next_run_seconds(100) == 9.0  # a first one, for want of others
    for seconds in (2.0, 3.0, *[1.0] * 18):
        calls.laps.note_run(seconds, 6, 0)
    assert calls.laps.next_run_seconds(100) == 3.0
    calls.laps.note_run(9.0, 6, 1)  # first of another level
    assert calls.laps.next_run_seconds(100) == 3.0
    for _ in range(19):
        calls.laps.note_run(1.0, 6, 0)
    assert calls.laps.next_run_seconds(100) == 1.0


def test_the_next_run_takes_less_where_less_is_left(calls):
    calls.laps.note_run(6.0, 12, 0)
    assert [calls.laps.next_run_seconds(left) for left in (24, 12, 3, 0)] == [6.0, 6.0, 1.5, 0.0]


def test_what_is_under_way_is_at_most_a_run_for_each_lane(calls):
    calls.laps.note_run(5.0, 6, 0)
    calls.lap(1, 10.0)
    calls.lap(2, 12.0)
    calls.now = 13.0
    assert calls.laps.under_way_seconds() == 3.0 + 1.0
    calls.now = 1_000.0
    assert calls.laps.under_way_seconds() == 5.0 + 5.0
