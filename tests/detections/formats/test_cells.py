import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.detections.formats.cells import degrees_cell, file_cell, name_cell, seconds_cell, shown_names
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.recordings import spelled

ANY_TEXT = st.text(st.characters(), max_size=8)  # with halves of characters, as in names that are not UTF-8


@given(ANY_TEXT)
def test_name_cell_is_one_cell_in_one_line_of_utf8(text):
    cell = name_cell(text)
    assert cell.encode() is not None
    assert cell.splitlines() == [cell][: len(cell)]
    assert "\t" not in cell
    table = io.StringIO()
    csv.writer(table).writerow([cell, "x"])
    assert next(csv.reader([table.getvalue()], strict=True)) == [cell, "x"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\uff1d1", "--1"])
def test_no_cell_is_a_formula(text):
    assert name_cell(text) == f"'{text}"
    assert file_cell(text) == f"./{text}"
    assert spelled(file_cell(text)) == spelled(text)


@pytest.mark.parametrize("text", ["-1", "+2.5", "Turdus merula", "'Akohekohe", "a=b", ""])
def test_what_is_no_formula_stays_as_it_is(text):
    assert name_cell(text) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0"), (5, "5.0"), (2.5, "2.5"), (1 / 3, "0.333333"), (86_400.1, "86400.1")],
)
def test_seconds_cell(seconds, text):
    assert seconds_cell(seconds) == text


def test_degrees_cell():
    assert [degrees_cell(each) for each in (None, 0.0, -12.5, 130.1234567)] == ["", "0", "-12.5", "130.123457"]


WORDS = st.sampled_from(["a", "A", "b", "turdus merula", "Turdus_merula", "", " ", "nan", "a;b", "=a", "a\n"])
LABELS = st.lists(st.sampled_from(["a", "b", "turdus merula", "c"]), unique=True)


@given(st.data(), LABELS)
def test_shown_names_are_read_as_the_same_species(data, labels):
    species = [Species(label, data.draw(WORDS), data.draw(WORDS)) for label in labels]
    shown = shown_names(species)
    assert list(shown) == labels
    names = SpeciesNames(species)
    for label, name in shown.items():
        assert names.find(name) == (label,)
        assert not set(name) & set(";\n=")


def test_shown_names_are_common_names_where_they_are_clear():
    species = [Species("a", "A a", "Robin"), Species("b", "B b", "robin"), Species("c", "C c", ""), Species("d")]
    assert shown_names(species) == {"a": "A a", "b": "B b", "c": "C c", "d": "d"}
    assert shown_names([Species("a", "A a", "Robin")]) == {"a": "Robin"}
