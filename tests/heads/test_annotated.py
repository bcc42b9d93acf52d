"""Labelled soundscapes: which windows hold a species, which do not, and of which nothing is known."""

import numpy as np
import pytest
from made_embeddings import embeddings_of

from birdinfer.errors import BirdinferError
from birdinfer.heads.annotated import is_of_soundscapes, read_annotated
from birdinfer.tables.reviews import ANSWER

RECORDINGS = ("a/one",) * 4 + ("b_20250227_010000",) * 3


@pytest.fixture
def embedded():
    return embeddings_of(np.zeros((len(RECORDINGS), 3)), *RECORDINGS)


def table(tmp_path, text, name="truth.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_windows_share_at_least_half_with_what_they_hold(tmp_path, embedded):
    path = table(
        tmp_path,
        "filename,start,end,primary_label\na/one.ogg,0,5,x;y\na/one.ogg,8,14,x\na/one.ogg,15,20,nocall\n"
        "elsewhere.ogg,0,5,x\n",
    )
    found = read_annotated(path, embedded)
    assert [each.label for each in found.species] == ["x", "y"]
    assert found.windows.tolist() == [0, 1, 2, 3]
    nan = float("nan")
    assert np.array_equal(found.truth, [[1, 1], [nan, 0], [1, 0], [0, 0]], equal_nan=True)
    assert found.groups.tolist() == [0, 0, 0, 0]
    assert found.notes == ("1 recordings of truth.csv are not embedded: elsewhere.ogg",)
    assert found.unit == "window"


def test_a_short_call_is_in_the_window_that_holds_it(tmp_path, embedded):
    path = table(tmp_path, "Begin File\tBegin Time (s)\tEnd Time (s)\tSpecies\none.wav\t4.9\t5.3\tx\n", "calls.txt")
    found = read_annotated(path, embedded)
    assert np.array_equal(found.truth[:, 0], [np.nan, 1, 0, 0], equal_nan=True)


def test_rows_of_zeros_and_ones_are_windows(tmp_path, embedded):
    path = table(tmp_path, "row_id,x,y\na/one_5,0,1\na/one_10,1,0\na/one_15,0,0\na/one_20,0,0\n")
    found = read_annotated(path, embedded)
    assert found.truth.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_names_are_those_of_the_taxonomy(tmp_path, embedded):
    table(tmp_path, "primary_label,scientific_name\nxx1,Xus xus\nyy1,Yus yus\n", "taxonomy.csv")
    folder = tmp_path / "tables"
    folder.mkdir()
    table(folder, "primary_label,scientific_name\nxx1,Xus xus\n", "taxonomy.csv")
    table(folder, "0.0\t5.0\tXus xus\n", "one.txt")
    table(folder, "5.0\t10.0\txx1\n", "b_20250227_010000.txt")
    found = read_annotated(folder, embedded)
    assert [(each.label, each.scientific_name) for each in found.species] == [("xx1", "Xus xus")]
    assert found.groups.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.truth[:, 0].tolist() == [1, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,start,end,primary_label\nelsewhere,0,5,x\n", "names none of the recordings"),
        ("filename,start,end,primary_label\na/one,0,5,nocall\n", "there is no label"),
        ("filename,start,end,primary_label\na/one,60,65,x\n", "no species in any embedded window"),
        ("row_id,x\na/one_5,2\n", "0 or 1|0 and 1"),
    ],
)
def test_read_annotated_refuses_in_one_line(tmp_path, embedded, text, message):
    with pytest.raises(BirdinferError, match=message) as refused:
        read_annotated(table(tmp_path, text), embedded)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("filename,start,end,primary_label", True), ("row_id,x,y", True), ("row_id,birds", True),
        ("Begin File,Begin Time (s),End Time (s),Species", True), ("filename,primary_label,author", False),
        (f"recording,start,end,label,confidence,{ANSWER}", False), ("filename", False),
    ],
)  # fmt: skip
def test_tables_are_known_by_their_columns(tmp_path, header, expected):
    assert is_of_soundscapes(table(tmp_path, f"{header}\n")) is expected
