import numpy as np
import pytest
from make_bundles import LABELS
from simulated_reviews import simulate_reviews, write_reviews

from birdinfer import Bundle
from birdinfer.inference.calibration import thresholds_of
from birdinfer.tables.csv import csv_text


@pytest.fixture
def reviews(tmp_path):
    return write_reviews(
        tmp_path / "reviews.csv", simulate_reviews(np.random.default_rng(0), 200, 20, n_species=4), LABELS
    )


def test_stores_thresholds_in_the_bundle_and_shows_them(birdinfer, make_bundle, reviews, tmp_path):
    folder, plot = make_bundle(), tmp_path / "reliability.png"
    code, out, err = birdinfer("calibrate", reviews, "--bundle", folder, "--plot", plot, "--resamples", 200)
    assert (code, err) == (0, "")
    assert "confidence from which on 90 % of the detections are right" in out
    assert f"4 species have a threshold of their own, 0 that of their class, 0 none\nstored in {folder}" in out
    manifest = Bundle.load(folder).manifest
    thresholds = thresholds_of(manifest, 0.25)
    assert ((thresholds > 0.5) & (thresholds < 1)).all()
    assert [f"{curve.threshold:.2f}" in out for curve in manifest.calibration.species.values()] == [True] * 4
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "thresholds  for 90 % right detections, of 4 species and 1 classes" in birdinfer("bundle", "show", folder)[1]


def test_a_dry_run_stores_nothing(birdinfer, make_bundle, reviews):
    folder = make_bundle()
    before = (folder / "manifest.json").read_bytes()
    code, out, _ = birdinfer("calibrate", reviews, "--bundle", folder, "--dry-run", "--resamples", 100)
    assert code == 0
    assert f"not stored in {folder}" in out
    assert (folder / "manifest.json").read_bytes() == before


def test_few_reviews_have_the_curve_of_the_class(birdinfer, make_bundle, reviews):
    folder = make_bundle()
    code, out, err = birdinfer("calibrate", reviews, "--bundle", folder, "--min-reviews", 150, "--resamples", 100)
    assert code == 0
    assert "0 species have a threshold of their own, 4 that of their class, 0 none" in out
    assert "reviews, 150 are needed - review" in err
    assert list(Bundle.load(folder).manifest.calibration.classes) == [""]


def test_reviews_that_show_no_threshold_are_refused_and_nothing_is_stored(birdinfer, make_bundle, tmp_path):
    folder = make_bundle()
    made = simulate_reviews(np.random.default_rng(0), 80, 9, intercept=20.0)
    code, out, err = birdinfer("calibrate", write_reviews(tmp_path / "right.csv", made, LABELS), "--bundle", folder)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "right.csv: show no threshold: comcuc: all of 80 reviews are right" in err
    assert "- review more below 0." in err
    assert Bundle.load(folder).manifest.calibration is None


def test_a_truth_answers_each_score(birdinfer, make_bundle, tmp_path):
    folder, rng = make_bundle(), np.random.default_rng(0)
    scores = rng.uniform(0, 0.999, (240, 4))
    rows = [f"r{number // 12}_{5 * (number % 12 + 1)}" for number in range(240)]
    cells = [[row, *(f"{value:.6f}" for value in values)] for row, values in zip(rows, scores, strict=True)]
    (tmp_path / "scores.csv").write_text(csv_text(("row_id", *LABELS), cells))
    present = (rng.random((240, 4)) < scores).astype(int)
    named = [[row, *values] for row, values in zip(rows, present[:, :2].tolist(), strict=True)]
    (tmp_path / "truth.csv").write_text(csv_text(("row_id", *LABELS[:2]), named))
    options = ("--truth", tmp_path / "truth.csv", "--bundle", folder, "--resamples", 100, "--min-confidence", 0.5)
    code, _, err = birdinfer("calibrate", tmp_path / "scores.csv", *options)
    assert code == 0, err
    curves = Bundle.load(folder).manifest.calibration.species
    assert list(curves) == list(LABELS[:2])
    assert {curve.n_files for curve in curves.values()} == {20}
    assert [curve.n_right + curve.n_wrong for curve in curves.values()] == (scores[:, :2] >= 0.5).sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--precision", "1"], "--precision: is 1.0 - a share above 0 and below 1 is needed"),
        (["--min-confidence", "0.5"], "--min-confidence: goes with --truth alone"),
        (["--plot", "p.csv"], "a picture in .png"),
        (["more.csv", "--truth", "truth.csv"], "--truth: goes with one table of scores, not with 2"),
    ],
)
def test_options_that_do_not_go_together(birdinfer, make_bundle, reviews, options, problem):
    code, _, err = birdinfer("calibrate", reviews, "--bundle", make_bundle(), *options)
    assert code == 2
    assert problem in err


def test_other_scores_take_the_calibration_away(birdinfer, make_bundle, reviews):
    folder = make_bundle()
    assert birdinfer("calibrate", reviews, "--bundle", folder, "--resamples", 100)[0] == 0
    assert "calibration" not in birdinfer("bundle", "set", folder)[2]
    assert Bundle.load(folder).manifest.calibration is not None
    assert "birdinfer calibrate makes it again" in birdinfer("bundle", "set", folder, "--overlap", "2.5")[2]
    assert Bundle.load(folder).manifest.calibration is None
