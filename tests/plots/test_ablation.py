import numpy as np
import pytest

from birdinfer.evaluation.ablation import Ablation, Conclusion, Trial

ablation_gains = pytest.importorskip("birdinfer.plots.ablation")


def trial(name, gain, conclusion, interval=None, how="alone"):
    corrected = interval and (interval[0] - 0.01, interval[1] + 0.01)
    return Trial(name, how, 0.8 + gain, gain, interval, corrected, 0.5, 0.5, 1.0, conclusion)


@pytest.fixture
def figure():
    return ablation_gains.ablation_figure(
        Ablation(0.8, 96, 10, 8, 8, 3, (
            trial("bad", -0.03, Conclusion.worse, (-0.05, -0.01)),
            trial("good", 0.02, Conclusion.take, (0.015, 0.03), "last"),
            trial("found by none", 0.01, Conclusion.undetermined),
        ))
    )  # fmt: skip


def test_the_greatest_gain_stands_on_top(figure):
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good (added last)", "found by none", "bad"]
    points = np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections])
    np.testing.assert_allclose(points, [[0.02, 0], [0.01, 1], [-0.03, 2]])
    assert axes.yaxis_inverted()


def test_whiskers_are_the_intervals_in_the_verdicts_colour(figure):
    (axes,) = figure.axes
    whiskers = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert [tuple(np.round(line.get_xdata(), 3)) for line in whiskers] == [
        (0.005, 0.04), (0.015, 0.03), (-0.06, 0.0), (-0.05, -0.01),
    ]  # fmt: skip
    assert whiskers[0].get_color() == whiskers[1].get_color() != whiskers[2].get_color()
    assert whiskers[0].get_linewidth() < whiskers[1].get_linewidth()


def test_the_legend_names_the_verdicts_that_there_are(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["take", "leave: worse", "cannot be determined"]
