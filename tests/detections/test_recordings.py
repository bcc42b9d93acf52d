import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.detections.recordings import OriginSettings, Recording, describe_recording, find_zone, timed_name
from birdinfer.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
AS_RECORDED = OriginSettings()
IN_BERLIN = OriginSettings(timezone="Europe/Berlin")


def described(name, settings=AS_RECORDED):
    return describe_recording(Path("/not/there") / f"{name}.WAV", name, settings)


def clocks(recording, *seconds):
    return [recording.clock(each).isoformat() for each in seconds]


def with_guano(path, stamp):
    body = f"GUANO|Version:1.0\nTimestamp:{stamp}\nLoc Position:52.1 4.5\nModel:AudioMoth\n".encode()
    path.write_bytes(b"RIFF" + bytes(4) + b"WAVE" + struct.pack("<4sI", b"guan", len(body)) + body)
    return path


def test_a_name_gives_site_time_and_position():
    found = described("siteA/PLOT7_20250227_010002")
    assert (found.name, found.file) == ("siteA/PLOT7_20250227_010002", "siteA/PLOT7_20250227_010002.WAV")
    assert (found.site, found.start, found.time_source) == ("PLOT7", datetime(2025, 2, 27, 1, 0, 2), "name")
    there = described("20250227T010002+1000_REC_-27.60000+152.80000")
    assert (there.latitude, there.longitude) == (-27.6, 152.8)
    assert clocks(there, 0) == ["2025-02-27T01:00:02+10:00"]


def test_a_name_without_anything_gives_nothing():
    found = described("ZOOM0012")
    assert (found.site, found.start, found.time_source, found.latitude) == ("", None, "", None)
    assert found.clock(1) is None


def test_what_was_processed_is_kept():
    found = describe_recording(Path("a.ogg"), "a", AS_RECORDED, seconds=60, sample_rate=32_000)
    assert (found.seconds, found.sample_rate) == (60, 32_000)


def test_the_file_comes_before_its_name(tmp_path):
    path = with_guano(tmp_path / "S1_20250227_010002.wav", "2025-02-27T02:00:02+01:00")
    found = describe_recording(path, "S1_20250227_010002", AS_RECORDED)
    assert (found.site, found.time_source, found.device) == ("S1", "GUANO", "AudioMoth")
    assert (found.latitude, found.longitude) == (52.1, 4.5)
    assert clocks(found, 0) == ["2025-02-27T02:00:02+01:00"]


def test_a_name_helps_where_the_clock_in_the_file_was_never_set(tmp_path):
    path = with_guano(tmp_path / "S1_20250227_010002.wav", "1970-01-01T00:00:02Z")
    found = describe_recording(path, "S1_20250227_010002", AS_RECORDED)
    assert (found.start, found.time_source) == (datetime(2025, 2, 27, 1, 0, 2), "name")
    assert described("S1_19700101_000002").start is None


@pytest.mark.parametrize(
    ("file", "name", "shown"),
    [
        ("a.wav", "siteA/a.wav", "siteA/a.wav"),  # beside a.flac
        ("a.wav.wav", "siteA/a.wav", "siteA/a.wav.wav"),
        ("a.OGG", "a", "a.OGG"),
        ("S1.20250227.010002", "S1.20250227.010002", "S1.20250227.010002"),
    ],
)
def test_the_file_has_its_ending_once(file, name, shown):
    assert describe_recording(Path(file), name, AS_RECORDED).file == shown


def test_a_name_with_its_ending_is_read_as_without():
    assert describe_recording(Path("S1_20250227_010002_010.wav"), "S1_20250227_010002_010.wav", AS_RECORDED).start == (
        datetime(2025, 2, 27, 1, 0, 2, 10_000)
    )


