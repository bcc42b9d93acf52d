"""The recipes that come with birdinfer, found by name: ``strong`` for train/strong.toml."""

import difflib
from pathlib import Path

from birdinfer.errors import InputNotFoundError

SPACE = "space"
"""No recipe, but what ``birdinfer tune`` searches by default."""


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes of this installation, or of the checkout's ``train/``: name -> TOML file.

    >>> shipped_recipes()["strong"].name
    'strong.toml'
    """
    package = Path(__file__).parents[2]
    for folder in (package / "recipes", package.parent / "train"):
        found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        if found:
            return found
    raise InputNotFoundError(package / "recipes", "this installation has no recipes", "install it again")


def find_recipe(given: Path) -> Path:
    """Return the file that is named: itself, else the recipe of its name in ./train, else the shipped one.

    Raises:
        InputNotFoundError: there is neither; those of a similar name are listed.

    >>> find_recipe(Path("train/strong.toml")).name == find_recipe(Path("strong")).name
    True
    """
    if given.is_file():
        return given
    shipped = shipped_recipes() | {path.stem: path for path in Path("train").glob("*.toml")}
    is_name = given.parent in (Path(), Path("train")) and given.suffix in ("", ".toml")
    if is_name and given.stem in shipped:
        return shipped[given.stem]
    near = difflib.get_close_matches(given.stem, shipped, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "birdinfer recipes lists those that come with birdinfer"
    raise InputNotFoundError(given, "no such recipe", hint)


def describe(path: Path) -> str:
    """Return the first two lines of a recipe, its comment: what it is, and when to use it, in a sentence each."""
    with path.open(encoding="utf-8") as file:
        return " ".join(file.readline().lstrip("#").strip() for _ in range(2))
