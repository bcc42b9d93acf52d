"""Poolings, against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.models.pooling import (
    POOLINGS,
    GeneralisedMean,
    in_steps,
    mean_and_maximum,
    smooth_in_time,
)

FEATURES = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
DEFINITIONS = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.max((2, 3)),
    "avgmax": lambda x: x.mean((2, 3)) + x.max((2, 3)),
    "gem": lambda x: (np.maximum(x, 1e-6) ** 3).mean((2, 3)) ** (1 / 3),
    "meanfreq": lambda x: x.mean(2).mean(2) + x.mean(2).max(2),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_each_is_what_the_recipe_says(name):
    found = POOLINGS[name]()(FEATURES).detach().numpy()
    np.testing.assert_allclose(found, DEFINITIONS[name](FEATURES.numpy().astype(np.float64)), rtol=1e-5)


@given(power=st.floats(1.0, 6.0), seed=st.integers(0, 99))
def test_a_generalised_mean_lies_between_mean_and_maximum(power, seed):
    features = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(seed)) + 0.01
    pooling = GeneralisedMean()
    with torch.no_grad():
        pooling.p.fill_(power)
        found = pooling(features)
    assert (found >= features.mean((2, 3)) - 1e-4).all()
    assert (found <= features.amax((2, 3)) + 1e-4).all()


def test_pitfall_12_a_generalised_mean_does_not_overflow_in_half_precision():
    found = GeneralisedMean()(torch.full((1, 1, 2, 2), 1000.0, dtype=torch.float16))
    torch.testing.assert_close(found, torch.full((1, 1), 1000.0), rtol=1e-4, atol=0)


def test_the_power_is_learnt():
    pooling = GeneralisedMean()
    pooling(FEATURES).sum().backward()
    assert pooling.p.grad != 0


def test_neighbours_are_the_maximum_plus_the_mean_of_those_there_are():
    sequence = torch.tensor([[[4.0, -8.0, 1.0, 2.0]]])
    expected = torch.tensor([[[4 - 2, 4 - 1, 2 - 5 / 3, 2 + 1.5]]])
    torch.testing.assert_close(smooth_in_time(sequence), expected)


def test_mean_stands_before_maximum():
    sequence = torch.tensor([[[1.0, 5.0], [3.0, -5.0]]])
    assert mean_and_maximum(sequence).tolist() == [[2.0, 0.0, 3.0, 5.0]]


class TestFinerSteps:
    def test_are_averaged_within_a_coarser_one(self):
        sequence = torch.arange(12.0).reshape(1, 1, 12)
        assert in_steps(sequence, 6).tolist() == [[[0.5, 2.5, 4.5, 6.5, 8.5, 10.5]]]
        assert in_steps(sequence, 3).tolist() == [[[1.5, 5.5, 9.5]]]
        assert torch.equal(in_steps(sequence, 12), sequence)

    def test_of_a_width_that_does_not_divide_the_last_step_counts_what_it_holds(self):
        sequence = torch.tensor([[[1.0, 3.0, 5.0, 7.0, 9.0]]])
        assert in_steps(sequence, 3).tolist() == [[[2.0, 6.0, 9.0]]]

    def test_of_a_network_that_rounds_down_the_rest_is_cut_off(self):
        assert in_steps(torch.tensor([[[1.0, 3.0, 5.0, 7.0, 100.0]]]), 2).tolist() == [[[2.0, 6.0]]]
