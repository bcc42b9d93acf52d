import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from birdinfer.cli.score import score, score_submission
from birdinfer.errors import InputNotFoundError, LabelError, MetadataError

app = typer.Typer()
app.command()(score)

TRUTH = "row_id,a,b,0012\nx_5,1,0,0\nx_10,0,1,0\nx_15,0,0,0\n"
SUBMISSION = "row_id,a,b,0012\nx_5,0.9,0.5,0.1\nx_10,0.2,0.4,0.2\nx_15,0.1,0.1,0.3\n"


@pytest.fixture
def paths(tmp_path):
    """Writes a submission and a truth and returns their paths."""

    def write(submission=SUBMISSION, truth=TRUTH):
        for name, content in (("submission.csv", submission), ("truth.csv", truth)):
            (tmp_path / name).write_text(content)
        return tmp_path / "submission.csv", tmp_path / "truth.csv"

    return write


def run(paths, *options):
    result = CliRunner().invoke(app, [*map(str, paths), *options])
    if result.exception:
        raise result.exception
    return result


class TestScoreSubmission:
    def test_counts_and_metrics(self, paths):
        from birdinfer.evaluation.metrics import padded_cmap

        report = score_submission(*paths())
        assert report.macro_roc_auc == pytest.approx((1.0 + 0.5) / 2)
        truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
        scores = np.array([[0.9, 0.5, 0.1], [0.2, 0.4, 0.2], [0.1, 0.1, 0.3]])
        assert report.padded_cmap == pytest.approx(padded_cmap(truth, scores))
        assert (report.rows, report.classes_scored, report.extra_rows, report.extra_columns) == (3, 2, 0, [])
        assert [tuple(each) for each in report.classes] == [("a", 1.0, 1), ("b", 0.5, 1), ("0012", None, 0)]

    def test_rows_and_columns_are_matched_by_name(self, paths):
        shuffled = "b,0012,row_id,a\n0.1,0.3,x_15,0.1\n0.5,0.1,x_5,0.9\n0.4,0.2,x_10,0.2\n"
        assert score_submission(*paths(shuffled)) == score_submission(*paths())

    def test_extra_rows_and_columns_are_left_out_and_counted(self, paths):
        extra = "row_id,z,a,b,0012\nx_5,1,0.9,0.5,0.1\nx_10,1,0.2,0.4,0.2\nx_15,0,0.1,0.1,0.3\nx_20,0,1,1,1\n"
        report = score_submission(*paths(extra))
        assert (report.extra_rows, report.extra_columns) == (1, ["z"])
        assert report.macro_roc_auc == score_submission(*paths()).macro_roc_auc

    @pytest.mark.parametrize(
        ("submission", "truth", "message"),
        [
            (
                "row_id,a,b,0012\nx_5,0,0,0\n",
                TRUTH + "x_20,0,0,0\nx_25,0,0,0\n",
                r"submission.csv: lacks 4 of 5 rows of .*truth.csv: x_10, x_15, x_20, \.\.\.$",
            ),
            ("row_id,a\nx_5,0\nx_10,0\nx_15,0\n", TRUTH, r"submission.csv: lacks 2 of 3 columns of .*: b, 0012$"),
            (SUBMISSION, "row_id,a\nx_5,0.5\n", r"truth.csv: row 'x_5', column 'a' holds 0.5 - truth is 0 or 1$"),
            (SUBMISSION, "row_id,a\nx_5,0\nx_5,1\n", r"truth.csv: row_id 'x_5' stands 2 times$"),
            (SUBMISSION.replace("0.9", ""), TRUTH, r"submission.csv: row 'x_5', column 'a' is empty - a finite number"),
            (
                SUBMISSION.replace("row_id", "id"),
                TRUTH,
                r"submission.csv: has no column row_id - its columns are: id",
            ),
        ],
    )
    def test_refuses_in_one_line(self, paths, submission, truth, message):
        with pytest.raises(MetadataError, match=message) as caught:
            score_submission(*paths(submission, truth))
        assert "\n" not in str(caught.value)

    def test_refuses_a_missing_file(self, paths, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"nowhere.csv: no such file"):
            score_submission(tmp_path / "nowhere.csv", paths()[1])


