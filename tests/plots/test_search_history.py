import numpy as np
import pytest
from tiny_searches import write_search

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex

from birdinfer.plots.search import BEST, COMPLETE, DEFAULT, FAILED, PRUNED, score_range, search_history_figure
from birdinfer.plots.style import save
from birdinfer.runs.study import read_search


def search_of(folder, *rows, **others):
    """A search of (state, score) in their order, all with other values."""
    trials = [[number, state, score, 1e-3 * (number + 1)] for number, (state, score) in enumerate(rows)]
    return read_search(write_search(folder / "a-tune", trials, **others))


def complete(*scores):
    return [("complete", score) for score in scores]


def dots(axes, colour, marker_at_bottom=False):
    """What is scattered with this colour as its edge: [points, 2], in data, or at the bottom of the axes."""
    found = [
        np.asarray(each.get_offsets())
        for each in axes.collections
        if len(each.get_edgecolor()) and to_hex(each.get_edgecolor()[0]) == colour.lower()
        if (each.get_offset_transform() != axes.transData) == marker_at_bottom
    ]
    return np.concatenate([np.zeros((0, 2)), *found])


def lines(axes, colour):
    return [line for line in axes.get_lines() if to_hex(line.get_color()) == colour.lower()]


def texts(figure):
    axes = [text.get_text() for one in figure.axes for text in one.texts]
    return [*axes, *(text.get_text() for legend in figure.legends for text in legend.get_texts())]


class TestScoreRange:
    def test_is_that_of_the_complete_trials_and_of_better_pruned_ones(self, tmp_path):
        rows = [*complete(0.7, 0.75, 0.8, 0.72, 0.71), ("pruned", 0.4), ("pruned", 0.82)]
        assert score_range(search_of(tmp_path, *rows)) == (0.7, 0.82)

    def test_reaches_down_to_the_pruned_where_hardly_a_trial_is_complete(self, tmp_path):
        rows = [*complete(0.7, 0.75, 0.8, 0.72), ("pruned", 0.4), ("failed", "")]
        assert score_range(search_of(tmp_path, *rows)) == (0.4, 0.8)

    def test_is_not_stretched_by_one_that_went_wrong(self, tmp_path):
        # Quartiles 0.7075 and 0.7425: the fence is 0.7075 - 3 * 0.035 = 0.6025.
        rows = complete(0.70, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76)
        assert score_range(search_of(tmp_path / "wrong", *rows, ("complete", 0.60))).low == 0.7
        assert score_range(search_of(tmp_path / "worse", *rows, ("complete", 0.61))).low == 0.61

    def test_always_holds_the_default(self, tmp_path):
        rows = complete(0.50, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.77)
        assert score_range(search_of(tmp_path, *rows)).low == 0.5

    def test_of_nothing_is_none(self, tmp_path):
        assert score_range(search_of(tmp_path, ("failed", ""), ("running", ""))) is None


class TestTrials:
    @pytest.fixture
    def figure(self, tmp_path):
        rows = [("complete", 0.7), ("pruned", 0.72), ("complete", 0.75), ("failed", ""), ("complete", 0.74)]
        return search_history_figure(search_of(tmp_path, *rows, *complete(0.71, 0.73), ("pruned", 0.3)))

    def test_each_is_marked_by_its_state(self, figure):
        axes = figure.axes[0]
        np.testing.assert_allclose(dots(axes, COMPLETE), [[0, 0.7], [2, 0.75], [4, 0.74], [5, 0.71], [6, 0.73]])
        np.testing.assert_allclose(dots(axes, PRUNED), [[1, 0.72]])
        np.testing.assert_allclose(dots(axes, DEFAULT), [[0, 0.7]])

    def test_what_failed_or_is_too_low_stands_at_the_bottom(self, figure):
        axes = figure.axes[0]
        assert dots(axes, FAILED, marker_at_bottom=True)[:, 0].tolist() == [3]
        assert dots(axes, PRUNED, marker_at_bottom=True)[:, 0].tolist() == [7]
        assert axes.get_ylim()[0] > 0.6

    def test_one_that_another_one_continued_did_not_fail(self, tmp_path):
        rows = [("interrupted", ""), ("complete", 0.7), ("failed", "")]
        figure = search_history_figure(search_of(tmp_path / "with", *rows))
        assert dots(figure.axes[0], FAILED, marker_at_bottom=True)[:, 0].tolist() == [2]
        assert figure.get_suptitle().startswith("a-tune: 3 trials, 1 complete, 1 failed, 1 interrupted; best")
        assert {"failed", "interrupted"} <= set(texts(figure))

    def test_the_best_so_far_never_falls_and_reaches_the_last_trial(self, figure):
        best = next(line for line in lines(figure.axes[0], COMPLETE))
        np.testing.assert_allclose(best.get_xdata(), [0, 2, 4, 5, 6, 7])
        np.testing.assert_allclose(best.get_ydata(), [0.7, 0.75, 0.75, 0.75, 0.75, 0.75])

    def test_the_default_is_a_dashed_line(self, figure):
        (line,) = lines(figure.axes[0], DEFAULT)
        assert (line.get_linestyle(), set(line.get_ydata())) == ("--", {0.7})

    def test_the_best_is_named(self, figure):
        (star,) = lines(figure.axes[0], BEST)
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (2, 0.75)
        assert "0.7500, trial 2" in texts(figure)

    def test_the_headline_counts_and_compares(self, figure):
        expected = "a-tune: 8 trials, 5 complete, 2 pruned, 1 failed; best 0.7500, +0.0500 against the default's 0.7000"
        assert figure.get_suptitle() == expected

    def test_the_legend_names_what_is_there_and_nothing_else(self, figure, tmp_path):
        everything = ["complete", "pruned, its last score", "lower than the axis", "failed", "the default recipe"]
        assert texts(figure)[-7:] == [*everything, "the best", "the best so far"]
        alone = search_history_figure(search_of(tmp_path / "alone", ("running", "")))
        assert not alone.legends


