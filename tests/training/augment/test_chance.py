import numpy as np
import pytest
import torch

from birdinfer.training.augment.mixing import beside, chosen


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 1000)])
def test_never_and_always_are_meant(probability, expected):
    assert chosen(1000, probability, np.random.default_rng(0)).sum() == expected


def test_is_chosen_as_often_as_asked_for():
    assert chosen(10_000, 0.3, np.random.default_rng(0)).mean() == pytest.approx(0.3, abs=0.02)


def test_numbers_are_shaped_to_meet_a_batch():
    batch = torch.zeros(3, 1, 4, 5)
    assert beside(np.arange(3.0), batch).shape == (3, 1, 1, 1)
    assert beside(np.arange(3.0), batch).dtype == torch.float32
    assert beside(np.ones((3, 1, 4, 1), np.bool_), batch).dtype == torch.bool
