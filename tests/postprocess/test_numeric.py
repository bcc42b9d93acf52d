"""Moves that several steps share: by hand, and to the last bit where a rank metric would see it."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.postprocess import numeric
from birdinfer.postprocess.numeric import lerp, shift_logits

scores = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(0, 1, width=32))


def test_moving_towards_by_hand():
    found = lerp(np.float32([[0.2, 0.6]]), np.float32([[0.6, 0.2]]), 0.25)
    np.testing.assert_allclose(found, [[0.3, 0.5]], rtol=1e-6)
    each_row = lerp(np.float32([[0.2], [0.2]]), np.float32([[0.6], [0.6]]), np.array([[0.5], [1.0]]))
    np.testing.assert_allclose(each_row, [[0.4], [0.6]], rtol=1e-6)


@given(scores, scores, st.floats(0, 1))
def test_what_moves_stays_between_its_own_value_and_its_target(own, target, share):
    own, target = (each[: min(len(own), len(target))] for each in (own, target))
    found = lerp(own, target, share)
    assert found.dtype == np.float32
    assert (found >= np.minimum(own, target)).all()
    assert (found <= np.maximum(own, target)).all()
    assert np.array_equal(lerp(own, target, 0.0), own)
    assert np.array_equal(lerp(own, target, 1.0), target)
    assert np.array_equal(lerp(own, own, share), own)


def test_long_files_are_moved_piece_by_piece_to_the_same_bits(monkeypatch):
    rng = np.random.default_rng(0)
    own, target = rng.random((50, 3), np.float32), rng.random((50, 3), np.float32)
    shares, shifts = rng.random((50, 1)), np.array([1.0, 0.0, -2.0])
    whole = lerp(own, target, shares), shift_logits(own, shifts)
    monkeypatch.setattr(numeric, "_ROWS_AT_ONCE", 7)
    assert np.array_equal(lerp(own, target, shares), whole[0])
    assert np.array_equal(shift_logits(own, shifts), whole[1])


def test_a_shift_by_hand():
    """Odds of .2 are 1/4; three times that is 3/4 and p = 3/7. Odds of .6 are 3/2; a third is 1/2, p = 1/3."""
    found = shift_logits(np.float32([[0.2, 0.6, 0.3]]), np.array([math.log(3), -math.log(3), 0]))
    np.testing.assert_allclose(found, [[3 / 7, 1 / 3, 0.3]], rtol=1e-6)


@given(scores, hnp.arrays(np.float64, 3, elements=st.floats(-100, 100)))
def test_a_shift_is_bounded_monotone_and_keeps_what_is_certain(probabilities, shifts):
    before = probabilities.copy()
    found = shift_logits(probabilities, shifts)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(shift_logits(np.sort(probabilities, axis=0), shifts), axis=0) >= 0).all()
    assert np.array_equal(shift_logits(np.float32([[0] * 3, [1] * 3]), shifts), [[0] * 3, [1] * 3])
    assert np.array_equal(probabilities, before)


@given(scores)
def test_a_shift_of_0_changes_no_bit(probabilities):
    assert np.array_equal(shift_logits(probabilities, np.zeros(3)), probabilities)


@given(scores, st.floats(0, 5))
def test_a_shift_upwards_raises_and_the_opposite_takes_it_back(probabilities, shift):
    inner = probabilities.clip(0.01, 0.99)
    up = shift_logits(inner, np.full(3, shift))
    assert (up >= inner - 1e-7).all()
    np.testing.assert_allclose(shift_logits(up, np.full(3, -shift)), inner, atol=1e-4)
