"""Searches on tiny clips: one that has not begun, one that is finished."""

from pathlib import Path

import msgspec
import pytest
from one_fold import changed
from watched_search import SPACE, Watching

from birdinfer.training.recipe.schema import Recipe
from birdinfer.tuning.search import Search
from birdinfer.tuning.worker import work


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
    """A search that has not begun."""
    study_dir = tmp_path / "runs" / "small-tune"
    return Search(
        recipe=small_recipe, space=SPACE, data=clips_dir, study_dir=study_dir, folds=(0,), trials=3, device="cpu"
    )


@pytest.fixture(scope="session")
def finished(small_recipe, clips_dir, tmp_path_factory):
    """Four trials on two folds, finished: the search, its outcome, what was reported. Read only."""
    study_dir: Path = tmp_path_factory.mktemp("runs") / "small-tune"
    search = Search(
        recipe=small_recipe,
        space=SPACE,
        data=clips_dir,
        study_dir=study_dir,
        folds=(0, 1),
        trials=4,
        device="cpu",
    )
    watching = Watching()
    return search, work(search, watching), watching
