"""What holds for every format."""

import sys

import pytest
from made_detections import SETTINGS, SPECIES, found

from birdinfer.detections.formats import FORMATS, check_tables, write_table
from birdinfer.errors import ConfigError, MissingExtraError, OutputError
from birdinfer.tables.truth import Row, Scored, read_truth

PLAIN = [name for name in FORMATS if name != "parquet"]
FILES = [name for name in PLAIN if "." in FORMATS[name].output]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_detections_are_the_same_bytes(tmp_path, name):
    write_table(name, tmp_path, found, SETTINGS)
    first = contents(tmp_path)
    write_table(name, tmp_path, found, SETTINGS)
    assert first
    assert contents(tmp_path) == first


@pytest.mark.parametrize("name", PLAIN)
def test_a_run_that_fails_leaves_the_older_table(tmp_path, name):
    def fails():
        yield from list(found())[:1]
        raise OSError(5, "Input/output error")

    write_table(name, tmp_path, found, SETTINGS)
    before = contents(tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        write_table(name, tmp_path, fails, SETTINGS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", PLAIN)
def test_its_own_table_may_be_written_again(tmp_path, name):
    check_tables([name], tmp_path)
    write_table(name, tmp_path, found, SETTINGS)
    check_tables([name], tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_others_is_not_replaced(tmp_path, name):
    (tmp_path / FORMATS[name].output).write_text("Start (s),mine\n")
    with pytest.raises(OutputError, match=r"is there and no table of detections of birdinfer - name another file"):
        check_tables([name], tmp_path)


def test_an_input_is_not_replaced(tmp_path):
    path = write_table("csv", tmp_path, found, SETTINGS)
    with pytest.raises(OutputError, match="is an input"):
        check_tables(["csv"], tmp_path, [path])
    folder = write_table("raven", tmp_path, found, SETTINGS)
    with pytest.raises(OutputError, match="an input of this command - name another folder for the results"):
        check_tables(["raven"], tmp_path, [folder / "siteA"])


def test_a_format_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"format: there is no 'xlsx' - there are csv, parquet, jsonl, raven, "):
        check_tables(["csv", "xlsx"], tmp_path)


def test_a_missing_extra_is_reported_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"birdinfer\[detect\]"):
        check_tables(["parquet"], tmp_path)


@pytest.mark.parametrize("name", ["csv", "raven", "raven-combined", "audacity", "kaleidoscope"])
def test_as_a_truth_each_says_the_same(tmp_path, name):
    """What annotators have corrected in any program counts in the same rows of the same species."""
    rows = [
        Row(f"{recording.name}_{end}", recording.name, end - 5.0, float(end))
        for recording, _ in found()
        for end in range(5, 65, 5)
        if recording.seconds > 0
    ]
    truth = read_truth(write_table(name, tmp_path, found, SETTINGS), lambda: Scored(rows, SPECIES, "scores")).table
    present = {(truth.row_ids[row], truth.labels[column]) for row, column in zip(*truth.values.nonzero(), strict=True)}
    blackbird = {(f"siteA/a_{end}", "eurbla") for end in (5, 10, 15, 20)}
    assert present == blackbird | {("siteA/a_10", "0012"), ("siteB/c_5", "47158son16"), ("siteB/c_10", "47158son16")}
