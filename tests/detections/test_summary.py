import math
from datetime import date, datetime, timedelta
from math import comb
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_survey import recording, survey

from birdinfer.detections.summary import SiteDay, SummarySettings, accumulate, summarise
from birdinfer.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
MAY_1, MAY_2 = date(2025, 5, 1), date(2025, 5, 2)
EVENING = recording("2025-05-01T23:30:00", 2 * 3600)


def minutes(summary):
    return {(each.site, each.day): effort.seconds / 60 for each, effort in summary.effort.items()}


def occurrences(summary, label):
    return {
        each.day: (found.detections, pytest.approx(found.seconds)) for each, found in summary.occurrences[label].items()
    }


class TestDays:
    def test_a_recording_across_midnight_is_effort_of_both_days(self):
        assert minutes(summarise(survey((EVENING, [])))) == {("A", MAY_1): 30, ("A", MAY_2): 90}

    def test_a_detection_counts_on_its_own_day_not_on_that_of_its_file(self):
        summary = summarise(survey((EVENING, [("owl", 60, 65, 0.7), ("owl", 1860, 1870, 0.9)])))
        assert occurrences(summary, "owl") == {MAY_1: (1, 5), MAY_2: (1, 10)}
        assert summary.occurrences["owl"][SiteDay("A", MAY_2)].highest_confidence == 0.9

    def test_a_detection_across_midnight_is_present_on_both_and_counted_on_the_first(self):
        summary = summarise(survey((EVENING, [("owl", 1795, 1815)])))
        assert occurrences(summary, "owl") == {MAY_1: (1, 5), MAY_2: (0, 15)}

    def test_a_detection_that_ends_at_midnight_is_of_one_day(self):
        summary = summarise(survey((EVENING, [("owl", 1790, 1800), ("wren", 1800, 1805)])))
        assert occurrences(summary, "owl") == {MAY_1: (1, 10)}
        assert occurrences(summary, "wren") == {MAY_2: (1, 5)}

    def test_a_night_is_one_day_if_days_begin_at_noon(self):
        found = survey((EVENING, [("owl", 60, 65), ("owl", 1860, 1870)]))
        assert occurrences(summarise(found, SummarySettings(day_begins=12)), "owl") == {MAY_1: (2, 15)}

    def test_some_seconds_behind_midnight_are_no_survey(self):
        summary = summarise(survey((recording("2025-05-01T23:00:00", 3600.02), [])))
        assert summary.surveys() == [SiteDay("A", MAY_1)]
        assert minutes(summary)["A", MAY_2] == pytest.approx(0.02 / 60)

    def test_rounding_of_the_clock_makes_no_day(self):
        start = datetime(2025, 5, 1, 23, 59, 0, 123_457, tzinfo=BERLIN)
        assert list(minutes(summarise(survey((recording(start, 59.8765431), []))))) == [("A", MAY_1)]

    def test_recordings_without_a_clock_time_keep_their_detections(self):
        summary = summarise(survey((recording(None, 60), [("owl", 5, 10)]), (EVENING, [])))
        assert occurrences(summary, "owl") == {None: (1, 5)}
        assert summary.undated_recordings() == 1
        assert [each.day for each in summary.surveys()] == [MAY_1, MAY_2]
        assert not summary.hour_activity

    def test_a_site_is_one_line_of_a_table(self):
        assert list(minutes(summarise(survey((recording(None, 60, "a\nb\udcf6"), []))))) == [("a\\x0ab\\xf6", None)]


class TestHours:
    @pytest.mark.parametrize(
        ("start", "hours", "expected"),
        [
            (datetime(2025, 3, 30, 1, 30, tzinfo=BERLIN), 2, {1: 30, 3: 60, 4: 30}),
            (datetime(2025, 10, 26, 1, 30, tzinfo=BERLIN), 4, {1: 30, 2: 120, 3: 60, 4: 30}),
            (datetime(2025, 5, 1, 22, 45), 3, {22: 15, 23: 60, 0: 60, 1: 45}),
        ],
        ids=["spring", "autumn", "midnight"],
    )
    def test_effort_is_cut_at_full_hours_of_the_clock(self, start, hours, expected):
        summary = summarise(survey((recording(start, hours * 3600), [])))
        effort = {hour: seconds / 60 for hour, seconds in enumerate(summary.hour_effort) if seconds}
        assert effort == pytest.approx(expected)

    def test_an_hour_ends_to_the_microsecond(self):
        summary = summarise(survey((recording("2025-05-01T05:59:59.250000", 1), [])))
        assert summary.hour_effort[[5, 6]] == pytest.approx([0.75, 0.25])

    def test_a_detection_is_counted_where_it_begins_and_lasts_where_it_lasts(self):
        activity = summarise(survey((EVENING, [("owl", 1790, 1830), ("owl", 1900, 1910)]))).hour_activity["owl"]
        assert activity[23].tolist() == [1, 10]
        assert activity[0].tolist() == [1, 40]
        assert activity.sum() == 52


