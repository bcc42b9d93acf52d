from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from birdinfer.report.cuts import cut_recordings
from birdinfer.report.listing import ListedClip
from birdinfer.training.data.clip import Clip


def names(*found, author="someone", site="1.00,2.00", date="", seconds=10.0):
    """The sets among clips of such names, as names."""
    clips = [
        ListedClip(row=2 + index, clip=Clip(name, Path(name), "a", author=author, site=site), date=date)
        for index, name in enumerate(found)
    ]
    return [[found[index] for index in part] for part in cut_recordings(clips, [seconds] * len(found))]


def test_numbers_that_adjoin_of_one_author_and_place():
    assert names("a/XC105.ogg", "a/XC101.ogg", "b/XC103.ogg", "a/XC109.ogg", "a/iNat102.ogg") == [
        ["a/XC101.ogg", "b/XC103.ogg", "a/XC105.ogg"]
    ]
    assert names("a/XC1.ogg", "a/XC2.ogg", author="") == []
    assert names("a/XC1.ogg", "a/XC2.ogg", site="") == []
    assert names("a/XC1.ogg", "a/XC2.ogg", site="", date="2020-01-01") == [["a/XC1.ogg", "a/XC2.ogg"]]


def test_parts_of_a_name_that_adjoin_whoever_made_them():
    assert names("a/rec7_part1.ogg", "a/rec7_part2.ogg", "a/rec8_part3.ogg", author="", site="") == [
        ["a/rec7_part1.ogg", "a/rec7_part2.ogg"]
    ]


def test_numbers_of_a_collection_are_no_parts():
    assert names("3-142005.ogg", "3-142006.ogg", author="", site="") == []


@given(st.permutations(range(6)))
def test_the_order_of_the_table_does_not_matter(order):
    found = ("a/XC10.ogg", "a/XC12.ogg", "a/XC17.ogg", "a/rec7_1.ogg", "a/rec7_2.ogg", "b/XC19.ogg")
    assert sorted(names(*(found[index] for index in order))) == sorted(names(*found))


def test_clocks_that_adjoin():
    found = ("S1_20250101_060000.ogg", "S1_20250101_060012.ogg", "S1_20250101_060100.ogg", "S2_20250101_060010.ogg")
    assert names(*found, author="", site="") == [list(found[:2])]
