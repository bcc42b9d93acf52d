import numpy as np
import pytest
from tiny_searches import write_search

pytest.importorskip("matplotlib")
from birdinfer.plots.search import importance_figure
from birdinfer.runs.study import read_search

KEYS = ("optim.lr", "optim.name", "loop.batch_size")
ROWS = (
    [0, "complete", 0.70, 1e-3, "adamw", 16],
    [1, "complete", 0.80, 1e-2, "sgd", 16],
    [2, "pruned", 0.60, 1e-4, "sgd", 16],
    [3, "complete", 0.72, 2e-3, "sgd", 16],
    [4, "failed", "", 3e-3, "lion", 64],
)
IMPORTANCE = {"optim.lr": 0.25, "optim.name": 0.75, "loop.batch_size": 0.0}


def figure_of(folder, rows=ROWS, keys=KEYS, **others):
    return importance_figure(read_search(write_search(folder / "a-tune", rows, keys, **others)))


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestBars:
    def test_the_most_important_key_stands_on_top(self, tmp_path):
        axes = panel(figure_of(tmp_path, importance=IMPORTANCE), "importance (all keys: 1)")
        assert [label.get_text() for label in axes.get_yticklabels()] == ["optim.name", "optim.lr", "loop.batch_size"]
        assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25, 0.0]
        assert [text.get_text() for text in axes.texts] == ["0.75", "0.25", "0.00"]
        assert axes.yaxis_inverted()

    def test_of_many_keys_only_the_most_important_have_one(self, tmp_path):
        keys = [f"augment.k{index}" for index in range(30)]
        rows = [[trial, "complete", 0.7, *[trial] * 30] for trial in range(2)]
        shares = {key: (30 - index) / 465 for index, key in enumerate(keys)}
        axes = panel(figure_of(tmp_path, rows, keys, importance=shares), "the 20 most important of 30")
        assert [label.get_text() for label in axes.get_yticklabels()] == keys[:20]

    def test_a_long_name_is_cut(self, tmp_path):
        key = "augment." + "very_" * 10 + "long"
        figure = figure_of(tmp_path, [[0, "complete", 0.7, 1], [1, "pruned", 0.6, 2]], [key])
        (title,) = titles(figure)
        assert "…" in title
        assert len(title) == 36


class TestValues:
    def test_keys_come_by_importance_without_those_of_one_value(self, tmp_path):
        assert titles(figure_of(tmp_path, importance=IMPORTANCE))[1:] == ["optim.name", "optim.lr"]

    def test_without_importance_they_come_as_they_were_searched(self, tmp_path):
        assert titles(figure_of(tmp_path)) == ["optim.lr", "optim.name"]

    def test_at_most_six_are_shown(self, tmp_path):
        rows = [[trial, "complete", 0.7, *[trial] * 9] for trial in range(2)]
        assert len(titles(figure_of(tmp_path, rows, [f"k{index}" for index in range(9)]))) == 6

    def test_each_trial_stands_at_its_value_and_score(self, tmp_path):
        axes = panel(figure_of(tmp_path), "optim.lr")
        pruned, complete, default = [
            points for each in axes.collections if len(points := np.asarray(each.get_offsets()))
        ]
        np.testing.assert_allclose(pruned, [[1e-4, 0.6]])
        np.testing.assert_allclose(complete, [[1e-3, 0.7], [1e-2, 0.8], [2e-3, 0.72]])
        np.testing.assert_allclose(default, [[1e-3, 0.7]])
        (best,) = axes.get_lines()
        np.testing.assert_allclose(best.get_xydata(), [[1e-2, 0.8]])
        assert axes.get_xscale() == "log"

    def test_the_space_says_which_axis_is_logarithmic(self, tmp_path):
        axes = panel(figure_of(tmp_path, space="optim.lr = {low = 1e-4, high = 1e-2}\n"), "optim.lr")
        assert axes.get_xscale() == "linear"

    def test_words_stand_side_by_side_with_the_median_of_their_complete_trials(self, tmp_path):
        figure = figure_of(tmp_path)
        axes = panel(figure, "optim.name")
        assert [label.get_text() for label in axes.get_xticklabels()] == ["adamw", "sgd"]
        best, median = axes.get_lines()
        assert best.get_xdata()[0] == 1
        np.testing.assert_allclose(median.get_xydata(), [[0.7, 0.76], [1.3, 0.76]])
        assert legend(figure)[-1] == "median of the complete"

    def test_the_scores_of_a_row_have_one_scale_written_once(self, tmp_path):
        first, second = figure_of(tmp_path).axes
        assert first.get_ylim() == second.get_ylim()
        assert (first.get_ylabel(), second.get_ylabel()) == ("macro ROC-AUC", "")

    def test_what_is_too_low_for_the_axis_is_seen_at_its_bottom(self, tmp_path):
        rows = [*ROWS, *([5 + index, "complete", 0.7, 1e-3, "adamw", 16] for index in range(3))]
        figure = figure_of(tmp_path, [*rows, [9, "pruned", 0.4, 0.5, "sgd", 16]])
        axes = panel(figure, "optim.lr")
        low = next(each for each in axes.collections if each.get_offset_transform() != axes.transData)
        assert np.asarray(low.get_offsets())[:, 0].tolist() == [1e-4, 0.5]
        assert axes.get_xlim()[1] > 0.5
        assert "lower than the axis" in legend(figure)


class TestWhatIsWritten:
    @pytest.mark.parametrize("n_keys", [1, 2, 3, 6])
    def test_lies_within_the_picture(self, tmp_path, n_keys):
        """Of as many marks as a legend can have: two rows are better than half a word."""
        rows = [[trial, "complete", 0.7 + trial / 100, *["ab"[trial % 2]] * n_keys] for trial in range(6)]
        rows += [[6, "pruned", 0.3, *["a"] * n_keys], [7, "failed", "", *["b"] * n_keys]]
        figure = figure_of(tmp_path, rows, [f"k{index}" for index in range(n_keys)])
        figure.canvas.draw()
        assert len(legend(figure)) == 6
        for drawn in (figure.legends[0], figure._suptitle):
            box = drawn.get_window_extent().transformed(figure.transFigure.inverted())
            assert 0 <= box.x0 < box.x1 <= 1


class TestWithoutAPicture:
    @pytest.mark.parametrize(
        "rows",
        [ROWS[:1], [ROWS[0], ROWS[4]], [[0, "complete", 0.7, 1, "a", 1], [1, "complete", 0.8, 1, "a", 1]]],
    )
    def test_no_two_trials_with_a_score_differ_in_a_key(self, tmp_path, rows):
        assert figure_of(tmp_path, rows) is None
