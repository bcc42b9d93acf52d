"""Tables of a file whose channels are recordings of their own."""

import json

import pandas as pd
import pytest
from made_detections import SETTINGS, make_detection, make_recording

from birdinfer.detections.formats import write_table

COLUMNS = {"csv": "Channel", "kaleidoscope": "CHANNEL", "raven-combined": "Channel"}


def found():
    """Two channels of a minute, then a mono file."""
    for number in (1, 2):
        channel = make_recording("siteA/a.WAV", name=f"siteA/a_ch{number}", channel=number)
        yield channel, [make_detection(channel, 5.0 * number)]
    mono = make_recording("siteA/b.WAV")
    yield mono, [make_detection(mono, 15.0)]


@pytest.mark.parametrize(
    ("name", "channels"), [("csv", ["1", "2", ""]), ("kaleidoscope", [0, 1, 0]), ("raven-combined", [1, 2, 1])]
)
def test_tables_say_which_channel_it_was(tmp_path, name, channels):
    path = write_table(name, tmp_path, found, SETTINGS)
    path = next(path.glob("*.selections.txt")) if path.is_dir() else path
    table = pd.read_csv(path, sep="\t" if name.startswith("raven") else ",", keep_default_na=False)
    assert table[COLUMNS[name]].tolist() == channels


def test_json_and_parquet_say_which_channel_it_was(tmp_path):
    lines = write_table("jsonl", tmp_path, found, SETTINGS).read_text().splitlines()
    assert [json.loads(line)["channel"] for line in lines] == [1, 2, None]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_table("parquet", tmp_path, found, SETTINGS))
    assert table["channel"].to_pylist() == [1, 2, None]


def test_the_channels_of_a_file_begin_together_in_ravens_combined_table(tmp_path):
    folder = write_table("raven-combined", tmp_path, found, SETTINGS)
    table = pd.read_csv(folder / "combined.selections.txt", sep="\t")
    assert table["Begin Time (s)"].tolist() == [5, 10, 75]
    listed = (folder / "combined.list.txt").read_text().splitlines()
    assert listed == ["/cards/siteA/a.WAV", "/cards/siteA/b.WAV"]


def test_every_channel_has_tables_of_its_own(tmp_path):
    for name in ("raven", "audacity"):
        folder = write_table(name, tmp_path, found, SETTINGS)
        assert len([path for path in folder.rglob("*.txt") if path.is_file()]) == 3
