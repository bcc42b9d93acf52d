from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_detections import SETTINGS, found, found_in

from birdinfer.detections.formats import write_table
from birdinfer.species import Species
from birdinfer.tables.annotations import read_annotations

BIRDNET = Path(__file__).parents[4] / "shared" / "cases" / "formats" / "birdnet"


def read(path):
    return pd.read_csv(path, dtype={"Label": str}, keep_default_na=False)


def test_every_detection_is_a_row(tmp_path):
    table = read(write_table("csv", tmp_path, found, SETTINGS))
    assert table["Start (s)"].tolist() == [0, 5, 5, 2.5]
    assert table["End (s)"].tolist() == [5, 20, 10, 7.25]
    assert table["Label"].tolist() == ["eurbla", "eurbla", "0012", "47158son16"]
    assert table["Confidence"].tolist() == [0.123457, 0.987654, 0.5, 0.5]
    second = table.iloc[1].to_dict()
    assert (second["Scientific name"], second["Common name"]) == ("Turdus merula", "Eurasian Blackbird")
    assert (second["File"], second["Site"], second["Class name"]) == ("siteA/a.WAV", "siteA", "Aves")
    assert (second["Peak (s)"], second["Windows"], second["Time source"]) == (10, 3, "GUANO")
    assert (second["Latitude"], second["Longitude"]) == ("-12.5", "130.25")


def test_clock_times_have_their_zone_and_pass_midnight(tmp_path):
    table = read(write_table("csv", tmp_path, found, SETTINGS))
    assert table["Clock time"].tolist() == ["2025-02-27T23:59:55+01:00", *["2025-02-28T00:00:00+01:00"] * 2, ""]


@pytest.mark.skipif(not BIRDNET.is_dir(), reason="real tables are not part of the repository")
def test_it_begins_as_birdnets_table(tmp_path):
    header = write_table("csv", tmp_path, found, SETTINGS).read_text().splitlines()[0]
    theirs = (BIRDNET / "analyzer-2.4.0.BirdNET_CombinedTable.csv").read_text().splitlines()[0]
    assert header.startswith(f"{theirs},")


def test_the_reader_of_truths_finds_the_same(tmp_path):
    annotations = read_annotations(write_table("csv", tmp_path, found, SETTINGS)).annotations
    assert [each[1:4] for each in annotations] == [
        ("siteA/a.WAV", 0, 5), ("siteA/a.WAV", 5, 20), ("siteA/a.WAV", 5, 10), ("siteB/c.ogg", 2.5, 7.25)
    ]  # fmt: skip
    assert "0012" in annotations[2].species[0]


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=6)


@given(NAMES, NAMES)
def test_odd_names_break_no_table(tmp_path, file, name):
    rows = found_in(f"{file}.wav", "b.wav", species=Species("eurbla", name, name))
    path = write_table("csv", tmp_path, lambda: iter(rows), SETTINGS)
    table = read(path)
    assert table["File"].tolist()[1] == "b.wav"
    assert len(table) == len(read_annotations(path).annotations) == len(path.read_text().splitlines()) - 1 == 2
    assert table["Label"].tolist() == ["eurbla"] * 2


def test_of_no_recordings_there_is_a_header(tmp_path):
    assert read(write_table("csv", tmp_path, lambda: iter(()), SETTINGS)).empty
