import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from table_mutations import mutated

from birdinfer.errors import BirdinferError, InputNotFoundError, MetadataError
from birdinfer.tables.csv import CsvWriter, csv_rows, text_lines
from birdinfer.tables.labelled_windows import read_labelled_windows
from birdinfer.tables.step_tables import read_priors, read_quantiles

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


@pytest.fixture
def read(tmp_path):
    def read(content, needed=()):
        (tmp_path / "t.csv").write_bytes(content)
        with csv_rows(tmp_path / "t.csv", needed=needed) as rows:
            return [row for row in rows if row]

    return read


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a,\xff\n", r"row 1 holds what is no UTF-8, 'a,\\xff' - save the table as CSV UTF-8"),
        (b"a,b\n\n1,Jos\xe9\n", r"row 3 holds what is no UTF-8, '1,Jos\\xe9'"),
        (b'"' + b"x" * 200_000 + b'"\n', "row 1 is not one of a CSV table"),
        (b"a,b\n1,\0\n", "row 2 holds NUL bytes"),
        (b'a,b\n1,"2\n3,4\n', r"row 2 is not one of a CSV table \(unexpected end of data\)"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], r"row 2 .*truncated data"),
        (b"PK\3\4...", "is no CSV table but zip, or a spreadsheet - unpack it, or save it as CSV UTF-8"),
        (b"sep=:\na:b\n", "row 1 names the separator ':' - comma, semicolon, tab or | are read"),
        (b"a;b|c\n1;2|3\n", "row 1 may be divided at ';' or '|' - write it with commas"),
        (b"a,b\n1,2,\n3,4\n", "row 3 has 2 cells, rows before it 3"),
        (b"a,b\n1,2\n\n3,4,\n", "row 4 has 3 cells, the header 2"),
        (b"a,b\n1,2,3\n", "row 2 has 3 cells, the header 2"),
    ],
)
def test_what_is_no_table_is_refused_with_its_row(read, content, what):
    with pytest.raises(MetadataError, match="t.csv: " + what):
        read(content)


@pytest.mark.parametrize(
    ("content", "needed", "names"),
    [
        (b"a;b, or c\n", ["a"], ["a", "b, or c"]),
        (b"a,b;c\n", (), ["a", "b;c"]),
        (b"a\n", (), ["a"]),
        (b'"a\nb"|c|d\n', ["c"], ["a\nb", "c", "d"]),
        (b" a ,b ,\n", (), ["a", "b"]),
    ],
)
def test_csv_rows_finds_the_separator_in_the_header(read, content, needed, names):
    assert read(content, needed) == [names]


GOOD = [
    ["primary_label", "secondary_labels", "filename", "author"],
    ["dog", "['rain', 'rooster']", "dog/1.ogg", 'Anna "A." Berg'],
    ["0012", "rain;rooster", "0012/2, b.ogg", "two\nlines"],
    ["dog", "", "dog/3.ogg", "M\xfcller"],
    ["rain", "a|b", "rain/4.ogg", ""],
]


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_table_is_read_as_meant_or_refused_with_its_row(read, seed):
    check_mutation(read, GOOD, seed)


@given(st.binary(max_size=60) | tables)
@example(b"row_id,a\nx_99999999999999999999,1\n")
@example(b"site,hour,windows,a\nS,1,99999999999999999999999,0\n")
def test_no_table_makes_a_reader_fail_without_a_word(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    for read in (read_priors, read_quantiles, lambda path: read_labelled_windows([path], 5)):
        with contextlib.suppress(BirdinferError):
            read(tmp_path / "t.csv")


def check_mutation(read, table, seed):
    mutant = mutated(table, seed)
    if mutant.row is None:
        assert read(mutant.content) == table, mutant
    else:
        with pytest.raises(MetadataError, match=rf": row {mutant.row} "):
            read(mutant.content)


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


@given(
    name=NAMES | st.sampled_from(["", " ", "a,b", '"', "a\r", "\n"]),
    cells=st.lists(st.floats(0, 1).map(str), min_size=1),
)
def test_a_line_is_the_row_of_its_cells(name, cells):
    line, row = io.StringIO(newline=""), io.StringIO(newline="")
    CsvWriter(line).line(name, ",".join(cells))
    CsvWriter(row).row(name, cells)
    assert line.getvalue() == row.getvalue()


def test_a_plain_table_is_what_csv_writes(tmp_path):
    with (
        (tmp_path / "ours.csv").open("w", newline="") as ours,
        (tmp_path / "theirs.csv").open("w", newline="") as theirs,
    ):
        for row in (["row_id", "a"], ['x,"y"', 0.25], ["soundscape_5", "1e-05"]):
            CsvWriter(ours).row(row[0], row[1:])
            csv.writer(theirs, lineterminator="\n").writerow(row)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


@pytest.mark.parametrize("content", [b'"a', b'a,"b\n1,2\n'])
def test_a_header_whose_quote_is_not_closed_ends(read, content):
    with pytest.raises(MetadataError, match="row 1 is not one of a CSV table"):
        read(content)


def test_a_header_in_broken_utf_16_is_refused(read, tmp_path):
    with pytest.raises(MetadataError, match=r"t.csv: is no UTF-16-LE text \(truncated data\)"):
        read("row_id".encode("utf-16-le")[:-1])
    (tmp_path / "t.csv").write_bytes("a\tb".encode("utf-16")[:-1])
    with pytest.raises(MetadataError, match=r"is no UTF-16.* text"):
        list(text_lines(tmp_path / "t.csv"))
