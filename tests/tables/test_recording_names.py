import csv
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.kinds import without_ending
from birdinfer.audio.metadata import is_clock_set
from birdinfer.tables.recording_names import RecordingName, hour_at, parse_name, site_of_folders

ONE_IN_THE_MORNING = datetime(2025, 2, 27, 1, 0, 2)
CASES = Path(__file__).parents[3] / "shared" / "cases" / "formats" / "names"
needs_cases = pytest.mark.skipif(
    not CASES.is_dir(), reason="needs ../shared/cases, which are not part of the repository"
)


def hours(number):
    return timezone(timedelta(hours=number))


def site_and_start(name):
    found = parse_name(name)
    return found.site, found.start


def rows_of(path, dialect="excel"):
    with path.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text, dialect=dialect))


site_names = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}([_-][A-Za-z0-9]{1,4}){0,2}", fullmatch=True).filter(
    lambda name: parse_name(name) == RecordingName() and parse_name(f"{name}_20250227").site == name
)
clocks = st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)).map(lambda clock: clock.replace(microsecond=0))
clocks = clocks.filter(is_clock_set)


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
        ("3575_COL", "COL", None),
        ("birdP000_20250601", "birdP000", None),
        ("SITE_0+1_20250227$010002", "SITE", ONE_IN_THE_MORNING),
        ("MDD-2025-02-27_01-00", "MDD", datetime(2025, 2, 27, 1)),
        ("20250227_0100", None, datetime(2025, 2, 27, 1)),
        ("SITE.20250227.010002", "SITE", ONE_IN_THE_MORNING),
        ("5341.250227010002", "5341", ONE_IN_THE_MORNING),
        ("250227-010002", None, ONE_IN_THE_MORNING),
        ("2025-02-27-birdnet-01:00:02", None, ONE_IN_THE_MORNING),
        ("De03_2025_02_27_01_00_02", "De03", ONE_IN_THE_MORNING),
        ("NS250227 01.00.02 YOSE-AM-GW2", "NS", ONE_IN_THE_MORNING),
        ("SITE_2025-02-27T01_00_02", "SITE", ONE_IN_THE_MORNING),
        ("20250227T010002+1000_SiteA_[-27.3888,152.8808]", "SiteA", ONE_IN_THE_MORNING),
        ("20250227T010002+1000_REC_[-27.3888,152.8808]", None, ONE_IN_THE_MORNING),
        ("S20250227T010002+1000_E20250227T010102+1000_-27.3+152.8", None, ONE_IN_THE_MORNING),
        ("siteA/S20250227T010002+1000_E20250227T010102+1000", "siteA", ONE_IN_THE_MORNING),
        ("S_20250227_010002", "S", ONE_IN_THE_MORNING),
        ("5E7A1B30", None, datetime(2020, 3, 24, 14, 37, 36)),
        ("00000000", None, None),
        ("12345678", None, None),
        ("siteA/20250227_010002", "siteA", ONE_IN_THE_MORNING),
        ("siteA/Data/5E7A1B30", "siteA", datetime(2020, 3, 24, 14, 37, 36)),
        ("siteA/20250227/20250227_010002", "siteA", ONE_IN_THE_MORNING),
        ("project/PLOT7_20250227/01/20250227_010002", "01", ONE_IN_THE_MORNING),
        ("project/PLOT7_20250227/20250227_010002", "PLOT7", ONE_IN_THE_MORNING),
        ("siteA/S05_20250227_010002", "S05", ONE_IN_THE_MORNING),
        ("2025-02-27/20250227_010002", None, ONE_IN_THE_MORNING),
        ("siteA/ZOOM0012", "siteA", None),
        ("H\\xf6hle_20250227_010002", "H\\xf6hle", ONE_IN_THE_MORNING),
        ("soundscape_42", None, None),
        ("", None, None),
    ],
)
def test_reads_the_names_that_recorders_and_competitions_write(stem, site, start):
    assert site_and_start(stem) == (site, start)


@pytest.mark.parametrize(
    "stem",
    [
        "S1_20250231_010002",
        "S1_20250227_250002",
        "S1_20250227_016002",
        "S1_20250227_240002",
        "S1_022725_010002",
        "S1 2-27-2025_13;00;02_PM",
        "S1_20251327",
        "S1_18990227_010002",
        "S1_2025022",
    ],
)
def test_an_impossible_date_gives_no_time(stem):
    assert parse_name(stem).start is None


