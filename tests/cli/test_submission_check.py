"""What the command line says of a submission, and with which exit code it leaves."""

import json

import pytest

SAMPLE = "row_id,comcuc,0012\nsoundscape_7_5,0,0\nsoundscape_7_10,0,0\n"
GOOD = "row_id,comcuc,0012\nsoundscape_7_5,0.25,0.5\nsoundscape_7_10,0.75,0.125\n"


@pytest.fixture
def paths(tmp_path):
    """Writes a submission and its sample; their paths."""

    def write(submission=GOOD, sample=SAMPLE):
        (tmp_path / "submission.csv").write_text(submission)
        (tmp_path / "sample.csv").write_text(sample)
        return tmp_path / "submission.csv", "--sample", tmp_path / "sample.csv"

    return write


def test_a_good_submission_is_exit_0(birdinfer, paths):
    code, out, err = birdinfer("submission", "check", *paths())
    assert (code, err) == (0, "")
    first, last = out.splitlines()
    assert first.endswith("submission.csv: 2 rows, 2 columns, compared with the format of 2025 (guessed)")
    assert last == "good"


def test_faults_are_exit_3_a_line_each_the_worst_first(birdinfer, paths):
    broken = GOOD.replace("0012", "12").replace("_10,", "_12,").replace("0.25", "[bold]")
    code, out, err = birdinfer("submission", "check", *paths(broken), "--year", "2023")
    assert (code, err) == (3, "")
    lines = out.splitlines()
    assert lines[0].endswith("compared with the format of 2023 (asked for)")
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        "fault    labels read as numbers",
        "fault    end seconds that are no multiple of 5",
        "fault    rows missing",
        "fault    rows that are not in the sample",
        "fault    text where a number is needed",
    ]
    assert lines[1] == (
        "fault    labels read as numbers: '12' for '0012' - Kaggle: Submission Scoring Error "
        "- read labels as text (dtype=str)"
    )
    assert "soundscape_7_5, comcuc holds [bold]" in lines[5]
    assert lines[-1] == "5 kinds of fault"


def test_warnings_are_exit_0(birdinfer, paths):
    code, out, _ = birdinfer("submission", "check", *paths(GOOD.replace("0.75,0.125", "0.25,0.5")))
    assert code == 0
    assert "\nwarning  all rows say the same: 2 rows - Kaggle: scores it" in out
    assert out.endswith("\ngood, 1 warnings\n")


def test_json_is_one_line(birdinfer, paths):
    code, out, _ = birdinfer("submission", "check", *paths(GOOD.replace("0.25", "")), "--json")
    assert code == 3
    assert out.count("\n") == 1
    shown = json.loads(out)
    assert (shown["year"], shown["year_guessed"], shown["rows"], shown["columns"], shown["good"]) == (
        2025,
        True,
        2,
        2,
        False,
    )
    (finding,) = shown["findings"]
    assert finding["line"].startswith("empty cells: soundscape_7_5, comcuc - Kaggle: Submission Scoring Error")
    assert {key: finding[key] for key in ("kind", "fault", "times", "first")} == {
        "kind": "empty", "fault": True, "times": 1, "first": ["soundscape_7_5, comcuc"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check", "none.csv"], "birdinfer: none.csv: no such file\n"),
        (
            ["check", "none.csv", "--year", "2019"],
            "birdinfer: --year: 2019 is not known - choose one of 2021 to 2026\n",
        ),
        (["convert", "none.csv", "-o", "out.csv", "--year", "2021"], "birdinfer: none.csv: no such file\n"),
    ],
)
def test_wrong_use_is_exit_2_and_one_line(birdinfer, arguments, problem):
    assert birdinfer("submission", *arguments) == (2, "", problem)


def test_a_damaged_sample_is_exit_2(birdinfer, paths):
    code, out, err = birdinfer("submission", "check", *paths(sample="id,a\n1,2\n"))
    assert (code, out) == (2, "")
    assert "its first column is 'id', needed is 'row_id'" in err


def test_a_converted_table_passes_the_check(birdinfer, paths, tmp_path):
    given, *_ = paths()
    made = tmp_path / "lists.csv"
    code, out, _ = birdinfer("submission", "convert", given, "-o", made, "--year", "2021", "--threshold", "0.5")
    assert (code, out) == (0, f"{made}: 2 rows in the format of 2021, made from that of 2025\n")
    assert made.read_text() == "row_id,birds\nsoundscape_7_5,0012\nsoundscape_7_10,comcuc\n"
    assert birdinfer("submission", "check", made, "--sample", made)[0] == 0
