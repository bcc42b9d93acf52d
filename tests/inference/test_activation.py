"""Logits become probabilities."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.inference.activation import activate, sigmoid, softmax


def test_sigmoid_by_hand():
    np.testing.assert_allclose(sigmoid(np.float32([0, np.log(3), -np.log(3)])), [0.5, 0.75, 0.25], rtol=1e-6)


@given(hnp.arrays(np.float32, 10, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_sigmoid_is_bounded_and_monotone(logits):
    found = sigmoid(np.sort(logits))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


def test_sigmoid_of_rare_species_does_not_tie():
    """Steps of 2^-25 made 0 of all logits below -17, and equals of those below -12."""
    logits = np.arange(-80, 12, 0.25, np.float32)
    found = sigmoid(logits)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, [1 / (1 + math.exp(-float(logit))) for logit in logits], rtol=1e-7)


def test_softmax_by_hand_and_far_out():
    np.testing.assert_allclose(softmax(np.log(np.float32([1, 2, 5]))), [0.125, 0.25, 0.625], rtol=1e-6)
    np.testing.assert_allclose(softmax(np.float32([1e4, -1e4])), [1, 0])


def test_activate_returns_the_requested_columns():
    logits = np.log(np.float32([[1, 2, 5]]))
    columns = np.array([2, 0])
    np.testing.assert_allclose(activate(logits, "softmax", columns), [[0.625, 0.125]], rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "sigmoid", columns), [[5 / 6, 1 / 2]], rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "none", columns), np.log([[5, 1]]), rtol=1e-6)
    np.testing.assert_allclose(activate(logits, "sigmoid"), [[1 / 2, 2 / 3, 5 / 6]], rtol=1e-6)
