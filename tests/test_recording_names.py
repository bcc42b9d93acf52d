from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.recording_names import RecordingName, hour_at, parse_name

ONE_IN_THE_MORNING = datetime(2025, 2, 27, 1, 0, 2)

site_names = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}([_-][A-Za-z0-9]{1,4}){0,2}", fullmatch=True).filter(
    lambda name: parse_name(name) == (None, None)
)
clocks = st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)).map(lambda clock: clock.replace(microsecond=0))


@pytest.mark.parametrize(
    ("stem", "site", "start"),
    [
        ("BC2026_Test_0001_S05_20250227_010002", "S05", ONE_IN_THE_MORNING),
        ("BC2026_Train_0042_S08_20250227_010002", "S08", ONE_IN_THE_MORNING),
        ("H02_20230420_074000", "H02", datetime(2023, 4, 20, 7, 40)),
        ("20250227_010002", None, ONE_IN_THE_MORNING),
        ("20250227_010002T", None, ONE_IN_THE_MORNING),
        ("20250227T010002Z", None, ONE_IN_THE_MORNING),
        ("20250227T010002+0100_REC", None, ONE_IN_THE_MORNING),
        ("20250227010002", None, ONE_IN_THE_MORNING),
        ("PLOT7_20250227_010002", "PLOT7", ONE_IN_THE_MORNING),
        ("PLOT-7_A_20250227_010002_part2", "PLOT-7_A", ONE_IN_THE_MORNING),
        ("PLOT7-20250227T010002", "PLOT7", ONE_IN_THE_MORNING),
        ("PLOT7_2025-02-27_01-00-02", "PLOT7", ONE_IN_THE_MORNING),
        ("PLOT7_2025-02-27T01:00:02Z", "PLOT7", ONE_IN_THE_MORNING),
        ("0012_20250227_010002", "0012", ONE_IN_THE_MORNING),
        ("3575_COL_20170105", "COL", None),
        ("birdP000_20250601", "birdP000", None),
        ("soundscape_42", None, None),
        ("", None, None),
    ],
)
def test_reads_the_names_that_recorders_and_competitions_write(stem, site, start):
    assert parse_name(stem) == RecordingName(site, start)


@pytest.mark.parametrize(
    "stem",
    [
        "S1_20250231_010002",
        "S1_20250227_250002",
        "S1_20250227_016002",
        "S1_20251327",
        "S1_18990227_010002",
        "S1_2025022",
    ],
)
def test_an_impossible_date_tells_no_time(stem):
    assert parse_name(stem).start is None


def test_an_impossible_time_leaves_the_day_and_so_the_site():
    assert parse_name("S1_20250227_250002") == RecordingName("S1", None)
    assert parse_name("S1_20250231_010002") == RecordingName(None, None)


def test_the_first_date_that_exists_counts():
    assert parse_name("A_20259999_20250227_010002_20250227_020002") == RecordingName("A_20259999", ONE_IN_THE_MORNING)


@given(site_names, clocks)
def test_what_is_written_is_read(site, clock):
    assert parse_name(f"{site}_{clock:%Y%m%d_%H%M%S}") == RecordingName(site, clock)
    assert parse_name(f"{site}-{clock:%Y%m%dT%H%M%S}Z") == RecordingName(site, clock)


@given(st.text() | st.text("0123456789_-TZ. BC\u0661") | st.from_regex(r"(19|20)[0-9]{6}.?[0-9]{6}.*"))
def test_any_text_is_read_without_an_error_and_a_site_is_a_part_of_it(stem):
    name = parse_name(stem)
    assert name.site is None or (name.site and name.site in stem)


def test_digits_of_other_scripts_are_no_date():
    arabic_indic = "\u0662\u0660\u0662\u0665"
    assert arabic_indic.isdigit()
    assert parse_name(f"S1_{arabic_indic}0227_010002") == RecordingName(None, None)


class TestHourAt:
    @pytest.mark.parametrize(
        ("seconds", "hour"), [(0, 23), (1799.9, 23), (1800, 0), (1800 + 3600, 1), (86_400, 23), (-23.5 * 3600, 0)]
    )
    def test_crosses_midnight(self, seconds, hour):
        assert hour_at(RecordingName("A", datetime(2025, 2, 27, 23, 30)), seconds) == hour

    def test_is_unknown_where_the_name_tells_no_time(self):
        assert hour_at(RecordingName("A", None), 0) is None

    @given(clocks, st.floats(-1e9, 1e9))
    def test_comes_again_every_day(self, clock, seconds):
        name = RecordingName(None, clock)
        hour = hour_at(name, round(seconds))
        assert hour in range(24)
        assert hour_at(name, round(seconds) + 86_400) == hour

    def test_of_the_last_day_there_is(self):
        assert hour_at(RecordingName(None, datetime(9999, 12, 31, 23)), 1e12) is not None
