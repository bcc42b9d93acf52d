"""Tables of other programs, as their users have them, are read; what they mean is written beside each."""

import re
from pathlib import Path

import pytest

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.tables.annotations import annotation_files, is_annotated, read_annotations

FORMATS = Path(__file__).parents[3] / "shared" / "cases" / "formats"
SITE_A = "demo/site_a/SITE-A_20240501_053000.wav"
SITE_B = "demo/site_b/SITE-B_20240501_060000.wav"
IN_FOLDER = SITE_A.removeprefix("demo/")
SWAINSON = "Catharus ustulatus"
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


@pytest.fixture
def read(tmp_path):
    """Reads a table; (recording, start, end, names of each species) of each annotation."""

    def run(content, known=(), name="labels.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [tuple(each)[1:] for each in read_annotations(tmp_path / name, known).annotations]

    return run


class TestWindows:
    @pytest.mark.parametrize(
        "cell", ["a;b", "a; b", "['a', 'b']", "['a' 'b']", "{a, b}", "a|b", '"a, b"', "a b", "(a b)"]
    )
    def test_several_labels_are_a_list_in_any_spelling(self, read, cell):
        cell = cell if cell.startswith('"') else f'"{cell}"'
        assert read(f"filename,start,end,primary_label\nx.ogg,0,5,{cell}\n") == [("x.ogg", 0, 5, (("a",), ("b",)))]

    def test_a_known_name_is_one(self, read):
        table = "filename,start,end,primary_label\nx.ogg,0,5,Turdus merula;b\n"
        assert read(table, ["Turdus merula", "b"])[0][3] == (("Turdus merula",), ("b",))

    @pytest.mark.parametrize("cell", ["", "nocall", "NoCall", "nan", "[]"])
    def test_no_species(self, read, cell):
        assert read(f"filename,start,end,primary_label\nx.ogg,0,5,{cell}\n") == [("x.ogg", 0, 5, ())]

    def test_of_2021(self, read):
        table = "row_id,site,audio_id,seconds,birds\n7_COR_5,COR,7,5,nocall\n7_COR_10,COR,7,10,a b\n"
        assert read(table) == [("7_COR", 0, 5, ()), ("7_COR", 5, 10, (("a",), ("b",)))]


class TestRaven:
    def test_free_columns_and_the_file_are_found_by_name(self, read):
        table = f"{RAVEN}\tBegin File\tSpecies\r\n1\tSpectrogram 1\t1\t1.2\t3.4\t100\t8000\tx.wav\taaa\r\n"
        assert read(table) == [("x.wav", 1.2, 3.4, (("aaa",),))]

    def test_the_time_in_the_file_is_its_offset(self, read):
        table = (
            f"{RAVEN}\tBegin Path\tFile Offset (s)\tSpecies\n1\tS\t1\t1\t2\t0\t9\tD:\\A\\x.wav\t1\ta\n"
            "2\tS\t1\t61.5\t62\t0\t9\tD:\\A\\y.wav\t1.5\tb\n"
        )
        assert read(table)[1] == ("D:\\A\\y.wav", 1.5, 2, (("b",),))

    def test_times_that_run_on_over_files_are_refused_without_it(self, read):
        table = f"{RAVEN}\tBegin File\tSpecies\n1\tS\t1\t1\t2\t0\t9\tx.wav\ta\n2\tS\t1\t61\t62\t0\t9\ty.wav\tb\n"
        with pytest.raises(MetadataError, match=r"about 2 files, .* run on .* - add Raven's column File Offset"):
            read(table)

    def test_a_decimal_comma(self, read):
        assert read(f"{RAVEN}\tSpecies\n1\tS\t1\t1,25\t3,5\t0\t9\ta\n") == [("", 1.25, 3.5, (("a",),))]

    def test_a_table_without_species_is_named_with_its_columns(self, read):
        with pytest.raises(
            MetadataError, match=r"has no column of species; its columns are: selection.* Raven's and Species"
        ):
            read(f"{RAVEN}\n1\tS\t1\t1\t2\t0\t9\n")

    def test_empty_columns_at_the_end_may_be_left_out_in_all_rows(self, read):
        rows = "1\tS\t1\t1\t2\t0\t9\ta\n2\tS\t1\t3\t4\t0\t9\tb\n"
        assert len(read(f"{RAVEN}\tSpecies\tNotes\n{rows}")) == 2
        with pytest.raises(MetadataError, match="row 4 has 7 cells, the header 9"):
            read(f"{RAVEN}\tSpecies\tNotes\n{rows}3\t1\t1\t2\t0\t9\ta\n")

    def test_a_selection_of_several_views_is_one(self, read):
        views = (("3\tWaveform 1", "a"), ("3\tSpectrogram 1", "a"), ("4\tWaveform 1", "a"), ("4\tSpectrogram 1", "b"))
        rows = "".join(f"{view}\t1\t1\t2\t0\t9\t{species}\n" for view, species in views)
        assert [species for *_, species in read(f"{RAVEN}\tSpecies\n{rows}")] == [(("a",),), (("a",),), (("b",),)]

    def test_times_with_an_exponent(self, read):
        assert read(f"{RAVEN}\tSpecies\n1\tS\t1\t1.1e-16\t5E+0\t0\t9\ta\n") == [("", 1.1e-16, 5, (("a",),))]

    def test_one_species_by_several_names(self, read):
        table = (
            "Start (s),End (s),Scientific name,Common name,Confidence,File\n0,3,Turdus merula,Blackbird,0.9,a\\x.wav\n"
        )
        assert read(table) == [("a\\x.wav", 0, 3, (("Turdus merula", "Blackbird"),))]


class TestKaleidoscope:
    HEADER = "INDIR,FOLDER,IN FILE,OFFSET,DURATION,Start,End,AUTO ID*,MANUAL ID\n"

    def test_its_own_times_count_whatever_else_there_is(self, read):
        assert read(f"{self.HEADER}D:\\in,siteA,x.wav,5,2.5,100,200,a,\n") == [("siteA/x.wav", 5, 7.5, (("a",),))]

    def test_what_a_person_has_identified_stands_for_what_a_program_has(self, read):
        rows = "in,,x.wav,0,1,,,a,Noise\nin,,x.wav,0,1,,,a,b;c\nin,,x.wav,0,1,,,a,\n"
        assert [species for *_, species in read(self.HEADER + rows)] == [(("Noise",),), (("b",), ("c",)), (("a",),)]

    def test_recordings_of_several_inputs_are_kept_apart(self, read):
        rows = "D:\\A,,x.wav,0,1,,,a,\nD:\\B,,x.wav,0,1,,,a,\n"
        assert [name for name, *_ in read(self.HEADER + rows)] == ["D:\\A/x.wav", "D:\\B/x.wav"]


class TestAudacity:
    def test_decimal_commas_frequencies_points_and_labels_without_text(self, read):
        track = "1,2\t3,4\ta b\n\\\t6441,06\t12296,5\n\n4\t4\tc\n7\t9\n"
        assert read(track) == [("", 1.2, 3.4, (("a b",),)), ("", 4, 4, (("c",),)), ("", 7, 9, ())]

    def test_the_texts_of_birdnet_and_hawkears(self, read):
        track = "0\t3\tTurdus merula, Blackbird\t0.82\n3\t6\tTurdus merula_Blackbird\t0.8\n6\t9\tBCCH;0.713\n"
        names = [species[0] for *_, species in read(track)]
        assert names == [
            ("Turdus merula, Blackbird", "Turdus merula", "Blackbird"),
            ("Turdus merula_Blackbird", "Turdus merula", "Blackbird"),
            ("BCCH",),
        ]

    @pytest.mark.parametrize("content", ["1\t2\ta\n".encode("utf-16"), b"\xef\xbb\xbf1\t2\ta\r\n"])
    def test_encodings(self, read, content):
        assert read(content) == [("", 1, 2, (("a",),))]

    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("3", "row 2 has 1 cell"),
            ("x\t2\ta", "row 2 holds 'x' - a time"),
            ("4\t3\ta", "row 2 is from 4 to 3 - the end"),
        ],
    )
    def test_what_is_no_label_is_refused_with_its_row(self, read, line, what):
        with pytest.raises(MetadataError, match=what):
            read(f"1\t2\ta\n{line}\n")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            "what,is,this\n",
            "has no column of begins, ends, species; its columns are: what, is, this - needed are filename",
        ),
        ("", "its columns are: none, it is empty"),
        ("filename,start,end,primary_label\n", "has no rows"),
        ("filename,start,end,primary_label\n,0,5,a\n", "row 2 names no file"),
        ("filename,start,end,primary_label\nx,0,zero,a\n", "row 2 holds 'zero' - a time is needed, as 65 or 00:01:05"),
        ("filename,start,end,primary_label\nx,0,5,\"['a'\"\n", "row 2: "),
        ("filename,start,end,primary_label\n\nx,5,5,a\n", "row 3 is from 5 to 5 - 0.1 s are needed at least"),
        ("row_id,birds\nx_5,\n", "row 2 has no birds"),
        ("row_id,birds\nx,a\n", "row_id 'x' does not end in _<end second>"),
    ],
)
def test_what_is_no_table_of_annotations_is_refused(read, content, what):
    with pytest.raises(MetadataError, match=re.escape(what)) as caught:
        read(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "is_one"),
    [("row_id,a,b", False), ("row_id,birds", True), ("filename,start,end,primary_label", True), ("1\t2\tx", True)],
)
def test_a_truth_of_zeros_and_ones_is_none(tmp_path, header, is_one):
    (tmp_path / "t.csv").write_text(header + "\n")
    assert is_annotated(tmp_path / "t.csv") is is_one


