import pytest
from one_fold import changed

from birdinfer.errors import ConfigError
from birdinfer.runs.study import cell
from birdinfer.training.recipe.schema import Recipe
from birdinfer.tuning.space import is_taken, values_of, with_values


def test_what_is_put_in_is_taken_out_and_all_else_stays():
    values = {"optim.lr": 0.5, "frontend.mel.n_mels": 32, "augment.stretch_rate": [0.8, 1.2], "data.cache": True}
    recipe = with_values(Recipe(), values, "trial")
    assert values_of(recipe, values) == values
    assert recipe.augment.stretch_rate == (0.8, 1.2)
    assert with_values(recipe, values_of(Recipe(), values), "back") == Recipe()


def test_a_recipe_refuses_in_its_own_words():
    with pytest.raises(ConfigError, match=r"trial: loop: batch_size is 4, it cannot be cut into accumulate = 8 parts"):
        with_values(changed(Recipe(), loop={"batch_size": 4}), {"loop.accumulate": 8}, "trial")
    assert not is_taken(changed(Recipe(), loop={"batch_size": 4}), {"loop.accumulate": 8})
    assert is_taken(Recipe(), {"loop.accumulate": 8})


@pytest.mark.parametrize(
    ("value", "text"), [("adamw", "adamw"), (16, "16"), (0.001, "0.001"), (True, "true"), ([0.9, 1.1], "[0.9, 1.1]")]
)
def test_a_cell_is_as_toml_but_text_bare(value, text):
    assert cell(value) == text
