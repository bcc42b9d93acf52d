"""Each planted problem is found with its text, and what SubmissionWriter writes has none."""

import gzip
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import LABELS

from birdinfer.audio.status import Status
from birdinfer.config import WindowConfig
from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter
from birdinfer.submission.check import check_submission
from birdinfer.submission.formats import read_sample
from birdinfer.submission.problems import RULES, Kind, Outcome
from birdinfer.tables.csv import CsvWriter

YEARS = [2021, 2022, 2023, 2024, 2025, 2026]
ROW_IDS = tuple(f"soundscape_{name}_{end}" for name in (7, 42) for end in range(5, 65, 5))
VALUES = np.random.default_rng(0).random((len(ROW_IDS), len(LABELS))).round(7)
LISTS = "row_id,birds\n1_COL_5,comcuc houspa\n1_COL_10,nocall\n1_COL_15,houspa\n"
TRUTHS = "row_id,target\nsoundscape_7_akiapo_5,True\nsoundscape_7_aniani_5,False\nsoundscape_7_apapan_5,False\n"


def table(row_ids=ROW_IDS, columns=LABELS, values=VALUES):
    lines = [
        ["row_id", *columns],
        *([row_id, *map(repr, row)] for row_id, row in zip(row_ids, values.tolist(), strict=True)),
    ]
    return "\n".join(map(",".join, lines)) + "\n"


GOOD = table()
FIRST = f"{ROW_IDS[0]},{float(VALUES[0, 0])!r},"


@pytest.fixture
def check(tmp_path):
    """Checks a submission against a good sample; the kinds found, and the whole report."""

    def run(content, sample=GOOD, year=None):
        path = tmp_path / "submission.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "sample_submission.csv").write_text(sample or "")
        report = check_submission(path, tmp_path / "sample_submission.csv" if sample else None, year)
        return [problem.kind for problem in report.problems], report

    return run


@pytest.mark.parametrize("content", [GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("\n", "\n\n"), GOOD.rstrip("\n")])
def test_a_good_table_is_good_whatever_its_line_ends(check, content):
    kinds, report = check(content)
    assert kinds == []
    assert report.is_ok
    assert (report.n_rows, report.n_columns) == (len(ROW_IDS), len(LABELS))


def swapped(text, one, two):
    """``one`` and ``two`` take each other's place in a text."""
    return re.sub(f"{re.escape(one)}|{re.escape(two)}", lambda found: two if found[0] == one else one, text)


def with_cell(text):
    """The good table with another first cell."""
    return GOOD.replace(FIRST, f"{ROW_IDS[0]},{text},")