def test_an_impossible_time_leaves_the_day_and_so_the_site():
    assert parse_name("S1_20250227_250002") == RecordingName(site="S1")
    assert parse_name("S1_20250231_010002") == RecordingName()


def test_the_first_date_that_exists_counts():
    assert parse_name("A_20259999_20250227_010002_20250227_020002") == RecordingName(
        site="A_20259999", start=ONE_IN_THE_MORNING
    )


@given(site_names, clocks)
def test_what_is_written_is_read(site, clock):
    assert parse_name(f"{site}_{clock:%Y%m%d_%H%M%S}") == RecordingName(site=site, start=clock)
    assert parse_name(f"{site}-{clock:%Y%m%dT%H%M%S}Z") == RecordingName(site=site, start=clock, zone=UTC)


@given(st.text() | st.text("0123456789_-TZ. BC\u0661") | st.from_regex(r"(19|20)[0-9]{6}.?[0-9]{6}.*"))
def test_any_text_is_read_without_an_error_and_a_site_is_a_part_of_it(stem):
    name = parse_name(stem)
    assert name.site is None or (name.site and name.site in stem)


CONVENTIONS = [
    ("5B07C752.WAV", None, "2018-05-25T08:20:34+00:00", None),
    ("20220103_183000.WAV", None, "2022-01-03T18:30:00", None),
    ("242A2604603691DD_20250503_031300.WAV", "242A2604603691DD", "2025-05-03T03:13:00", None),
    ("20180517_010348.5AFCD4F4.WAV", None, "2018-05-17T01:03:48", None),
    ("HB-YRK016_HMTC_20221125_102500+1000.WAV", "HB-YRK016_HMTC", "2022-11-25T10:25:00+10:00", None),
    ("NW3-010793_20140331_053200.wav", "NW3-010793", "2014-03-31T05:32:00", None),
    ("recording_20170716_230503.wac", None, "2017-07-16T23:05:03", None),
    ("SM304290_0+1_20211001_120004.wav", "SM304290", "2021-10-01T12:00:04", None),
    ("OLONG-CH1_0+1_20171121$143444.wav", "OLONG-CH1", "2017-11-21T14:34:44", None),
    ("flood_0+1_0_20170725_123456_123.wav", "flood", "2017-07-25T12:34:56.123000", None),
    ("FNQ-RBS_20190102_044802_010.wav", "FNQ-RBS", "2019-01-02T04:48:02.010000", None),
    ("S4U09523_20210621_205706.wav", "S4U09523", "2021-06-21T20:57:06", None),
    ("MF01-01_SMM119_20251103_160600.wav", "MF01-01_SMM119", "2025-11-03T16:06:00", None),
    ("SMU01770-2_20240416_024148.wav", "SMU01770-2", "2024-04-16T02:41:48", None),
    ("20160809_063108_Dawn _1.5000 116.9000_.wav", None, "2016-08-09T06:31:08", (1.5, 116.9)),
    ("20181101_060000_REC [-27.4000 152.9000].flac", None, "2018-11-01T06:00:00", (-27.4, 152.9)),
    ("201906 7T095935+1000_REC [19.2000 152.9000].flac", None, "2019-06-07T09:59:35+10:00", (19.2, 152.9)),
    ("20191026T000000+1000_REC.flac", None, "2019-10-26T00:00:00+10:00", None),
    ("20200426T020000+0000_REC.flac", None, "2020-04-26T02:00:00+00:00", None),
    (
        "8537_20210614T120000-0300_every1d6x4hrs [+44.70000-062.80000].wav",
        "8537",
        "2021-06-14T12:00:00-03:00",
        (44.7, -62.8),
    ),
    (
        "-0000001_20220420T220000+1000_Rec_-27.60000+152.80000.flac",
        "0000001",
        "2022-04-20T22:00:00+10:00",
        (-27.6, 152.8),
    ),
    (
        "S20240815T091156.982648+1000_E20240815T091251.967555+1000_-12.30000+79.00000.wav",
        None,
        "2024-08-15T09:11:56.982648+10:00",
        (-12.3, 79.0),
    ),
    ("file000000.wav", None, None, None),
    ("67416073.210610033655.wav", "67416073", "2021-06-10T03:36:55", None),
    ("channelA_2021-10-11_13-11-09.wav", None, "2021-10-11T13:11:09", None),
    (
        "S1067SSW04_048K_S02_SWIFT29_20170325_230016Z.flac",
        "S1067SSW04_048K_S02_SWIFT29",
        "2017-03-25T23:00:16+00:00",
        None,
    ),
    ("SSW_001_20170225_010000Z.flac", "SSW_001", "2017-02-25T01:00:00+00:00", None),
    ("2022-08-30_12-08-00 (1).wav", None, "2022-08-30T12:08:00", None),
    ("220728_01 Sony pcm-m10.WAV", None, None, None),
    ("220728_0744 Tascam dr-100 mk3.wav", None, None, None),
    ("A101_3.WAV", None, None, None),
    ("ridge_042315_203600_101222.wav", "ridge", "2015-04-23T20:36:00", None),
    ("Flood 6-1-2015_8;01;02_PM.wav", "Flood", "2015-06-01T20:01:02", None),
    ("Flood_2015-06-02_02.01.02_Z.wav", "Flood", "2015-06-02T02:01:02+00:00", None),
    ("UHH_001_S01_20161121_150000.flac", "UHH_001_S01", "2016-11-21T15:00:00", None),
    ("weird20180801_240000.aac", "weird", "2018-08-02T00:00:00", None),
    ("a_2359-01012015_blah.dnsb48364JSFDSD", "a", "2015-01-01T23:59:00", None),
    ("0000514b-9329-404c-bdb3-a50827457b15_20100503-080000Z.mp3", None, "2010-05-03T08:00:00+00:00", None),
]
"""The 38 conventions: file, site or unit, clock with its zone, position."""