class TestClock:
    def test_crosses_midnight_and_the_year(self):
        assert clocks(described("20241231_235950"), 5, 15) == ["2024-12-31T23:59:55", "2025-01-01T00:00:05"]

    def test_spring_forward_leaves_an_hour_out(self):
        found = described("20250330_013000", IN_BERLIN)
        assert clocks(found, 0, 1799, 1800, 5400) == [
            "2025-03-30T01:30:00+01:00",
            "2025-03-30T01:59:59+01:00",
            "2025-03-30T03:00:00+02:00",
            "2025-03-30T04:00:00+02:00",
        ]

    def test_fall_back_has_an_hour_twice(self):
        found = described("20251026_023000", IN_BERLIN)  # the first of the two
        assert clocks(found, 0, 1800, 3600, 5400) == [
            "2025-10-26T02:30:00+02:00",
            "2025-10-26T02:00:00+01:00",
            "2025-10-26T02:30:00+01:00",
            "2025-10-26T03:00:00+01:00",
        ]

    def test_a_time_that_the_clocks_leave_out_is_the_hour_after(self):
        found = described("20250330_023000", IN_BERLIN)
        assert clocks(found, 0) == [found.start.isoformat()] == ["2025-03-30T03:30:00+02:00"]

    @pytest.mark.parametrize("settings", [AS_RECORDED, OriginSettings(timezone="+01:00")])
    @pytest.mark.parametrize("day", ["20250330", "20251026"])
    def test_a_recorder_with_one_offset_does_not_jump(self, settings, day):
        found = described(f"{day}_013000", settings)
        assert [clock[11:19] for clock in clocks(found, 0, 3600, 7200)] == ["01:30:00", "02:30:00", "03:30:00"]

    def test_an_offset_in_the_file_stays(self, tmp_path):
        path = with_guano(tmp_path / "a.wav", "2025-10-26T01:30:00+02:00")
        assert clocks(describe_recording(path, "a", AS_RECORDED), 7200) == ["2025-10-26T03:30:00+02:00"]

    def test_an_offset_in_the_file_is_converted_to_the_zone(self, tmp_path):
        path = with_guano(tmp_path / "a.wav", "2025-10-26T00:30:00Z")
        assert clocks(describe_recording(path, "a", IN_BERLIN), 0, 3600) == [
            "2025-10-26T02:30:00+02:00",
            "2025-10-26T02:30:00+01:00",
        ]

    def test_southern_changes_of_an_odd_half_hour(self):
        found = described("20250406_013000", OriginSettings(timezone="Australia/Lord_Howe"))
        assert clocks(found, 0, 3600) == ["2025-04-06T01:30:00+11:00", "2025-04-06T02:00:00+10:30"]

    @given(
        st.datetimes(datetime(2025, 1, 1), datetime(2025, 12, 31)),
        st.integers(0, 7 * 86_400_000).map(lambda milliseconds: milliseconds / 1000),
        st.sampled_from([None, UTC, timezone(timedelta(hours=-3.5)), BERLIN, ZoneInfo("America/St_Johns")]),
    )
    def test_time_passes_as_the_seconds_do(self, start, seconds, zone):
        start = start.replace(tzinfo=zone)
        recording = Recording(path=Path("a"), name="a", file="a", start=start)
        clock = recording.clock(seconds)
        if zone is not None:
            clock, start = clock.astimezone(UTC), start.astimezone(UTC)
        assert clock - start == timedelta(seconds=seconds)


class TestTimezone:
    def test_an_offset_is_a_zone(self):
        assert find_zone("+02:00") == timezone(timedelta(hours=2))
        assert find_zone("UTC") == UTC
        assert find_zone("") is None

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("Europe/Berln", "Europe/Berlin"),
            ("berlin", "Europe/Berlin"),
            ("New York", "America/New_York"),
            ("+25:00", "+02:00"),
            ("Europe", "perhaps Europe/"),
            ("../../etc/passwd", "such as"),
            ("\0", "such as"),
        ],
    )
    def test_another_is_refused_with_the_nearest(self, text, hint):
        with pytest.raises(ConfigError, match="is no time zone") as error:
            OriginSettings(timezone=text)
        assert hint in str(error.value)

    def test_a_system_without_zones_is_named(self, monkeypatch):
        def not_found(text):
            raise ZoneInfoNotFoundError(text)

        monkeypatch.setattr("birdinfer.detections.recordings.ZoneInfo", not_found)
        monkeypatch.setattr("birdinfer.detections.recordings.available_timezones", set)
        with pytest.raises(ConfigError, match="pip install tzdata"):
            find_zone("Europe/Paris")


class TestSite:
    def test_a_folder_may_be_asked_for(self):
        assert described("siteA/20250227/PLOT7_20250227_010002", OriginSettings(site_from="folder")).site == "siteA"
        assert described("siteA/20250227/PLOT7_20250227_010002").site == "PLOT7"

    def test_the_input_itself_is_a_folder_when_asked_for(self):
        path = Path("/data/plot7/20250227_010002.wav")
        assert describe_recording(path, path.stem, OriginSettings(site_from="folder")).site == "plot7"
        assert describe_recording(path, path.stem, AS_RECORDED).site == ""