LINES = GOOD.splitlines(keepends=True)
FAULTS = {
    "a row is missing": ("".join(LINES[:-1]), Kind.rows_missing, "rows missing: soundscape_42_60"),
    "a row more": (GOOD + LINES[-1].replace("_42_", "_43_"), Kind.rows_extra, "not in the sample: soundscape_43_60"),
    "a row twice": (GOOD + LINES[-1], Kind.rows_doubled, "rows that stand more than once: soundscape_42_60"),
    "rows in another order": ("".join([LINES[0], *reversed(LINES[1:])]), Kind.row_order,
                              "another order: 23 x soundscape_42_55; soundscape_42_50; soundscape_42_45 ..."),
    "a column is missing": ("\n".join(line.rpartition(",")[0] for line in GOOD.splitlines()), Kind.columns_missing,
                            "columns missing: 47158son16"),
    "a column more": ("\n".join(f"{line},{line and 'x'}" for line in GOOD.splitlines()), Kind.columns_extra,
                      "columns that are not in the sample: x"),
    "a column twice": ("\n".join(f"{line},{line.rpartition(',')[2]}" for line in GOOD.splitlines()),
                       Kind.columns_doubled, "columns that stand more than once: 47158son16"),
    "columns in another order": (swapped(LINES[0], "comcuc", "0012") + "".join(LINES[1:]), Kind.column_order,
                                 "columns in another order: 2 x 0012 stands where comcuc belongs; comcuc stands where"),
    "row_id is not in front": ("\n".join(",".join([*line.split(",")[1:], line.split(",")[0]])
                                         for line in GOOD.splitlines()), Kind.column_order, "row_id is column 5"),
    "no row_id": (GOOD.replace("row_id", "id"), Kind.no_row_id, "no column row_id: the first is 'id'"),
    "labels read as numbers": (GOOD.replace("0012", "12"), Kind.labels_as_numbers,
                               "labels read as numbers: '12' for '0012'"),
    "labels read as floats": (GOOD.replace("1161364", "1161364.0"), Kind.labels_as_numbers,
                              "'1161364.0' for '1161364'"),
    "an index column": ("Unnamed: 0," + ",".join(f"{number},{line}" if number else line
                                                 for number, line in enumerate(LINES)).replace("\n,", "\n"),
                        Kind.index_column, "an index written as a column: 'Unnamed: 0'"),
    "an index without a name": ("".join(f"{number or ''},{line}" for number, line in enumerate(LINES)),
                                Kind.index_column, "written as a column: '' - Kaggle: Submission Scoring Error"),
    "an empty cell": (with_cell(""), Kind.empty, "empty cells: soundscape_7_5, comcuc - "),
    "NaN": (with_cell("NaN"), Kind.not_a_number, "NaN: soundscape_7_5, comcuc - Kaggle: Submission Scoring Error"),
    "infinity": (with_cell("-inf"), Kind.infinite, "infinite values: soundscape_7_5, comcuc holds -inf"),
    "text": (with_cell("high"), Kind.text, "text where a number is needed: soundscape_7_5, comcuc holds high"),
    "Python's own number": (with_cell("0_1"), Kind.text, "comcuc holds 0_1"),
    "a decimal comma": (with_cell('"0,5"'), Kind.text, "comcuc holds 0,5"),
    "above 1": (with_cell("1.0000001"), Kind.outside, "values outside 0 to 1: soundscape_7_5, comcuc holds 1.0000001"),
    "below 0": (with_cell("-1e-9"), Kind.outside, "comcuc holds -1e-9 - Kaggle: may score it wrongly"),
    "soundscape_ twice": (GOOD.replace("soundscape_7_60", "soundscape_soundscape_7_60"), Kind.prefix_twice,
                          "soundscape_ put in front twice: soundscape_soundscape_7_60"),
    "soundscape_ left out": (GOOD.replace("soundscape_7_60", "7_60"), Kind.prefix_missing,
                             "soundscape_ left out: 7_60"),
    "file endings": (GOOD.replace("soundscape_7_60", "soundscape_7.ogg_60"), Kind.file_ending, "soundscape_7.ogg_60"),
    "starts instead of ends": (GOOD.replace("soundscape_7_60", "soundscape_7_0"), Kind.start,
                               "end in second 0: soundscape_7_0"),
    "a second between rows": (GOOD.replace("soundscape_7_60", "soundscape_7_58"), Kind.between_rows,
                              "no multiple of 5: soundscape_7_58"),
    "a second that is no whole number": (GOOD.replace("soundscape_7_60", "soundscape_7_60.0"), Kind.no_end,
                                         "row ids without an end second: soundscape_7_60.0"),
    "row ids of another year": (GOOD.replace("soundscape_7_60", "H02_20230420_60"), Kind.grammar, "H02_20230420_60"),
    "a short row": (GOOD.replace(FIRST, f"{ROW_IDS[0]},"), Kind.cells, "soundscape_7_5 has 4, not 5"),
    "semicolons": (GOOD.replace(",", ";"), Kind.other_separator, "another separator than a comma: ';'"),
    "tabs": (GOOD.replace(",", "\t"), Kind.other_separator, r"another separator than a comma: '\t'"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), Kind.byte_order_mark, "byte order mark"),
    "gzip": (gzip.compress(GOOD.encode()), Kind.compressed, "compressed file: gzip"),
    "UTF-16": (GOOD.encode("utf-16"), Kind.not_text, "not a table of UTF-8 text: UTF-16"),
    "a byte that is no text": (GOOD.encode() + b"\xff_5,0,0,0,0\n", Kind.not_text, "not a table of UTF-8 text"),
    "an empty file": ("", Kind.no_rows, "no rows: the file is empty"),
    "only a header": (LINES[0], Kind.no_rows, "no rows: there is only a header"),
}  # fmt: skip
CAUSES = {
    Kind.no_row_id: {Kind.columns_extra},
    Kind.not_text: {Kind.no_row_id},
}
"""What comes with a fault beside missing and extra rows."""


