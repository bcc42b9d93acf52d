import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.tables.cells import flag_of, is_blank, labels_of, near_miss, number_of, seconds_of, whole_of

LABELS = ["rain", "rooster", "1161364", "Anna's Hummingbird", "0012"]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "None", "null", "NULL", "NA", "<NA>", "n/a"])
def test_is_blank_in_all_spellings(cell):
    assert is_blank(cell)
    assert labels_of(cell) == ()


@pytest.mark.parametrize("cell", ["0", "-", "nana", "[]"])
def test_is_blank_of_what_is_something(cell):
    assert not is_blank(cell)


@pytest.mark.parametrize(
    ("cell", "whole"), [("-2.0", -2), ("3", 3), (" 1.0 ", 1), ("1e2", 100), ("0.5", None), ("nan", None), ("inf", None)]
)
def test_whole_of_numbers_as_pandas_writes_them(cell, whole):
    assert whole_of(cell) == whole


@pytest.mark.parametrize(("cell", "flag"), [("True", True), ("FALSE", False), ("1.0", True), ("0", False), ("2", None)])
def test_flag_of(cell, flag):
    assert flag_of(cell) is flag


def test_number_of_is_no_python():
    assert np.isnan(number_of("1_000"))


def spellings(labels):
    yield str(labels)
    yield str(tuple(labels))
    yield str(dict.fromkeys(labels)).replace(": None", "")
    yield str(np.array(labels))
    yield repr(np.array(labels, dtype=object))
    yield json.dumps(labels)
    for separator in (",", ", ", ";", "; ", "|", " | "):
        yield separator.join(labels)


@given(labels=st.lists(st.sampled_from(LABELS), unique=True, min_size=1))
def test_labels_of_lists_in_all_spellings(labels):
    for cell in spellings(labels):
        assert labels_of(cell, LABELS) == tuple(labels), cell


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("rain rooster", ("rain", "rooster")),
        ("rain martian", ("rain", "martian")),
        ("House Finch", ("House Finch",)),
        ("[nan]", ()),
        ("set()", ()),
        ("[rain, None]", ("rain",)),
        ("rain; rain", ("rain",)),
        ("['rain' 'rooster'\n 'x']", ("rain", "rooster", "x")),
        (r"['O\'x', 'y']", ("O'x", "y")),
        ("[1161364, 0012]", ("1161364", "0012")),
    ],
)
def test_labels_of(cell, labels):
    assert labels_of(cell, LABELS) == labels


@pytest.mark.parametrize("cell", ["['rain', 'roo", "['rain'", "'rain", "['rain'x]", "{'rain']"])
def test_labels_of_what_is_not_closed(cell):
    with pytest.raises(ValueError, match=r"missing|not closed"):
        labels_of(cell, LABELS)


@pytest.mark.parametrize(
    ("label", "miss"),
    [
        ("rain ", "'rain' but for spaces"),
        ("Rain", "'rain' but for case"),
        (" RAIN", "'rain' but for spaces and case"),
        ("1161364.0", "'1161364' but for the .0 that pandas writes"),
        ("12", "'0012' but for leading zeros"),
        ("12.0", "'0012' but for the .0 that pandas writes and leading zeros"),
        ("Cafe\u0301", "'caf\xe9' but for the form of an accent and case"),
        ("snow", ""),
    ],
)
def test_near_miss(label, miss):
    assert near_miss(label, [*LABELS, "caf\xe9"]) == miss


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("65", 65), (" 65.5 ", 65.5), ("65,5", 65.5), ("1:05", 65), ("00:01:05", 65), ("1:00:00.25", 3600.25),
        ("2.9317416489999997", 2.9317416489999997), ("", None), ("-1", None), ("1e3", None), ("nan", None),
        ("2024-01-01 00:00:00", None), ("1:2:3:4", None), ("five", None),
    ],
)  # fmt: skip
def test_seconds_of_seconds_and_clocks(cell, seconds):
    assert seconds_of(cell) == seconds
