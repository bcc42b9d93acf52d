"""Row ids of every year are put together, taken apart and found out where they are spelt another way."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import MetadataError
from birdinfer.tables.row_ids import Misspelling, RowId, make_row_id, misspelling, parse_row_id, row_stem, split_row_id

TABLE = Path("scores.csv")
stems = st.from_regex(r"[A-Za-z0-9_.]{0,12}[A-Za-z0-9]", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
ends = st.integers(0, 999_999_999)


@pytest.mark.parametrize(
    ("year", "text", "parts"),
    [
        (2021, "3575_COL_5", ("3575_COL", 5, "")),
        (2022, "soundscape_7_akiapo_15", ("soundscape_7", 15, "akiapo")),
        (2023, "soundscape_42_600", ("soundscape_42", 600, "")),
        (2026, "BC2026_Test_0001_S05_20250227_010002_20", ("BC2026_Test_0001_S05_20250227_010002", 20, "")),
    ],
)
def test_row_ids_of_each_year_by_hand(year, text, parts):
    stem, end_seconds, label = parts
    wanted = RowId(text=text, stem=stem, end_seconds=end_seconds, label=label)
    assert parse_row_id(text, year, TABLE) == wanted
    assert make_row_id(stem, end_seconds, label) == wanted
    assert misspelling(text, year) is None


@given(stems, labels, ends, st.sampled_from([2021, 2022, 2023, 2024, 2025, 2026]))
def test_what_is_put_together_comes_apart_again(stem, label, end, year):
    made = make_row_id(stem, end, label if year == 2022 else "")
    assert parse_row_id(made.text, year, TABLE) == made


def test_2021_leaves_out_the_date_and_the_others_nothing():
    assert row_stem("3575_COL_20170105", 2021) == "3575_COL"
    assert row_stem(row_stem("3575_COL_20170105", 2021), 2021) == "3575_COL"
    for year in (2022, 2023, 2024, 2025, 2026):
        assert row_stem("a_b_c_d", year) == "a_b_c_d"


@pytest.mark.parametrize("row_id", ["", "a", "5", "_5", "a_", "a_x", "a_-5", "a_5.0", "a_²", "a_٣", "a_" + "9" * 5_000])
def test_a_row_id_without_an_end_second_is_refused(row_id):
    with pytest.raises(MetadataError, match=re.escape("does not end in _<end second>")) as caught:
        split_row_id(row_id, TABLE)
    assert str(caught.value).startswith("scores.csv: ")
    assert "\n" not in str(caught.value)
    assert misspelling(row_id, 2026) is Misspelling.no_end


@pytest.mark.parametrize("row_id", ["a_5", "_akiapo_5", "a__5"])
def test_a_row_of_2022_names_a_file_and_a_species(row_id):
    with pytest.raises(MetadataError, match=re.escape(f"{row_id!r} is not <file>_<species>_<end second>")):
        parse_row_id(row_id, 2022, TABLE)


@pytest.mark.parametrize(
    ("year", "text", "wrong"),
    [
        (2023, "soundscape_soundscape_42_5", Misspelling.prefix_twice),
        (2022, "soundscape_soundscape_42_akiapo_5", Misspelling.prefix_twice),
        (2025, "42_5", Misspelling.prefix_missing),
        (2022, "42_akiapo_5", Misspelling.prefix_missing),
        (2024, "soundscape_42.ogg_5", Misspelling.file_ending),
        (2026, "S05_20250227.WAV_5", Misspelling.file_ending),
        (2024, "soundscape_42_0", Misspelling.start),
        (2026, "a_12", Misspelling.between_rows),
        (2026, "a_05", Misspelling.grammar),
        (2025, "H02_20230420_074000_5", Misspelling.grammar),
        (2021, "3575_COL_20170105_5", Misspelling.grammar),
        (2021, "3575_5", Misspelling.grammar),
        (2022, "soundscape_42_5", Misspelling.grammar),
    ],
)
def test_what_is_spelt_another_way_is_named(year, text, wrong):
    assert misspelling(text, year) is wrong


@given(st.text(max_size=20), st.sampled_from([2021, 2022, 2023, 2024, 2025, 2026]))
def test_any_text_is_answered_without_an_error(text, year):
    assert misspelling(text, year) is None or misspelling(text, year) in Misspelling