@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_planted_problems(check, fault):
    content, kind, words = FAULTS[fault]
    kinds, report = check(content)
    assert kind in kinds
    assert not report.is_ok
    line = next(str(problem) for problem in report.problems if problem.kind is kind)
    assert words in line
    assert "\n" not in line
    consequences = {Kind.rows_missing, Kind.rows_extra, Kind.no_rows, Kind.no_row_id, Kind.columns_missing}
    assert set(kinds) <= {kind, *consequences, *CAUSES.get(kind, ())}


@given(st.permutations(range(len(ROW_IDS))), st.permutations(range(len(LABELS))))
def test_another_order_is_that_and_nothing_else(check, rows, columns):
    shuffled = table([ROW_IDS[row] for row in rows], [LABELS[column] for column in columns], VALUES[rows][:, columns])
    expected = [Kind.column_order] * (columns != sorted(columns)) + [Kind.row_order] * (rows != sorted(rows))
    assert check(shuffled)[0] == expected


def test_rows_are_out_of_order_that_stand_behind_a_later_one(check):
    _, report = check("".join([LINES[0], LINES[-1], *LINES[1:-1]]))
    assert [(problem.kind, problem.n_times) for problem in report.problems] == [(Kind.row_order, len(ROW_IDS) - 1)]


def test_check_uses_the_first_of_two_equal_columns(check):
    twice = "\n".join(f"{line},{line.split(',')[1]}" for line in with_cell("nan").splitlines())
    kinds, _ = check(re.sub(",nan$", ",0.5", twice, count=1, flags=re.MULTILINE))
    assert kinds == [Kind.columns_doubled, Kind.not_a_number]
    kinds, _ = check(twice.replace(",nan", ",0.5", 1))
    assert kinds == [Kind.columns_doubled]


def test_a_zip_is_found(check):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("submission.csv", GOOD)
    assert check(packed.getvalue())[0] == [Kind.compressed]


def test_all_faults_are_found_at_once_the_worst_first(check):
    broken = with_cell("nan").replace("0012", "12").replace("soundscape_42_60", "soundscape_42_61").replace(",", ";")
    assert check(b"\xef\xbb\xbf" + broken.encode())[0] == [
        Kind.other_separator, Kind.labels_as_numbers, Kind.between_rows, Kind.rows_missing, Kind.rows_extra,
        Kind.not_a_number, Kind.byte_order_mark,
    ]  # fmt: skip


def test_of_many_the_first_three_are_named_and_all_are_counted(check):
    _, report = check(table(values=np.full_like(VALUES, np.nan)))
    (problem,) = report.problems
    assert problem.n_times == VALUES.size
    assert problem.first == tuple(f"soundscape_7_5, {label}" for label in LABELS[:3])
    assert str(problem).startswith(f"NaN: {VALUES.size} x soundscape_7_5, comcuc; ")


def test_counts_hold_over_many_blocks_of_rows(check):
    row_ids = [f"soundscape_{index}_5" for index in range(1_000)]
    values = np.random.default_rng(1).random((1_000, 2))
    values[[0, 300, 999], [0, 1, 1]] = np.nan
    values[[255, 256], 0] = 2
    _, report = check(table(row_ids, ("a", "b"), values), sample=table(row_ids, ("a", "b"), values))
    assert [(problem.kind, problem.n_times) for problem in report.problems] == [
        (Kind.not_a_number, 3),
        (Kind.outside, 2),
    ]
    assert report.problems[0].first == ("soundscape_0_5, a", "soundscape_300_5, b", "soundscape_999_5, b")


