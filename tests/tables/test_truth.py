import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_mutations import as_text, mutated

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import Species
from birdinfer.tables.scores import ScoreTable
from birdinfer.tables.truth import Scored, overlaps, read_truth, rows_of

LABELS = ("a", "b", "0012")
ROW_IDS = [f"{name}_{end}" for name in ("siteA/x", "siteB/x", "y") for end in (5, 10, 15)]
SPECIES = (Species("a", "Turdus merula", "Blackbird"), Species("b", "Parus major", "Great Tit"), Species("0012"))
HEADER = "filename,start,end,primary_label\n"


@pytest.fixture
def read(tmp_path):
    """Reads a truth for scores of two recordings with one name and a third; labels present by row id, and the notes."""

    def run(content, name="truth.csv", row_ids=tuple(ROW_IDS), species=SPECIES):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        values = np.zeros((len(row_ids), len(species)))
        given = ScoreTable(
            path=tmp_path / "s.csv", row_ids=list(row_ids), labels=[each.label for each in species], values=values
        )
        table, notes = read_truth(tmp_path / name, lambda: Scored(rows_of(given), species, "s.csv"))
        found = {
            row_id: {table.labels[at] for at in np.flatnonzero(row)}
            for row_id, row in zip(table.row_ids, table.values, strict=True)
        }
        return found, notes

    return run


class TestZerosAndOnes:
    @pytest.mark.parametrize("cells", ["1,0", "1.0,0.0", "True,False", "TRUE,false", " 1,0"])
    def test_in_any_spelling(self, read, cells):
        assert read(f"row_id,a,b\nx_5,{cells}\n") == ({"x_5": {"a"}}, ())

    def test_kaggles_column_usage_is_left_out_with_a_line(self, read):
        found, notes = read("row_id,a,Usage\nx_5,1,Private\nx_10,0,Public\n")
        assert found == {"x_5": {"a"}, "x_10": set()}
        assert notes == ("truth.csv: column Usage is left out: its rows count alike",)

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ("row_id,a\nx_5,0.5\n", "row 'x_5', column 'a' holds 0.5 - truth is 0 or 1"),
            ("row_id,a\nx_5,yes\n", "row 'x_5', column 'a' holds 'yes' - truth is 0 or 1"),
            ("row_id,a\nx_5,\n", "row 'x_5', column 'a' is empty - truth is 0 or 1"),
            ("row_id,a,Usage\nx_5,1,Private\nx_10,1,\n", "row 'x_10', column 'Usage' is empty"),
            ("row_id,a,Usage\nx_5,1,Private\nx_10,1,0\n", "row 'x_5', column 'Usage' holds nan, in some rows only"),
            ("row_id,a\nx_5,0\nx_5,1\n", "row_id 'x_5' stands 2 times"),
        ],
    )
    def test_all_else_is_refused(self, read, content, what):
        with pytest.raises(MetadataError, match=re.escape(what)):
            read(content)


