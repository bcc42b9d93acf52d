import contextlib
import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from birdinfer.errors import BirdinferError, InputNotFoundError, MetadataError
from birdinfer.tables.csv_files import CsvWriter, csv_rows
from birdinfer.tables.labelled_windows import read_labelled_windows
from birdinfer.tables.prior_tables import read_priors
from birdinfer.tables.quantile_tables import read_quantiles

SIGNS = (
    "row_id x_5 0 1 2 1e400 nan 0012 site hour windows filename start end primary_label label source reference "
    '00:00:05 a;b x.ogg " \0 \r \ufeff '
)
cells = st.sampled_from(SIGNS.split(" "))
lines = st.lists(cells, max_size=6).map(",".join)
heads = st.sampled_from(
    ["site,hour,windows,a,b", "label,source,reference", "filename,start,end,primary_label", "row_id,a,b"]
)
tables = st.builds(lambda *parts: "\n".join([parts[0], *parts[1]]).encode(), heads | lines, st.lists(lines, max_size=4))


def test_rows_are_text_whatever_they_look_like(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfa,"b\nc"\r\n0012,1.0\r\n\r\n')
    with csv_rows(tmp_path / "t.csv") as rows:
        assert list(rows) == [["a", "b\nc"], ["0012", "1.0"], []]


@pytest.mark.parametrize("name", ["none.csv", ".", "file/none.csv", "nul\0.csv"])
def test_what_is_no_file_is_said_with_what_to_do(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputNotFoundError, match=r": no such file - make one$"), csv_rows(tmp_path / name, "make one"):
        pass


def test_a_name_that_the_system_does_not_take_is_said():
    with pytest.raises(InputNotFoundError, match=r"cannot be read \(File name too long\)"), csv_rows(Path("x" * 5_000)):
        pass


@pytest.mark.parametrize("content", [b"a,\xff\n", b'"' + b"x" * 200_000 + b'"\n'])
def test_what_is_no_text_is_said(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(MetadataError, match=r"t.csv: is not a CSV table \("), csv_rows(tmp_path / "t.csv") as rows:
        list(rows)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | tables)
@example(b"row_id,a\nx_99999999999999999999,1\n")
@example(b"site,hour,windows,a\nS,1,99999999999999999999999,0\n")
def test_no_table_makes_a_reader_fail_without_a_word(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    for read in (read_priors, read_quantiles, lambda path: read_labelled_windows([path], 5)):
        with contextlib.suppress(BirdinferError):
            read(tmp_path / "t.csv")


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(names=st.lists(NAMES | st.sampled_from(["a\rb", "\r", "\r\n", 'q"\r,', "\n", " "]), min_size=1))
def test_every_name_comes_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as text:
        writer = CsvWriter(text)
        writer.row("row_id", ["a", "b"])
        for index, name in enumerate(names):
            writer.row(name, [index, "x, y"])
    with csv_rows(path) as rows:
        assert list(rows) == [["row_id", "a", "b"], *([name, str(at), "x, y"] for at, name in enumerate(names))]


def test_a_plain_table_is_what_csv_writes(tmp_path):
    with (
        (tmp_path / "ours.csv").open("w", newline="") as ours,
        (tmp_path / "theirs.csv").open("w", newline="") as theirs,
    ):
        for row in (["row_id", "a"], ['x,"y"', 0.25], ["soundscape_5", "1e-05"]):
            CsvWriter(ours).row(row[0], row[1:])
            csv.writer(theirs, lineterminator="\n").writerow(row)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
