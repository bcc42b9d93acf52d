import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ConfigError
from birdinfer.system.timing import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("85m", 5_100.0),
        ("1h25m", 5_100.0),
        ("90s", 90.0),
        ("90 min", 5_400.0),
        ("1.5h", 5_400.0),
        ("1H 25M 30s", 5_130.0),
        ("0.5s", 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "0",
        "999999999",
        "0m",
        "-5m",
        "1h25",
        "1h25 mins",
        "1m1h",
        "nan",
        "inf",
        "1e3",
        "9000000h",
        "٣m",
        "1:25",
        ".5h",
        "5.m",
    ],
)
def test_what_is_no_duration_is_refused_with_the_option_and_what_to_write(text):
    with pytest.raises(ConfigError, match=r"--time-budget: .*1h25m") as refused:
        parse_duration(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", ["90", "5400", "1.5", " 85 "])
def test_a_number_without_a_unit_is_refused_with_both_readings_and_each_can_be_given(number):
    with pytest.raises(ConfigError, match=r"--time-budget: .* has no unit - write (\S+)m or (\S+)s") as refused:
        parse_duration(number)
    minutes, _, seconds = refused.value.hint.removeprefix("write ").partition(" or ")
    assert parse_duration(minutes) == 60 * parse_duration(seconds)


@given(st.text())
def test_any_text_is_a_duration_above_0_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert 0 < parse_duration(text) <= 366 * 86_400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "0.0 s"),
        (4.21, "4.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (1_390.0, "23 min 10 s"),
        (5_820.2, "97 min"),
        (7_199.7, "2 h"),
        (18_720.0, "5 h 12 min"),
        (18_779.0, "5 h 13 min"),
    ],
)
def test_seconds_in_words_are_as_exact_as_one_wants_to_know(seconds, words):
    assert format_duration(seconds) == words


@given(st.integers(10, 7_199))
def test_what_is_said_of_whole_seconds_can_be_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds
