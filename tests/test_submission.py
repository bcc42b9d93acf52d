import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, MetadataError
from birdinfer.soundscapes import SoundscapeResult
from birdinfer.spool import ScoreSpool
from birdinfer.status import Status
from birdinfer.submission import SubmissionWriter, Written, read_sample, write_file_report

LABELS = ("comcuc", "0012", "1161364")
FALLBACK = (0.1, 0.2, 0.3)


def write(tmp_path, stems, sample=None, **options):
    """Write a submission of stems -> number of windows (None: failed); its rows as lists of text."""
    rng = np.random.default_rng(0)
    results = []
    with ScoreSpool(tmp_path, len(LABELS)) as spool:
        for stem, n_windows in stems.items():
            if n_windows:
                spool.add(stem, rng.random((n_windows, len(LABELS)), np.float32))
            results.append(SoundscapeResult(Path(f"{stem}.ogg"), Status.ok if n_windows else Status.unreadable))
        writer = SubmissionWriter(LABELS, FALLBACK, WindowConfig(), sample=sample, **options)
        written = writer.write(tmp_path / "submission.csv", spool, results)
        scores = {stem: spool.scores(stem) for stem in stems}
    with (tmp_path / "submission.csv").open(newline="") as file:
        return list(csv.reader(file)), scores, written


def sample_of(tmp_path, header, row_ids):
    path = tmp_path / "sample_submission.csv"
    path.write_text(
        "\n".join([",".join(header), *(f"{row_id}," + ",".join("0" * (len(header) - 1)) for row_id in row_ids)])
    )
    return read_sample(path)


def test_pitfall_6_the_stem_is_used_as_it_stands(tmp_path):
    rows, _, _ = write(tmp_path, {"soundscape_42": 2, "BC2026_Test_0001_S05_20250227_010002": 1})
    assert [row[0] for row in rows] == [
        "row_id", "soundscape_42_5", "soundscape_42_10", "BC2026_Test_0001_S05_20250227_010002_5",
    ]  # fmt: skip


def test_pitfall_6_numeric_labels_keep_their_zeros(tmp_path):
    rows, _, _ = write(tmp_path, {"a": 1})
    assert rows[0] == ["row_id", "comcuc", "0012", "1161364"]


def test_scores_survive_the_table_in_order(tmp_path):
    rows, scores, _ = write(tmp_path, {"a": 12})
    found = np.array([row[1:] for row in rows[1:]], np.float32)
    np.testing.assert_allclose(found, scores["a"], rtol=1e-6)
    assert np.array_equal(found.argsort(axis=0), scores["a"].argsort(axis=0))


def test_a_sample_decides_rows_columns_and_order(tmp_path):
    sample = sample_of(tmp_path, ["row_id", "1161364", "comcuc"], ["b_10", "a_5", "gone_5", "a_15"])
    rows, scores, written = write(tmp_path, {"a": 2, "b": 2}, sample)
    assert rows[0] == ["row_id", "1161364", "comcuc"]
    assert [row[0] for row in rows[1:]] == ["b_10", "a_5", "gone_5", "a_15"]
    np.testing.assert_allclose(np.array(rows[1][1:], float), scores["b"][1, [2, 0]], rtol=1e-6)
    assert rows[3][1:] == rows[4][1:] == ["0.3", "0.1"]  # no such file; a window past the file's end
    assert written == Written(rows=4, fallback_rows=2, unused_labels=1)


def test_a_failed_file_gets_the_fallback_and_as_many_rows_as_most(tmp_path):
    rows, _, written = write(tmp_path, {"a": 3, "broken": None, "b": 3, "c": 1})
    assert [row[0] for row in rows[1:]].count("broken_15") == 1
    assert [row[1:] for row in rows if row[0].startswith("broken")] == [["0.1", "0.2", "0.3"]] * 3
    assert written.fallback_rows == 3


def test_one_failed_file_alone_still_has_a_row(tmp_path):
    assert len(write(tmp_path, {"broken": None})[0]) == 2


@settings(max_examples=25, deadline=None)
@given(order=st.permutations([f"{stem}_{end}" for stem in ("a_1", "b") for end in (5, 10, 15)]))
def test_any_order_of_a_sample_gets_the_same_values(tmp_path_factory, order):
    tmp_path = tmp_path_factory.mktemp("order")
    rows, scores, _ = write(tmp_path, {"a_1": 3, "b": 3}, sample_of(tmp_path, ["row_id", *LABELS], order))
    for row in rows[1:]:
        stem, _, end = row[0].rpartition("_")
        np.testing.assert_allclose(np.array(row[1:], float), scores[stem][int(end) // 5 - 1], rtol=1e-6)


def test_2021_lists_what_was_heard(tmp_path):
    rows, scores, _ = write(tmp_path, {"3575_COL_20191231": 4}, year=2021, threshold=0.6)
    assert rows[0] == ["row_id", "birds"]
    for index, row in enumerate(rows[1:]):
        heard = [label for label, score in zip(LABELS, scores["3575_COL_20191231"][index], strict=True) if score >= 0.6]
        assert row == [f"3575_COL_{5 * index + 5}", " ".join(heard) or "nocall"]
    assert write(tmp_path, {"1_COR_2": 1}, year=2021, threshold=1.0)[0][1] == ["1_COR_5", "nocall"]


def test_2022_asks_about_each_species(tmp_path):
    rows, scores, _ = write(tmp_path, {"soundscape_7": 1}, year=2022)
    assert rows == [
        ["row_id", "target"],
        *([f"soundscape_7_{label}_5", str(bool(scores["soundscape_7"][0, column] >= 0.5))]
          for column, label in enumerate(LABELS)),
    ]  # fmt: skip
    sample = sample_of(tmp_path, ["row_id", "target"], ["soundscape_7_0012_5"])
    assert len(write(tmp_path, {"soundscape_7": 1}, sample, year=2022)[0]) == 2


def test_an_unknown_year_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="2019 is not known - choose one of 2021 to 2026"):
        write(tmp_path, {"a": 1}, year=2019)


def test_windows_that_do_not_end_at_whole_seconds_are_refused():
    """Their rows would be looked up under a rounded end, and hold the fallback without a word."""
    with pytest.raises(ConfigError, match=r"window_seconds: is 2\.5, row ids count whole seconds"):
        SubmissionWriter(LABELS, FALLBACK, WindowConfig(2.5))


@pytest.mark.parametrize(
    ("header", "row_ids", "complaint"),
    [
        (["id", "comcuc"], ["a_5"], "first column is 'id', needed is 'row_id'"),
        (["row_id", "comcuc", "comcuc"], ["a_5"], "column 'comcuc' stands 2 times"),
        (["row_id", "comcuc"], ["a_5", "b_5", "a_5"], "row_id 'a_5' stands 2 times"),
        (["row_id", "comcuc"], [], "has no rows"),
        (["row_id", "comcuc", "houspa"], ["a_5"], "1 labels that the bundle does not score: houspa"),
        (["row_id", "comcuc"], ["a_five"], "row_id 'a_five' does not end in _<end second>"),
        (["row_id", "comcuc"], ["5"], "row_id '5' does not end in"),
        (["row_id", "birds"], ["a_5"], "are those of 2021 or 2022: give --year"),
    ],
)
def test_a_sample_that_cannot_be_met_is_refused_in_one_line(tmp_path, header, row_ids, complaint):
    with pytest.raises(MetadataError, match=complaint) as caught:
        write(tmp_path, {"a": 1}, sample_of(tmp_path, header, row_ids))
    assert str(caught.value).startswith(str(tmp_path / "sample_submission.csv"))


@pytest.mark.parametrize("year", [2021, 2022])
def test_a_sample_of_another_year_is_refused(tmp_path, year):
    with pytest.raises(MetadataError, match=f"not those of {year}"):
        write(tmp_path, {"a": 1}, sample_of(tmp_path, ["row_id", *LABELS], ["a_5"]), year=year)


def test_an_unknown_species_of_2022_is_refused(tmp_path):
    with pytest.raises(MetadataError, match="does not score: houspa"):
        write(tmp_path, {"a": 1}, sample_of(tmp_path, ["row_id", "target"], ["a_houspa_5"]), year=2022)


def test_an_empty_or_missing_sample_is_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(MetadataError, match="first column is 'missing'"):
        read_sample(tmp_path / "empty.csv")
    with pytest.raises(InputNotFoundError):
        read_sample(tmp_path / "gone.csv")


def test_names_with_commas_and_quotes_are_quoted(tmp_path):
    rows, _, _ = write(tmp_path, {'a,"b"': 1})
    assert rows[1][0] == 'a,"b"_5'


def test_the_file_report_names_every_file(tmp_path):
    results = [
        SoundscapeResult(Path("a.ogg"), Status.ok, n_rows=12, seconds=60),
        SoundscapeResult(Path("b.ogg"), Status.unreadable, problem="x, y"),
        SoundscapeResult(Path("c.wav"), Status.truncated, None, 5, 23.4, 60.0, "without overlap", "truncated: 23.4"),
    ]
    write_file_report(tmp_path / "r.csv", results)
    with (tmp_path / "r.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["file", "status", "seconds", "expected_seconds", "rows", "level", "problem"],
            ["a.ogg", "ok", "60.000", "", "12", "", ""],
            ["b.ogg", "unreadable", "0.000", "", "0", "", "x, y"],
            ["c.wav", "truncated", "23.400", "60.000", "5", "without overlap", "truncated: 23.4"],
        ]


def ends_of(tmp_path, *files):
    """Files as (status, rows that are scored, seconds expected) -> their last row's end, rows filled in all."""
    results = []
    with ScoreSpool(tmp_path, len(LABELS)) as spool:
        for index, (status, n_rows, expected) in enumerate(files):
            if n_rows:
                spool.add(str(index), np.full((n_rows, len(LABELS)), 0.7, np.float32))
            results.append(SoundscapeResult(Path(f"{index}.wav"), status, None, n_rows, expected_seconds=expected))
        written = SubmissionWriter(LABELS, FALLBACK, WindowConfig()).write(tmp_path / "s.csv", spool, results)
    ends = {}
    with (tmp_path / "s.csv").open(newline="") as file:
        for row in list(csv.reader(file))[1:]:
            stem, _, end = row[0].rpartition("_")
            ends[stem] = int(end)
    return list(ends.values()), written.fallback_rows


def test_every_window_that_should_be_there_has_a_row(tmp_path):
    """Of a file that breaks off, what its header claims beyond is filled; 59.999 and 60.001 s are twelve windows."""
    files = [(Status.truncated, 5, 59.999), (Status.truncated, 5, 60.001), (Status.skipped_by_budget, 0, 30.4)]
    assert ends_of(tmp_path, *files) == ([60, 60, 30], 7 + 7 + 6)
    assert ends_of(tmp_path, (Status.skipped_by_budget, 3, 20.0), (Status.stopped, 0, None)) == ([20, 20], 1 + 4)


def test_rows_that_were_scored_are_never_cut_to_a_claim(tmp_path):
    assert ends_of(tmp_path, (Status.damaged, 4, 5.0)) == ([20], 0)


@pytest.mark.parametrize("claim", [0.0, -3.0, float("nan"), float("inf"), 1e18])
def test_claims_beyond_belief_make_no_rows(tmp_path, claim):
    assert ends_of(tmp_path, (Status.truncated, 2, claim)) == ([10], 0)


def test_a_run_that_has_scored_nothing_yet_writes_what_it_expects(tmp_path):
    assert ends_of(tmp_path, (Status.stopped, 0, 60.0), (Status.stopped, 0, None)) == ([60, 60], 24)


def test_2021_refuses_files_that_differ_only_in_what_its_rows_leave_out():
    """One row would stand twice in the table, and both files' with the scores of one."""
    paths = [Path("3575_COL_20170105.ogg"), Path("3575_COL_20170106.ogg")]
    with pytest.raises(AudioError, match=r"3575_COL_20170106.ogg: would have the same rows as 3575_COL_20170105.ogg"):
        SubmissionWriter(LABELS, FALLBACK, WindowConfig(), year=2021).check_names(paths)
    SubmissionWriter(LABELS, FALLBACK, WindowConfig(), year=2021).check_names(paths[:1] * 2)
    SubmissionWriter(LABELS, FALLBACK, WindowConfig()).check_names(paths)
