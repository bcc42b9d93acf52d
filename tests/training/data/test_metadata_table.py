import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.clip_table import parse_rating, parse_site


class TestRating:
    @pytest.mark.parametrize(
        ("text", "rating"), [("4.5", 4.5), (" 5 ", 5.0), ("0", None), ("0.0", None), ("", None), ("NaN", None)]
    )
    def test_stars(self, text, rating):
        assert parse_rating(text) == rating

    @pytest.mark.parametrize("text", ["A", "-1", "5.5", "inf"])
    def test_what_is_no_rating_is_refused(self, text):
        with pytest.raises(ValueError, match=text):
            parse_rating(text)


class TestSite:
    @pytest.mark.parametrize(
        "where", [("", ""), ("12.5", ""), ("Not specified", "1"), ("nan", "1"), ("91", "1"), ("1", "181"), ("inf", "0")]
    )
    def test_nowhere(self, where):
        assert parse_site(*where) == ""

    def test_a_sign_of_zero_is_no_other_place(self):
        assert parse_site("-0.001", "0.001") == parse_site("0.001", "-0.001") == "0.00,0.00"

    @given(st.integers(-8_999, 8_999), st.integers(-17_999, 17_999), st.floats(-0.004, 0.004))
    def test_places_within_half_a_hundredth_are_one(self, north, east, away):
        there = parse_site(str(north / 100 + away), str(east / 100 - away))
        assert there == parse_site(str(north / 100), str(east / 100))
