import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_mutations import mutated

from birdinfer.errors import BirdinferError, InputNotFoundError, MetadataError
from birdinfer.tables.scores import check_probabilities, read_scores, read_zeros_and_ones


def written(tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestReadScores:
    def test_reads_rows_labels_and_values(self, tmp_path):
        table = read_scores(written(tmp_path, "row_id,comcuc,b\ns_5,0.25,1\ns_10,1e-3,0\n"))
        assert table.row_ids == ["s_5", "s_10"]
        assert table.labels == ["comcuc", "b"]
        np.testing.assert_array_equal(table.values, [[0.25, 1], [0.001, 0]])

    def test_labels_and_row_ids_that_look_like_numbers_stay_text(self, tmp_path):
        table = read_scores(written(tmp_path, "row_id,0012,1161364\n0005,0.5,0.5\n"))
        assert table.labels == ["0012", "1161364"]
        assert table.row_ids == ["0005"]

    def test_row_id_may_stand_anywhere(self, tmp_path):
        table = read_scores(written(tmp_path, "a,row_id,b\n0.1,s_5,0.2\n"))
        assert (table.row_ids, table.labels, table.values.tolist()) == (["s_5"], ["a", "b"], [[0.1, 0.2]])

    def test_quotes_byte_order_mark_crlf_and_blank_lines(self, tmp_path):
        table = read_scores(written(tmp_path, b'\xef\xbb\xbfrow_id,"a"\r\n"s,1_5",0.5\r\n\r\n'))
        assert (table.row_ids, table.labels) == (["s,1_5"], ["a"])

    def test_values_that_differ_in_the_tenth_digit_are_no_tie(self, tmp_path):
        values = read_scores(written(tmp_path, "row_id,a\nx_5,0.5000000001\nx_10,0.5000000002\n")).values
        assert values[0, 0] < values[1, 0]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "has no column row_id - its columns are: none, it is empty"),
            ("id,a,b\n1,2,3\n", "has no column row_id - its columns are: id, a, b"),
            ("a,b,c,d,e,f\n", "has no column row_id - its columns are: a, b, c, d, e, ..."),
            ("row_id\nx_5\n", "has no column but row_id - one column per label is needed"),
            ("row_id,a,a\nx_5,0,0\n", "column 'a' stands 2 times"),
            ("row_id,a\n", "has no rows"),
            ("row_id,a\nx_5,0\nx_5,1\n", "row_id 'x_5' stands 2 times"),
            ("row_id,a,b\nx_5,0\n", "row 2 has 2 cells, the header 3"),
            ("row_id,a\nx_5,0,1\n", "row 2 has 3 cells, the header 2"),
            ("row_id,a,b\nx_5,0,0\nx_10,0,high\n", "row 'x_10', column 'b' holds 'high' - a finite number is needed"),
            ("row_id,a\nx_5,True\n", "row 'x_5', column 'a' holds 'True' - a finite number is needed"),
            ("row_id,a,b\nx_5,0,\n", "row 'x_5', column 'b' is empty - a finite number is needed"),
            ("row_id,a\nx_5,nan\n", "row 'x_5', column 'a' holds 'nan' - a finite number is needed"),
            ("row_id,a\nx_5,-inf\n", "row 'x_5', column 'a' holds '-inf' - a finite number is needed"),
            (b"row_id,a\nx_5,\xff\xfe\n", "row 2 holds what is no UTF-8"),
            (
                b'row_id,a\n"' + b"x" * 200_000 + b'",0\n',
                "row 2 is not one of a CSV table (field larger",
            ),
        ],
    )
    def test_refuses_a_bad_table_in_one_line(self, tmp_path, content, message):
        path = written(tmp_path, content)
        with pytest.raises(MetadataError, match=re.escape(f"{path}: {message}")) as caught:
            read_scores(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("cell", ["1_0", "\u0661", "0x1", "1,5"])
    def test_a_number_is_what_every_reader_takes_for_one(self, tmp_path, cell):
        path = written(tmp_path, f'row_id,a,b\nx_5,0.5,"{cell}"\n')
        with pytest.raises(MetadataError, match=re.escape(f"column 'b' holds {cell!r} - a finite number is needed")):
            read_scores(path)

    @pytest.mark.parametrize("name", ["missing.csv", "."])
    def test_refuses_what_is_no_file(self, tmp_path, name):
        with pytest.raises(InputNotFoundError, match="no such file"):
            read_scores(tmp_path / name)

    def test_its_errors_are_birdinfer_errors_and_their_builtins(self, tmp_path):
        assert issubclass(MetadataError, (BirdinferError, ValueError))
        with pytest.raises(FileNotFoundError):
            read_scores(tmp_path / "missing.csv")


class TestChecks:
    @pytest.mark.parametrize("value", ["1.5", "-1e-09"])
    def test_what_is_no_probability_is_named(self, tmp_path, value):
        wrong = read_scores(written(tmp_path, f"row_id,a,b\nx_5,0,1\nx_10,0.5,{value}\n"))
        with pytest.raises(MetadataError, match=f"row 'x_10', column 'b' holds {value}, not a probability - try ranks"):
            check_probabilities(wrong, "try ranks")

    def test_what_is_neither_0_nor_1_is_no_truth(self, tmp_path):
        with pytest.raises(MetadataError, match=r"row 'x_10', column 'a' holds 0.5 - truth is 0 or 1$"):
            read_zeros_and_ones(written(tmp_path, "row_id,a,b\nx_5,0,1\nx_10,0.5,1\n"))

    def test_the_ends_are_probabilities_and_truth(self, tmp_path):
        right = read_scores(written(tmp_path, "row_id,a,b\nx_5,0,1\n"))
        check_probabilities(right, "")
        assert read_zeros_and_ones(right.path)[0].values.tolist() == [[0, 1]]


SCORES = [["row_id", "dog", "0012", "b"], *[[f"x_{end}", "0.5", "1e-3", f"0.{end}"] for end in (5, 10, 15, 20)]]


@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_scores_are_read_as_meant_or_refused_with_their_row(tmp_path, seed):
    check_mutation(tmp_path, seed)


def check_mutation(tmp_path, seed):
    mutant = mutated(SCORES, seed)
    path = written(tmp_path, mutant.content)
    if mutant.row is None:
        table = read_scores(path)
        assert (table.labels, table.row_ids) == (SCORES[0][1:], [row[0] for row in SCORES[1:]]), mutant
        np.testing.assert_array_equal(table.values, [[float(cell) for cell in row[1:]] for row in SCORES[1:]])
    else:
        with pytest.raises(MetadataError, match=rf": row {mutant.row} "):
            read_scores(path)


def test_a_row_without_its_id_is_refused(tmp_path):
    with pytest.raises(MetadataError, match="row 3 has no row_id"):
        read_scores(written(tmp_path, "row_id,a\nx_5,0\n ,0\n"))
