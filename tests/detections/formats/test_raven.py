"""Raven's tables, read by crowsetta, pandas and the reader of truths, and held against files of other programs."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_detections import SETTINGS, found, found_in, make_detection, make_recording

from birdinfer.detections.formats import write_table
from birdinfer.species import Species
from birdinfer.tables.annotations import read_annotations

FORMATS = Path(__file__).parents[4] / "shared" / "cases" / "formats"


def read(path):
    return pd.read_csv(path, sep="\t", dtype={"Species Code": str}, keep_default_na=False)


def test_there_is_a_table_for_each_recording_that_could_be_read(tmp_path):
    folder = write_table("raven", tmp_path, found, SETTINGS)
    tables = {path.relative_to(folder).as_posix(): len(read(path)) for path in folder.rglob("*.txt")}
    assert tables == {"siteA/a.selections.txt": 3, "siteA/b.selections.txt": 0, "siteB/c.selections.txt": 1}


def test_rows_are_selections(tmp_path):
    folder = write_table("raven", tmp_path, found, SETTINGS)
    table = read(folder / "siteA" / "a.selections.txt")
    assert table["Selection"].tolist() == [1, 2, 3]
    assert table["Begin Time (s)"].tolist() == table["File Offset (s)"].tolist() == [0, 5, 5]
    assert table["End Time (s)"].tolist() == [5, 20, 10]
    assert table["Species Code"].tolist() == ["eurbla", "eurbla", "0012"]
    assert table["Common Name"].tolist() == ["Eurasian Blackbird"] * 2 + ["Common Cuckoo"]
    assert set(table["Begin Path"]) == {"/cards/siteA/a.WAV"}
    assert set(table["High Freq (Hz)"]) == {16_000}


def test_boxes_reach_up_to_what_a_recording_holds(tmp_path):
    folder = write_table("raven", tmp_path, found, SETTINGS)
    assert read(folder / "siteB" / "c.selections.txt")["High Freq (Hz)"].tolist() == [11_025]


def test_the_reader_of_truths_finds_the_same(tmp_path):
    folder = write_table("raven", tmp_path, found, SETTINGS)
    annotations = read_annotations(folder / "siteA" / "a.selections.txt").annotations
    assert [each[1:] for each in annotations][1:] == [
        ("/cards/siteA/a.WAV", 5, 20, (("eurbla", "Turdus merula", "Eurasian Blackbird"),)),
        ("/cards/siteA/a.WAV", 5, 10, (("0012", "Cuculus canorus", "Common Cuckoo"),)),
    ]
    assert read_annotations(folder / "siteA" / "b.selections.txt").annotations == ()


@pytest.mark.filterwarnings("ignore")  # of what crowsetta imports and calls
def test_crowsetta_reads_it(tmp_path):
    crowsetta = pytest.importorskip("crowsetta", reason="an independent reader")
    folder = write_table("raven", tmp_path, found, SETTINGS)
    raven = crowsetta.formats.bbox.Raven.from_file(folder / "siteA" / "a.selections.txt", annot_col="Species Code")
    boxes = [(box.onset, box.offset, box.low_freq, box.high_freq) for box in raven.to_bbox()]
    assert boxes == [(0, 5, 0, 16_000), (5, 20, 0, 16_000), (5, 10, 0, 16_000)]


class TestCombined:
    def test_times_run_on_to_the_sample(self, tmp_path):
        folder = write_table("raven-combined", tmp_path, found, SETTINGS)
        table = read(folder / "combined.selections.txt")
        assert table["Selection"].tolist() == [1, 2, 3, 4]
        assert table["Begin Time (s)"].tolist() == [0, 5, 5, 72.50002]
        assert table["End Time (s)"].tolist() == [5, 20, 10, 77.25002]
        assert table["File Offset (s)"].tolist() == [0, 5, 5, 2.5]

    def test_the_list_names_all_recordings_that_have_sound(self, tmp_path):
        folder = write_table("raven-combined", tmp_path, found, SETTINGS)
        listed = (folder / "combined.list.txt").read_text().splitlines()
        assert listed == ["/cards/siteA/a.WAV", "/cards/siteA/b.flac", "/cards/siteB/c.ogg"]

    def test_the_reader_of_truths_finds_the_time_in_each_recording(self, tmp_path):
        folder = write_table("raven-combined", tmp_path, found, SETTINGS)
        annotations = read_annotations(folder / "combined.selections.txt").annotations
        assert [each[1:4] for each in annotations][2:] == [
            ("/cards/siteA/a.WAV", 5, 10),
            ("/cards/siteB/c.ogg", 2.5, 7.25),
        ]


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=6)


@given(NAMES, NAMES)
def test_odd_names_break_no_table(tmp_path, file, name):
    recording = make_recording(file)
    rows = [(recording, [make_detection(recording, species=Species("eurbla", name, name)), make_detection(recording)])]
    folder = write_table("raven", tmp_path, lambda: iter(rows), SETTINGS)
    (path,) = folder.rglob("*.txt")
    assert read(path)["Species Code"].tolist() == ["eurbla", "eurbla"]
    assert [each.species[0][0] for each in read_annotations(path).annotations] == ["eurbla", "eurbla"]


@pytest.mark.skipif(not FORMATS.is_dir(), reason="real tables are not part of the repository")
@pytest.mark.parametrize("name", ["raven/crlf.txt", "birdnet/analyzer-2.4.0.BirdNET.selection.table.txt"])
def test_columns_are_those_of_other_programs(tmp_path, name):
    folder = write_table("raven", tmp_path, lambda: iter(found_in("a.wav")), SETTINGS)
    ours, theirs = (
        path.read_text().splitlines()[0].split("\t") for path in (folder / "a.selections.txt", FORMATS / name)
    )
    assert ours[:7] == theirs[:7]
    assert set(theirs) - {"Species"} <= set(ours)
