"""``birdinfer recipes``: names, keys, and what is wrong with a recipe."""

from pathlib import Path

import pytest

from birdinfer.training.recipe.reference import recipe_keys
from birdinfer.training.recipe.schema import flatten
from birdinfer.training.recipe.shipped import SPACE, describe, find_recipe, shipped_recipes
from birdinfer.training.recipe.toml import load_recipe

RECIPES = [name for name in shipped_recipes() if name != SPACE]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_name_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = load_recipe(Path(name))
    assert named == load_recipe(Path(f"train/{name}.toml")) == load_recipe(shipped_recipes()[name])
    what, _, when = describe(shipped_recipes()[name]).partition(" Use it ")
    assert min(len(what), len(when)) > 20


def test_a_file_of_ones_own_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strong").write_text("seed = 7\n")
    assert load_recipe(Path("strong")).seed == 7
    assert find_recipe(Path("strong.toml")) == shipped_recipes()["strong"]


@pytest.mark.parametrize("given", ["strng", "other/strong.toml", "strong.json"])
def test_what_is_no_recipe_is_refused_with_those_alike(birdinfer, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = birdinfer("recipes", "check", given)
    assert code == 2
    assert f"{given}: no such recipe - did you mean strong" in err


def test_list_names_every_recipe(birdinfer):
    code, out, _ = birdinfer("recipes", "list")
    assert code == 0
    assert set(RECIPES) <= set(out.split())


def test_show_prints_what_can_be_trained(birdinfer, tmp_path):
    code, out, _ = birdinfer("recipes", "show", "strong")
    assert code == 0
    (tmp_path / "strong.toml").write_text(out)
    assert load_recipe(tmp_path / "strong.toml") == load_recipe(Path("strong"))


def test_check_reads_the_next_after_a_wrong_recipe(birdinfer, tmp_path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[augment]\nmixup_probabilty = 1\n")
    code, out, err = birdinfer("recipes", "check", str(wrong), "strong")
    assert code == 2
    assert "did you mean mixup_probability?" in err
    assert out.startswith("strong: good (sed tf_efficientnet_b0")


def with_sources(text):
    """A recipe whose tables of sources are no comments any more: from "# [[data.sources]]" to an empty line."""
    lines, is_source = [], False
    for line in text.splitlines():
        is_source = line == "# [[data.sources]]" or (is_source and bool(line))
        lines.append(line.removeprefix("# ") if is_source else line)
    return "\n".join(lines)


@pytest.mark.parametrize("name", RECIPES)
def test_sources_that_stand_in_comments_are_good(name, tmp_path):
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(with_sources(text), encoding="utf-8")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert len(recipe.data.sources) == text.count("[[data.sources]]")


def test_keys_are_all_those_of_the_schema_in_its_order():
    keys = recipe_keys()
    of_sources = [key.name for key in keys if key.name.startswith("data.sources.")]
    assert {"data.sources.path", "data.sources.kind"} <= set(of_sources)
    assert [key.name for key in keys if key.name not in of_sources] == [
        name for name in flatten(load_recipe(None)) if name != "data.sources"
    ]
    assert sum(bool(key.meaning) for key in keys) > 90
    (smooth,) = recipe_keys("optim.ema_decay")
    assert (smooth.default, smooth.allowed) == ("0.0", "0 <= ema_decay < 1")
    assert smooth.meaning.startswith("Decay per step of the averaged weights")


def test_keys_can_be_searched(birdinfer):
    code, out, _ = birdinfer("recipes", "keys", "mixup")
    assert code == 0
    assert "augment.mixup_probability" in out
    assert "optim.lr" not in out
