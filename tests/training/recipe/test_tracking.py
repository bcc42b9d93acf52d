import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.recipe.schema import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.recipe.toml import load_recipe


def test_no_one_records_a_run_unless_asked():
    assert Recipe().tracking.trackers == ()
    assert Recipe().tracking.mode == "offline"


def test_trackers_are_chosen_on_the_command_line():
    recipe = load_recipe(None, ['tracking.trackers=["tensorboard", "wandb"]', "tracking.folder=records"])
    assert recipe.tracking.trackers == ("tensorboard", "wandb")
    assert recipe.tracking.folder == "records"


@pytest.mark.parametrize(
    ("override", "reported"),
    [
        ('tracking.trackers=["comet"]', "'comet' - allowed is mlflow or neptune or tensorboard or wandb"),
        ('tracking.trackers=["wandb", "mlflow", "wandb"]', "names wandb twice"),
        ("tracking.mode=sometimes", "allowed is offline or online"),
        ("tracking.wait_seconds=0", "allowed is 0 < wait_seconds <= 86400"),
        ("tracking.api_key=secret", "there is no such key"),
    ],
)
def test_what_no_tracker_can_use_is_refused(override, reported):
    with pytest.raises(ConfigError, match=reported):
        load_recipe(None, [override])


def test_histograms_are_of_tensorboard():
    with pytest.raises(ConfigError, match="only tensorboard shows them"):
        load_recipe(None, ["tracking.histograms=true"])
    assert load_recipe(None, ["tracking.histograms=true", "tracking.trackers=[tensorboard]"]).tracking.histograms


def test_no_key_of_it_decides_a_result():
    keys = {key for key in flatten(Recipe()) if key.startswith("tracking.")}
    assert len(keys) == 8
    assert keys <= NOT_DECISIVE
