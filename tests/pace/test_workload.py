from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import FRONTEND

from birdinfer.config import TimelineConfig
from birdinfer.pace.workload import Workload, windows_in
from birdinfer.windows import place

PLAIN = place(FRONTEND, TimelineConfig(), FRONTEND.window)
OVERLAPPING = place(FRONTEND, TimelineConfig(stride_seconds=2.5), FRONTEND.window)


@pytest.mark.parametrize(
    ("seconds", "plain", "overlapping"), [(60.0, 12, 23), (5.0, 1, 1), (1.0, 1, 1), (0.01, 1, 1), (60.001, 12, 23)]
)
def test_windows_of_a_file_by_hand(seconds, plain, overlapping):
    """60 s are 12 rows, and with a stride of 2.5 s (60 - 5) / 2.5 + 1 = 23 windows."""
    assert windows_in(seconds, PLAIN) == plain
    assert windows_in(seconds, OVERLAPPING) == overlapping


def test_what_waits_is_less_by_each_file_that_is_begun():
    workload = Workload({Path("a"): 60.0, Path("b"): 5.0, Path("c"): 60.0})
    assert (workload.n_waiting, workload.n_windows(PLAIN)) == (3, 25)
    assert workload.begin(Path("a")) == 60.0
    assert (workload.n_waiting, workload.n_windows(PLAIN)) == (2, 13)
    # A placement that is asked for late counts what waits by then.
    assert workload.n_windows(OVERLAPPING) == 24
    workload.begin(Path("b"))
    assert workload.n_windows(OVERLAPPING) == 23


def test_unknown_lengths_are_the_median_until_such_files_are_done():
    """Median 60 s: 12 windows each. One that held nothing makes the others worth (60 + 0) / 2 s, half as much."""
    workload = Workload({Path("a"): 60.0, Path("b"): None, Path("c"): None, Path("d"): None})
    assert workload.n_windows(PLAIN) == 48
    assert workload.begin(Path("b")) is None
    assert workload.expected_seconds(None) == 60.0
    workload.find(0.0)
    assert workload.n_windows(PLAIN) == 12 + 2 * 6
    assert workload.expected_seconds(None) == 30.0
    assert workload.expected_seconds(7.0) == 7.0


def test_where_no_length_is_known_files_are_taken_to_last_a_minute():
    assert Workload({Path("a"): None}).n_windows(PLAIN) == 12


def test_headers_without_samples_are_no_measure_of_files_without_a_header():
    """Were 0 the median, the share of it that an unknown file holds would be 0 / 0."""
    empty = {Path(str(index)): 0.0 for index in range(3)}
    workload = Workload({Path("a"): 30.0, Path("b"): None, **empty})
    assert workload.n_windows(PLAIN) == 6 + 6 + 3
    assert Workload(empty).expected_seconds(None) == 60.0


def test_a_file_cannot_be_begun_twice():
    workload = Workload({Path("a"): 60.0})
    workload.begin(Path("a"))
    with pytest.raises(KeyError):
        workload.begin(Path("a"))


@given(st.lists(st.one_of(st.none(), st.floats(0.01, 7_200)), min_size=1, max_size=30))
def test_nothing_is_left_when_all_files_are_begun(lengths):
    workload = Workload({Path(str(index)): seconds for index, seconds in enumerate(lengths)})
    before = workload.n_windows(OVERLAPPING)
    assert before >= len(lengths)
    for index in range(len(lengths)):
        workload.begin(Path(str(index)))
        assert workload.n_windows(OVERLAPPING) <= before
        before = workload.n_windows(OVERLAPPING)
    assert workload.n_windows(OVERLAPPING) == pytest.approx(0.0)
    assert workload.n_waiting == 0
