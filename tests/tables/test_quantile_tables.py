import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.quantile_tables import Quantiles, read_quantiles, write_quantiles

labels = st.text("abc0123, \"'é\r\n", min_size=1, max_size=6).filter(lambda label: label.strip())
values = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(lambda found: np.array(sorted(found)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(labels, st.tuples(values, values), min_size=1, max_size=4))
def test_reads_what_was_written_to_the_last_bit(tmp_path, tables):
    path = tmp_path / "quantiles.csv"
    write_quantiles(path, {label: Quantiles(*both) for label, both in tables.items()})
    found = read_quantiles(path)
    assert list(found) == list(tables)
    for label, (source, reference) in tables.items():
        np.testing.assert_array_equal(found[label].source, source)
        np.testing.assert_array_equal(found[label].reference, reference)


def test_labels_that_look_like_numbers_stay_text_and_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "quantiles.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,source,reference\r\n0012,0,0.5\r\n\r\n0012,1e-1,1\r\n")
    assert {label: (*both[0], *both[1]) for label, both in read_quantiles(path).items()} == {"0012": (0, 0.1, 0.5, 1)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its columns are none - needed: label,source,reference"),
        ("label,source\na,0\n", "its columns are label, source - needed"),
        ("label,source,reference\n", "has no rows"),
        ("label,source,reference\na,0\n", "row 2 is not a label and two numbers"),
        ("label,source,reference\na,0_1,0\n", "row 2 holds '0_1' - a number from 0 to 1 is needed"),
        ("label,source,reference\n ,0,0\n", "row 2 is not a label and two numbers"),
        ("label,source,reference\na,0,0\na,0.5,1.5\n", "row 3 holds '1.5' - a number from 0 to 1 is needed"),
        ("label,source,reference\na,nan,0\n", "row 2 holds 'nan'"),
        ("label,source,reference\na,low,0\n", "row 2 holds 'low'"),
        ("label,source,reference\na,0.2,0\nb,0,0\na,0.1,0\n", "the quantiles of 'a' fall - sort each label's rows"),
        (b"label,source,reference\n\xff,0,0\n", "is not a CSV table ('utf-8' codec can't decode"),
    ],
)
def test_refuses_a_bad_table_in_one_line(tmp_path, content, message):
    path = tmp_path / "quantiles.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MetadataError, match=re.escape(f"{path}: {message}")) as caught:
        read_quantiles(path)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        read_quantiles(tmp_path)