class TestScore:
    def test_prints_the_metrics(self, paths):
        output = run(paths()).stdout
        assert re.search(r"macro ROC-AUC +0.7500", output)
        assert re.search(r"padded cmAP +0\.\d{4}", output)
        assert re.search(r"rows +3\n", output)
        assert re.search(r"classes +2 scored of 3\n", output)

    def test_says_what_was_left_out(self, paths):
        result = run(paths(TRUTH.replace("0012", "0012,z").replace("0\n", "0,0\n") + "x_20,0,0,0,0\n"))
        assert "1 rows of the submission are not in the truth: left out" in result.stderr
        assert "1 columns of the submission are not in the truth: left out (z)" in result.stderr

    def test_says_where_padded_cmap_means_nothing(self, paths):
        assert "outside 0 to 1" in run(paths(SUBMISSION.replace("0.9", "3.9"))).stderr
        assert "outside 0 to 1" in run(paths(SUBMISSION.replace("0.9", "-0.9"))).stderr
        assert run(paths()).stderr == ""

    def test_per_class_lists_the_worst_first(self, paths):
        lines = run(paths(), "--per-class").stdout.splitlines()
        rows = [line.split() for line in lines[-3:]]
        assert rows == [["b", "0.5000", "1"], ["a", "1.0000", "1"], ["0012", "-", "0"]]

    def test_a_label_in_brackets_is_no_markup(self, paths):
        content = [table.replace("0012", "[bold]") for table in (SUBMISSION, TRUTH)]
        assert "[bold]" in run(paths(*content), "--per-class").stdout

    def test_json_is_one_line(self, paths):
        output = run(paths(), "--json").stdout
        assert output.count("\n") == 1
        line = json.loads(output)
        assert line.pop("padded_cmap") == pytest.approx(score_submission(*paths()).padded_cmap)
        assert line == {
            "macro_roc_auc": 0.75,
            "rows": 3,
            "classes": 3,
            "classes_scored": 2,
            "extra_rows": 0,
            "extra_columns": [],
        }

    def test_json_lists_classes_when_asked(self, paths):
        line = json.loads(run(paths(), "--json", "--per-class").stdout)
        assert line["per_class"]["0012"] == {"roc_auc": None, "positives": 0}
        assert line["per_class"]["a"] == {"roc_auc": 1.0, "positives": 1}

    def test_no_scorable_class_is_null_in_json_and_a_word_on_screen(self, paths):
        silent = TRUTH.replace(",1", ",0")
        assert json.loads(run(paths(truth=silent), "--json").stdout)["macro_roc_auc"] is None
        result = run(paths(truth=silent))
        assert re.search(r"macro ROC-AUC +-\n", result.stdout)
        assert "there is no ROC-AUC" in result.stderr

    def test_an_error_leaves_the_command_as_itself(self, paths):
        with pytest.raises(MetadataError):
            run(paths(truth="a\n"))


CASES = Path(__file__).parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not part of the repository")
@pytest.mark.parametrize(
    "truth",
    [
        "tables/score_labels_of_2026/labels.csv",
        "tables/score_usage_column_and_bool/truth_usage.csv",
        "tables/score_usage_column_and_bool/truth_bool.csv",
        "tables/prior_takes_lists_for_species/labels_list.csv",
        "tables/prior_takes_lists_for_species/labels_space.csv",
    ],
)
def test_truths_as_people_have_them_are_one(truth):
    report = score_submission(CASES / "tables/score_labels_of_2026/sub.csv", CASES / truth)
    assert (report.macro_roc_auc, report.rows, report.classes_scored, report.extra_rows) == (1.0, 48, 3, 0)


@pytest.mark.parametrize("name", ["raven.txt", "audacity.txt"])
@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not part of the repository")
def test_what_annotators_have_is_a_truth(paths, name):
    submission, _ = paths("row_id,aaa,bbb\nSITE_20250227_010000_5,0.9,0.1\nSITE_20250227_010000_10,0.2,0.2\n")
    report = score_submission(submission, CASES / "field/11_truth_as_people_have_it" / name)
    assert [(each.label, each.roc_auc, each.positives) for each in report.classes] == [
        ("aaa", 1.0, 1),
        ("bbb", None, 0),
    ]


class TestAnnotations:
    SUBMISSION = "row_id,a,b\nS/x_5,0.9,0.5\nS/x_10,0.2,0.4\n"
    TAXONOMY = "primary_label,scientific_name,common_name\na,Turdus merula,Blackbird\nb,Parus major,Great Tit\n"

    def test_names_are_known_with_a_taxonomy(self, paths, tmp_path):
        (tmp_path / "taxonomy.csv").write_text(self.TAXONOMY)
        two = paths(self.SUBMISSION, "Begin File,Begin Time (s),End Time (s),Species\nx.wav,1,2,turdus merula\n")
        result = run(two, "--taxonomy", str(tmp_path / "taxonomy.csv"))
        assert re.search(r"macro ROC-AUC +1.0000", result.stdout)
        with pytest.raises(LabelError, match=r"'turdus merula' .row 2. - labels are looked for; .* with --taxonomy"):
            run(two)

    def test_what_was_left_out_of_the_truth_is_a_line(self, paths):
        result = run(paths(self.SUBMISSION, "filename,start,end,primary_label\nS\\x.WAV,0,5,a\n"), "--json")
        assert result.stderr == "1 of 2 rows have no window in the truth: no species in them\n"
        assert json.loads(result.stdout)["macro_roc_auc"] == 1.0


class TestSpellings:
    def test_rows_of_recordings_in_another_spelling_are_found(self, paths):
        truth = TRUTH.replace("x_", "D:\\cards\\x.WAV_")
        assert score_submission(*paths(truth=truth)).macro_roc_auc == score_submission(*paths()).macro_roc_auc

    def test_two_recordings_never_become_one(self, paths):
        truth = "row_id,a,b,0012\nA/x_5,1,0,0\nB/x_5,0,1,0\n"
        with pytest.raises(MetadataError, match=r"lacks 2 of 2 rows of .*: A/x_5, B/x_5"):
            score_submission(*paths(truth=truth))

    def test_a_column_that_is_spelled_otherwise_is_named(self, paths):
        with pytest.raises(MetadataError, match=r"lacks 2 of 3 columns of .*: 'A' is 'a' but for case, '12' is '00"):
            score_submission(*paths(truth=TRUTH.replace("a,b,0012", "A,b,12")))
