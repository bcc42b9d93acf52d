"""``birdinfer recipes``: what can be trained by name, what a recipe may say, and whether it says it rightly."""

import textwrap
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from birdinfer.cli.app import COMMANDS
from birdinfer.cli.console import stderr, stdout
from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.training.recipe.reference import recipe_keys
from birdinfer.training.recipe.shipped import SPACE, describe, find_recipe, shipped_recipes
from birdinfer.training.recipe.toml import load_recipe, read_toml

EXIT_REFUSED = 2
_INDENT = " " * 4

recipes = typer.Typer(
    help=COMMANDS["recipes"], no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@recipes.command("list")
def list_recipes() -> None:
    """List the recipes that come with birdinfer; train --recipe takes their names."""
    for name, path in shipped_recipes().items():
        if name != SPACE:
            _print_entry(name, describe(path))
    stdout().print("birdinfer recipes show NAME > mine.toml makes one of your own.", markup=False)


@recipes.command()
def show(recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a TOML file.")]) -> None:
    """Print a recipe, to read it or to begin one of your own with it."""
    read_toml(recipe)
    typer.echo(find_recipe(recipe).read_text(encoding="utf-8"), nl=False)


@recipes.command()
def check(
    recipe: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Names of recipes, or TOML files.")],
) -> None:
    """Check recipes without training: keys, values and what contradicts each other. Exit code 2: one is refused."""
    n_refused = 0
    for each in recipe:
        try:
            found = load_recipe(find_recipe(each))
        except BirdinferError as error:
            stderr().print(str(error), style="red", markup=False)
            n_refused += 1
        else:
            network = f"{found.model.family} {found.model.backbone}, {found.loop.epochs} epochs"
            stdout().print(f"{each}: good ({network})", markup=False)
    if n_refused:
        raise typer.Exit(EXIT_REFUSED)


@recipes.command()
def keys(
    part: Annotated[str, typer.Argument(metavar="[PART]", help="Only keys whose name or meaning holds this.")] = "",
) -> None:
    """List the keys of a recipe with their default, range and meaning."""
    found = recipe_keys(part)
    if not found:
        raise ConfigError(part, "no key has it in its name or meaning", "birdinfer recipes keys lists all of them")
    for key in found:
        _print_entry(f"{key.name} = {key.default}", key.meaning.replace("``", ""), key.allowed)


def _print_entry(head: str, text: str, beside: str = "") -> None:
    stdout().print(f"[bold]{escape(head)}[/]" + (f"    [dim]{escape(beside)}[/]" if beside else ""), soft_wrap=True)
    if text:
        stdout().print(
            textwrap.fill(text, stdout().width, initial_indent=_INDENT, subsequent_indent=_INDENT), markup=False
        )