class TestWarnings:
    def test_the_prior_in_all_rows(self, check):
        kinds, report = check(table(values=np.tile(VALUES[0], (len(VALUES), 1))))
        assert kinds == [Kind.all_equal]
        assert report.is_ok
        assert "all rows say the same: 24 rows - Kaggle: scores it" in str(report.problems[0])

    def test_a_constant_column(self, check):
        values = VALUES.copy()
        values[:, 1] = 0.25
        kinds, report = check(table(values=values))
        assert kinds == [Kind.constant_columns]
        assert report.problems[0].first == ("0012",)

    @pytest.mark.parametrize("odd_row", [0, 255, 256, 599])
    def test_a_column_that_changes_once_in_many_rows_is_not_constant(self, check, odd_row):
        rows = [f"soundscape_{index}_5" for index in range(600)]
        values = np.random.default_rng(5).random((600, 2))
        values[:, 0] = 0.25
        assert check(table(rows, ("a", "b"), values), sample=table(rows, ("a", "b"), values))[0] == [
            Kind.constant_columns
        ]
        values[odd_row, 0] = 0.75
        assert check(table(rows, ("a", "b"), values), sample=table(rows, ("a", "b"), values))[0] == []

    def test_one_row_is_not_constant(self, check):
        one = table(ROW_IDS[:1], LABELS, VALUES[:1])
        assert check(one, sample=one)[0] == []

    @pytest.mark.parametrize("digits", [0, 1, 2, 3])
    def test_few_digits(self, check, digits):
        rows = [f"soundscape_{index}_5" for index in range(100)]
        values = np.random.default_rng(2).random((100, 4)).round(digits)
        kinds, report = check(table(rows, LABELS, values), sample=table(rows, LABELS, values))
        assert kinds == [Kind.few_digits]
        assert report.problems[0].first == (f"{digits} behind the point",)

    @pytest.mark.parametrize("step", [1.0, 0.1, 0.01])
    def test_logits_that_were_rounded(self, check, step):
        rows = [f"soundscape_{index}_5" for index in range(100)]
        logits = np.round(np.random.default_rng(3).normal(0, 3, (100, 4)) / step) * step
        values = np.array([[float(f"{cell:.7g}") for cell in row] for row in 1 / (1 + np.exp(-logits))])
        kinds, report = check(table(rows, LABELS, values), sample=table(rows, LABELS, values))
        assert kinds == [Kind.rounded_logits]
        assert report.problems[0].first == (f"steps of {step:g}",)

    def test_seven_digits_are_no_grid(self, check):
        rows = [f"soundscape_{index}_5" for index in range(100)]
        values = np.random.default_rng(4).random((100, 4)).round(7)
        assert check(table(rows, LABELS, values), sample=table(rows, LABELS, values))[0] == []

    @pytest.mark.parametrize("content", [LISTS.replace("comcuc houspa", "nocall").replace("houspa", "nocall"),
                                         TRUTHS.replace("True", "False")])  # fmt: skip
    def test_no_detection_at_all(self, check, content):
        kinds, report = check(content, sample=content)
        assert kinds == [Kind.all_equal]
        assert report.is_ok


class TestListsAndTruths:
    def test_good_ones(self, check):
        assert check(LISTS, sample=LISTS)[0] == []
        assert check(TRUTHS, sample=TRUTHS)[0] == []

    @pytest.mark.parametrize(
        "cell", ["comcuc,houspa", "comcuc;houspa", "['comcuc']", "comcuc nocall", "comcuc comcuc", "0.5"]
    )
    def test_what_is_no_list_of_species(self, check, cell):
        kinds, report = check(LISTS.replace("comcuc houspa", f'"{cell}"'), sample=LISTS)
        assert kinds == [Kind.not_a_list]
        assert f"nor nocall alone: 1_COL_5 holds {cell} - Kaggle" in str(report.problems[0])

    @pytest.mark.parametrize("cell", ["true", "TRUE", "1", "0.5", "yes"])
    def test_what_is_no_truth(self, check, cell):
        kinds, report = check(TRUTHS.replace("True", cell), sample=TRUTHS)
        assert kinds == [Kind.not_a_truth]
        assert f"neither True nor False: soundscape_7_akiapo_5 holds {cell}" in str(report.problems[0])

    @pytest.mark.parametrize(("content", "full"), [(LISTS, "comcuc houspa"), (TRUTHS, "True")])
    def test_empty_cells_and_nan(self, check, content, full):
        assert check(content.replace(full, ""), sample=content)[0] == [Kind.empty]
        assert check(content.replace(full, "nan"), sample=content)[0] == [Kind.not_a_number]


