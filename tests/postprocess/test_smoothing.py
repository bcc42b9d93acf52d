"""Smoothing over time: by hand, and its properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.postprocess.smoothing import (
    AdaptiveSmooth,
    FatTail,
    GaussianSmooth,
    LocalMax,
    Smooth,
    fat_tail_kernel,
    gaussian_kernel,
    lift_to_local_max,
    smooth,
    smooth_adaptively,
)

probabilities = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 1, width=32)
)
kernels = st.lists(st.floats(0.01, 1), min_size=1, max_size=4).map(
    lambda half: tuple(weight / (2 * sum(half) - half[-1]) for weight in (*half, *half[-2::-1]))
)
smoothings = st.one_of(
    st.builds(Smooth, kernels),
    st.builds(GaussianSmooth, st.floats(0, 3), st.floats(1, 4)),
    st.builds(FatTail, st.floats(0.05, 5), st.integers(0, 8)),
    st.builds(AdaptiveSmooth, st.floats(0, 0.5)),
    st.builds(LocalMax, st.floats(0, 1), st.integers(0, 8)),
)


def run(step, scores):
    return step.bind(())(scores, "any")


def test_smoothing_by_hand():
    scores = np.float32([[1], [0], [0], [0.5]])
    found = smooth(scores, (0.2, 0.6, 0.2)).ravel()
    np.testing.assert_allclose(found, [0.6 / 0.8, 0.2, 0.1, 0.3 / 0.8], rtol=1e-6)


def test_five_taps_by_hand():
    """At the ends .4 + .2 + .1 = .7 and .2 + .4 + .2 + .1 = .9 of the weights are left."""
    scores = np.float32([[1], [0], [0], [0], [0.5]])
    found = smooth(scores, (0.1, 0.2, 0.4, 0.2, 0.1)).ravel()
    np.testing.assert_allclose(found, [0.4 / 0.7, 0.2 / 0.9, 0.1 + 0.05, 0.1 / 0.9, 0.2 / 0.7], rtol=1e-6)


def test_a_gaussian_by_hand():
    """exp(-1/2) = .60653 a row away, exp(-2) = .13534 two rows away; their sum with 1 in the middle is 2.48374."""
    np.testing.assert_allclose(gaussian_kernel(1.0, 2.0), [0.054489, 0.244201, 0.402620, 0.244201, 0.054489], rtol=1e-5)
    scores = np.float32([[0], [1], [0]])
    np.testing.assert_allclose(run(GaussianSmooth(1.0, 1.0), scores).ravel(), [0.377541, 0.451863, 0.377541], rtol=1e-5)


@given(st.floats(0, 25), st.floats(1, 4))
def test_a_gaussian_is_as_long_as_its_step_says(sigma_rows, truncate_sigmas):
    step = GaussianSmooth(sigma_rows, truncate_sigmas)
    assert len(gaussian_kernel(sigma_rows, truncate_sigmas)) == 2 * step.context_rows + 1


def test_the_gaussian_is_that_of_scipy_within_a_file():
    ndimage = pytest.importorskip("scipy.ndimage")
    scores = np.random.default_rng(0).random((40, 3))
    wanted = ndimage.gaussian_filter1d(scores, 1.3, axis=0, truncate=4.0)
    found = run(GaussianSmooth(1.3), scores.astype(np.float32))
    np.testing.assert_allclose(found[6:-6], wanted[6:-6], rtol=1e-5)


def test_a_fat_tail_by_hand():
    """1, 1 / (1 + 1) and 1 / (1 + 4) at width 1: together 1 + 2 (.5 + .2) = 2.4."""
    np.testing.assert_allclose(fat_tail_kernel(1.0, 2), np.array([0.2, 0.5, 1, 0.5, 0.2]) / 2.4, rtol=1e-6)


def test_adaptive_smoothing_by_hand():
    """The unsure middle row takes .4 * (1 - .5) = .2 of (.9 + .1) / 2 and (.1 + .3) / 2; the first takes .4 * .1."""
    scores = np.float32([[0.9, 0.1], [0.5, 0.0], [0.1, 0.3]])
    found = smooth_adaptively(scores, 0.4)
    np.testing.assert_allclose(found[1], [0.8 * 0.5 + 0.2 * 0.5, 0.2 * 0.2], rtol=1e-6)
    np.testing.assert_allclose(found[0], [0.96 * 0.9 + 0.04 * 0.5, 0.96 * 0.1], rtol=1e-6)
    np.testing.assert_allclose(found[2], [0.72 * 0.1 + 0.28 * 0.5, 0.72 * 0.3], rtol=1e-6)


@given(probabilities, st.floats(0, 0.5))
def test_a_row_that_is_sure_keeps_itself(scores, strength):
    scores[:, 0] = 1
    assert np.array_equal(smooth_adaptively(scores, strength), scores)


def test_a_local_maximum_by_hand():
    scores = np.float32([[0.2], [0.0], [0.8], [0.4]])
    np.testing.assert_allclose(lift_to_local_max(scores, 0.5, 1).ravel(), [0.2, 0.4, 0.8, 0.6], rtol=1e-6)
    np.testing.assert_allclose(lift_to_local_max(scores, 1.0, 2).ravel(), [0.8, 0.8, 0.8, 0.8], rtol=1e-6)


@given(probabilities, st.floats(0, 1), st.integers(0, 30))
def test_a_local_maximum_lowers_nothing(scores, share, radius_rows):
    assert (lift_to_local_max(scores, share, radius_rows) >= scores).all()


@given(probabilities, smoothings)
def test_smoothing_stays_within_each_species_range(scores, step):
    smoothed = run(step, scores)
    assert smoothed.shape == scores.shape
    assert smoothed.dtype == np.float32
    assert (smoothed <= scores.max(axis=0)).all()
    assert (smoothed >= scores.min(axis=0)).all()
    assert ((smoothed >= 0) & (smoothed <= 1)).all()


@given(probabilities, smoothings)
def test_what_is_constant_stays_constant_to_the_bit(scores, step):
    constant = np.tile(scores[:1], (len(scores), 1))
    assert np.array_equal(run(step, constant), constant)


def test_smoothing_a_species_that_no_member_knows_makes_no_order_of_its_rows():
    constant = np.tile(np.random.default_rng(0).random((1, 200), np.float32), (12, 1))
    assert np.array_equal(smooth(constant, (0.1, 0.2, 0.4, 0.2, 0.1)), constant)


@given(probabilities, smoothings)
def test_smoothing_runs_alike_in_both_directions(scores, step):
    np.testing.assert_allclose(run(step, scores[::-1]), run(step, scores)[::-1], atol=1e-6)


@given(probabilities, smoothings, st.data())
def test_a_greater_score_never_becomes_a_smaller_one(scores, step, data):
    row, species = (data.draw(st.integers(0, size - 1)) for size in scores.shape)
    raised = scores.copy()
    raised[row, species] = data.draw(st.floats(float(scores[row, species]), 1, width=32))
    assert run(step, raised)[row, species] >= run(step, scores)[row, species] - 1e-6


@given(probabilities, smoothings, st.data())
def test_a_row_beyond_the_reach_does_not_matter(scores, step, data):
    row = data.draw(st.integers(0, len(scores) - 1))
    others = np.abs(np.arange(len(scores)) - row) > step.context_rows
    changed = scores.copy()
    changed[row] = 1 - changed[row]
    assert np.array_equal(run(step, changed)[others], run(step, scores)[others])


@pytest.mark.parametrize(
    "step",
    [
        Smooth((1.0,)),
        Smooth((0.0, 1.0, 0.0)),
        GaussianSmooth(0.0),
        GaussianSmooth(0.1),
        FatTail(3.0, 0),
        AdaptiveSmooth(0.0),
        LocalMax(0.0, 5),
        LocalMax(1.0, 0),
    ],
)
def test_neutral_parameters_change_nothing(step):
    scores = np.random.default_rng(0).random((7, 3), np.float32)
    assert step.is_neutral
    np.testing.assert_allclose(run(step, scores), scores, rtol=1e-6)


@pytest.mark.parametrize("step", [Smooth(), GaussianSmooth(), FatTail(), AdaptiveSmooth(), LocalMax()])
def test_what_winners_do_does_something(step):
    scores = np.random.default_rng(0).random((7, 3), np.float32)
    assert not step.is_neutral
    assert np.abs(run(step, scores) - scores).max() > 0.05


def test_long_files_are_smoothed_piece_by_piece_to_the_same_bits(monkeypatch):
    scores = np.random.default_rng(0).random((50, 3), np.float32)
    whole = smooth(scores, (0.1, 0.2, 0.4, 0.2, 0.1))
    monkeypatch.setattr("birdinfer.postprocess.numeric._ROWS_AT_ONCE", 7)
    assert np.array_equal(smooth(scores, (0.1, 0.2, 0.4, 0.2, 0.1)), whole)


def test_a_file_shorter_than_the_kernel():
    np.testing.assert_allclose(smooth(np.float32([[0.3]]), (0.1, 0.2, 0.4, 0.2, 0.1)), [[0.3]], rtol=1e-6)
    np.testing.assert_allclose(smooth(np.float32([[0.3]]), (0.5, 0, 0.5)), [[0.3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Smooth(()), "kernel has 0 weights, an odd number"),
        (lambda: Smooth((0.5, 0.5)), "kernel has 2 weights, an odd number"),
        (lambda: Smooth((-0.1, 1.2, -0.1)), "weights must be >= 0 and sum to 1"),
        (lambda: Smooth((float("nan"),)), "weights must be >= 0 and sum to 1"),
        (lambda: GaussianSmooth(26.0), "sigma_rows is 26.0, allowed are 0 to 25"),
        (lambda: GaussianSmooth(float("nan")), "sigma_rows is nan"),
        (lambda: GaussianSmooth(1.0, 0.5), "truncate_sigmas is 0.5, allowed are 1 to 4"),
        (lambda: FatTail(0.0), "width_rows is 0.0, allowed are 0.05 to 100"),
        (lambda: FatTail(1.0, 101), "radius_rows is 101, allowed are 0 to 100"),
        (lambda: AdaptiveSmooth(0.6), "strength is 0.6, allowed are 0 to 0.5"),
        (lambda: LocalMax(1.5), "share is 1.5, allowed are 0 to 1"),
        (lambda: LocalMax(0.5, -1), "radius_rows is -1, allowed are 0 to 100"),
    ],
)
def test_parameters_without_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
