import csv

import pandas as pd
import pytest
from made_survey import recording, survey

from birdinfer.detections.summary import SummarySettings, summarise
from birdinfer.detections.summary_tables import write_summary

FOUND = survey(
    (recording("2025-05-01T05:30:00", 3600, "A", "A/1"), [("owl", 0, 60, 0.8), ("owl", 1790, 1810, 0.6)]),
    (recording("2025-05-02T05:00:00", 1800, "A", "A/2"), [("wren", 0, 5)]),
    (recording("2025-05-02T05:00:00", 1800, "B", "B/1"), []),
    (recording(None, 60, "=B,\n1", "C/1"), [("owl", 0, 5)]),
)


@pytest.fixture
def tables(tmp_path):
    """Each table as text cells, by name."""
    written = write_summary(tmp_path / "summary", summarise(FOUND))
    assert sorted(written) == sorted((tmp_path / "summary").iterdir())
    return {path.stem: list(csv.reader(path.read_text().splitlines())) for path in written}


def test_species_by_site_and_day_with_effort(tables):
    header, *rows = tables["species_by_day"]
    assert header == [
        "label", "scientific_name", "common_name", "site", "date",
        "detections", "minutes", "highest_confidence", "effort_minutes", "minutes_per_hour",
    ]  # fmt: skip
    assert rows == [
        ["owl", "Genus owl", "common owl", "'=B,\\x0a1", "", "1", "0.083", "0.5000", "1.000", "5.0000"],
        ["owl", "Genus owl", "common owl", "A", "2025-05-01", "2", "1.333", "0.8000", "60.000", "1.3333"],
        ["wren", "Genus wren", "common wren", "A", "2025-05-02", "1", "0.083", "0.5000", "30.000", "0.1667"],
    ]


def test_effort_by_site_and_day(tables):
    assert tables["effort_by_day"] == [
        ["site", "date", "recordings", "effort_minutes", "left_out_minutes"],
        ["'=B,\\x0a1", "", "1", "1.000", "0.000"],
        ["A", "2025-05-01", "1", "60.000", "0.000"],
        ["A", "2025-05-02", "1", "30.000", "0.000"],
        ["B", "2025-05-02", "1", "30.000", "0.000"],
    ]


def test_days_of_a_site_stand_in_order_without_a_date_first(tmp_path):
    found = survey(*((recording(start), []) for start in ("2025-10-01T05:00", None, "2025-05-01T05:00")))
    write_summary(tmp_path, summarise(found))
    rows = (tmp_path / "effort_by_day.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["", "2025-05-01", "2025-10-01"]


def test_presence_is_one_zero_or_not_surveyed(tables):
    days = ["2025-05-01", "2025-05-02"]
    assert tables["presence"] == [
        ["label", "scientific_name", "common_name", "site", *days],
        ["owl", "Genus owl", "common owl", "A", "1", "0"],
        ["owl", "Genus owl", "common owl", "B", "NA", "0"],
        ["wren", "Genus wren", "common wren", "A", "0", "1"],
        ["wren", "Genus wren", "common wren", "B", "NA", "0"],
    ]
    assert tables["presence_effort"] == [["site", *days], ["A", "60.000", "30.000"], ["B", "0.000", "30.000"]]


def test_presence_and_effort_have_the_shape_that_occupancy_models_take(tmp_path):
    write_summary(tmp_path, summarise(FOUND))
    presence, effort = (pd.read_csv(tmp_path / name) for name in ("presence.csv", "presence_effort.csv"))
    for _, matrix in presence.groupby("label"):
        assert matrix["site"].tolist() == effort["site"].tolist()
        assert list(matrix.columns[4:]) == list(effort.columns[1:])
        assert (matrix.iloc[:, 4:].isna().to_numpy() == (effort.iloc[:, 1:] == 0).to_numpy()).all()


def test_days_with_little_effort_are_not_surveyed(tmp_path):
    write_summary(tmp_path, summarise(FOUND, SummarySettings(min_effort_minutes=45)))
    assert (tmp_path / "presence.csv").read_text().splitlines()[1:] == ["owl,Genus owl,common owl,A,1"]


def test_activity_by_hour_is_corrected_by_effort(tables):
    header, *rows = tables["activity_by_hour"]
    assert header[3:] == ["hour", "detections", "minutes", "effort_minutes", "minutes_per_hour"]
    assert len(rows) == 2 * 24
    cells = {(row[0], int(row[3])): row[4:] for row in rows}
    assert cells["owl", 5] == ["2", "1.167", "90.000", "0.7778"]
    assert cells["owl", 6] == ["0", "0.167", "30.000", "0.3333"]
    assert cells["wren", 6] == ["0", "0.000", "30.000", "0.0000"]
    assert cells["wren", 7] == ["0", "0.000", "0.000", ""]


def test_accumulation_counts_survey_days(tables):
    assert tables["accumulation"][0] == ["survey_days", "species", "low", "high"]
    assert [row[0] for row in tables["accumulation"][1:]] == ["1", "2", "3"]
    assert tables["accumulation"][-1][1:] == ["2.00", "2.00", "2.00"]


def test_a_survey_that_found_nothing_has_tables_of_headers(tmp_path):
    for path in write_summary(tmp_path, summarise(survey())):
        assert len(path.read_text().splitlines()) == 1