@pytest.mark.parametrize(("file", "site", "clock", "position"), CONVENTIONS)
def test_reads_every_convention_of_the_recorders(file, site, clock, position):
    name = parse_name(without_ending(file))
    assert (name.site, name.position) == (site, position)
    assert (name.start and name.start.replace(tzinfo=name.zone).isoformat()) == clock


@needs_cases
def test_no_convention_is_missing():
    assert [row["example"] for row in rows_of(CASES / "conventions.tsv", "excel-tab")] == [
        one[0] for one in CONVENTIONS
    ]


@needs_cases
def test_no_name_of_a_recorder_means_something_else_than_it_says():
    """Names of the Ecoacoustics Metadata Utility with time, zone and position; those of other forms give none."""
    n_times = 0
    for row in rows_of(CASES / "emu_file_name_cases.csv"):
        name = parse_name(without_ending(row["Filename"]))
        if name.start is None or not row["ExpectedDateTime"]:
            continue
        n_times += 1
        day, _, time = row["ExpectedDateTime"].partition("T")
        meant = datetime.fromisoformat(f"{day}T{time.replace('24:00:00', '00:00:00')}")
        assert name.start == meant + timedelta(days=time == "24:00:00"), row["Filename"]
        offset = datetime.fromisoformat(f"2025-01-01T00:00:00{row['ExpectedTzOffset']}").tzinfo
        assert name.zone in (None, offset), row["Filename"]
        if row["ExpectedLatitude"]:
            assert name.position == (float(row["ExpectedLatitude"]), float(row["ExpectedLongitude"]))
    assert n_times == 48


@pytest.mark.parametrize(
    ("ending", "zone"),
    [
        ("Z", UTC),
        ("_Z", UTC),
        ("+0000", UTC),
        ("+10:00", hours(10)),
        ("-0330_REC", hours(-3.5)),
        ("-0000", None),  # not known
        ("+1500", None),
        ("-020002", None),  # the time of the end
        ("_part2", None),
    ],
)
def test_a_zone_stands_behind_the_seconds(ending, zone):
    assert parse_name(f"S1_20250227_010002{ending}").zone == zone


@pytest.mark.parametrize(("half", "hour"), [("12;00;02_AM", 0), ("12;00;02_PM", 12), ("1;00;02_PM", 13)])
def test_american_clocks_count_to_twelve(half, hour):
    assert parse_name(f"S1 2-27-2025_{half}").start == datetime(2025, 2, 27, hour, 0, 2)


def test_two_times_of_day_are_no_zone():
    assert parse_name("S1_20250227_0100-0200") == RecordingName(site="S1", start=datetime(2025, 2, 27, 1))


