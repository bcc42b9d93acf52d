import os
import sys
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from made_detections import SETTINGS, found, found_in, make_detection, make_recording

from birdinfer.detections.formats import parquet as module
from birdinfer.detections.formats import write_table
from birdinfer.errors import MissingExtraError
from birdinfer.species import Species

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra detect")


def test_pandas_reads_what_was_found(tmp_path):
    table = pd.read_parquet(write_table("parquet", tmp_path, found, SETTINGS))
    assert table["file"].tolist() == ["siteA/a.WAV"] * 3 + ["siteB/c.ogg"]
    assert table["label"].tolist() == ["eurbla", "eurbla", "0012", "47158son16"]
    assert table["start"].tolist() == [0, 5, 5, 2.5]
    assert table["end"].tolist() == [5, 20, 10, 7.25]
    assert table["confidence"].dtype == np.float32
    assert table["confidence"].tolist() == np.float32([0.12345678, 0.987654, 0.5, 0.5]).tolist()
    assert table["windows"].tolist() == [1, 3, 1, 1]


def test_times_are_those_of_the_clock_and_of_utc(tmp_path):
    rows = parquet.read_table(write_table("parquet", tmp_path, found, SETTINGS)).to_pylist()
    assert rows[1]["clock_time"] == datetime(2025, 2, 28)
    assert rows[1]["utc_time"] == datetime(2025, 2, 27, 23, tzinfo=UTC)
    assert rows[3]["clock_time"] is rows[3]["utc_time"] is rows[3]["site"] is None


def test_a_clock_without_a_zone_has_no_utc(tmp_path):
    recording = make_recording("a.wav", start=datetime(2025, 6, 1, 4))
    rows = [(recording, [make_detection(recording, 10.0)])]
    (row,) = parquet.read_table(write_table("parquet", tmp_path, lambda: iter(rows), SETTINGS)).to_pylist()
    assert (row["clock_time"], row["utc_time"]) == (datetime(2025, 6, 1, 4, 0, 10), None)


@pytest.mark.parametrize("n_rows", [0, 1, 3, 7])
def test_no_row_is_lost_between_groups(tmp_path, monkeypatch, n_rows):
    monkeypatch.setattr(module, "_GROUP_ROWS", 3)
    recording = make_recording("a.wav")
    rows = [(recording, [make_detection(recording, 5.0 * start) for start in range(n_rows)])]
    path = write_table("parquet", tmp_path, lambda: iter(rows), SETTINGS)
    assert parquet.read_table(path)["start"].to_pylist() == [5.0 * start for start in range(n_rows)]
    assert parquet.ParquetFile(path).num_row_groups == -(-n_rows // 3)


def test_an_hour_of_many_species_is_small(tmp_path):
    """30,000 detections of 6,500 species within an hour, scores of which no two are alike."""
    random = np.random.default_rng(0)
    species = [Species(f"label{number}", f"Genus species{number}", f"Some Bird {number}") for number in range(6_500)]
    recordings = [make_recording(f"site/20250227_0{minute:02}000.wav") for minute in range(60)]

    def many():
        for recording in recordings:
            columns = np.sort(random.integers(0, len(species), (12, 42)))
            yield (
                recording,
                [
                    make_detection(
                        recording, 5.0 * row, species[column], confidence=float(random.random(dtype=np.float32))
                    )
                    for row in range(12)
                    for column in columns[row]
                ],
            )

    path = write_table("parquet", tmp_path, many, SETTINGS)
    assert parquet.ParquetFile(path).metadata.num_rows == 30_240
    assert path.stat().st_size < 600_000


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    rows = found_in(os.fsdecode(b"H\xf6hle.wav"), "a\tb.wav")
    table = pd.read_parquet(write_table("parquet", tmp_path, lambda: iter(rows), SETTINGS))
    assert table["file"].tolist() == ["H\\xf6hle.wav", "a\\x09b.wav"]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow: is not installed - pip install .birdinfer\[detect\]"):
        write_table("parquet", tmp_path, found, SETTINGS)
    assert list(tmp_path.iterdir()) == []
