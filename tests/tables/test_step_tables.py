import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.step_tables import (
    Occasion,
    PriorTable,
    Quantiles,
    read_priors,
    read_quantiles,
    write_priors,
    write_quantiles,
)

HEADER = "site,hour,windows,comcuc,0012\n"

occasions = st.builds(
    Occasion,
    st.none() | st.text('ABab01 ,_-"é\r\n', min_size=1, max_size=5),
    st.none() | st.integers(0, 23),
    st.none() | st.integers(1, 12),
)
rows = st.dictionaries(
    occasions,
    st.lists(st.integers(0, 50), min_size=3, max_size=3).map(lambda counts: sorted(counts, reverse=True)),
    min_size=1,
    max_size=6,
).filter(lambda found: any(counts[0] for counts in found.values()))


def _priors(labels, occasions, windows, present):
    return PriorTable(labels=labels, occasions=occasions, windows=windows, present=present)


def written(tmp_path, content):
    path = tmp_path / "prior.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


MONTHS = "site,hour,month,windows,0012\n"


@given(rows)
def test_priors_are_read_as_written(tmp_path, found):
    counts = np.array(list(found.values()))
    write_priors(tmp_path / "p.csv", _priors(("0012", "b c"), tuple(found), counts[:, 0], counts[:, 1:]))
    table = read_priors(tmp_path / "p.csv")
    assert (table.labels, table.occasions) == (("0012", "b c"), tuple(found))
    np.testing.assert_array_equal(table.windows, counts[:, 0])
    np.testing.assert_array_equal(table.present, counts[:, 1:])


def test_write_priors_spells_the_unknown_as_empty(tmp_path):
    table = _priors(
        ("a", "b"), (Occasion("S05", 0, 2), Occasion(None, None)), np.array([12, 5]), np.array([[3, 0], [5, 1]])
    )
    write_priors(tmp_path / "p.csv", table)
    assert (tmp_path / "p.csv").read_text() == "site,hour,month,windows,a,b\nS05,0,2,12,3,0\n,,,5,5,1\n"


def test_read_priors_takes_byte_order_mark_crlf_blank_lines_and_numbers_with_zeros_in_front(tmp_path):
    table = read_priors(written(tmp_path, b"\xef\xbb\xbfsite,hour,windows,0012\r\n0007,05,12,03\r\n\r\n"))
    assert (table.labels, table.occasions) == (("0012",), (Occasion("0007", 5),))
    assert (table.windows.tolist(), table.present.tolist()) == ([12], [[3]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first columns are none, it is empty - needed: site,hour,month,windows, then the labels"),
        ("hour,site,windows,a\n", "its first columns are hour, site, windows, a - needed"),
        ("site,hour,windows\n", "there is no label"),
        ("site,hour,windows,a,a\n", "label 'a' stands twice"),
        (HEADER, "counts no windows - birdinfer prior makes a table"),
        (HEADER + "S1,1,0,0,0\n", "counts no windows"),
        (HEADER + "S1,1,5,0\n", "row 2 has 4 cells, the header 5"),
        (HEADER + "S1,24,5,0,0\n", "row 2 holds the hour 24 - 0 to 23 are there"),
        (MONTHS + "S1,2,13,5,0\n", "row 2 holds the month 13 - 1 to 12 are there"),
        (MONTHS + "S1,2,3,5,0\nS1,2,3,5,0\n", "row 3: site 'S1' at hour '2' in month 3 stands twice - add the rows"),
        (HEADER + "S1,dawn,5,0,0\n", "row 2 holds 'dawn' - a count is needed"),
        (HEADER + "S1,1,5,0,-1\n", "row 2 holds '-1' - a count is needed: 0, 1, 2 ..."),
        (HEADER + "S1,1,5,0,\n", "row 2 holds '' - a count is needed"),
        (HEADER + "S1,1,5,0,0.5\n", "row 2 holds '0.5' - a count is needed"),
        (HEADER + "S1,1,5,0,²\n", "row 2 holds '²' - a count is needed"),
        (HEADER + "S1,1,5,0," + "9" * 5000 + "\n", "row 2 holds '9999"),
        (HEADER + "S1,1,5,0,6\n", "row 2 counts '0012' in more windows than there are"),
        (HEADER + "S1,1,5,0,0\nS1,01,5,0,0\n", "row 3: site 'S1' at hour '01' stands twice - add the rows up"),
        (b"site,hour,windows,a\n\xff,1,1,1\n", "row 2 holds what is no UTF-8"),
    ],
)
def test_read_priors_refuses_a_bad_table_in_one_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(MetadataError, match=re.escape(f"{path}: {message}")) as caught:
        read_priors(path)
    assert "\n" not in str(caught.value)


def test_read_priors_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file - birdinfer prior makes one"):
        read_priors(tmp_path)


labels = st.text("abc0123, \"'é\r\n", min_size=1, max_size=6).filter(lambda label: label.strip())
values = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(lambda found: np.array(sorted(found)))


@given(st.dictionaries(labels, st.tuples(values, values), min_size=1, max_size=4))
def test_quantiles_are_read_as_written_to_the_last_bit(tmp_path, tables):
    path = tmp_path / "quantiles.csv"
    write_quantiles(path, {label: Quantiles(*both) for label, both in tables.items()})
    found = read_quantiles(path)
    assert list(found) == list(tables)
    for label, (source, reference) in tables.items():
        np.testing.assert_array_equal(found[label].source, source)
        np.testing.assert_array_equal(found[label].reference, reference)


def test_quantiles_labels_that_look_like_numbers_stay_text_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "quantiles.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,source,reference\r\n0012,0,0.5\r\n\r\n0012,1e-1,1\r\n")
    assert {label: (*both[0], *both[1]) for label, both in read_quantiles(path).items()} == {"0012": (0, 0.1, 0.5, 1)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its columns are none - needed: label,source,reference"),
        ("label,source\na,0\n", "its columns are label, source - needed"),
        ("label,source,reference\n", "has no rows"),
        ("label,source,reference\na,0\n", "row 2 has 2 cells, the header 3"),
        ("label,source,reference\na,0_1,0\n", "row 2 holds '0_1' - a number from 0 to 1 is needed"),
        ("label,source,reference\n ,0,0\n", "row 2 has no label - needed: label,source,reference"),
        ("label,source,reference\na,0,0\na,0.5,1.5\n", "row 3 holds '1.5' - a number from 0 to 1 is needed"),
        ("label,source,reference\na,nan,0\n", "row 2 holds 'nan'"),
        ("label,source,reference\na,low,0\n", "row 2 holds 'low'"),
        ("label,source,reference\na,0.2,0\nb,0,0\na,0.1,0\n", "the quantiles of 'a' fall - sort each label's rows"),
        (b"label,source,reference\n\xff,0,0\n", "row 2 holds what is no UTF-8"),
    ],
)
def test_read_quantiles_refuses_a_bad_table_in_one_line(tmp_path, content, message):
    path = tmp_path / "quantiles.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MetadataError, match=re.escape(f"{path}: {message}")) as caught:
        read_quantiles(path)
    assert "\n" not in str(caught.value)


def test_read_quantiles_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        read_quantiles(tmp_path)
