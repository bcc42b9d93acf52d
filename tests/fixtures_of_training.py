"""Fixtures of the training tests: a tiny data set, and recipes that train on it in seconds."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from make_bundles import write_sound
from tiny_clips import RATE, TINY_FRONTEND, write_clips

from birdinfer.training.recipe.schema import AugmentConfig, DataConfig, LoopConfig, ModelConfig, OptimConfig, Recipe


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads of a tiny model wait for each other longer than they work, and much longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 good clips of 4 labels. Read only."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def background_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of noise."""
    folder = tmp_path_factory.mktemp("background")
    for seed in range(2):
        noise = np.random.default_rng(seed).normal(0, 0.1, 3 * RATE).astype(np.float32)
        write_sound(folder / f"noise{seed}.wav", noise, RATE)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(background_dir: Path) -> Recipe:
    """Everything is on: dropout, EMA, mixup, masks, background, weighted draws; 4 steps an epoch."""
    return Recipe(
        name="tiny",
        data=DataConfig(n_folds=3, sampling_power=-0.5),
        frontend=TINY_FRONTEND,
        augment=AugmentConfig(roll_probability=0.5, background_dir=str(background_dir)),
        model=ModelConfig(backbone="test_efficientnet", drop_rate=0.3),
        optim=OptimConfig(lr=3e-3, ema_decay=0.9),
        loop=LoopConfig(epochs=3, batch_size=4, val_windows=2, checkpoint_every_steps=2),
    )


@pytest.fixture(scope="session")
def plain_recipe(tiny_recipe: Recipe) -> Recipe:
    """One epoch without background: for tests of what surrounds the loop."""
    return msgspec.structs.replace(
        tiny_recipe,
        augment=AugmentConfig(),
        loop=LoopConfig(epochs=1, batch_size=8, val_windows=1),
    )
