"""Rows of a table find their files and their order in time, and no file's rows reach another's."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import MetadataError
from birdinfer.tables.row_ids import split_row_id
from birdinfer.tables.scores import apply_by_file, rows_by_file

TABLE = Path("scores.csv")
row_ids = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a_5", "site_1_20250227"]), st.integers(1, 40)), max_size=30, unique=True
).map(lambda pairs: [f"{stem}_{end}" for stem, end in pairs])


def test_files_and_rows_by_hand():
    found = rows_by_file(["b_10", "x_y_5", "b_5", "x_y_20", "b_100"], TABLE)
    assert [(stem, rows.tolist()) for stem, rows in found] == [("b", [2, 0, 4]), ("x_y", [1, 3])]


def test_a_table_without_rows_has_no_files():
    assert rows_by_file([], TABLE) == []


@given(row_ids)
def test_every_row_is_in_exactly_one_file_and_in_time_order(ids):
    files = rows_by_file(ids, TABLE)
    assert sorted(index for _, rows in files for index in rows) == list(range(len(ids)))
    assert len({stem for stem, _ in files}) == len(files)
    for stem, rows in files:
        ends = [int(ids[index].removeprefix(f"{stem}_")) for index in rows]
        assert ends == sorted(ends)


@pytest.mark.parametrize("row_id", ["", "a", "5", "_5", "a_", "a_x", "a_-5", "a_5.0", "a_²", "a_٣", "a_" + "9" * 5_000])
def test_a_row_id_without_an_end_second_is_refused(row_id):
    with pytest.raises(MetadataError, match=re.escape("does not end in _<end second>")) as caught:
        rows_by_file(["a_5", row_id], TABLE)
    assert str(caught.value).startswith("scores.csv: ")
    assert "\n" not in str(caught.value)


def test_a_row_id_is_taken_apart_from_its_end():
    assert split_row_id("BC_0001_S05_00015", TABLE) == ("BC_0001_S05", 15)


def test_two_rows_of_one_second_are_refused():
    with pytest.raises(MetadataError, match="rows 'a_5' and 'a_05' are the same second of one file"):
        rows_by_file(["a_5", "b_5", "a_05"], TABLE)


@given(row_ids, st.integers(0, 99))
def test_what_changes_nothing_gives_the_table_back(ids, seed):
    values = np.random.default_rng(seed).random((len(ids), 3)).astype(np.float32)
    assert np.array_equal(apply_by_file(values, rows_by_file(ids, TABLE), lambda rows, stem: rows), values)


@given(row_ids, st.randoms(use_true_random=False))
def test_neither_other_files_nor_the_order_of_rows_matter(ids, chance):
    def running_sum(rows, stem):
        return np.cumsum(rows, axis=0, dtype=np.float32) + len(stem)

    values = np.random.default_rng(len(ids)).random((len(ids), 2)).astype(np.float32)
    whole = apply_by_file(values, rows_by_file(ids, TABLE), running_sum)
    order = list(range(len(ids)))
    chance.shuffle(order)
    shuffled = apply_by_file(values[order], rows_by_file([ids[index] for index in order], TABLE), running_sum)
    assert np.array_equal(shuffled, whole[order])
    for stem, rows in rows_by_file(ids, TABLE):
        assert np.array_equal(whole[rows], running_sum(values[rows], stem))


def test_the_values_given_are_left_as_they_are():
    values = np.array([[0.25], [0.75]])

    def empty(rows, stem):
        rows[:] = 0
        return rows

    assert apply_by_file(values, rows_by_file(["a_5", "b_5"], TABLE), empty).tolist() == [[0], [0]]
    assert values.tolist() == [[0.25], [0.75]]
