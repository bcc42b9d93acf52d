"""``birdinfer score --ablate`` from the command line; what it reckons is tested in tests/test_ablation.py."""

import json

import numpy as np
import pytest

from birdinfer.cli.ablate import recommendation, reservations

LABELS = ("comcuc", "0012", "frog")
TAXONOMY = """primary_label,scientific_name,class_name
frog,Hyla arborea,Amphibia
comcuc,Cuculus canorus,Aves
0012,Parus major,Aves
"""


@pytest.fixture
def tables(tmp_path):
    """Write a submission of calls of three rows in noise, and its truth."""

    def write(n_files=12, n_rows=8, n_with_truth=None):
        rng = np.random.default_rng(0)
        submission, truth = (["row_id," + ",".join(LABELS)] for _ in range(2))
        for file in range(n_files):
            calls = np.zeros((n_rows, len(LABELS)))
            for species in range(len(LABELS)):
                begin = rng.integers(0, n_rows - 2)
                calls[begin : begin + 3, species] = 1
            scores = 0.3 * calls + 0.7 * rng.random(calls.shape)
            for row in range(n_rows):
                row_id = f"H08_2025_{file}_{5 * (row + 1)}"
                submission.append(f"{row_id}," + ",".join(f"{value:.6f}" for value in scores[row]))
                truth.append(f"{row_id}," + ",".join(f"{value:.0f}" for value in calls[row]))
        (tmp_path / "submission.csv").write_text("\n".join(submission) + "\n")
        (tmp_path / "truth.csv").write_text("\n".join(truth[:n_with_truth]) + "\n")
        (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
        return tmp_path / "submission.csv", tmp_path / "truth.csv"

    return write


@pytest.fixture
def run_dir(tmp_path):
    """Out-of-fold scores of two folds, clips of a recording in one group."""
    rng = np.random.default_rng(0)
    folds = ["filename,primary_label,group,fold"]
    for fold in range(2):
        lines = ["filename,primary_label," + ",".join(LABELS)]
        for clip in range(12):
            label = LABELS[clip % 3]
            scores = 0.5 * rng.random(3) + 0.2 * (np.array(LABELS) == label)
            lines.append(f"{fold}/{clip}.ogg,{label}," + ",".join(f"{score:.6g}" for score in scores))
            folds.append(f"{fold}/{clip}.ogg,{label},rec{fold}_{clip // 2},{fold}")
        (tmp_path / "run" / f"fold{fold}").mkdir(parents=True)
        (tmp_path / "run" / f"fold{fold}" / "oof.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "run" / "folds.csv").write_text("\n".join(folds) + "\n")
    return tmp_path / "run"


def as_json(birdinfer, *arguments):
    code, out, _ = birdinfer("score", *arguments, "--ablate", "--json")
    assert code == 0
    assert out.count("\n") == 1
    return json.loads(out)


def without_cost(line):
    return line | {"trials": [trial | {"ms_per_thousand_rows": 0} for trial in line["trials"]]}


class TestSubmission:
    def test_smoothing_is_recommended_where_calls_last(self, birdinfer, tables):
        code, out, err = birdinfer("score", *tables(), "--ablate")
        assert code == 0
        lines = out.splitlines()
        assert lines[0].startswith("macro ROC-AUC  0.")
        assert "96 rows of 12 files, 3 classes scored" in lines[0]
        (smooth,) = (line.split() for line in lines if line.startswith("smooth "))
        assert smooth[1] == "alone"
        assert float(smooth[3]) > 0
        assert smooth[-1] == "take"
        (taken,) = (line for line in lines if line.startswith("take: "))
        assert "smooth" in taken
        assert "not tried: taxon_kernels: " in err

    def test_trials_alone_stand_in_the_order_of_their_gain(self, birdinfer, tables):
        lines = birdinfer("score", *tables(), "--ablate")[1].splitlines()
        gains = [float(line.split()[3]) for line in lines if " alone " in line]
        assert len(gains) > 5
        assert gains == sorted(gains, reverse=True)

    def test_steps_that_are_named_are_a_pipeline(self, birdinfer, tables):
        line = as_json(birdinfer, *tables(), "--post", "smooth", "--post", "file_max:power=0.5")
        assert [(trial["name"], trial["how"]) for trial in line["trials"]] == [
            ("smooth", "alone"),
            ("file_max:power=0.5", "alone"),
            ("smooth", "last"),
            ("file_max:power=0.5", "last"),
            ("all steps", "whole"),
        ]
        assert line["n_counted"] == 5

    def test_one_command_gives_one_result(self, birdinfer, tables):
        paths = tables()
        first, same, other = (as_json(birdinfer, *paths, "--seed", seed) for seed in (3, 3, 4))
        assert without_cost(first) == without_cost(same) != without_cost(other)

    def test_the_taxonomy_lets_steps_that_need_it_be_tried(self, birdinfer, tables):
        submission, truth = tables()
        line = as_json(birdinfer, submission, truth, "--taxonomy", submission.parent / "taxonomy.csv")
        assert "taxon_kernels" in {trial["name"] for trial in line["trials"]}

    def test_the_bundle_knows_the_species_too(self, birdinfer, tables, make_bundle):
        line = as_json(birdinfer, *tables(), "--bundle", make_bundle(labels=LABELS), "--post", "smooth")
        assert line["n_scored"] == 3

    def test_rows_without_truth_stay_neighbours(self, birdinfer, tables):
        line = as_json(birdinfer, *tables(n_with_truth=30), "--post", "smooth")
        assert (line["n_rows"], line["n_files"]) == (29, 4)

    def test_a_single_file_gives_a_note_and_no_recommendation(self, birdinfer, tables):
        _, out, err = birdinfer("score", *tables(n_files=1), "--ablate", "--post", "smooth")
        assert "cannot be determined" in out
        assert "nothing is recommended" in out
        assert "cannot be resampled" in err

    def test_few_files_give_a_note(self, birdinfer, tables):
        err = birdinfer("score", *tables(n_files=7), "--ablate")[2]
        assert "7 files are few: the intervals are rough" in err
        assert "7 files carry 3 trials at most" in err

    def test_the_picture_is_drawn(self, birdinfer, tables, tmp_path):
        pytest.importorskip("matplotlib")
        assert birdinfer("score", *tables(), "--ablate", "--post", "smooth", "--plot", tmp_path / "a.png")[0] == 0
        assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


class TestOutOfFold:
    def test_clips_of_a_group_are_resampled_together_and_time_is_no_trial(self, birdinfer, run_dir):
        line = as_json(birdinfer, "--oof", run_dir)
        assert (line["n_rows"], line["n_files"]) == (24, 12)
        conclusions = {trial["name"]: trial["verdict"] for trial in line["trials"]}
        assert conclusions["smooth"] == conclusions["file_max"] == "leave: changes no order"

    def test_it_is_said_why(self, birdinfer, run_dir):
        _, out, err = birdinfer("score", "--ablate", "--oof", run_dir)
        assert "change no order of rows here: smooth; " in out
        assert "steps over time find no neighbours" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ablate"], "--ablate: needs scores and their truth"),
        (["{s}", "--ablate"], "--ablate: needs scores and their truth"),
        (["{s}"], "score: needs two tables"),
        (["{s}", "{t}", "--post", "smooth"], "--post: goes with --ablate alone"),
        (["--oof", "runs/x"], "--oof: goes with --ablate alone"),
        (["{s}", "{t}", "--resamples", "10"], "--resamples: goes with --ablate alone"),
        (["{s}", "{t}", "--seed", "0"], "--seed: goes with --ablate alone"),
        (["{s}", "{t}", "--ablate", "--plot", "{s}/a.png"], "submission.csv/a.png: cannot be written"),
        (["{s}", "{t}", "--ablate", "--oof", "runs/x"], "--oof: takes the place of submission and truth"),
        (["--ablate", "--oof", "runs/x"], "runs/x: no such folder"),
        (["{s}", "{t}", "--ablate", "--per-class"], "--per-class: does not go with --ablate"),
        (["{s}", "{t}", "--ablate", "--post", "smoth"], "there is no step 'smoth'"),
        (["{s}", "{t}", "--ablate", "--resamples", "100"], "--resamples: 100 resamples cannot distinguish"),
        (["{s}", "{t}", "--ablate", "--plot", "a.pdf"], "a.pdf: ends in .pdf, a picture in .png"),
        (["{s}", "{t}", "--ablate", "--bundle", "a", "--taxonomy", "b"], "--taxonomy: says what --bundle says"),
        (["{s}", "{t}", "--ablate", "--bundle", "nowhere"], "nowhere: is not a bundle"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(birdinfer, tables, options, message):
    submission, truth = tables()
    code, out, err = birdinfer("score", *(option.format(s=submission, t=truth) for option in options))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_scores_that_are_no_probabilities_are_refused(birdinfer, tables):
    submission, truth = tables()
    submission.write_text(submission.read_text().replace(",0.", ",7.", 1))
    code, _, err = birdinfer("score", submission, truth, "--ablate")
    assert code == 2
    assert "row 'H08_2025_0_5', column 'comcuc' holds 7." in err
    assert "not a probability - try steps on what predict writes, without post-processing" in err


def test_a_taxonomy_that_lacks_columns_is_refused(birdinfer, tables):
    submission, truth = tables()
    taxonomy = submission.parent / "taxonomy.csv"
    taxonomy.write_text(TAXONOMY.replace("frog", "toad"))
    code, _, err = birdinfer("score", submission, truth, "--ablate", "--taxonomy", taxonomy)
    assert code == 2
    assert "taxonomy.csv: lacks 1 of 3 columns of the table, first 'frog'" in err


class TestWords:
    def test_what_is_promising_says_among_how_many(self, birdinfer, tables):
        out = birdinfer("score", *tables(n_files=7), "--ablate", "--post", "smooth", "--post", "local_max")[1]
        assert "promising: excludes zero alone, not among 5 tried" in out

    @pytest.mark.parametrize(
        ("n_files", "n_informative", "n_counted", "words"),
        [
            (3, 3, 1, "3 files are too few for any trial"),
            (8, 8, 7, "8 files carry 6 trials at most, not 7"),
            (60, 8, 7, "8 files with a scored species (of 60) carry 6 trials at most, not 7"),
            (60, 1, 1, "all positives are in one file, which cannot be resampled"),
            (12, 12, 20, ""),
        ],
    )
    def test_reservations(self, n_files, n_informative, n_counted, words):
        from birdinfer.evaluation.ablation import Ablation

        lines = reservations(Ablation(0.8, 100, 5, n_files, n_informative, n_counted, ()))
        assert words in "\n".join(lines)
        assert bool(lines) == bool(words)

    def test_without_any_trial_nothing_is_recommended(self):
        from birdinfer.evaluation.ablation import Ablation

        assert recommendation(Ablation(0.8, 100, 5, 12, 12, 0, ())) == ["nothing is recommended"]
