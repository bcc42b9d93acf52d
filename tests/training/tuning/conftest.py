"""Searches on tiny clips: one that nobody has begun, one that is finished."""

from pathlib import Path

import msgspec
import pytest
from one_fold import changed
from watched_search import SPACE, Watching

from birdinfer.training.recipe import Recipe
from birdinfer.training.tuning.search import Search
from birdinfer.training.tuning.worker import work


@pytest.fixture(scope="session")
def small_recipe(plain_recipe) -> Recipe:
    """Two epochs of four steps; its values lie in SPACE."""
    recipe = changed(
        plain_recipe,
        loop={"epochs": 2, "batch_size": 4},
        optim={"warmup_epochs": 0.0, "ema_decay": 0.0},
        model={"drop_rate": 0.1},
    )
    return msgspec.structs.replace(recipe, name="small")


@pytest.fixture
def search(small_recipe, clips_dir, tmp_path) -> Search:
    """A search that nobody has begun."""
    return Search(small_recipe, SPACE, clips_dir, tmp_path / "runs" / "small-tune", (0,), 3, device="cpu")


@pytest.fixture(scope="session")
def finished(small_recipe, clips_dir, tmp_path_factory):
    """Four trials on two folds, finished: the search, its outcome, what was told. Read only."""
    study_dir: Path = tmp_path_factory.mktemp("runs") / "small-tune"
    search = Search(small_recipe, SPACE, clips_dir, study_dir, (0, 1), 4, device="cpu")
    watching = Watching()
    return search, work(search, watching), watching
