"""With a stand-in for Kaggle's client that lists submissions as version 2.2 does."""

import csv
import io
import json
import math
import os
import sys

import pytest
from tiny_runs import epochs, write_run

from birdinfer.errors import ConfigError, MissingExtraError, OutputError
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.scores import Origin, ScoresSettings, fetch_scores, read_origin, with_origin
from birdinfer.runs.overview import Note, note_score, read_notes, read_record

STAND_IN = """#!{python}
import json, sys
from pathlib import Path

assert sys.argv[1:] == ["competitions", "submissions", "birdclef-2026", "--csv", "--page-size", "200"], sys.argv
code, out, err = json.loads(Path(__file__).with_name("answer.json").read_text())
print(out)
print(err, file=sys.stderr)
sys.exit(code)
"""
FIELDS = ("ref", "fileName", "date", "description", "status", "publicScore", "privateScore")
STRONG = Origin("strong", 2, "3f2a9c1e")


def listed(*submissions):
    """The client's table, as its ``print_csv`` writes it: the newest first."""
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(FIELDS)
    for ref, description, public, private in reversed(submissions):
        status = "SubmissionStatus.COMPLETE" if public else "SubmissionStatus.PENDING"
        date = f"2026-05-01 10:00:{ref}.123000"
        table.writerow([str(ref), "submission.csv", date, description, status, public, private])
    return written.getvalue()


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """``kaggle(out, code=, err=)`` puts a client on the PATH that answers so."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def answers(out, code=0, err=""):
        (folder / "answer.json").write_text(json.dumps([code, out, err]))
        program = folder / "kaggle"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return answers


@pytest.fixture
def runs(tmp_path):
    """Two runs of three epochs."""
    for name in ("strong", "plain"):
        write_run(tmp_path / "runs" / name, [epochs(0.5, 0.8, 0.6)])
    return tmp_path / "runs"


def fetched(runs):
    return fetch_scores(ScoresSettings(competition=competition("birdclef-2026"), runs=runs))


class TestNotes:
    def test_are_made_of_what_push_has_written(self, kaggle, runs):
        plain = Origin("plain", None, "00000000")
        kaggle(listed((11, with_origin("first, of two", plain), "0.812345", ""),
                      (12, with_origin("third try", STRONG), "0.9", "0.85")))  # fmt: skip
        found = fetched(runs)
        assert [(each.submission.ref, each.message, each.origin, each.outcome) for each in found] == [
            ("11", "first, of two", plain, "noted"),
            ("12", "third try", STRONG, "noted"),
        ]
        text = "Kaggle 12, pack 3f2a9c1e: third try"
        assert read_notes(runs / "strong") == (Note("2026-05-01 10:00:12", 2, 0.9, 0.85, text),)
        record = read_record(runs / "plain")
        assert (record.public, record.notes[0].epoch) == (0.812345, None)
        assert math.isnan(record.private)

    def test_are_made_once_and_get_the_private_score_in_their_place(self, kaggle, runs):
        first, second = (with_origin(text, STRONG) for text in ("one", "two"))
        kaggle(listed((11, first, "0.7", ""), (12, second, "0.8", "")))
        assert [each.outcome for each in fetched(runs)] == ["noted", "noted"]
        before = (runs / "strong" / "leaderboard.csv").read_bytes()
        assert [each.outcome for each in fetched(runs)] == ["noted before", "noted before"]
        assert (runs / "strong" / "leaderboard.csv").read_bytes() == before
        kaggle(listed((11, first, "0.7", "0.65"), (12, second, "0.8", "")))
        assert [each.outcome for each in fetched(runs)] == ["noted", "noted before"]
        assert read_notes(runs / "strong")[0].private == 0.65
        assert read_record(runs / "strong").public == 0.8

    def test_by_hand_stay(self, kaggle, runs):
        own = Note("2026-04-01 10:00:00", None, 0.5, 0.4, "by hand")
        note_score(runs / "strong", own)
        kaggle(listed((11, with_origin("by hand", STRONG), "0.7", "")))
        fetched(runs)
        assert read_notes(runs / "strong")[0] == own
        assert len(read_notes(runs / "strong")) == 2

    @pytest.mark.parametrize(
        ("description", "public", "outcome"),
        [
            ("by hand", "0.7", "not by kaggle push"),
            (with_origin("x", STRONG), "", "pending"),
            (with_origin("x", STRONG), "None", "no score"),
            (with_origin("x", Origin("elsewhere", None, "3f2a9c1e")), "0.7", "no such run in"),
            (with_origin("x", Origin("../runs/strong", None, "3f2a9c1e")), "0.7", "no such run in"),
            (with_origin("x", Origin("..", None, "3f2a9c1e")), "0.7", "no such run in"),
            (with_origin("x", Origin("strong", 9, "3f2a9c1e")), "0.7", "is 9, the run has 3 epochs"),
        ],
    )
    def test_are_not_made_of_others_which_are_shown_all_the_same(self, kaggle, runs, description, public, outcome):
        kaggle(listed((11, description, public, ""), (12, with_origin("good", STRONG), "0.9", "")))
        others, good = fetched(runs)
        assert outcome in others.outcome
        assert good.outcome == "noted"
        assert len(read_notes(runs / "strong")) == 1


class TestTheClientsTable:
    def test_is_found_between_its_warnings(self, kaggle, runs):
        table = listed((11, with_origin('a "quoted"\ntext, in two lines', STRONG), "0.7", ""))
        kaggle(f"Warning: Looks like you're using an outdated version\n{table}", err="one, more")
        (found,) = fetched(runs)
        assert found.message == 'a "quoted"\ntext, in two lines'
        assert read_notes(runs / "strong")[0].text == 'Kaggle 11, pack 3f2a9c1e: a "quoted" text, in two lines'

    def test_of_no_submissions_is_none(self, kaggle, runs):
        kaggle("No submissions found")
        assert fetched(runs) == []

    @pytest.mark.parametrize(
        ("answer", "kind", "words"),
        [
            (
                ("", 1, "403 Client Error: Forbidden for url: https://x"),
                OutputError,
                "shows this account no submi.*join",
            ),
            (
                ("", 1, "500 Server Error: oops"),
                OutputError,
                "Kaggle's client says: 500 Server Error: oops - try again",
            ),
            (("usage: kaggle", 0, ""), OutputError, "Kaggle's client says: usage: kaggle - is it version 2?"),
            (("Authentication required", 1, ""), ConfigError, "run: kaggle auth login"),
        ],
    )
    def test_that_does_not_come_is_one_line(self, kaggle, runs, answer, kind, words):
        kaggle(answer[0], code=answer[1], err=answer[2])
        with pytest.raises(kind, match=words):
            fetched(runs)

    def test_needs_the_client(self, runs, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(MissingExtraError):
            fetched(runs)


@pytest.mark.parametrize(
    "origin", [STRONG, Origin("two words, pack", None, "0123abcd"), Origin("a [b]", 1, "0123abcd")]
)
@pytest.mark.parametrize("message", ["birdinfer", "a [run of, pack 3f2a9c1e]", ""])
def test_what_push_writes_is_read_as_it_was_meant(origin, message):
    assert read_origin(with_origin(message, origin)) == (message, origin)
