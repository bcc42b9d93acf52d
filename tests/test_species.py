"""Labels in column order, and the one law that they obey."""

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import LabelError
from birdinfer.species import SEPARATORS, check_labels, label_problem

ALLOWED = ("comcuc", "0012", "1161364", "47158son16", "Turdus merula_Eurasian Blackbird", "Cooper's Hawk", "Größe")
REFUSED = {
    "": "is empty",
    " ": "is empty",
    " comcuc": "has a space at its start or end",
    "comcuc\t": "has a space at its start or end",
    "com\ncuc": r"cannot be printed \(U\+000A\)",
    "com\x1b[31mcuc": r"cannot be printed \(U\+001B\)",
    "com\x00cuc": r"cannot be printed \(U\+0000\)",
    "com\ufeffcuc": r"cannot be printed \(U\+FEFF\)",
    "com\u2028cuc": r"cannot be printed \(U\+2028\)",
    "com\ud800cuc": r"cannot be printed \(U\+D800\)",
    "comcuc,eurbla": "holds ',', which separates labels",
    "comcuc;eurbla": "holds ';', which separates labels",
    "comcuc|eurbla": r"holds '\|', which separates labels",
    "row_id": "is the name of the column of row ids",
    "Row_ID": "is the name of the column of row ids",
    "Gro\u0308\u00dfe": "is written in parts",
}


@pytest.mark.parametrize("label", ALLOWED)
def test_label_problem_allows_what_the_field_writes(label):
    assert label_problem(label) == ""
    assert check_labels([label, "another"], "here") == (label, "another")


@pytest.mark.parametrize(("label", "problem"), REFUSED.items())
def test_check_labels_names_the_label_and_what_is_wrong_with_it(label, problem):
    with pytest.raises(LabelError, match=rf"^here: label 2 .*{problem}") as caught:
        check_labels(["a", label, "b"], "here")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("labels", "problem"), [([], "no label"), (["a", "b", "a"], "'a' stands twice")])
def test_check_labels_refuses_none_and_two_of_one_name(labels, problem):
    with pytest.raises(LabelError, match=problem):
        check_labels(labels, "here")


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_labels_that_pass_come_back_from_every_place_where_labels_stand(texts):
    """A header of a table, a cell of several labels, a line of a list, and another system's way to write letters."""
    labels = [text for text in dict.fromkeys(texts) if not label_problem(text)]
    written = io.StringIO()
    csv.writer(written).writerow(["row_id", *labels])
    assert next(csv.reader(io.StringIO(written.getvalue()))) == ["row_id", *labels]
    for separator in SEPARATORS:
        assert [part.strip() for part in separator.join(labels).split(separator) if part] == labels
    assert [line.strip() for line in "\n".join(labels).encode().decode().splitlines()] == labels
    assert [unicodedata.normalize("NFC", unicodedata.normalize("NFD", label)) for label in labels] == labels
