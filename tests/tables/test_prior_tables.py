import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.prior_tables import Occasion, PriorTable, read_priors, write_priors

HEADER = "site,hour,windows,comcuc,0012\n"

occasions = st.builds(
    Occasion,
    st.none() | st.text('ABab01 ,_-"é\r\n', min_size=1, max_size=5),
    st.none() | st.integers(0, 23),
)
rows = st.dictionaries(
    occasions,
    st.lists(st.integers(0, 50), min_size=3, max_size=3).map(lambda counts: sorted(counts, reverse=True)),
    min_size=1,
    max_size=6,
).filter(lambda found: any(counts[0] for counts in found.values()))


def written(tmp_path, content):
    path = tmp_path / "prior.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_reads_what_was_written(tmp_path, found):
    counts = np.array(list(found.values()))
    write_priors(tmp_path / "p.csv", PriorTable(("0012", "b,c"), tuple(found), counts[:, 0], counts[:, 1:]))
    table = read_priors(tmp_path / "p.csv")
    assert (table.labels, table.occasions) == (("0012", "b,c"), tuple(found))
    np.testing.assert_array_equal(table.windows, counts[:, 0])
    np.testing.assert_array_equal(table.heard, counts[:, 1:])


def test_is_written_as_people_would_expect(tmp_path):
    table = PriorTable(
        ("a", "b"), (Occasion("S05", 0), Occasion(None, None)), np.array([12, 5]), np.array([[3, 0], [5, 1]])
    )
    write_priors(tmp_path / "p.csv", table)
    assert (tmp_path / "p.csv").read_text() == "site,hour,windows,a,b\nS05,0,12,3,0\n,,5,5,1\n"


def test_byte_order_mark_crlf_blank_lines_and_numbers_with_zeros_in_front(tmp_path):
    table = read_priors(written(tmp_path, b"\xef\xbb\xbfsite,hour,windows,0012\r\n0007,05,12,03\r\n\r\n"))
    assert (table.labels, table.occasions) == (("0012",), (Occasion("0007", 5),))
    assert (table.windows.tolist(), table.heard.tolist()) == ([12], [[3]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first columns are none, it is empty - needed: site,hour,windows, then the labels"),
        ("hour,site,windows,a\n", "its first columns are hour, site, windows - needed"),
        ("site,hour,windows\n", "there is no label"),
        ("site,hour,windows,a,a\n", "label 'a' stands twice"),
        (HEADER, "counts no windows - birdinfer prior makes a table"),
        (HEADER + "S1,1,0,0,0\n", "counts no windows"),
        (HEADER + "S1,1,5,0\n", "row 2 has 4 cells, the header 5"),
        (HEADER + "S1,24,5,0,0\n", "row 2 holds the hour 24 - 0 to 23 are there"),
        (HEADER + "S1,dawn,5,0,0\n", "row 2 holds 'dawn' - a count is needed"),
        (HEADER + "S1,1,5,0,-1\n", "row 2 holds '-1' - a count is needed: 0, 1, 2 ..."),
        (HEADER + "S1,1,5,0,\n", "row 2 holds '' - a count is needed"),
        (HEADER + "S1,1,5,0,0.5\n", "row 2 holds '0.5' - a count is needed"),
        (HEADER + "S1,1,5,0,²\n", "row 2 holds '²' - a count is needed"),
        (HEADER + "S1,1,5,0," + "9" * 5000 + "\n", "row 2 holds '9999"),
        (HEADER + "S1,1,5,0,6\n", "row 2 heard '0012' in more windows than there are"),
        (HEADER + "S1,1,5,0,0\nS1,01,5,0,0\n", "row 3: site 'S1' at hour '01' stands twice - add the rows up"),
        (b"site,hour,windows,a\n\xff,1,1,1\n", "is not a CSV table ('utf-8' codec can't decode"),
    ],
)
def test_refuses_a_bad_table_in_one_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(MetadataError, match=re.escape(f"{path}: {message}")) as caught:
        read_priors(path)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file - birdinfer prior makes one"):
        read_priors(tmp_path)
