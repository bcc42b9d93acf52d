import numpy as np
import pytest
from simulated_reviews import simulate_reviews

from birdinfer.evaluation.calibrate import CalibrationSettings, calibrate_reviews
from birdinfer.plots.reliability import MOST_PANELS, draw_reliability, reliability_figure
from birdinfer.species import Species


@pytest.fixture(scope="module")
def fits():
    species = [Species(f"_b${number}", class_name="Aves") for number in range(3)]
    reviews = simulate_reviews(np.random.default_rng(0), 300, 20, n_species=3)
    return dict(calibrate_reviews(reviews, species, CalibrationSettings(n_resamples=100)).species)


def test_a_panel_shows_curve_threshold_and_every_review(fits):
    figure = reliability_figure(fits, 0.9)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == len(fits) == 3
    largest = max(fits, key=lambda title: len(fits[title].sample.right))
    assert panels[0].get_title(loc="left").strip() == largest.replace("$", r"\$")
    lines = {line.get_label(): line for line in panels[0].lines}
    assert lines["threshold, 90 % interval"].get_xdata()[0] == fits[largest].curve.threshold
    assert lines["wanted: 0.9"].get_ydata()[0] == 0.9
    ticks = [line for line in panels[0].lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in ticks] == [fits[largest].curve.n_right, fits[largest].curve.n_wrong]
    x, y = lines["reviews in groups"].get_data()
    confidences, right = fits[largest].sample.confidences, fits[largest].sample.right
    lowest = np.argsort(confidences, kind="stable")[: -(-len(right) // len(x))]
    assert (x[0], y[0]) == pytest.approx((confidences[lowest].mean(), right[lowest].mean()))
    curve = lines["curve, 90 % band"].get_ydata()
    assert (np.diff(curve) > 0).all()


def test_those_with_most_reviews_are_drawn(fits):
    many = {f"{title}{number}": fit for title, fit in fits.items() for number in range(9)}
    assert len([axes for axes in reliability_figure(many, 0.9).axes if axes.lines]) == MOST_PANELS


def test_is_written_as_png(fits, tmp_path):
    draw_reliability(tmp_path / "reliability.png", fits, 0.9)
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
