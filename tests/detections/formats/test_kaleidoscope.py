from pathlib import Path

import pandas as pd
from made_detections import SETTINGS, found, found_in, make_detection, make_recording

from birdinfer.detections.formats import write_table
from birdinfer.tables.annotations import read_annotations

KNOWN = {
    "INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST", "MANUAL ID",
}  # fmt: skip
"""Columns that Kaleidoscope shows, of those that published scripts read."""


def read(path):
    return pd.read_csv(path, keep_default_na=False)


def test_every_detection_is_a_row(tmp_path):
    table = read(write_table("kaleidoscope", tmp_path, found, SETTINGS))
    assert set(table) == KNOWN
    assert table["OFFSET"].tolist() == [0, 5, 5, 2.5]
    assert table["DURATION"].tolist() == [5, 15, 5, 4.75]
    assert table["TOP1MATCH"].tolist() == ["Eurasian Blackbird"] * 2 + ["Common Cuckoo", "47158son16"]
    assert table["TOP1DIST"].tolist() == [0.1235, 0.9877, 0.5, 0.5]


def test_the_three_parts_of_a_path(tmp_path):
    elsewhere = make_recording("c.wav", path=Path("/cards/x.wav"))
    rows = [*found_in("siteA/day/a.wav", "b.wav"), (elsewhere, [make_detection(elsewhere)])]
    table = read(write_table("kaleidoscope", tmp_path, lambda: iter(rows), SETTINGS))
    assert table[["INDIR", "FOLDER", "IN FILE"]].to_numpy().tolist() == [
        ["/cards", "siteA/day", "a.wav"],
        ["/cards", "", "b.wav"],
        ["/cards", "", "x.wav"],
    ]


def test_the_reader_of_truths_takes_what_a_user_has_identified(tmp_path):
    path = write_table("kaleidoscope", tmp_path, found, SETTINGS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], f"{lines[2]}Common Cuckoo", *lines[3:]]))
    annotations = read_annotations(path).annotations
    assert [each[1:] for each in annotations][:2] == [
        ("siteA/a.WAV", 0, 5, (("Eurasian Blackbird",),)),
        ("siteA/a.WAV", 5, 20, (("Common Cuckoo",),)),
    ]
