import numpy as np
import pytest
from tiny_runs import epochs, write_run

from birdinfer.runs.training_run import read_run

species_scores = pytest.importorskip("birdinfer.plots.training")
from birdinfer.plots.style import PALETTE  # noqa: E402


def species(*scores, taxon="Aves"):
    """(label, clips, AUC) as rows of classes.csv."""
    return [[label, "", f"The {label}", taxon, n_clips, auc, ""] for label, n_clips, auc in scores]


def figure_of(folder, *runs):
    return species_scores.species_figure(
        [read_run(write_run(folder / f"run{index}", (epochs(0.5),), (rows,))) for index, rows in enumerate(runs)]
    )


def points(axes):
    """What is scattered in an axes: [points, 2]."""
    return np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections])


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestSpeciesFigure:
    def test_species_are_sorted_set_against_their_clips_and_named(self, tmp_path):
        figure = figure_of(tmp_path, species(("a", 30, 0.9), ("b", 5, 0.6), ("c", 8, 0.8), ("d", 0, "")))
        by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
        ranks = points(by_title["species from weak to strong (dotted: the median)"])
        clips = points(by_title["against how many clips they were validated on"])
        np.testing.assert_allclose(ranks, [[1, 0.6], [2, 0.8], [3, 0.9]])
        np.testing.assert_allclose(clips, [[5, 0.6], [8, 0.8], [30, 0.9]])
        assert names(by_title["by name (in brackets: their clips)"]) == ["The b  (5)", "The c  (8)", "The a  (30)"]
        assert figure.get_suptitle() == "run0: 3 of 4 species can be scored"

    def test_only_the_weakest_are_named(self, tmp_path):
        many = species(*((f"s{index}", 3, 0.5 + index / 100) for index in range(50)))
        figure = figure_of(tmp_path, many)
        named = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("the 30 weakest"))
        assert names(named) == [f"The s{index}  (3)" for index in range(30)]
        assert figure.get_suptitle() == "run0: 50 of 50 species can be scored, 1 of them no better than chance"

    def test_taxa_keep_their_colours(self, tmp_path):
        rows = [*species(("a", 3, 0.9)), *species(("x", 3, 0.8), taxon="Insecta"), *species(("y", 3, 0.7), taxon="")]
        figure = figure_of(tmp_path, rows)
        assert legend(figure) == ["Aves", "Insecta", "unknown taxon"]
        colours = [handle.get_color() for handle in figure.legends[0].legend_handles]
        assert colours == [PALETTE[0], PALETTE[2], PALETTE[-1]]

    def test_more_taxa_than_colours_are_still_distinct(self, tmp_path):
        rows = [row for index in range(20) for row in species((f"s{index}", 3, 0.9), taxon=f"T{index}")]
        figure = figure_of(tmp_path, rows)
        assert len({handle.get_color() for handle in figure.legends[0].legend_handles}) == 20

    def test_several_runs_stand_side_by_side(self, tmp_path):
        figure = figure_of(tmp_path, species(("a", 3, 0.9), ("b", 3, 0.5)), species(("a", 3, 0.7), ("b", 3, 0.6)))
        assert legend(figure) == ["run0", "run1"]
        named = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("by name"))
        assert names(named) == ["The b  (3)", "The a  (3)"]
        np.testing.assert_allclose(points(named), [[0.5, 0], [0.6, 0], [0.9, 1], [0.7, 1]])

    def test_a_run_without_scores_leaves_space_for_the_others(self, tmp_path):
        figure = figure_of(tmp_path, [], species(("a", 3, 0.9)))
        assert legend(figure) == ["run0", "run1"]

    def test_where_nothing_could_be_scored_there_is_no_figure(self, tmp_path):
        assert figure_of(tmp_path, species(("a", 0, ""), ("b", 4, ""))) is None