class TestTheYear:
    @pytest.mark.parametrize(
        ("sample", "year"),
        [(LISTS, 2021), (TRUTHS, 2022), (GOOD, 2025), (GOOD.replace("soundscape_", "BC2026_"), 2026),
         (table(ROW_IDS[:1], [f"s{index}" for index in range(264)], np.zeros((1, 264))), 2023),
         (table(ROW_IDS[:1], [f"s{index}" for index in range(182)], np.zeros((1, 182))), 2024)],
    )  # fmt: skip
    def test_is_guessed_from_the_sample(self, check, sample, year):
        _, report = check(sample, sample=sample)
        assert (report.year, report.is_year_guessed) == (year, True)

    def test_is_guessed_from_the_submission_where_there_is_no_sample(self, check):
        kinds, report = check(LISTS, sample=None)
        assert (kinds, report.year) == ([], 2021)

    def test_decides_how_rows_are_spelt_where_there_is_no_sample(self, check):
        rows = GOOD.replace("soundscape_7", "H02_20230420")
        assert check(rows, sample=None, year=2026)[0] == []
        assert check(rows, sample=None, year=2025)[0] == [Kind.grammar]

    def test_of_another_sample_is_refused(self, check):
        with pytest.raises(MetadataError, match=r"not those of 2021 \(row_id,birds\) - give another --year"):
            check(GOOD, year=2021)
        with pytest.raises(MetadataError, match=r"not those of 2024 \(row_id,a column per species\)"):
            check(LISTS, sample=LISTS, year=2024)

    def test_that_never_was_is_refused(self, check):
        with pytest.raises(ConfigError, match="--year: 2020 is not known - choose one of 2021 to 2026"):
            check(GOOD, year=2020)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none\.csv: no such file"):
        check_submission(tmp_path / "none.csv")
    with pytest.raises(InputNotFoundError, match="no such file"):
        check_submission(tmp_path)


def test_a_table_in_another_format_is_reported_column_by_column(check):
    kinds, _ = check(GOOD, sample=LISTS)
    assert {Kind.columns_missing, Kind.columns_extra, Kind.rows_missing, Kind.rows_extra} <= set(kinds)


def test_names_that_a_terminal_would_obey_are_harmless(check):
    kinds, report = check(GOOD.replace("soundscape_7_60", "\x1b[2J" + "x" * 500))
    assert Kind.no_end in kinds
    assert all(str(problem).isprintable() and len(str(problem)) < 500 for problem in report.problems)


def test_every_kind_has_a_text():
    assert set(RULES) == set(Kind)
    assert len({rule.text for rule in RULES.values()}) == len(RULES)
    outcomes = [RULES[kind].outcome for kind in Kind]
    assert outcomes == sorted(outcomes, key=list(Outcome).index)


stems = st.sampled_from(["soundscape_7", "3575_COL_20170105", "H02_20230420_074000", "a,b", 'q"x'])


@given(
    st.sampled_from(YEARS), st.lists(stems, min_size=1, max_size=3, unique=True), st.integers(1, 4), st.integers(0, 99)
)
def test_what_is_written_for_any_year_passes_against_its_own_sample(tmp_path, year, names, n_windows, seed):
    chance = np.random.default_rng(seed)
    results = [SoundscapeResult(Path(f"{name}.ogg"), Status.ok) for name in names]
    score_store = ScoreStore(len(LABELS))
    for result in results:
        score_store.add(result.path, chance.random((n_windows, len(LABELS)), np.float32))
    writer = SubmissionWriter(LABELS, [0.1] * len(LABELS), WindowConfig(), year=year)
    writer.write(tmp_path / "submission.csv", score_store, results)
    asked = read_sample(tmp_path / "submission.csv")
    with (tmp_path / "sample.csv").open("w", newline="") as file:
        sample = CsvWriter(file)
        sample.row("row_id", asked.columns)
        for row_id in asked.row_ids:
            sample.row(row_id, [0] * len(asked.columns))
    for given_year in (year, None):
        report = check_submission(tmp_path / "submission.csv", tmp_path / "sample.csv", given_year)
        assert report.is_ok, [str(problem) for problem in report.problems]
        assert report.n_rows == len(asked.row_ids)


def test_endings_that_keep_two_recordings_apart_are_no_error(check):
    both = "row_id,a,b\nS1/x.wav_5,0.1,0.2\nS1/x.flac_5,0.3,0.4\n"
    assert check(both, sample=None)[1].is_ok
    _, report = check(both.replace("x.flac", "y.flac"), sample=None)
    (problem,) = [problem for problem in report.problems if problem.is_error]
    assert (problem.kind, problem.n_times) == (Kind.file_ending, 2)


@given(st.binary(max_size=80) | st.text('row_id,birdstarget\n\r"0.5_7nan;\t\ufeffé', max_size=80).map(str.encode))
def test_no_file_makes_a_check_fail(check, content):
    for sample in (GOOD, LISTS, TRUTHS, None):
        _, report = check(content, sample=sample)
        assert sample is None or not report.is_ok
