"""The command line that runs just now, once more for another process: its options as they were given, some changed."""

import sys
from collections.abc import Collection, Sequence
from typing import Any

import typer


def program() -> list[str]:
    """What starts birdinfer in a process of its own, as this one was started, whatever PATH says there."""
    return [sys.executable, "-m", "birdinfer"]


def command_again(context: typer.Context, without: Collection[str], added: Sequence[str] = ()) -> list[str]:
    """A command like the one that runs just now.

    Args:
        context: of the running command; only what was given on its command line is repeated, no default.
        without: names of parameters to leave out, as the command's function spells them: ``{"fold", "runs_dir"}``.
        added: further arguments, at the end.

    Returns:
        Arguments from the program on, a word each; paths as they were given, so it runs in the same working folder.
    """
    words = [*program(), *_command_names(context)]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        # By its name: whether click is typer's own or a package beside it depends on typer's version.
        if name not in without and source is not None and source.name == "COMMANDLINE":
            words += _spelled(parameter.opts, context.params[name])
    return [*words, *added]


def _command_names(context: Any) -> list[str]:
    """The commands below the program, whose own name may be several words: ``python -m birdinfer``."""
    # Any: the contexts above are click's, whichever click typer has.
    return [] if context.parent is None else [*_command_names(context.parent), context.info_name]


def _spelled(options: Sequence[str], value: object) -> list[str]:
    """An option and its value, or several, as words."""
    option = max(options, key=len)
    if value is True:
        return [option]
    values = value if isinstance(value, list | tuple) else [value]
    return [word for each in values for word in (option, str(each))]
