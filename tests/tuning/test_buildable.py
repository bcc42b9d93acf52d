import pytest
from one_fold import changed

from birdinfer.errors import ConfigError
from birdinfer.tuning.search import can_be_built, check_buildable
from birdinfer.tuning.space import Choices, Range


@pytest.mark.parametrize(
    ("key", "strange", "message"),
    [
        ("optim.name", "adma", "in the space, optim.name: 'adma' is unknown - did you mean"),
        ("model.backbone", "test_efficientne", r"in the space, model\.backbone: .*test_efficientnet"),
        ("model.family", "transformer", r"in the space, model\.family: 'transformer' is unknown"),
        ("loss.name", "bec", "in the space, loss.name: 'bec' is unknown"),
        ("augment.background_dir", "nowhere", r"in the space, augment\.background_dir: 'nowhere' is no folder"),
    ],
)
def test_a_choice_that_nothing_can_be_built_of_is_refused(small_recipe, tmp_path, key, strange, message):
    section, name = key.split(".")
    own = getattr(getattr(small_recipe, section), name)
    check_buildable(small_recipe, {key: Choices((own,))}, tmp_path, (0,))
    with pytest.raises(ConfigError, match=message):
        check_buildable(small_recipe, {key: Choices((own, strange))}, tmp_path, (0,))


def test_choices_that_need_each_other_are_taken_and_checked_when_they_are_drawn(small_recipe, tmp_path):
    own = small_recipe.model.backbone
    space = {"model.family": Choices(("cnn", "rnn")), "model.backbone": Choices((own, "gru"))}
    check_buildable(small_recipe, space, tmp_path, (0,))
    pairs = [("cnn", own), ("rnn", "gru"), ("cnn", "gru"), ("rnn", own)]
    found = [can_be_built(small_recipe, {"model.family": f, "model.backbone": b}, (0,)) for f, b in pairs]
    assert found == [True, True, False, False]


def test_a_base_recipe_that_cannot_be_trained_is_refused(small_recipe, tmp_path):
    recipe = changed(small_recipe, optim={"name": "adma"})
    with pytest.raises(ConfigError, match=r"^optim\.name: 'adma' is unknown"):
        check_buildable(recipe, {"optim.lr": Range(1e-4, 1e-2)}, tmp_path, (0,))
