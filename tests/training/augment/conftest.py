"""Fixtures of the augmentation's tests: recipes in which all is off but one, and batches with targets."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_clips import TINY_FRONTEND, call

from birdinfer.training.data.targets import Targets
from birdinfer.training.recipe.schema import AugmentConfig


@pytest.fixture(scope="session")
def only() -> Callable[..., AugmentConfig]:
    """A recipe that does nothing but what is named."""
    off = {name: 0.0 for name in AugmentConfig.__struct_fields__ if name.endswith("_probability")}
    return lambda **keys: AugmentConfig(**off | keys)


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """A tiny window of a tone in noise, with its margins."""
    return call("0012", 1.5, seed=0)[: TINY_FRONTEND.window_samples + 2 * TINY_FRONTEND.margin_samples]


@pytest.fixture
def targets() -> Targets:
    """Each of 4 windows has a label of its own, for certain."""
    return Targets(torch.eye(4), torch.ones(4, 4), torch.ones(4))


@pytest.fixture
def waveforms() -> torch.Tensor:
    """4 windows of different noise and different loudness."""
    noise = np.random.default_rng(0).normal(size=(4, 400)) * np.array([[0.01], [0.1], [0.5], [2.0]])
    return torch.from_numpy(noise.astype(np.float32))


@pytest.fixture
def spectrograms() -> torch.Tensor:
    """4 pictures of different noise, 16 x 40."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(4, 1, 16, 40)).astype(np.float32))
