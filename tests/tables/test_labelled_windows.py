import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, LabelError, MetadataError
from birdinfer.species import Species
from birdinfer.tables.labelled_windows import Window, count_windows, read_labelled_windows, silent_windows
from birdinfer.tables.step_tables import Occasion

HEADER = "filename,start,end,primary_label\n"
S05, S08 = "BC2026_Train_0001_S05_20250227_005955", "BC2026_Train_0002_S08_20250227_230000"


@pytest.fixture
def read(tmp_path):
    """Writes tables and reads them together."""

    def run(*contents, row_seconds=5.0):
        paths = [tmp_path / f"labels{index}.csv" for index in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labelled_windows(paths, row_seconds)

    return run


class TestTheFormOf2026:
    def test_every_row_stands_twice_and_is_one_window(self, read):
        rows = f"{S05}.ogg,00:00:00,00:00:05,b;0012\n{S05}.ogg,00:00:05,00:00:10,a\n"
        found = read(HEADER + rows + rows)
        assert found.windows == {Window(S05, 0, 5): {"b", "0012"}, Window(S05, 5, 10): {"a"}}
        assert (found.labels, found.repeated_rows) == (("0012", "a", "b"), 2)

    def test_a_window_may_have_a_row_for_each_species(self, read):
        found = read(HEADER + "x.ogg,0,5,a\nx.ogg,0,5,b\nx.ogg,5,10,b\n")
        assert found.windows == {Window("x", 0, 5): {"a", "b"}, Window("x", 5, 10): {"b"}}

    @pytest.mark.parametrize("label", ["", "nocall", " ; ", "nocall;"])
    def test_a_window_may_hold_no_species(self, read, label):
        assert read(HEADER + f"x.ogg,0,5,{label}\nx.ogg,5,10,a\n").windows[Window("x", 0, 5)] == frozenset()

    @pytest.mark.parametrize(
        ("cell", "seconds"), [("65", 65), ("65.5", 65.5), ("1:05", 65), ("00:01:05", 65), ("1:00:00", 3600)]
    )
    def test_times_are_seconds_or_clocks(self, read, cell, seconds):
        (window,) = read(HEADER + f"x.ogg,0,{cell},a\n").windows
        assert window == Window("x", 0, seconds)

    @pytest.mark.parametrize(
        ("filename", "stem"),
        [
            ("x.ogg", "x"),
            ("x.OGG", "x"),
            ("x", "x"),
            ("PLOT7.a.wav", "PLOT7.a"),
            ("PLOT7.a", "PLOT7.a"),
            ("f/x.flac", "f/x"),
            ("f\\x.flac", "f/x"),
        ],
    )
    def test_a_name_keeps_its_folder_and_loses_the_ending_of_sound(self, read, filename, stem):
        assert [window.recording for window in read(HEADER + f"{filename},0,5,a\n").windows] == [stem]

    def test_columns_may_stand_in_any_order_beside_others(self, read):
        found = read(b"\xef\xbb\xbfid,primary_label,end,filename,start\r\n\r\n7,a,10,x.ogg,5\r\n")
        assert found.windows == {Window("x", 5, 10): {"a"}}


class TestTheFormWithRowIds:
    def test_rows_end_where_their_id_says(self, read):
        found = read(f"row_id,b,0012\n{S05}_10,1,0\n{S05}_5,0,0\n{S05}_15,1,1.0\n")
        assert found.windows == {
            Window(S05, 5, 10): {"b"},
            Window(S05, 0, 5): frozenset(),
            Window(S05, 10, 15): {"b", "0012"},
        }
        assert (found.labels, found.repeated_rows) == (("b", "0012"), 0)

    def test_windows_are_as_long_as_one_says_but_begin_with_the_file(self, read):
        assert list(read("row_id,b\nx_2,1\nx_20,0\n", row_seconds=10).windows) == [
            Window("x", 0, 2),
            Window("x", 10, 20),
        ]


class TestSeveralTables:
    def test_are_one(self, read):
        found = read("row_id,a,b\nx_5,1,0\n", "row_id,b,a\nx_5,1,0\nx_10,0,0\n", HEADER + "y.ogg,0,5,b\n")
        assert found.windows == {
            Window("x", 0, 5): {"a", "b"},
            Window("x", 5, 10): frozenset(),
            Window("y", 0, 5): {"b"},
        }
        assert (found.labels, found.repeated_rows) == (("a", "b"), 1)

    def test_that_looked_for_other_species_are_refused(self, read):
        with pytest.raises(MetadataError, match=r"labels0.csv: has no column 'c' - another table has; make a table of"):
            read("row_id,a\nx_5,1\n", "row_id,a,c\ny_5,1,0\n")
        with pytest.raises(MetadataError, match=r"labels1.csv: has no column 'z'"):
            read(HEADER + "x.ogg,0,5,z\n", "row_id,a\nx_5,1\n")


class TestCalls:
    HEADER = "Begin File\tFile Offset (s)\tBegin Time (s)\tEnd Time (s)\tSpecies\n"

    def test_are_counted_in_the_windows_in_which_they_are_present(self, read):
        found = read(self.HEADER + f"{S05}.wav\t4.95\t4.95\t10.2\ta\n{S05}.wav\t6\t66\t67\tb\nA/x.wav\t22\t88\t88\tb\n")
        assert found.windows == {
            Window(S05, 5, 10): {"a", "b"}, Window(S05, 10, 15): {"a"}, Window("A/x", 20, 25): {"b"},
        }  # fmt: skip
        assert found.repeated_rows == 0

    def test_a_table_without_any_is_of_a_recording_without_species(self, read):
        found = read("Begin Time (s)\tEnd Time (s)\tSpecies\n", "1\t2\ta\n", row_seconds=2)
        assert found.windows == {Window("labels0", 0, 2): frozenset(), Window("labels1", 0, 2): {"a"}}
        assert len(silent_windows(found.windows, {"labels0": 10, "labels1": 4})) == 4 + 1

    def test_a_label_that_is_one_of_another_table_but_for_its_spelling_is_refused(self, read):
        with pytest.raises(LabelError, match=r"labels1.csv: row 1: 'A' is 'a' but for case - write both alike"):
            read("1\t2\ta\n", "1\t2\tA\n")

    def test_names_are_those_of_the_species(self, tmp_path):
        (tmp_path / "x.txt").write_text("1\t2\tTurdus merula\n7\t8\tSIL\n")
        found = read_labelled_windows([tmp_path / "x.txt"], 5, [Species("a", "Turdus merula")], "taxonomy.csv")
        assert found.windows == {Window("x", 0, 5): {"a"}, Window("x", 5, 10): frozenset()}
        assert found.notes == ("x.txt: 1 annotations of no known species: left out (SIL (1))",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column of begins, ends, species; its columns are: none, it is empty - needed are file"),
        ("filename,start,primary_label\n", "has no column of ends; its columns are: filename, start, primary label - "),
        (HEADER, "has no rows"),
        (HEADER + "x.ogg,0,5\n", "row 2 has 3 cells, the header 4"),
        (HEADER + "x.ogg,0,5,a\n,5,10,a\n", "row 3 names no file"),
        (HEADER + "x.ogg,zero,5,a\n", "row 2 holds 'zero' - a time is needed, as 65 or 00:01:05"),
        (HEADER + "x.ogg,-5,5,a\n", "row 2 holds '-5' - a time is needed"),
        (HEADER + "x.ogg,0,nan,a\n", "row 2 holds 'nan' - a time is needed"),
        (HEADER + "x.ogg,0,1e9,a\n", "row 2 holds '1e9' - a time is needed"),
        (HEADER + "x.ogg,5,5,a\n", "row 2 is from 5 to 5 - 0.1 s are needed at least"),
        (HEADER + "x.ogg,10,5,a\n", "row 2 is from 10 to 5 - 0.1 s are needed at least"),
        ("row_id,a\nx_5,0.5\n", "row 'x_5', column 'a' holds 0.5 - truth is 0 or 1"),
        ("row_id,a\nx,1\n", "row_id 'x' does not end in _<end second>"),
        (HEADER.encode() + b"\xff,0,5,a\n", "row 2 holds what is no UTF-8"),
    ],
)
def test_refuses_a_bad_table_in_one_line(read, tmp_path, content, message):
    with pytest.raises(MetadataError, match=re.escape(f"{tmp_path / 'labels0.csv'}: {message}")) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_table_and_tables_without_any_species(read, tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none.csv: no such file"):
        read_labelled_windows([tmp_path / "none.csv"], 5)
    with pytest.raises(MetadataError, match=r"labels0.csv: no window has a species - there is nothing to count"):
        read(HEADER + "x.ogg,0,5,nocall\n")


class TestSilentWindows:
    def test_by_hand(self):
        """21 s hold places at 0, 5, 10, 15 and 20: a file that breaks off after one second has that second, too."""
        labelled = [Window("x", 5, 10), Window("x", 15, 20), Window("y", 0, 5), Window("z", 0, 5)]
        found = silent_windows(labelled, {"x": 21, "y": 5.4, "other": 60})
        assert found == [Window("x", 0, 5), Window("x", 10, 15), Window("x", 20, 25)]

    def test_a_window_off_the_grid_takes_both_places_that_it_meets(self):
        assert silent_windows([Window("x", 5, 10), Window("x", 12, 17)], {"x": 25}) == [
            Window("x", 0, 5), Window("x", 20, 25),
        ]  # fmt: skip

    def test_rounding_makes_no_window_meet_its_neighbour(self):
        labelled = [Window("x", 0, 0.1), Window("x", 0.2, 0.1 + 0.2)]
        assert [round(one.start_seconds, 6) for one in silent_windows(labelled, {"x": 0.9})] == [0.1, 0.3]

    @given(st.sets(st.integers(0, 30), min_size=1), st.floats(0, 200))
    def test_with_the_labelled_ones_every_place_is_taken_once(self, places, duration):
        labelled = [Window("x", 5.0 * place, 5.0 * place + 5) for place in places]
        silent = silent_windows(labelled, {"x": duration})
        assert not set(silent) & set(labelled)
        starts = {window.start_seconds for window in [*silent, *labelled]}
        assert {5.0 * place for place in range(40) if 5 * place + 0.5 < duration} <= starts
        assert all(window.start_seconds + 0.5 < duration for window in silent)


class TestCountWindows:
    def test_by_hand_over_the_hour_and_midnight(self):
        """The file of S05 begins five seconds before 1 o'clock: its second window is in the next hour."""
        labelled = {
            Window(S05, 0, 5): frozenset("a"),
            Window(S05, 5, 10): frozenset("ab"),
            Window(S05, 10, 15): frozenset(),
            Window(S08, 3600, 3605): frozenset("bz"),
            Window("nameless", 0, 5): frozenset("b"),
        }
        table = count_windows(labelled, ("b", "a"))
        assert table.labels == ("b", "a")
        assert table.occasions == (
            Occasion(None, None), Occasion("S05", 0, 2), Occasion("S05", 1, 2), Occasion("S08", 0, 2),
        )  # fmt: skip
        np.testing.assert_array_equal(table.windows, [1, 1, 2, 1])
        np.testing.assert_array_equal(table.present, [[1, 0], [0, 1], [1, 1], [1, 0]])

    @given(
        st.dictionaries(
            st.builds(
                Window, st.sampled_from([S05, S08, "x", "20250227_100000"]), st.integers(0, 9_999), st.just(99_999)
            ),
            st.frozensets(st.sampled_from("abc")),
            min_size=1,
        )
    )
    def test_every_window_and_every_species_is_counted_once(self, labelled):
        table = count_windows(labelled, "abc")
        assert table.windows.sum() == len(labelled)
        assert table.present.sum(axis=0).tolist() == [sum(x in labels for labels in labelled.values()) for x in "abc"]
        assert len(set(table.occasions)) == len(table.occasions)
        assert (table.present <= table.windows[:, None]).all()