@pytest.mark.parametrize(
    ("ending", "milliseconds"),
    [(".123", 123), (".123456+1000", 123.456), ("_010", 10), ("_010_a", 0), (".1", 0), (".123CD4F4", 0), ("_0100", 0)],
)
def test_parts_of_a_second_are_read(ending, milliseconds):
    start = parse_name(f"S1_20250227_010002{ending}").start
    assert start == ONE_IN_THE_MORNING + timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize(
    ("ending", "position"),
    [
        ("_+40.1000-075.0000+2.79CRSWGS_84", (40.1, -75)),
        ("_+13-090", (13, -90)),
        ("_[-27.3888,152.8808]", (-27.3888, 152.8808)),
        ("_-05-03", None),
        ("_01 02_", None),
        ("_[0.0000 0.0000]", None),
        ("_[91.0000 10.0000]", None),
    ],
)
def test_a_position_stands_behind_the_time(ending, position):
    assert parse_name(f"S1_20250227_010002{ending}").position == position


@pytest.mark.parametrize(
    "stem",
    [
        "S1_19700101_000003",
        "S1_19700816_120000",
        "S1_19691231_210003",
        "S1_19800106_000000",
        "S1_20000101_000553",
        "S1_20000102_133112",
        "S1_19991231_190000",
    ],
)
def test_a_clock_that_was_never_set_is_no_time(stem):
    assert parse_name(stem) == RecordingName(site="S1")


def test_an_old_recording_has_a_time():
    assert parse_name("S1_19650503_050000").start == datetime(1965, 5, 3, 5)
    assert parse_name("S1_20000301_050000").start == datetime(2000, 3, 1, 5)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("242A2604603691DD_20250227_010002", "242A2604603691DD"),
        ("plot7/242A2604603691DD_20250227_010002", "plot7"),
        ("plot7/channelA_2021-10-11_13-11-09", "plot7"),
        ("plot7/0000514b-9329-404c-bdb3-a50827457b15_20100503-080000Z", "plot7"),
        ("plot7/recording_20170716_230503", "plot7"),
    ],
)
def test_numbers_of_devices_and_words_for_all_sound_are_no_site_where_a_folder_is(name, site):
    assert parse_name(name).site == site


def test_the_nearest_folder_with_a_site_counts():
    assert site_of_folders(["project", "plot7", "Data", "20250227"]) == "plot7"
    assert site_of_folders(["Data", "2025-02-27"]) is None


def test_digits_of_other_scripts_are_no_date():
    arabic_indic = "\u0662\u0660\u0662\u0665"
    assert arabic_indic.isdigit()
    assert parse_name(f"S1_{arabic_indic}0227_010002") == RecordingName()


class TestHourAt:
    @pytest.mark.parametrize(
        ("seconds", "hour"), [(0, 23), (1799.9, 23), (1800, 0), (1800 + 3600, 1), (86_400, 23), (-23.5 * 3600, 0)]
    )
    def test_crosses_midnight(self, seconds, hour):
        assert hour_at(RecordingName(start=datetime(2025, 2, 27, 23, 30)), seconds) == hour

    def test_counts_parts_of_a_second(self):
        assert hour_at(RecordingName(start=datetime(2025, 2, 27, 23, 59, 59, 900_000)), 0.15) == 0

    def test_is_unknown_where_the_name_has_no_time(self):
        assert hour_at(RecordingName(), 0) is None

    @given(clocks, st.floats(-1e9, 1e9))
    def test_comes_again_every_day(self, clock, seconds):
        name = RecordingName(start=clock)
        hour = hour_at(name, round(seconds))
        assert hour in range(24)
        assert hour_at(name, round(seconds) + 86_400) == hour

    def test_of_the_last_day_there_is(self):
        assert hour_at(RecordingName(start=datetime(9999, 12, 31, 23)), 1e12) is not None


@pytest.mark.parametrize(
    "name", ["5AB3C4D2", "20250227T010002+1000_PLOT7_[-27.3,152]", "plot7/20250227_010002", "H02_20230420_074000"]
)
@pytest.mark.parametrize("channel", ["_ch1", "__ch12"])
def test_a_channel_of_its_own_has_site_and_time_of_its_file(name, channel):
    assert parse_name(name).start is not None
    assert parse_name(name + channel) == parse_name(name)
