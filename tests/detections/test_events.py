"""Windows in which a species is present -> events, against a plain reading of the same rule."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from birdinfer.detections.events import find_events
from birdinfer.detections.recordings import Recording
from birdinfer.species import Species

SPECIES = [Species("comcuc"), Species("eurbla"), Species("gretit")]
ROW = 5.0


def recording(n_rows):
    return Recording(path=Path("a.wav"), name="a", file="a.wav", seconds=n_rows * ROW - 1)


def found(rows, thresholds=(0.5, 0.5, 0.5), chunk=1000, **options):
    chunks = [(begin, rows[begin : begin + chunk]) for begin in range(0, len(rows), chunk)]
    limits = np.array(thresholds, np.float32)
    return find_events(recording(len(rows)), chunks, SPECIES, limits, row_seconds=ROW, **options)


def rows_of(*columns):
    """Scores of a species each, as digits of tenths: "0990" is absent, present, present, absent."""
    return np.array([[int(digit) / 10 for digit in column] for column in columns], np.float32).T


def spans(events):
    return [(event.species.label, event.start_seconds, event.end_seconds) for event in events]


def test_windows_that_follow_each_other_are_one_event():
    (event,) = found(rows_of("0679", "0000", "0000"))
    assert (event.start_seconds, event.end_seconds, event.n_windows) == (5.0, 19.0, 3)
    assert (event.confidence, event.peak_seconds) == (pytest.approx(0.9), 15.0)


def test_an_event_ends_where_the_recording_does():
    assert spans(found(rows_of("09", "00", "00"))) == [("comcuc", 5.0, 9.0)]


def test_the_first_of_equal_windows_is_the_peak():
    (event,) = found(rows_of("797970", "000000", "000000"), merge_gap=0)
    assert event.peak_seconds == 5.0


@pytest.mark.parametrize(("gap", "n_events"), [(0, 3), (4.9, 3), (5, 2), (9.9, 2), (10, 1)])
def test_a_gap_joins_windows_that_are_so_many_seconds_apart(gap, n_events):
    events = found(rows_of("90900900", "0" * 8, "0" * 8), merge_gap=gap)
    assert len(events) == n_events
    assert sum(event.n_windows for event in events) == 3  # the windows between do not count


def test_top_k_keeps_the_highest_of_a_window_and_the_first_of_equal_ones():
    events = found(rows_of("78", "79", "98"), top_k=1)
    assert spans(events) == [("gretit", 0.0, 5.0), ("eurbla", 5.0, 9.0)]
    assert [event.species.label for event in found(rows_of("9", "9", "9"), top_k=2)] == ["comcuc", "eurbla"]


def test_each_species_has_a_threshold_of_its_own():
    assert spans(found(rows_of("5", "5", "5"), thresholds=(0.6, 0.5, 0.4))) == [
        ("eurbla", 0.0, 4.0),
        ("gretit", 0.0, 4.0),
    ]


def test_stretches_that_are_left_out_split_events():
    events = found(rows_of("99999", "00000", "00000"), left_out=[(6.0, 7.0), (19.9, 20.0)])
    assert spans(events) == [("comcuc", 0.0, 5.0), ("comcuc", 10.0, 15.0), ("comcuc", 20.0, 24.0)]


@given(data=st.data())
def test_events_cover_exactly_the_windows_in_which_a_species_is_present(data):
    n_rows = data.draw(st.integers(1, 30))
    rows = data.draw(arrays(np.float32, (n_rows, 3), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
    thresholds = data.draw(st.tuples(*[st.sampled_from([0.25, 0.5, 1.0])] * 3))
    gap_rows = data.draw(st.integers(0, 3))
    events = found(rows, thresholds, data.draw(st.integers(1, 9)), merge_gap=gap_rows * ROW)
    assert [(event.start_seconds, SPECIES.index(event.species)) for event in events] == sorted(
        (event.start_seconds, SPECIES.index(event.species)) for event in events
    )
    present = rows >= np.array(thresholds, np.float32)
    covered = np.zeros_like(present)
    for event in events:
        column = SPECIES.index(event.species)
        first, last = int(event.start_seconds // ROW), -int(-event.end_seconds // ROW) - 1
        inside = present[first : last + 1, column]
        assert inside[0]
        assert inside[-1]
        assert event.n_windows == inside.sum()
        assert event.confidence == rows[first : last + 1, column].max()
        gaps = np.diff(np.flatnonzero(inside)) - 1
        assert not len(gaps) or gaps.max() <= gap_rows
        before = present[max(0, first - gap_rows - 1) : first, column]
        assert not before.any()  # it would belong to the event
        covered[first : last + 1, column] |= inside
    assert np.array_equal(covered, present)