class TestAnnotations:
    def test_windows_of_2026(self, read):
        found, notes = read(HEADER + "siteA/x.ogg,0,5,a;b\nsiteA/x.ogg,0,5,a\nsiteB\\x.OGG,5,10,0012\n")
        assert found == {
            "siteA/x_5": {"a", "b"}, "siteA/x_10": set(), "siteA/x_15": set(),
            "siteB/x_5": set(), "siteB/x_10": {"0012"}, "siteB/x_15": set(),
        }  # fmt: skip
        assert notes == ("4 of 6 rows have no window in the truth: no species in them",)

    def test_windows_of_2021(self, read):
        content = "row_id,site,audio_id,seconds,birds\n7_COR_5,COR,7,5,a b\n7_COR_10,COR,7,10,nocall\n"
        for name in ("7_COR", "7_COR_20190904"):
            assert read(content, row_ids=[f"{name}_5", f"{name}_10"])[0] == {
                f"{name}_5": {"a", "b"},
                f"{name}_10": set(),
            }

    def test_a_call_is_present_where_a_tenth_of_a_second_of_it_is_or_its_middle(self, read):
        found, notes = read("4.95\t10.2\ta\n10.06\t10.09\tb\n5\t5\t0012\n", name="y.txt")
        assert found == {"y_5": set(), "y_10": {"a", "0012"}, "y_15": {"a", "b"}}
        assert notes == ()

    def test_a_folder_has_a_table_for_each_recording(self, tmp_path):
        (tmp_path / "truth" / "siteA").mkdir(parents=True)
        (tmp_path / "truth" / "siteA" / "x.txt").write_text("1\t2\ta\n")
        (tmp_path / "truth" / "y.Table.1.selections.txt").write_text("Begin Time (s)\tEnd Time (s)\tSpecies\n6\t7\tb\n")
        given = ScoreTable(
            path=tmp_path / "s.csv", row_ids=ROW_IDS, labels=list(LABELS), values=np.zeros((len(ROW_IDS), 3))
        )
        table, _ = read_truth(tmp_path / "truth", lambda: Scored(rows_of(given), SPECIES, "s.csv"))
        found = dict(zip(table.row_ids, table.values.astype(int).tolist(), strict=True))
        assert found["siteA/x_5"] == [1, 0, 0]
        assert found["y_10"] == [0, 1, 0]
        assert len(found) == 6

    def test_a_table_with_a_header_alone_is_of_a_recording_without_species(self, read):
        found, _ = read("Begin Time (s)\tEnd Time (s)\tSpecies\n", name="y.selections.txt")
        assert found == {"y_5": set(), "y_10": set(), "y_15": set()}

    def test_species_by_scientific_and_common_name(self, read):
        content = (
            "File,Start (s),End (s),Scientific name,Common name\ny.wav,0,3,turdus  merula,?\ny.wav,6,7,x,Great_Tit\n"
        )
        assert read(content)[0] == {"y_5": {"a"}, "y_10": {"b"}, "y_15": set()}

    def test_calls_of_no_known_species_are_left_out_with_a_line(self, read):
        _, notes = read("0\t1\ta\n1\t2\tSIL\n2\t3\tSIL\n3\t4\tmusic\n4\t5\n70\t80\ta\n", name="y.txt")
        assert notes == (
            "y.txt: 3 annotations of no known species: left out (SIL (2), music (1))",
            "y.txt: 1 annotations name no species",
            "1 annotations lie in no row of s.csv: left out (y.txt, row 6, 70 to 80 s)",
        )

    @pytest.mark.parametrize(
        ("row", "what"),
        [
            ("y.wav,0,5,A", "row 2: 'A' is 'a' but for case - write it as the column does"),
            ("y.wav,0,5,12", "row 2: '12' is '0012' but for leading zeros"),
            ("y.wav,0,5,12.0", "row 2: '12.0' is '0012' but for"),
            ("y.wav,0,5,zz", "names 1 species that s.csv lacks: 'zz' (row 2) - write its labels or names"),
            ("z.wav,0,5,a", "row 2: s.csv has no recording 'z.wav' - the nearest there is 'y'"),
            ("x.wav,0,5,a", "row 2: 'x.wav' may be 'siteA/x', 'siteB/x' of s.csv - write the folder, too"),
            ("y.wav,60,65,a", "row 2, 60 to 65 s of 'y.wav': s.csv has no rows there - predict the whole recording"),
            ("y.wav,0,15,a", "its windows last 15 s, the rows of s.csv 5 s - in which of the rows"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_its_row(self, read, row, what):
        with pytest.raises((MetadataError, LabelError), match=re.escape(f"truth.csv: {what}")):
            read(HEADER + row + "\n")

    def test_a_name_of_two_species_is_refused(self, read):
        twins = (Species("a", "Turdus merula"), Species("b", "Turdus merula"))
        with pytest.raises(LabelError, match="row 2: 'Turdus merula' is the name of 'a' and 'b' - write the"):
            read(HEADER + "y.wav,0,5,Turdus merula\n", species=twins)

    def test_texts_of_which_none_is_a_species_are_refused(self, read):
        with pytest.raises(LabelError, match=r"names 2 species that s.csv lacks: 'SIL' \(row 1\), 'call' \(row 2\)"):
            read("0\t1\tSIL\n1\t2\tcall\n", name="y.txt")


@given(st.floats(0, 20), st.floats(0, 12))
def test_a_call_within_the_rows_is_in_one_of_them_at_least(start, length):
    starts = np.arange(0, 40, 5.0)
    hit = overlaps(start, start + length, starts, starts + 5)
    assert hit.any()
    assert not hit[(starts + 5 < start) | (starts > start + length)].any()


LISTED = [
    ["filename", "start", "end", "primary_label"],
    ["siteA/x.ogg", "00:00:00", "00:00:05", "a;b"],
    ["siteA/x.ogg", "00:00:00", "00:00:05", "a;b"],
    ["siteB/x.ogg", "5", "10.0", "0012"],
    ["siteB/x.ogg", "10", "15", "nocall"],
    ["y.ogg", "0", "5", "b"],
]
ONES = [
    ["row_id", "a", "b", "0012"],
    ["x_5", "1", "0", "0"],
    ["x_10", "0.0", "1.0", "0"],
    ["y_5", "True", "False", "0"],
]
CALLS = [
    ["Selection", "Begin Time (s)", "End Time (s)", "File Offset (s)", "Begin Path", "Species", "Notes"],
    ["1", "1.5", "4.5", "1.5", "siteA/x.wav", "Turdus merula", ""],
    ["2", "61.5", "64.5", "2.0", "siteB/x.wav", "Great Tit", "far away"],
    ["3", "70", "71", "1", "y.wav", "0012", ""],
]


@pytest.mark.parametrize("table", [LISTED, ONES, CALLS])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_truth_is_read_as_meant_or_refused_with_its_row(read, table, seed):
    check_mutation(read, table, seed)


def check_mutation(read, table, seed):
    mutant = mutated(table, seed)
    good = read("\n".join(",".join(row) for row in table) + "\n")
    if mutant.row is None:
        assert read(mutant.content) == good, mutant
        return
    # A first row without its last cell sets how long rows are: the next one is named.
    with pytest.raises((MetadataError, LabelError), match=rf"row (?:{mutant.row}|{mutant.row + 1}|'[^']*')[ :,)]"):
        read(mutant.content)


FILES = {
    "siteA/x.ogg": "siteA\\x.OGG D:/cards/siteA/x.wav ./siteA/x siteA/x.flac",
    "y.ogg": "train_soundscapes\\y.ogg y Y/y.OGA",
}
TIMES = {"5": "00:00:05 5.0 5,0 0:05", "10.0": "10 00:00:10 0:10.00", "00:00:05": "5 05"}
LISTS = {
    "a;b": ["['a', 'b']", "b; a", "{'a' 'b'}", "a|b", "Turdus merula;Great Tit", " a b ", "a,b,a"],
    "b": ["b ", "parus  MAJOR"],
}
ALIKE = {
    **{(0, good): others.split(" ") for good, others in FILES.items()},
    **{(column, good): others.split(" ") for column in (1, 2) for good, others in TIMES.items()},
    **{(3, good): others for good, others in LISTS.items()},
    (3, "nocall"): ["", "nan", "NoCall", "[]", ";"],
    (3, "0012"): ["['0012']", "0012;"],
}
WRONG = {
    0: ["", "x.ogg", "siteC/x.ogg", "z", "sitea/x.ogg"],
    1: ["", "zero", "-5", "nan", "1e", "2024-01-01 00:00:00", "99:99:99:99"],
    2: ["", "0", "six", "0:00:00", "3605"],
    3: ["A", "12", "12.0", "zz", "a;zz", "['a', 'zz']", "['a'", "Turdus", "a;A"],
}


@given(data=st.data())
def test_a_cell_in_another_spelling_is_read_as_meant_and_a_wrong_one_refused_with_its_row(read, data):
    table = [list(row) for row in LISTED]
    for row in table[1:]:
        for column, cell in enumerate(row):
            row[column] = data.draw(st.sampled_from([cell, *ALIKE.get((column, cell), ())]))
    assert read(as_text(table)) == read(as_text(LISTED))
    row, column = data.draw(st.integers(1, len(table) - 1)), data.draw(st.integers(0, 3))
    table[row][column] = data.draw(st.sampled_from(WRONG[column]))
    if column == 3 and not table[row][column].strip(" ;"):
        return
    with pytest.raises((MetadataError, LabelError), match=rf"[ (]row {row + 1}\b"):
        read(as_text(table))
