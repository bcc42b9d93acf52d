import numpy as np
import pytest
from tiny_runs import epochs, write_run

from birdinfer.runs.training_run import read_run

history = pytest.importorskip("birdinfer.plots.training")


def run_of(folder, *folds, **others):
    return read_run(write_run(folder, folds, **others))


def texts(figure):
    """All that is written in a figure."""
    axes = [text.get_text() for one in figure.axes for text in one.texts]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [figure.get_suptitle(), *axes, *legends]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


class TestMeanCurve:
    def test_is_mean_and_deviation_over_folds(self, tmp_path):
        curve = history.mean_curve(run_of(tmp_path, epochs(0.5, 0.8), epochs(0.7, 0.6)), "val_macro_auc")
        np.testing.assert_array_equal(curve.epochs, [1, 2])
        np.testing.assert_allclose(curve.mean, [0.6, 0.7])
        np.testing.assert_allclose(curve.spread, np.std([[0.5, 0.8], [0.7, 0.6]], axis=0, ddof=1))

    def test_of_one_fold_is_the_fold(self, tmp_path):
        curve = history.mean_curve(run_of(tmp_path, epochs(0.5, "", 0.7)), "val_macro_auc")
        np.testing.assert_array_equal(curve.epochs, [1, 3])
        np.testing.assert_array_equal(curve.mean, [0.5, 0.7])
        np.testing.assert_array_equal(curve.spread, [0, 0])

    def test_ends_where_half_of_the_folds_have_stopped(self, tmp_path):
        run = run_of(tmp_path, epochs(0.1), epochs(0.2, 0.4), epochs(0.3, 0.6, 0.9))
        curve = history.mean_curve(run, "val_macro_auc")
        np.testing.assert_allclose(curve.mean, [0.2, 0.5])

    def test_a_fold_that_was_never_scored_is_not_waited_for(self, tmp_path):
        curve = history.mean_curve(run_of(tmp_path, epochs("", ""), epochs(0.2, 0.4)), "val_macro_auc")
        np.testing.assert_allclose(curve.mean, [0.2, 0.4])

    def test_of_what_is_nowhere_known_is_empty(self, tmp_path):
        assert not len(history.mean_curve(run_of(tmp_path, epochs(0.5)), "val_top1").epochs)


class TestHistoryFigure:
    def test_a_run_by_itself_shows_its_folds_and_their_mean(self, tmp_path):
        figure = history.history_figure([run_of(tmp_path, epochs(0.5, 0.8), epochs(0.7, 0.6))])
        curves = [line.get_ydata() for line in panel(figure, "macro ROC-AUC").get_lines()]
        np.testing.assert_allclose(curves[:3], [[0.5, 0.8], [0.7, 0.6], [0.6, 0.7]])
        assert "0.7000, epoch 2" in texts(figure)
        assert {"one fold", "mean of 2 folds, ± standard deviation"} <= set(texts(figure))

    def test_losses_are_those_of_training_and_validation(self, tmp_path):
        figure = history.history_figure([run_of(tmp_path, epochs(0.5, 0.8))])
        training, validation = panel(figure, "loss").get_lines()
        np.testing.assert_allclose(training.get_ydata(), [0.9, 0.8])
        np.testing.assert_allclose(validation.get_ydata(), [1.0, 0.9])
        assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
        assert training.get_color() != validation.get_color()

    def test_several_runs_have_a_colour_each_and_only_their_means(self, tmp_path):
        runs = [run_of(tmp_path / name, epochs(0.5, 0.8), epochs(0.7, 0.6)) for name in ("a", "b")]
        figure = history.history_figure(runs)
        means = [line for line in panel(figure, "macro ROC-AUC").get_lines() if len(line.get_ydata()) == 2]
        assert len(means) == 2
        assert means[0].get_color() != means[1].get_color()
        assert {"a (0.7000)", "b (0.7000)"} <= set(texts(figure))

    def test_the_headline_has_the_summary(self, tmp_path):
        summary = {"mean_macro_auc": 0.7512, "std_macro_auc": 0.01, "out_of_fold_macro_auc": 0.74}
        figure = history.history_figure([run_of(tmp_path / "run", epochs(0.5), epochs(0.6), summary=summary)])
        expected = "run: 2 folds, best epochs' macro ROC-AUC 0.7512 ± 0.0100, all out-of-fold clips together 0.7400"
        assert figure.get_suptitle() == expected

    def test_a_run_that_validates_nothing_says_so(self, tmp_path):
        figure = history.history_figure([run_of(tmp_path, epochs("", ""), classes=())])
        assert texts(figure).count("nothing was validated") == 2

    def test_a_rate_that_falls_far_has_a_logarithmic_axis(self, tmp_path):
        far, near = run_of(tmp_path / "far", epochs(0.5, 0.6, 0.7)), run_of(tmp_path / "near", epochs(0.5, 0.6))
        assert panel(history.history_figure([far]), "learning rate").get_yscale() == "log"
        assert panel(history.history_figure([near]), "learning rate").get_yscale() == "linear"

    def test_a_single_epoch_is_a_point(self, tmp_path):
        figure = history.history_figure([run_of(tmp_path, epochs(0.5))])
        assert panel(figure, "loss").get_lines()[0].get_marker() == "o"
