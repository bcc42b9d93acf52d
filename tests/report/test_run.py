import csv
import re

import pytest
from made_data import row, write_data
from tiny_clips import TINY_FRONTEND

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError, OutputError
from birdinfer.report.run import DataReportSettings, report_data
from birdinfer.report.tables import UNKNOWN
from birdinfer.training.recipe.schema import DataConfig, Recipe

RECIPE = Recipe(data=DataConfig(n_folds=2), frontend=TINY_FRONTEND)
ROWS = [
    row(
        "a/1.wav", author="x", rating="4", latitude="1", longitude="2", date="2020-05-01", time="06:00", collection="XC"
    ),
    row("a/2.wav", author="y", secondary_labels="['b']", collection="XC"),
    row("b/3.wav", author="z", rating="5", latitude="1", longitude="2"),
    row("b/4.wav", author="x<i>", collection='"q"'),
]


@pytest.fixture
def report(tmp_path):
    return report_data(settings(tmp_path))


def settings(folder, **options):
    data = folder / "data"
    if not data.exists():
        write_data(data, ROWS, taxonomy="abc")
    return DataReportSettings(data=data, recipe=RECIPE, **options)


def no_detector(asked_by):
    raise ConfigError(asked_by, "needs silero-vad, which is not installed", "pip install it")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_report_data_counts(report):
    species = {
        row[0]: dict(zip(report.tables["species"].columns, row, strict=True)) for row in report.tables["species"].rows
    }
    assert (species["a"]["clips"], species["a"]["authors"], species["a"]["minutes"]) == (2, 2, 0.03)
    assert (species["b"]["as_secondary"], species["b"]["rated"], species["b"]["median_rating"]) == (1, 1, 5.0)
    assert species["c"]["clips"] == 0
    assert dict(report.tables["ratings"].rows) == {"unrated": 2, "4": 1, "5": 1}
    assert dict(report.tables["months"].rows)["05"] == 1
    assert dict(report.tables["hours"].rows)["06"] == 1
    assert [row[:2] for row in report.tables["collections"].rows] == [("XC", 2), ('"q"', 1), (UNKNOWN, 1)]
    assert report.tables["sites"].rows[0][:2] == ("1.00,2.00", 2)
    assert report.tables["secondary"].rows == (("a", "b", 1),)
    assert report.tables["formats"].rows == ((".wav", 8_000, 1, 4, 0.07),)
    assert sum(row[1] for row in report.tables["durations"].rows) == 4
    assert report.page is None


def test_report_data_shows_the_folds_that_training_assigns(report):
    folds = report.tables["folds"]
    assert folds.columns == ("label", "name", "fold 0", "fold 1", "folds_that_validate_it")
    assert [row[0] for row in folds.rows] == ["a", "b"]
    assert all(sum(row[2:-1]) == 2 for row in folds.rows)
    assert {row[-1] for row in folds.rows} == {2}


def test_report_data_writes_a_page_and_every_table(tmp_path):
    report = report_data(settings(tmp_path, output=tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"index.html", "findings.csv", *(f"{name}.csv" for name in report.tables)}
    assert [row["filename"] for row in read(tmp_path / "out" / "clips.csv")] == [str(row["filename"]) for row in ROWS]
    assert len(read(tmp_path / "out" / "findings.csv")) == len(report.findings)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "x&lt;i&gt;" in page
    assert "x<i>" not in page
    assert not re.search(r"""(?:src|href)="(?!#|data:|[\w]+\.csv")""", page)
    again = report_data(settings(tmp_path, output=tmp_path / "out"))
    assert again.page == tmp_path / "out" / "index.html"


def test_report_data_replaces_no_other_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    with pytest.raises(OutputError, match="holds other things than a report of data"):
        report_data(settings(tmp_path, output=tmp_path / "out"))
    with pytest.raises(OutputError, match="an input of this command"):
        report_data(settings(tmp_path, output=tmp_path / "data"))


def test_report_data_with_sound_adds_voices_or_says_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr("birdinfer.report.survey.VoiceDetector", no_detector)
    report = report_data(settings(tmp_path, sound=True, output=tmp_path / "out"))
    assert "voices" not in report.tables
    assert "Not looked for: needs silero-vad" in report.page.read_text()
    assert all(row[-3] is not None for row in report.tables["clips"].rows)


def test_report_data_with_sound_continues_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("birdinfer.report.survey.VoiceDetector", no_detector)

    class Stopping(Callback):
        def on_progress(self, task, done, total):
            if task == "decoding" and done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report_data(settings(tmp_path, sound=True, output=tmp_path / "out"), Stopping())
    assert not (tmp_path / "out").exists()
    messages = []

    class Seen(Callback):
        def on_message(self, line):
            messages.append(line)

    continued = report_data(settings(tmp_path, sound=True, output=tmp_path / "out"), Seen())
    assert "2 of 4 files were decoded before" in messages
    whole = report_data(settings(tmp_path, sound=True))
    assert continued.tables == whole.tables
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_report_data_reports_progress_that_ends(tmp_path):
    last = {}

    class Seen(Callback):
        def on_progress(self, task, done, total):
            last[task] = done, total

    report_data(settings(tmp_path), callback=Seen())
    assert last == {"headers": (4, 4)}


@pytest.mark.parametrize(
    "keys", [{"all_data": True}, {"val_share": 0.5}, {"n_folds": 40}, {"min_clips_per_species": 9}]
)
def test_report_data_with_any_folds(tmp_path, keys):
    recipe = Recipe(data=DataConfig(**keys), frontend=TINY_FRONTEND)
    write_data(tmp_path / "data", ROWS, taxonomy="abc")
    report = report_data(DataReportSettings(data=tmp_path / "data", recipe=recipe, output=tmp_path / "out"))
    assert report.page.is_file()
    refused = "n_folds" in keys or "min_clips_per_species" in keys
    assert any("cannot be assigned" in each.title for each in report.findings) == refused
