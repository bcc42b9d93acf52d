"""The forecast by hand, and a clock that watches a run's journal."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.status import Status
from birdinfer.inference.results import SoundscapeResult
from birdinfer.kaggle.dry_run import Done, FileClock, forecast, mean_seconds, seconds_per_file
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.store import RunStore


def test_seconds_per_file_by_hand():
    """Two workers: the first round ends at 10 s, two files every 4 s from then on."""
    rounds = [Done(9.0, 1), Done(10.0, 2), Done(14.0, 4), Done(18.0, 6), Done(22.0, 8)]
    assert seconds_per_file(rounds, workers=2) == pytest.approx(12 / 6)
    assert forecast(rounds, run_seconds=25.0, n_hidden_files=100, workers=2) == pytest.approx(25 + 92 * 2)
    # A hidden file twice as long counts as two.
    assert forecast(rounds, 25.0, 100, length_ratio=2.0, workers=2) == pytest.approx(25 + 192 * 2)


def test_of_less_than_two_rounds_the_second_half_counts():
    assert seconds_per_file([Done(5.0, 2), Done(9.0, 4)], workers=8) == pytest.approx(2.0)


@pytest.mark.parametrize("done", [[], [Done(1.0, 1)], [Done(1.0, 7)]])
def test_too_little_was_seen_to_say_anything(done):
    assert seconds_per_file(done, workers=2) is None
    assert forecast(done, 10.0, 100, workers=2) is None


@given(
    workers=st.integers(1, 8),
    n_rounds=st.integers(3, 30),
    first_seconds=st.floats(0, 100),
    round_seconds=st.floats(0.1, 20),
    n_hidden_rounds=st.integers(1, 200),
)
def test_rounds_that_do_not_change_are_foretold_exactly(
    workers, n_rounds, first_seconds, round_seconds, n_hidden_rounds
):
    def seconds(rounds):
        return first_seconds + rounds * round_seconds

    seen = [Done(seconds(index), index * workers) for index in range(1, n_rounds + 1)]
    estimate = forecast(seen, seconds(n_rounds), n_hidden_rounds * workers, workers=workers)
    assert estimate == pytest.approx(seconds(n_hidden_rounds))


def test_the_clock_sees_files_as_they_are_done(tmp_path):
    with FileClock(tmp_path) as clock, RunStore(tmp_path / "submission.csv", 2) as store:
        store.begin(RunIdentity("", "", "", "", ""))
        for index in range(3):
            time.sleep(0.15)
            store.finish(SoundscapeResult(tmp_path / f"{index}.ogg", Status.ok))
        time.sleep(0.15)
    assert [one.n_files for one in clock.done] == [1, 2, 3]
    seconds = [one.seconds for one in clock.done]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0.15


def test_a_clock_without_a_run_sees_nothing(tmp_path):
    with FileClock(tmp_path) as clock:
        time.sleep(0.1)
    assert clock.done == []


def test_the_mean_length_counts_files_without_sound_as_the_clock_does(tmp_path):
    side_table = tmp_path / "submission.files.csv"
    side_table.write_text("file,status,seconds\na.ogg,ok,60.000\nb.ogg,unreadable,0.000\nc.ogg,truncated,30.000\n")
    assert mean_seconds(side_table, 1.0) == 30.0
    side_table.write_text("file,status,seconds\nb.ogg,unreadable,0.000\n")
    assert mean_seconds(side_table, 1.0) == 1.0