class TestCurves:
    def test_the_best_and_the_default_stand_out(self, tmp_path):
        axes = search_history_figure(read_search(write_search(tmp_path))).axes[1]
        (best,), (default,) = lines(axes, BEST), lines(axes, DEFAULT)
        np.testing.assert_allclose(best.get_xydata(), [[1, 0.65], [2, 0.75]])
        np.testing.assert_allclose(default.get_xydata(), [[1, 0.60], [2, 0.70]])
        assert best.get_linewidth() > max(line.get_linewidth() for line in lines(axes, COMPLETE))

    def test_where_a_trial_was_pruned_is_marked(self, tmp_path):
        axes = search_history_figure(read_search(write_search(tmp_path))).axes[1]
        np.testing.assert_allclose(dots(axes, PRUNED), [[1, 0.55]])

    def test_many_are_fainter_than_few(self, tmp_path):
        def alpha(n_trials):
            curves = [[trial, step, 0.5] for trial in range(n_trials) for step in (1, 2)]
            search = search_of(tmp_path / str(n_trials), *complete(*[0.5] * n_trials), curves=curves)
            return lines(search_history_figure(search).axes[1], COMPLETE)[-1].get_alpha()

        assert 0 < alpha(100) < alpha(3) <= 1


class TestSearchesOfFewWords:
    def test_a_single_trial_that_is_the_default(self, tmp_path):
        figure = search_history_figure(search_of(tmp_path, ("complete", 0.7), curves=[[0, 1, 0.7]]))
        assert figure.get_suptitle() == "a-tune: 1 trial, complete; best 0.7000, the default's"
        # A score by itself is no reason to look at its millionths.
        low, high = figure.axes[0].get_ylim()
        assert 0.01 < high - low < 0.05
        assert lines(figure.axes[1], BEST)[0].get_marker() == "o"

    def test_without_a_score_or_a_curve_it_says_so(self, tmp_path):
        figure = search_history_figure(search_of(tmp_path, ("running", ""), ("failed", ""), curves=[]))
        assert {"no trial has a score yet", "no trial has a curve"} <= set(texts(figure))
        assert dots(figure.axes[0], FAILED, marker_at_bottom=True)[:, 0].tolist() == [1]

    def test_without_a_complete_trial_there_is_no_best(self, tmp_path):
        figure = search_history_figure(search_of(tmp_path, ("pruned", 0.5), ("pruned", 0.6)))
        assert figure.get_suptitle() == "a-tune: 2 trials, 2 pruned"
        np.testing.assert_allclose(dots(figure.axes[0], PRUNED), [[0, 0.5], [1, 0.6]])
        assert not lines(figure.axes[0], BEST)

    def test_without_the_default_there_is_no_comparison(self, tmp_path):
        figure = search_history_figure(search_of(tmp_path, *complete(0.5, 0.6), recipe="optim.lr = 0.5\n"))
        assert figure.get_suptitle() == "a-tune: 2 trials, 2 complete; best 0.6000"
        assert not lines(figure.axes[0], DEFAULT)

    def test_five_hundred_trials_become_a_picture(self, tmp_path):
        scores = np.random.default_rng(0).uniform(0.5, 0.9, 500).round(4)
        states = [("pruned" if index % 3 else "complete", score) for index, score in enumerate(scores)]
        curves = [[trial, step, 0.5] for trial in range(500) for step in (1, 2)]
        save(search_history_figure(search_of(tmp_path, *states, curves=curves)), tmp_path / "h.png")
        assert (tmp_path / "h.png").stat().st_size > 10_000