def test_a_folder_is_its_tables(tmp_path):
    for name in ("b.txt", "a.CSV", "notes.md", "BirdNET_SelectionTable.list.txt", "BirdNET_analysis_params.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in annotation_files(tmp_path)] == ["a.CSV", "b.txt"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputNotFoundError, match=r"none: holds no table - looked for .txt, .csv, .tsv"):
        annotation_files(tmp_path / "none")


NO_SPECIES = "has no column of species; its columns are: selection"
NO_TABLE = "has no column of begins, ends, species; its columns are: "
READ = {
    "raven/annotation_col_no_final_newline.txt": (1, "", "CSWA"),
    "raven/begin_file_measurements_mixed_views.txt": (7, "hawaii_example.wav", "Iiwi"),
    "raven/crlf.txt": (6, "", "EATO"),
    "raven/custom_cols_empty_label.txt": (1, "", None),
    "raven/header_only.txt": (0,),
    "raven/lower_case_header.txt": (13, "", "woth"),
    "raven/numbering_starts_at_114.txt": (5, "", "NOCA"),
    "raven/plain_species_col.txt": (8, "", "GWWA_song"),
    "raven/species_distance_type.txt": (10, "", "WOTH"),
    "audacity/decimal_comma.txt": (2, "", "music"),
    "audacity/decimal_point.txt": (2, "", "music"),
    "audacity/empty_label.txt": (3, "", "music"),
    "audacity/frequency_lines.txt": (18, "", "SP"),
    "audacity/frequency_lines_long.txt": (160, "", "1"),
    "audacity/plain.txt": (61, "", "SIL"),
    "birdnet/analyzer-1.x.rtype_r.csv": (25, "C:/example-audio-directory/Rivendell_20210623_113602.wav", SWAINSON),
    "birdnet/analyzer-1.x.selection_table_rows.txt": (25, "", "splfai1"),
    "birdnet/analyzer-2.4.0.BirdNET.results.audacity.txt": (4, "", "Catharus ustulatus, Swainson's Thrush"),
    "birdnet/analyzer-2.4.0.BirdNET.results.csv": (4, SITE_A, SWAINSON),
    "birdnet/analyzer-2.4.0.BirdNET.selection.table.txt": (4, SITE_A, "swathr"),
    "birdnet/analyzer-2.4.0.BirdNET_CombinedTable.csv": (5, SITE_A, SWAINSON),
    "birdnet/analyzer-2.4.0.BirdNET_SelectionTable.txt": (5, SITE_A, "swathr"),
    "birdnet/analyzer-2.4.0.additional_columns.csv": (4, SITE_A, SWAINSON),
    "birdnet/analyzer-2.4.0.nocall.BirdNET.selection.table.txt": (1, SITE_B, None),
    "birdnet/analyzer-2.x.results_windows_paths.csv": (
        29, "C:/Users/user/Desktop/test_audio\\14_01_20210213_210000.WAV", "Strix varia"),
    "birdnet/analyzer-2026-08.BirdNET_AudacityLabels.txt": (5, "", "Catharus ustulatus_Swainson's Thrush"),
    "birdnet/analyzer-2026-08.BirdNET_CombinedTable.csv": (5, SITE_A, SWAINSON),
    "birdnet/analyzer-2026-08.BirdNET_SelectionTable.txt": (5, SITE_A, "swathr"),
    "birdnet/analyzer-2026-08.additional_columns.csv": (5, SITE_A, SWAINSON),
    "birdnet/birda.BirdNET.results.audacity.txt": (4, "", "Swainson's Thrush"),
    "birdnet/birda.BirdNET.results.csv": (4, SITE_A, SWAINSON),
    "birdnet/birda.BirdNET.selection.table.txt": (4, SITE_A, "swathr"),
    "birdnet/birda.additional_columns_no_bom.csv": (4, SITE_A, SWAINSON),
    "birdnet/processed.species_code_col.csv": (2, "", "AMRO"),
    "kaleidoscope/birda.kaleidoscope.csv": (4, IN_FOLDER, "Swainson's_Thrush"),
    "kaleidoscope/birdnet-analyzer-2.4.0.BirdNET_Kaleidoscope.csv": (5, IN_FOLDER, SWAINSON),
    "kaleidoscope/birdnet-analyzer-2.4.0.kaleidoscope.csv": (4, IN_FOLDER, SWAINSON),
    "kaleidoscope/birdnet-analyzer-2026-08.BirdNET_Kaleidoscope.csv": (5, IN_FOLDER, "Swainson's Thrush"),
    "kaleidoscope/kaleidoscope_style_test.csv": (8, "1.flac", "Yes"),
    "others/hawkears.selection.table.txt": (4, "/data/site_a/SITE-A_20240501_053000.wav", "BCCH"),
    "others/perch_powdermill.csv": (5, "Recording_1/Recording_1_Segment_05.wav", "NOCA"),
    "others/perch_anuraset.csv": (3, "INCT17_20191113_040000.wav", "PHYSAU_M"),
}  # fmt: skip
"""Number of annotations; recording and species of the first."""
REFUSED = {
    "raven/begin_path_file_offset.txt": NO_SPECIES,
    "raven/file_offset_without_unit.txt": NO_SPECIES,
    "raven/waveform_and_spectrogram_rows_begin_path.txt": NO_SPECIES,
    "birdnet/analyzer-2.4.0.BirdNET_SelectionTable.list.txt": NO_TABLE,
    "birdnet/analyzer-2.4.0.BirdNET_analysis_params.csv": NO_TABLE,
    "birdnet/analyzer-2026-08.BirdNET_analysis_params.csv": NO_TABLE,
    "birdnet/processed.datetime_in_start.csv": "row 2 holds '2024-01-01 00:00:00' - a time is needed",
    "others/raven_batch_correlation.txt": NO_TABLE,
    "others/syrinx_annotations.log": NO_TABLE,
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="real tables are not part of the repository")
class TestRealTables:
    @pytest.mark.parametrize("name", READ)
    def test_all_annotations_are_read(self, name):
        found = read_annotations(FORMATS / name).annotations
        n_rows, *first = READ[name]
        assert len(found) == n_rows
        species = [names[0] for names in found[0].species] if found else []
        assert first == ([found[0].recording, *(species or [None])] if found else [])

    @pytest.mark.parametrize("name", REFUSED)
    def test_what_is_no_truth_is_refused_with_the_reason(self, name):
        with pytest.raises(MetadataError, match=re.escape(REFUSED[name])):
            read_annotations(FORMATS / name)

    def test_no_file_is_left_out(self):
        folders = ("raven", "audacity", "birdnet", "kaleidoscope")
        there = {f"{folder}/{path.name}" for folder in folders for path in (FORMATS / folder).iterdir()}
        assert there <= READ.keys() | REFUSED.keys()

    @pytest.mark.parametrize(
        ("name", "n_selections"),
        [("begin_file_measurements_mixed_views", 7), ("waveform_and_spectrogram_rows_begin_path", 11)],
    )
    def test_selections_of_two_views_are_neither_doubled_nor_lost(self, tmp_path, name, n_selections):
        header, *lines = (FORMATS / "raven" / f"{name}.txt").read_text().splitlines()
        (tmp_path / "t.txt").write_text("\n".join([f"Label\t{header}", *(f"a\t{line}" for line in lines)]))
        found = read_annotations(tmp_path / "t.txt").annotations
        assert len(found) == n_selections < len(lines)
        begins = {float(line.split("\t")[3]) for line in lines}
        assert len({each.start_seconds for each in found}) == len(begins)
