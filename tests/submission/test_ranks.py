"""Ranks per class: begin at 0, share ties, stay below 1 and see nothing but the order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.evaluation.metrics import padded_cmap
from birdinfer.inference.rank_blend import rank_per_class

tables = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-9, 9).map(lambda n: n / 8)
)


def test_by_hand():
    found = rank_per_class(np.array([[0.3, 7.0], [0.1, 7.0], [0.3, -1.0], [0.9, 7.0], [0.2, 9.0]]))
    # Second column: -1 begins at 0; the three 7s take up ranks 2, 3 and 4, of which the mean is 3; then 9.
    expected = [[2.5 / 5, 2 / 5], [0, 2 / 5], [2.5 / 5, 0], [4 / 5, 2 / 5], [1 / 5, 4 / 5]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_class_of_one_score_is_all_in_the_middle():
    np.testing.assert_allclose(rank_per_class(np.full((5, 1), 0.7)), np.full((5, 1), 2 / 5))


def test_no_rows_have_no_ranks():
    assert rank_per_class(np.zeros((0, 3))).shape == (0, 3)


@given(tables)
def test_pitfall_9_ranks_stay_below_1(values):
    ranks = rank_per_class(values)
    assert (ranks >= 0).all()
    assert (ranks < 1).all()


@given(tables)
def test_the_least_of_a_class_begins_at_0_if_it_is_alone(values):
    ranks = rank_per_class(values)
    for scores, found in zip(values.T, ranks.T, strict=True):
        assert found.min() == (np.count_nonzero(scores == scores.min()) - 1) / 2 / len(scores)


@given(tables)
def test_order_and_ties_are_those_of_the_scores(values):
    ranks = rank_per_class(values)
    for scores, found in zip(values.T, ranks.T, strict=True):
        assert np.array_equal(np.sign(np.subtract.outer(found, found)), np.sign(np.subtract.outer(scores, scores)))


@given(tables)
def test_the_mean_rank_is_that_of_rows_without_ties(values):
    n_rows = len(values)
    np.testing.assert_allclose(rank_per_class(values).mean(axis=0), (n_rows - 1) / 2 / n_rows, atol=1e-12)


@given(tables)
def test_a_monotone_function_of_the_scores_changes_nothing(values):
    ranks = rank_per_class(values)
    for function in (np.exp, np.arctan, lambda x: 3 * x - 100, np.cbrt):
        assert np.array_equal(rank_per_class(function(values)), ranks)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(values, chance):
    order = list(range(len(values)))
    chance.shuffle(order)
    assert np.array_equal(rank_per_class(values[order]), rank_per_class(values)[order])


def test_padded_cmap_does_not_change_when_scores_become_ranks():
    chance = np.random.default_rng(5)
    truth, scores = (chance.random((40, 3)) < 0.3).astype(float), chance.random((40, 3)) * 0.9
    assert padded_cmap(truth, rank_per_class(scores)) == padded_cmap(truth, scores)
