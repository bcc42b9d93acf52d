"""A command line, once more for another process."""

import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from birdinfer.cli.same_command import command_again

PROGRAM = [sys.executable, "-m", "birdinfer"]


@pytest.fixture
def again(capsys):
    """What a command with options of every kind would be started as, with fold 3 instead of its own."""
    found: list[list[str]] = []
    app = typer.Typer()

    @app.callback()
    def _main(): ...

    @app.command()
    def train(
        context: typer.Context,
        fold: str = "0",
        overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
        run: Annotated[str | None, typer.Option("--run", "--name")] = None,
        runs_dir: Path = Path("runs"),
        quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
    ):
        found.append(command_again(context, {"fold"}, ["--fold", "3"]))

    def run(*arguments: str, program: str = "birdinfer") -> list[str]:
        app(list(arguments), standalone_mode=False, prog_name=program)
        return found[-1]

    return run


def test_defaults_are_not_repeated(again):
    assert again("train") == [*PROGRAM, "train", "--fold", "3"]


def test_what_was_given_is_repeated_and_what_is_named_left_out(again):
    assert again("train", "--fold", "all", "--runs-dir", "my runs", "-q") == [
        *PROGRAM, "train", "--runs-dir", "my runs", "--quiet", "--fold", "3",
    ]  # fmt: skip


def test_repeated_options_keep_their_order(again):
    words = again("train", "--set", "optim.lr=1e-3", "--set", "loop.epochs=2", "--name", "x")
    assert words == [
        *PROGRAM, "train", "--set", "optim.lr=1e-3", "--set", "loop.epochs=2", "--name", "x", "--fold", "3",
    ]  # fmt: skip


def test_the_program_may_have_been_started_as_a_module(again):
    assert again("train", "-q", program="python -m birdinfer") == [*PROGRAM, "train", "--quiet", "--fold", "3"]