class TestEffort:
    def test_a_dead_file_is_none_and_its_detections_do_not_count(self):
        dead, good = recording("2025-05-01T05:00:00", name="dead"), recording("2025-05-01T06:00:00", name="good")
        found = survey((dead, [("owl", 5, 10)]), (good, [("owl", 5, 10)]))
        summary = summarise(found, left_out=lambda each: [(0, each.seconds)] if each.name == "dead" else [])
        (effort,) = summary.effort.values()
        assert (effort.recordings, effort.seconds, effort.left_out_seconds) == (2, 3600, 3600)
        assert occurrences(summary, "owl") == {MAY_1: (1, 5)}
        assert summary.hour_effort[5] == 0

    def test_a_day_with_dead_files_alone_is_no_survey(self):
        settings = SummarySettings(min_effort_minutes=0)
        summary = summarise(survey((EVENING, [])), settings, left_out=lambda each: [(0, math.inf)])
        assert len(summary.effort) == 2
        assert summary.surveys() == []

    def test_stretches_that_overlap_are_left_out_once(self):
        summary = summarise(survey((EVENING, [])), left_out=lambda each: [(10, 30), (0, 20), (15, 25)])
        assert summary.effort[SiteDay("A", MAY_1)].left_out_seconds == 30

    def test_a_detection_counts_with_the_part_that_is_not_left_out(self):
        found = survey((EVENING, [("owl", 5, 25), ("wren", 12, 18)]))
        summary = summarise(found, left_out=lambda each: [(10, 20)])
        assert occurrences(summary, "owl") == {MAY_1: (1, 10)}
        assert "wren" not in summary.species

    def test_a_file_that_could_not_be_read_counts_as_a_recording(self):
        (effort,) = summarise(survey((recording("2025-05-01T06:00:00", 0), []))).effort.values()
        assert (effort.recordings, effort.seconds) == (1, 0)

    def test_days_with_little_effort_are_no_survey(self):
        settings = SummarySettings(min_effort_minutes=60)
        assert summarise(survey((EVENING, [])), settings).surveys() == [SiteDay("A", MAY_2)]


stretches = st.lists(st.tuples(st.floats(0, 9_000), st.floats(0, 9_000)).map(sorted).map(tuple), max_size=4)


@given(
    start=st.datetimes(datetime(2025, 1, 1), datetime(2025, 12, 31)),
    zone=st.sampled_from([None, BERLIN, ZoneInfo("Australia/Lord_Howe")]),
    seconds=st.floats(0.01, 100_000),
    found=st.lists(st.floats(0, 1), max_size=8),
    left_out=stretches,
    day_begins=st.integers(0, 23),
)
def test_no_sound_and_no_detection_is_lost_or_doubled(start, zone, seconds, found, left_out, day_begins):
    made = recording(start.replace(tzinfo=zone), seconds)
    edges = sorted(share * seconds for share in found)
    events = [("owl", begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=False) if end > begin]
    summary = summarise(survey((made, events)), SummarySettings(day_begins=day_begins), lambda each: left_out)
    effort = list(summary.effort.values())
    assert sum(each.seconds + each.left_out_seconds for each in effort) == pytest.approx(seconds)
    assert summary.hour_effort.sum() == pytest.approx(sum(each.seconds for each in effort))
    days = summary.occurrences.get("owl", {})
    hours = summary.hour_activity.get("owl", np.zeros((24, 2)))
    assert sum(each.seconds for each in days.values()) == pytest.approx(hours[:, 1].sum())
    assert sum(each.detections for each in days.values()) == hours[:, 0].sum() <= len(events)
    assert all(each.seconds <= summary.effort[day].seconds + 1e-6 for day, each in days.items())
    assert (hours[:, 1] <= summary.hour_effort + 1e-6).all()
    if not left_out:
        assert hours.sum(axis=0) == pytest.approx([len(events), sum(end - begin for _, begin, end in events)])


def daily(present, n_days):
    """A survey of a day after the other; ``present``: numbers of the days on which a species is detected, by label."""
    first = datetime(2025, 5, 1, 6)
    return survey(
        *(
            (recording(first + timedelta(days=day)), [(label, 0, 5) for label, days in present.items() if day in days])
            for day in range(n_days)
        )
    )


class TestAccumulate:
    PRESENT: dict[str, set[int]] = {"owl": {0, 1, 2, 3, 4, 5, 6, 7}, "wren": {2, 5}, "rail": {7}}  # noqa: RUF012

    def test_the_mean_is_that_of_all_orders(self):
        # Ugland, Gray and Ellingsen 2003: a species of k of N days is missed by n of them in C(N-k, n) / C(N, n) cases.
        wanted = [sum(1 - comb(8 - len(days), n) / comb(8, n) for days in self.PRESENT.values()) for n in range(1, 9)]
        curve = accumulate(summarise(daily(self.PRESENT, 8), SummarySettings(permutations=4_000)))
        np.testing.assert_allclose(curve[:, 0], wanted, atol=0.05)

    def test_curves_grow_to_the_number_of_species_within_their_band(self):
        curve = accumulate(summarise(daily(self.PRESENT, 8)))
        assert curve[-1].tolist() == [3, 3, 3]
        assert (np.diff(curve, axis=0) >= 0).all()
        assert (curve[:, 1] <= curve[:, 0]).all()
        assert (curve[:, 0] <= curve[:, 2]).all()

    def test_the_band_leaves_out_rare_orders(self):
        rich_day = {f"s{number}": {3} for number in range(10)}
        curve = accumulate(
            summarise(daily({"owl": set(range(100))} | rich_day, 100), SummarySettings(permutations=999))
        )
        assert curve[0].tolist() == [pytest.approx(1.1, abs=0.1), 1, 1]
        assert curve[0, 0] > 1  # some orders begin with the rich day

    def test_the_seed_decides(self):
        first, again, other = (
            accumulate(summarise(daily(self.PRESENT, 8), SummarySettings(seed=seed))) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_days_without_species_count(self):
        assert accumulate(summarise(daily({}, 3))).tolist() == [[0, 0, 0]] * 3
        assert accumulate(summarise(daily({}, 0))).shape == (0, 3)

    def test_species_of_undated_recordings_are_left_out(self):
        found = survey((EVENING, [("owl", 0, 5)]), (recording(None), [("wren", 0, 5)]))
        assert accumulate(summarise(found))[-1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("values", [{"day_begins": 24}, {"day_begins": -1}, {"permutations": 0}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=f"{next(iter(values))}: is "):
        SummarySettings(**values)
