"""Probabilities of a recording as detections and as tables."""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdinfer.audio.status import Status
from birdinfer.detections.formats import TableSettings, write_table
from birdinfer.detections.recordings import Recording
from birdinfer.errors import ConfigError, LabelError, MissingExtraError
from birdinfer.result import Detections, Result
from birdinfer.species import Species

SPECIES = (Species("comcuc", "Cuculus canorus", "Common Cuckoo", "Aves"), Species("0012", "Rana temporaria"))
SCORES = np.array([[0.9, 0.1], [0.6, 0.3], [0.1, 0.8], [0.7, 0.2]], np.float32)


def make_result(scores=SCORES, name="dawn", **changes):
    start = datetime(2026, 5, 1, 23, 59, 50)
    recording = Recording(path=Path(f"in/{name}.wav"), name=name, file=f"{name}.wav", seconds=18.0, start=start)
    given = {"recording": recording, "probabilities": scores, "species": SPECIES, "window_seconds": 5.0}
    thresholds = np.array([0.5, 0.85], np.float32)
    return Result(**given | {"status": Status.ok, "thresholds": thresholds} | changes)


def spans(detections):
    return [(each.species.label, each.start_seconds, each.end_seconds) for each in detections]


def test_without_a_threshold_those_of_the_bundle_count():
    assert spans(make_result().detections()) == [("comcuc", 0, 10), ("comcuc", 15, 18)]


def test_a_threshold_is_for_all_species_and_thresholds_for_some():
    result = make_result()
    assert spans(result.detections(0.75)) == [("comcuc", 0, 5), ("0012", 10, 15)]
    assert spans(result.detections(0.75, thresholds={"0012": 0.3})) == [("comcuc", 0, 5), ("0012", 5, 15)]
    assert spans(result.detections(thresholds={"comcuc": 0.65})) == [("comcuc", 0, 5), ("comcuc", 15, 18)]


def test_windows_are_merged_and_limited_as_asked():
    result = make_result()
    assert spans(result.detections(0.5, merge_gap=5)) == [("comcuc", 0, 18), ("0012", 10, 15)]
    assert spans(result.detections(0.05, top_k=1)) == [("comcuc", 0, 10), ("0012", 10, 15), ("comcuc", 15, 18)]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"threshold": 1.5}, ConfigError, "threshold: is 1.5, allowed are 0 to 1"),
        ({"threshold": float("nan")}, ConfigError, "threshold: is nan, allowed are 0 to 1"),
        ({"thresholds": {"comcuc": -1}}, ConfigError, "threshold: is -1, allowed are 0 to 1"),
        ({"thresholds": {"comcuk": 0.5}}, LabelError, "thresholds: the model knows no 'comcuk' - perhaps comcuc"),
        ({"thresholds": {12: 0.5}}, LabelError, "thresholds: the model knows no 12 - perhaps 0012"),
        ({"merge_gap": -1}, ConfigError, "merge_gap: is -1 s, needed is at least 0"),
        ({"top_k": 0}, ConfigError, "top_k: is 0, needed is at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, error, problem):
    with pytest.raises(error) as refused:
        make_result().detections(**arguments)
    assert str(refused.value) == problem


def test_a_table_has_a_row_for_each_window_and_a_column_for_each_label():
    table = make_result().to_pandas()
    assert np.array_equal(table.to_numpy(), SCORES)
    assert list(table.columns) == ["comcuc", "0012"]
    assert list(table.index) == [("dawn.wav", start) for start in (0.0, 5.0, 10.0, 15.0)]
    several = pd.concat([table, make_result(name="siteA/dusk").to_pandas()])
    assert np.array_equal(several.loc["siteA/dusk.wav"].to_numpy(), SCORES)


def test_a_table_of_detections_has_their_names_and_clock_times():
    table = make_result().detections(0.75).to_pandas()
    assert table[["file", "start", "end", "label", "common_name", "peak", "windows"]].to_numpy().tolist() == [
        ["dawn.wav", 0.0, 5.0, "comcuc", "Common Cuckoo", 0.0, 1],
        ["dawn.wav", 10.0, 15.0, "0012", "", 10.0, 1],
    ]
    assert table.confidence.to_numpy() == pytest.approx([0.9, 0.8])
    assert list(table.clock_time) == [pd.Timestamp("2026-05-01 23:59:50"), pd.Timestamp("2026-05-02 00:00:00")]


def test_tables_without_rows_keep_their_columns():
    nothing = make_result(np.zeros((0, 2), np.float32), status=Status.unreadable)
    assert nothing.to_pandas().shape == (0, 2)
    assert list(nothing.detections().to_pandas().columns) == list(make_result().detections(0.75).to_pandas().columns)


def same_types(table, like):
    """Text is str in one and object in the other, and what is not known NaN or None."""
    texts = {"time_source": "", "site": ""}
    return table.fillna(texts).astype(like.dtypes)


def test_a_table_of_detections_is_the_parquet_table(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra detect")
    zone = timezone(timedelta(hours=2))
    start = datetime(2026, 5, 1, 23, 59, 50, tzinfo=zone)
    recordings = [
        Recording(path=Path("a"), name="a", file="a", seconds=18.0, start=start, site="S05", latitude=-3.5, channel=2),
        Recording(path=Path("b"), name="b", file="b", seconds=18.0, start=start.replace(tzinfo=None)),
        Recording(path=Path("c"), name="c", file="c", seconds=18.0),
    ]
    for some in (recordings, recordings[2:], []):
        results = [make_result(recording=recording) for recording in some]
        found = [(result.recording, result.detections(0.3)) for result in results]
        settings = TableSettings(species=SPECIES, sample_rate=32_000)
        wanted = pd.read_parquet(write_table("parquet", tmp_path, lambda found=found: iter(found), settings))
        table = Detections(each for _, detections in found for each in detections).to_pandas()
        pd.testing.assert_frame_equal(table.fillna({"time_source": "", "site": ""}), same_types(wanted, table))
        assert str(table.dtypes["utc_time"]) == "datetime64[ms, UTC]"


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for table in (make_result(), make_result().detections()):
        with pytest.raises(MissingExtraError, match=r'pandas: is not installed - pip install "birdinfer\[pandas\]"'):
            table.to_pandas()


def test_results_and_detections_print_what_they_hold():
    empty = make_result(np.zeros((0, 2), np.float32), status=Status.unreadable, problem="is empty (0 bytes)")
    assert repr(empty).startswith(
        "<Result of in/dawn.wav: unreadable (is empty (0 bytes)), 18.0 s, no windows of 5 s, 2 species>"
    )
    one = make_result(SCORES[:1], status=Status.truncated, problem="truncated: 4.0 of 60.0 s")
    assert repr(one) == (
        "<Result of in/dawn.wav: truncated (4.0 of 60.0 s), 18.0 s, 1 window of 5 s, 2 species; "
        "highest Common Cuckoo 0.90 at 0 s>"
    )
    assert repr(make_result().detections(1.0)) == "0 detections"
    many = repr(Detections([*make_result().detections(0.75)] * 15)).splitlines()
    assert repr(make_result().detections(0.75)[0]) == "<Detection 0-5 s: Common Cuckoo 0.900, dawn.wav>"
    assert (len(many), many[0], many[-1]) == (22, "30 detections", "and 10 more")
