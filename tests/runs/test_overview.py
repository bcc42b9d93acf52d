"""Runs of a folder compared, and scores of the leaderboard noted."""

import csv
import io
import json
import math

import pytest
from tiny_runs import epochs, write_run

from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.runs.overview import (
    Note,
    differing_keys,
    note_score,
    rank_correlation,
    read_notes,
    read_record,
    read_runs,
    runs_table,
)
from birdinfer.system.toml import write_toml


def note(public=math.nan, private=math.nan, epoch=None, text="", noted="2026-05-01 10:00:00"):
    return Note(noted, epoch, public, private, text)


def three_runs(folder, aucs=(0.5, 0.75, 0.625)):
    for name, auc, lr in zip("abc", aucs, (1e-3, 1e-3, 3e-4), strict=True):
        write_run(folder / name, [epochs(0.25, auc), epochs(auc)], summary={"out_of_fold_macro_auc": auc})
        recipe = {"name": name, "optim": {"lr": lr, "name": "adamw"}, "tracking": {"project": name}}
        (folder / name / "recipe.toml").write_text(write_toml(recipe))
    return folder


def test_an_unfinished_run_is_worth_its_best_epoch_so_far(tmp_path):
    record = read_record(write_run(tmp_path / "a", [epochs(0.5, 0.8, 0.6), epochs(0.7)]))
    assert [(fold.epochs, fold.best_epoch, fold.macro_auc) for fold in record.folds] == [(3, 2, 0.8), (1, 1, 0.7)]
    assert (record.n_finished, record.mean("macro_auc")) == (0, pytest.approx(0.75))
    assert sum(fold.seconds for fold in record.folds) == 4 * 3.5


def test_a_finished_fold_is_worth_what_was_kept(tmp_path):
    """A soup may be better than each epoch."""
    run = write_run(tmp_path / "a", [epochs(0.5, 0.8)])
    (run / "fold0" / "metrics.json").write_text(json.dumps({"macro_auc": 0.9, "top1": None, "best_epoch": 1}))
    (fold,) = read_record(run).folds
    assert (fold.is_finished, fold.best_epoch, fold.macro_auc) == (True, 1, 0.9)
    assert math.isnan(fold.top1)


def test_a_table_has_a_row_for_each_run_and_a_column_for_each_key_that_differs(tmp_path):
    records = read_runs(three_runs(tmp_path))
    assert differing_keys(records) == ["optim.lr"]
    rows = list(csv.DictReader(io.StringIO(runs_table(records))))
    assert [(row["run"], row["optim.lr"], row["macro_auc"]) for row in rows] == [
        ("a", "0.001", "0.5"), ("b", "0.001", "0.75"), ("c", "0.0003", "0.625")
    ]  # fmt: skip
    assert rows[0]["public"] == ""


def test_a_key_that_an_older_run_lacks_does_not_differ(tmp_path):
    three_runs(tmp_path)
    (tmp_path / "a" / "recipe.toml").write_text('name = "a"\n')
    (tmp_path / "b" / "recipe.toml").unlink()
    assert differing_keys(read_runs(tmp_path)) == []


def test_searches_and_other_folders_are_left_out_and_a_run_is_one_by_itself(tmp_path):
    three_runs(tmp_path)
    (tmp_path / "notes").mkdir()
    write_run(tmp_path / "a-tune")
    (tmp_path / "a-tune" / "space.toml").write_text("")
    assert [record.name for record in read_runs(tmp_path)] == ["a", "b", "c"]
    assert [record.name for record in read_runs(tmp_path / "b")] == ["b"]


def test_notes_are_kept_in_order_and_the_last_score_counts(tmp_path):
    run = write_run(tmp_path / "a")
    given = [note(0.5, text="first, of all"), note(0.75, 0.5, epoch=2), note(text="only a text")]
    for each in given:
        note_score(run, each)
    found = read_notes(run)
    assert [str(each) for each in found] == [str(each) for each in given]
    record = read_record(run)
    assert (record.public, record.private) == (0.75, 0.5)


def test_the_leaderboard_and_macro_auc_are_compared_by_rank(tmp_path):
    three_runs(tmp_path, (0.5, 0.75, 0.625))
    for name, public in zip("ab", (0.8, 0.7), strict=True):
        note_score(tmp_path / name, note(public))
    assert rank_correlation(read_runs(tmp_path)) is None  # two say nothing
    note_score(tmp_path / "c", note(0.75))
    value, n_runs = rank_correlation(read_runs(tmp_path))
    assert (value, n_runs) == (pytest.approx(-1), 3)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (note(), "notes nothing"),
        (note(math.inf), "needed is a number"),
        (note(0.5, epoch=3), "the run has 2 epochs"),
        (note(0.5, epoch=0), "the run has 2 epochs"),
    ],
)
def test_a_note_that_says_nothing_is_refused(given, problem, tmp_path):
    run = write_run(tmp_path / "a")
    with pytest.raises(ConfigError, match=problem):
        note_score(run, given)
    assert read_notes(run) == ()


def test_what_is_damaged_is_named(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "leaderboard.csv").write_text("noted,epoch,public,private,text\n,x,0.5,,\n")
    with pytest.raises(MetadataError, match=r"leaderboard\.csv, line 2"):
        read_runs(run)
    (run / "leaderboard.csv").unlink()
    (run / "fold0" / "metrics.json").write_text("{")
    with pytest.raises(MetadataError, match=r"metrics\.json: is not JSON"):
        read_runs(run)
    with pytest.raises(InputNotFoundError, match="no such run"):
        note_score(tmp_path / "b", note(0.5))
    with pytest.raises(InputNotFoundError, match="holds no run"):
        read_runs(run / "fold0")
