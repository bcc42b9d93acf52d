import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_fold import changed

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.training.recipe.schema import Recipe, flatten
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.tuning.space import Choices, Range, load_space, outside, why_not_searchable, without, write_space

TRAIN = Path(__file__).parents[2] / "train"


@pytest.fixture
def read(tmp_path):
    """The space that a text is, beside a recipe."""

    def load(text, recipe=None):
        path = tmp_path / "space.toml"
        path.write_text(text)
        return load_space(path, recipe or Recipe())

    return load


class TestReading:
    def test_ranges_and_choices_of_every_kind(self, read):
        space = read(
            "optim.lr = {low = 1e-4, high = 1e-2, log = true}\n"
            "frontend.mel.n_mels = {low = 32, high = 128, step = 32}\n"
            "loop.batch_size = [16, 32]\n"
            'optim.name = ["adamw", "adam"]\n'
            "data.sampling_power = [0, -0.5]\n"
            "augment.stretch_rate = [[0.9, 1.1], [0.8, 1.2]]\n"
        )
        assert space == {
            "optim.lr": Range(1e-4, 1e-2, log=True),
            "frontend.mel.n_mels": Range(32, 128, step=32, is_whole=True),
            "loop.batch_size": Choices((16, 32)),
            "optim.name": Choices(("adamw", "adam")),
            "data.sampling_power": Choices((0, -0.5)),
            "augment.stretch_rate": Choices(([0.9, 1.1], [0.8, 1.2])),
        }

    def test_sections_dots_and_quotes_spell_the_same_key(self, read):
        expected = {"frontend.mel.n_mels": Choices((64, 128))}
        assert read("[frontend.mel]\nn_mels = [64, 128]") == expected
        assert read("[frontend]\nmel.n_mels = [64, 128]") == expected
        assert read('"frontend.mel.n_mels" = [64, 128]') == expected

    def test_a_number_that_need_not_be_whole_takes_a_range_of_whole_ones(self, read):
        assert read("optim.warmup_epochs = {low = 0, high = 5}") == {"optim.warmup_epochs": Range(0, 5)}

    def test_the_shipped_space_holds_the_shipped_recipes_and_every_key_is_one_of_theirs(self):
        for name in ("esc10", "efficientnet_b0", "strong"):
            recipe = load_recipe(TRAIN / f"{name}.toml")
            space = load_space(TRAIN / "space.toml", recipe)
            assert set(space) <= set(flatten(recipe))

    def test_the_recipe_it_comes_with_is_its_first_trial(self):
        recipe = load_recipe(TRAIN / "esc10.toml")
        space = load_space(TRAIN / "space.toml", recipe)
        assert outside(space, flatten(recipe)) == []

    @given(
        low=st.floats(1e-5, 1e-3), high=st.floats(1e-2, 1), log=st.booleans(),
        choices=st.lists(st.integers(1, 64), min_size=1, unique=True),
    )  # fmt: skip
    def test_what_is_written_reads_back_equal(self, tmp_path_factory, low, high, log, choices):
        space = {"optim.lr": Range(low, high, log), "loop.batch_size": Choices(tuple(choices))}
        path = tmp_path_factory.mktemp("space") / "space.toml"
        path.write_text(write_space(space))
        assert load_space(path, Recipe()) == space


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "searches nothing"),
            ("[optim]", "searches nothing"),
            ("optim.lr = ", "is not TOML"),
            ("optim.lrr = [1e-3]", r"optim\.lrr: there is no such key - did you mean lr\?"),
            ("optm.lr = [1e-3]", r"optm: there is no such key - did you mean optim\?"),
            ("optim.lr.x = [1e-3]", r"optim\.lr: is no range"),
            ("optim = 3", "optim: is a section of the recipe - name a key in it"),
            ("optim.lr = 1e-3", "is 0.001, one value is no space"),
            ("optim.lr = []", "has no choices"),
            ("optim.lr = [1e-3, 0.001]", "names the choice 0.001 twice"),
            ("loop.batch_size = [8, 8.0]", "names the choice 8.0 twice"),
            ("optim.lr = {low = 1e-2, high = 1e-4}", r"low = 0\.01 to high = 0\.0001, low must be the smaller"),
            ("optim.lr = {low = 1e-3, high = 1e-3}", "low must be the smaller"),
            ("optim.weight_decay = {low = 0, high = 0.1, log = true}", "a logarithm needs low > 0"),
            ("optim.lr = {low = 1e-3}", r"is no range \(Object missing required field high\)"),
            ("optim.lr = {low = 1e-3, high = 1, base = 2}", "unknown field base"),
            ("optim.lr = {low = 1e-3, high = inf}", "needed are finite numbers"),
            ("optim.lr = {low = 1e-3, high = 1, log = true, step = 0.1}", "has log and step"),
            ("loop.batch_size = {low = 8, high = 32, step = 5}", "step = 5, which does not lead from 8 to 32"),
            ("loop.batch_size = {low = 8.0, high = 32.0}", "takes whole numbers"),
            ("optim.name = {low = 1, high = 2}", "is no number, it has no range"),
            ("optim.schedule = ['cosine', 'cosin']", "optim.schedule: is 'cosin'"),
            ("optim.lr = {low = 1e-3, high = 3}", "optim.lr: is 3, expected float <= 1.0 - allowed is 0 < lr <= 1"),
            ("loop.batch_size = [8, 'many']", "loop.batch_size: is 'many', expected int"),
            ("frontend.mel.n_mels = [64, 4]", "n_mels is 4, allowed are 8 to 512"),
            ("augment.stretch_rate = [0.9, 1.1]", "augment.stretch_rate: is 0.9, expected array"),
            ('"optim.lr" = [1e-3]\n[optim]\nlr = [1e-2]', "stands twice"),
        ],
    )
    def test_what_cannot_be_searched_is_refused_in_one_line(self, read, text, message):
        with pytest.raises(ConfigError, match=message) as refused:
            read(text)
        assert "\n" not in str(refused.value)
        assert "space.toml" in str(refused.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such space"):
            load_space(tmp_path / "none.toml", Recipe())

    @pytest.mark.parametrize(
        "key", ["name", "seed", "data.n_folds", "data.max_clips", "loop.num_workers", "post.smoothing_kernel"]
    )
    def test_keys_that_find_nothing_or_change_what_is_measured(self, read, key):
        with pytest.raises(ConfigError, match=r"take it out of the space") as refused:
            read(f"{key} = [1, 2]")
        assert why_not_searchable(key) in str(refused.value)

    def test_a_value_that_only_goes_with_other_values_of_the_space_is_taken(self, read):
        # A batch of 4 cannot be cut into 8 parts, one of 16 can.
        recipe = changed(Recipe(), loop={"batch_size": 4})
        assert "loop.accumulate" in read("loop.accumulate = [1, 8]\nloop.batch_size = [4, 16]", recipe)
        with pytest.raises(ConfigError, match="cannot be cut into accumulate = 8 parts"):
            read("loop.accumulate = [1, 8]", recipe)


class TestHolding:
    def test_a_range_holds_its_ends_and_the_steps_between(self):
        every = Range(0.1, 0.7, step=0.2)
        assert [value for value in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9) if every.holds(value)] == [0.1, 0.3, 0.5, 0.7]
        assert not Range(0, 1).holds("0.5")
        assert not Range(0, 1).holds(True)

    def test_choices_take_1_for_1_0_but_not_for_true(self):
        assert Choices((1, 2)).holds(1.0)
        assert not Choices((1, 2)).holds(True)
        assert Choices(([0.9, 1.1],)).holds((0.9, 1.1))

    def test_keys_whose_value_is_outside(self):
        space = {"optim.lr": Range(1e-4, 1e-2), "optim.name": Choices(("adam",))}
        assert outside(space, {"optim.lr": 1e-3, "optim.name": "adamw"}) == ["optim.name"]
        assert set(without(space, frozenset({"optim.name", "loop.epochs"}))) == {"optim.lr"}


@pytest.mark.parametrize(
    ("choice", "n_values"),
    [
        (Range(0.0, 1.0), math.inf),
        (Range(0.0, 1.0, step=0.1), 11),
        (Range(8, 16, is_whole=True), 9),
        (Range(64, 128, step=32, is_whole=True), 3),
        (Choices(("a", "b")), 2),
    ],
)
def test_how_many_values_a_key_may_have(choice, n_values):
    assert choice.n_values == n_values
