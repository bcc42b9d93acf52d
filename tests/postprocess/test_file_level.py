"""Boosts by a file's own evidence: by hand, and their properties."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.postprocess.file_level import (
    CutOff,
    FileBoost,
    FileContrast,
    FileMax,
    FileTopMean,
    LowRankPower,
    boost_logits,
    contrast,
    cut_off,
    press_low_ranks,
    scale_by_max,
    scale_by_top_mean,
)

probabilities = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(0, 1, width=32)
)
boosts = st.one_of(
    st.builds(FileMax, st.floats(0, 10)),
    st.builds(FileTopMean, st.integers(1, 10), st.floats(0, 10)),
    st.builds(FileBoost, st.floats(0, 20)),
    st.builds(FileContrast, st.floats(0, 10)),
    st.builds(CutOff, st.floats(0, 1), st.floats(0, 1)),
    st.builds(LowRankPower, st.integers(1, 10), st.floats(1, 10)),
)
NEUTRAL = [
    FileMax(0.0), FileTopMean(2, 0.0), FileBoost(0.0), FileContrast(0.0), CutOff(0.0, 0.5), CutOff(0.5, 1.0),
    LowRankPower(1, 1.0),
]  # fmt: skip

SCORES = np.float32([[0.8, 0.1], [0.2, 0.4], [0.5, 0.0]])


def run(step, scores):
    return step.bind(())(scores, "any")


def test_the_maximum_by_hand():
    np.testing.assert_allclose(scale_by_max(SCORES, 1), [[0.64, 0.04], [0.16, 0.16], [0.4, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(scale_by_max(np.float32([[0.25], [0.1]]), 0.5), [[0.125], [0.05]], rtol=1e-6)


def test_the_mean_of_the_greatest_by_hand():
    """(.8 + .5) / 2 = .65 and (.4 + .1) / 2 = .25; of five rows there are three: .5 and 1 / 6."""
    np.testing.assert_allclose(scale_by_top_mean(SCORES, 2, 1), [[0.52, 0.025], [0.13, 0.1], [0.325, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(scale_by_top_mean(SCORES, 5, 1)[0], [0.8 * 0.5, 0.1 / 6], rtol=1e-6)
    np.testing.assert_allclose(scale_by_top_mean(SCORES, 2, 2)[0], [0.8 * 0.65**2, 0.1 * 0.25**2], rtol=1e-6)


@given(probabilities, st.floats(0, 10))
def test_the_mean_of_one_row_is_the_maximum(scores, power):
    np.testing.assert_allclose(scale_by_top_mean(scores, 1, power), scale_by_max(scores, power), rtol=1e-6)


def test_a_boost_by_hand():
    """Odds of .2 are 1 : 4; times exp(.8 * log(3) / .8) = 3 that is 3 : 4, or 3 / 7. Of .8: 4 times 3 is 12 : 1."""
    found = boost_logits(np.float32([[0.8], [0.2]]), np.log(3) / 0.8)
    np.testing.assert_allclose(found.ravel(), [12 / 13, 3 / 7], rtol=1e-6)


@given(probabilities, st.floats(0, 20))
def test_a_boost_adds_to_the_logit(scores, strength):
    scores = scores.astype(np.float64).clip(1e-3, 1 - 1e-3)
    logits = np.log(scores / (1 - scores)) + strength * scores.max(axis=0)
    found = boost_logits(scores.astype(np.float32), strength)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-4)


@given(probabilities, st.floats(0, 20))
def test_a_boost_lowers_nothing_and_turns_no_order_round(scores, strength):
    ranked = np.sort(scores, axis=0)
    boosted = boost_logits(ranked, strength)
    assert (boosted >= ranked).all()
    assert (np.diff(boosted, axis=0) >= 0).all()


def test_what_is_sure_stays_under_a_boost():
    assert boost_logits(np.float32([[0, 1], [1, 0]]), 20).tolist() == [[0, 1], [1, 0]]


def test_a_contrast_by_hand():
    """Maxima .8 and .4, their mean .6; mean of all cells 2 / 6. Species 1: (p + .5 (.8 - .6 + 1 / 3)) / 1.5."""
    found = contrast(SCORES, 0.5)
    np.testing.assert_allclose(found[:, 0], (SCORES[:, 0] + 0.5 * (0.2 + 1 / 3)) / 1.5, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], (SCORES[:, 1] + 0.5 * (-0.2 + 1 / 3)) / 1.5, rtol=1e-6)


@given(probabilities, st.floats(0, 10))
def test_a_contrast_keeps_the_files_mean(scores, strength):
    contrasted = contrast(scores, strength)
    assume((contrasted > 0).all())  # where a cell is cut at 0, the mean rises
    assert contrasted.mean() == pytest.approx(scores.mean(), abs=1e-5)


@given(probabilities, st.floats(0, 1))
def test_a_contrast_ranks_as_the_sum_of_2024s_third_place(scores, strength):
    lift = scores.max(axis=0) + scores.mean() - scores.max(axis=0).mean()
    summed = scores + np.float32(strength) * lift
    np.testing.assert_allclose(contrast(scores, strength) * (1 + strength), summed.clip(0), atol=1e-5)


def test_a_cut_off_by_hand():
    np.testing.assert_allclose(cut_off(SCORES, 0.5, 0.1), [[0.8, 0.01], [0.2, 0.04], [0.5, 0.0]], rtol=1e-6)
    assert np.array_equal(cut_off(SCORES, 0.4, 0.1), SCORES), "a species that reaches the threshold stays"


def test_low_ranks_by_hand():
    scores = np.float32([[0.9, 0.1, 0.5], [0.2, 0.4, 0.3]])
    np.testing.assert_allclose(press_low_ranks(scores, 2, 2), [[0.9, 0.01, 0.5], [0.2, 0.16, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(press_low_ranks(scores, 1, 3), [[0.9, 0.001, 0.125], [0.2, 0.064, 0.027]], rtol=1e-6)
    assert np.array_equal(press_low_ranks(scores, 3, 2), scores)


def test_species_that_tie_for_the_last_place_of_the_top_all_stay():
    scores = np.float32([[0.9, 0.5, 0.5, 0.4]])
    np.testing.assert_allclose(press_low_ranks(scores, 2, 2), [[0.9, 0.5, 0.5, 0.16]], rtol=1e-6)


@given(probabilities, boosts, st.randoms(use_true_random=False))
def test_the_order_of_species_does_not_matter(scores, step, chance):
    order = list(range(scores.shape[1]))
    chance.shuffle(order)
    np.testing.assert_allclose(run(step, scores[:, order]), run(step, scores)[:, order], atol=1e-6)


@given(probabilities, boosts, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(scores, step, chance):
    order = list(range(len(scores)))
    chance.shuffle(order)
    np.testing.assert_allclose(run(step, scores[order]), run(step, scores)[order], atol=1e-6)


@given(probabilities, boosts)
def test_scores_stay_within_0_and_1(scores, step):
    boosted = run(step, scores)
    assert boosted.dtype == np.float32
    assert boosted.shape == scores.shape
    assert ((boosted >= 0) & (boosted <= 1)).all()


@given(probabilities, boosts)
def test_rows_keep_their_order_within_a_file_and_species(scores, step):
    order = np.argsort(scores, axis=0)
    assert (np.diff(np.take_along_axis(run(step, scores), order, axis=0), axis=0) >= -1e-6).all()


@given(probabilities, boosts, st.data())
def test_a_greater_score_never_becomes_a_smaller_one(scores, step, data):
    row, species = (data.draw(st.integers(0, size - 1)) for size in scores.shape)
    raised = scores.copy()
    raised[row, species] = data.draw(st.floats(float(scores[row, species]), 1, width=32))
    assert run(step, raised)[row, species] >= run(step, scores)[row, species] - 1e-6


@pytest.mark.parametrize("step", NEUTRAL, ids=str)
def test_neutral_parameters_change_nothing(step):
    scores = np.random.default_rng(0).random((7, 3), np.float32)
    assert step.is_neutral
    np.testing.assert_allclose(run(step, scores), scores, rtol=1e-6)


@pytest.mark.parametrize(
    "step", [FileMax(), FileTopMean(), FileBoost(), FileContrast(), CutOff(), LowRankPower()], ids=str
)
def test_what_winners_do_does_something(step):
    scores = np.random.default_rng(0).random((12, 40), np.float32) * np.linspace(0.05, 1, 40, dtype=np.float32)
    assert not step.is_neutral
    assert step.context_rows is None
    assert np.abs(run(step, scores) - scores).max() > 0.03


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FileMax(-1), "power is -1, allowed are 0 to 10"),
        (lambda: FileMax(float("nan")), "power is nan"),
        (lambda: FileTopMean(0), "top_rows is 0, allowed are 1 to 1000"),
        (lambda: FileTopMean(2, 11), "power is 11, allowed are 0 to 10"),
        (lambda: FileBoost(21), "strength is 21, allowed are 0 to 20"),
        (lambda: FileContrast(-0.1), "strength is -0.1, allowed are 0 to 10"),
        (lambda: CutOff(1.1), "threshold is 1.1, allowed are 0 to 1"),
        (lambda: CutOff(0.1, 2), "factor is 2, allowed are 0 to 1"),
        (lambda: LowRankPower(0), "top_species is 0, allowed are 1 to 100000"),
        (lambda: LowRankPower(30, 0.5), "power is 0.5, allowed are 1 to 10"),
    ],
)
def test_parameters_without_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