class TestNamePattern:
    @pytest.mark.parametrize(
        ("pattern", "name", "site", "start"),
        [
            ("{site}_%Y%m%d_%H%M%S", "A_b_20250227_010002", "A_b", "2025-02-27T01:00:02"),
            ("{site}_%m%d%y_%H%M", "A_022725_0100", "A", "2025-02-27T01:00:00"),
            ("*_%d-%b-%Y %I.%M.%S %p", "x_27-Feb-2025 01.00.02 PM", "", "2025-02-27T13:00:02"),
            ("%Y%j_%H*", "2025058_01 b", "", "2025-02-27T01:00:00"),
            ("%Y%m%d_%H%M%S%z_*", "20250227_010002-0330_x", "", "2025-02-27T01:00:02-03:30"),
            ("{site}/*/%Y%m%d-%H%M", "x/plot7/night/20250227-0100", "plot7", "2025-02-27T01:00:00"),
            ("{site} (100%%).%H%M %Y%m%d", "A (100%).0100 20250227", "A", "2025-02-27T01:00:00"),
            ("{site}-*", "plot7-20250227_010002", "plot7", "2025-02-27T01:00:02"),
        ],
    )
    def test_a_name_is_read_as_it_says(self, pattern, name, site, start):
        found = described(name, OriginSettings(name_pattern=pattern))
        assert (found.site, found.start.isoformat(), found.time_source) == (site, start, "name")

    def test_its_time_comes_before_that_of_the_file(self, tmp_path):
        path = with_guano(tmp_path / "S1_20250227_010002.wav", "2031-01-01T00:00:00+00:00")
        found = describe_recording(
            path, path.stem, OriginSettings(name_pattern="{site}_%Y%m%d_%H%M%S", timezone="Australia/Brisbane")
        )
        assert clocks(found, 0) == ["2025-02-27T01:00:02+10:00"]
        assert found.latitude == 52.1

    @pytest.mark.parametrize("name", ["S1_20250227_010002", "20250227_010002_x", "a_31022025_010002"])
    def test_other_names_are_read_as_ever(self, name):
        pattern = OriginSettings(name_pattern="{site}_%d%m%Y_%H%M%S")
        assert described(name, pattern) == described(name)

    def test_a_clock_that_was_never_set_is_no_time(self):
        assert described("A-19700101-0000", OriginSettings(name_pattern="{site}-%Y%m%d-%H%M")).start is None

    @pytest.mark.parametrize(
        ("pattern", "problem"),
        [
            ("{site}_%Q", "'%Q' has no meaning"),
            ("{sites}_%Y", "'{sites}' has no meaning"),
            ("%", "'%' has no meaning"),
            ("%Y%Y%m%d", "%Y stands there twice"),
            ("{site}{site}", "{site} stands there twice"),
            ("*.wav", "neither a site nor a time"),
        ],
    )
    def test_a_pattern_that_means_nothing_is_refused(self, pattern, problem):
        with pytest.raises(ConfigError) as error:
            OriginSettings(name_pattern=pattern)
        assert problem in str(error.value)

    def test_a_pattern_that_fits_no_name_is_refused(self):
        settings = OriginSettings(name_pattern="{site}_%Y%m%d_%H%M%S.wav")
        with pytest.raises(ConfigError, match=r"fits no recording, as 'A_20250227_010002'"):
            settings.check_names(["A_20250227_010002", "b"])
        OriginSettings(name_pattern="{site}_*").check_names(["b", "A_20250227_010002"])
        OriginSettings().check_names(["b"])
        settings.check_names([])


class TestTimedName:
    @pytest.mark.parametrize(
        ("name", "timed"),
        [("a", "20250227_020002"), ("plot7/a", "plot7/plot7_20250227_020002"), ("3575_COL", "COL_20250227_020002"),
         ("S1_20240101_000000", "S1_20240101_000000")],
    )  # fmt: skip
    def test_the_files_own_time_where_the_name_has_none(self, tmp_path, name, timed):
        assert timed_name(with_guano(tmp_path / "a.wav", "2025-02-27T02:00:02+01:00"), name) == timed

    def test_a_file_without_a_time_keeps_its_name(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(b"")
        assert timed_name(tmp_path / "a.wav", "plot7/a") == "plot7/a"
