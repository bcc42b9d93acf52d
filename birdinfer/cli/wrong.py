"""A command line that cannot be read becomes one line: what is wrong with it, and the command that would be right."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from birdinfer.cli.help import EXAMPLES
from birdinfer.errors import BirdinferError

OTHER_COMMANDS = {
    "adopt": "bundle adopt",
    "analyze": "detect",
    "benchmark": "doctor",
    "check": "submission check",
    "convert": "submission convert",
    "download": "models get",
    "embed": "predict --embeddings embeddings",
    "ensemble": "blend",
    "eval": "score",
    "evaluate": "score",
    "fit": "head fit",
    "help": "--help",
    "infer": "predict",
    "inspect": "bundle show",
    "list": "models",
    "pack": "kaggle pack",
    "search": "similar",
    "submit": "kaggle push",
    "test": "demo",
    "validate": "submission check",
    "version": "--version",
}
"""What other programs call a command -> ours."""

OTHER_OPTIONS = {
    "--checkpoint": "--bundle",
    "--conf": "--min-confidence",
    "--config": "--recipe",
    "--confidence": "--min-confidence",
    "--cores": "--workers",
    "--dataset": "--data",
    "--deadline": "--time-budget",
    "--folds": "--fold",
    "--gpu": "--device cuda",
    "--jobs": "--workers",
    "--latitude": "--lat",
    "--longitude": "--lon",
    "--model": "--bundle",
    "--n-jobs": "--workers",
    "--num-workers": "--workers",
    "--out": "--output",
    "--output-dir": "--output",
    "--overwrite": "--force",
    "--provider": "--engine",
    "--slist": "--species",
    "--threads": "--workers",
    "--threshold": "--min-confidence",
    "--timeout": "--time-budget",
    "--verbose": "",
}
"""What other programs call an option -> ours, where the command has it."""

RECIPE_KEYS = {
    "--backbone": "model.backbone",
    "--batch-size": "loop.batch_size",
    "--epochs": "loop.epochs",
    "--learning-rate": "optim.lr",
    "--lr": "optim.lr",
    "--mixup": "augment.mixup_probability",
    "--model": "model.backbone",
    "--pretrained": "model.pretrained",
    "--seed": "loop.seed",
    "--weight-decay": "optim.weight_decay",
}
"""What other programs take as an option -> the key of a recipe, in commands with ``--set``."""

FIRST_ARGUMENT = {"export": "--run", "train": "--recipe", "tune": "--recipe", "calibrate": "--bundle", "doctor": ""}
"""Commands that are given a path where they take options alone -> the option it is for."""


def explain(error: Any, words: Sequence[str]) -> BirdinferError:
    """What is wrong with a command line, as an error of one line.

    ``words`` are its arguments, as typed. After the dash stands the command that would be right: the same one as far as
    it can be guessed, else an example of the command.
    """
    context = error.ctx
    path = context.command_path.partition(" ")[2] if context is not None else _command_in(words)
    line, right = _reason(error, context.command if context is not None else None, path, list(words))
    return BirdinferError(path or "command line", line, f"birdinfer {right or _example(path)}")


def _reason(error: Any, command: Any, path: str, words: list[str]) -> tuple[str, str | None]:
    message = error.format_message().rstrip(".")
    parameter = getattr(error, "param", None)
    name = _name(parameter) if parameter is not None else ""
    if found := re.match(r"No such command '(.*?)'", message):
        return _unknown_command(found[1], command, path, words)
    if hasattr(error, "possibilities"):
        return _unknown_option(error.option_name, command, path, words)
    if message.startswith("Missing"):
        return f"needs {name}", None
    if "requires a" in message:
        return f"{getattr(error, 'option_name', name)} needs a value", None
    if found := re.search(r"unexpected extra argument.*? \((.*)\)$", message):
        return _extra_arguments(found[1].split(), path, words)
    if parameter is not None:
        return _wrong_value(parameter, message.partition(": ")[2] or message, words)
    return message, None


def _unknown_command(name: str, group: Any, path: str, words: list[str]) -> tuple[str, str | None]:
    known = {example.partition(" ")[2]: example for example in EXAMPLES if " " in example}
    known |= {other: ours for other, ours in OTHER_COMMANDS.items() if ours.startswith(path)}
    known |= {command: f"{path} {command}".strip() for command in group.list_commands(None)}
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        return f"there is no command {name}", f"{path} --help".strip()
    before = [*path.split(), name]
    at = next(i for i in range(len(words)) if words[i : i + len(before)] == before or words[i] == name)
    rest = words[words.index(name, at) + 1 :]
    right = known[near[0]]
    return f"there is no command {name}", right if right.startswith("-") else " ".join(
        [right, shlex.join(rest)]
    ).strip()


def _unknown_option(name: str, command: Any, path: str, words: list[str]) -> tuple[str, str | None]:
    own = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
    options = [option for option in own if option.startswith("--")]
    line = f"there is no option {name}"
    if "--set" in options and name in RECIPE_KEYS:
        value = _value_after(name, words)
        return line, _replaced(name, f"--set {RECIPE_KEYS[name]}={value or '...'}", words, takes=value)
    other = OTHER_OPTIONS.get(name)
    if other is not None and (not other or other.split()[0] in options):
        return line, _replaced(name, other, words)
    if not path and (moved := _after_the_command(command.list_commands(None), words)):
        return f"{name} stands before the command", moved
    near = [option for option in options if option.startswith(name)] or get_close_matches(name, options, n=1)
    return line, _replaced(name, near[0], words) if near else f"{path} --help".strip()


def _after_the_command(commands: list[str], words: list[str]) -> str | None:
    """The line with what stands before its command put behind it."""
    at = next((i for i, word in enumerate(words) if word in commands), None)
    return shlex.join([words[at], *words[at + 1 :], *words[:at]]) if at else None


def _extra_arguments(extra: list[str], path: str, words: list[str]) -> tuple[str, str | None]:
    line = f"{' '.join(extra)} is one argument too many" if len(extra) == 1 else f"{' '.join(extra)} are too many"
    rest = words[len(path.split()) :]
    option = FIRST_ARGUMENT.get(path)
    kept: list[str] = []
    for word in rest:
        if word in extra:
            kept += [option, word] if option else []
            option = None
        else:
            kept.append(word)
    return line, f"{path} {shlex.join(kept)}".strip()


def _wrong_value(parameter: Any, message: str, words: list[str]) -> tuple[str, str | None]:
    """A value that is no number, outside its range or none of its choices; ``message`` is typer's."""
    options = parameter.opts
    value = next((found for option in options if (found := _value_after(option, words))), "")
    choices = [choice for choice in re.findall(r"'(.+?)'", message) if choice != value]
    if choices:
        wanted, right = (
            f"none of {', '.join(choices)}",
            (get_close_matches(value, choices, n=1, cutoff=0) or choices)[0],
        )
    elif re.search("valid (integer|float|number)", message):
        wanted = "no whole number" if "integer" in message else "no number"
        right = str(parameter.default) if isinstance(parameter.default, int | float) else "4"
    else:
        return f"{_name(parameter)}: {message}", None
    old = [value, *(f"{option}={value}" for option in options)]
    line = f"{_name(parameter)}: {value} is {wanted}"
    return line, shlex.join(word.removesuffix(value) + right if word in old else word for word in words)


def _command_in(words: Sequence[str]) -> str:
    """The command that words begin with, with that of its group."""
    return max((name for name in EXAMPLES if name.split() == list(words[: len(name.split())])), key=len, default="")


def _name(parameter: Any) -> str:
    long = [option for option in parameter.opts if option.startswith("--")]
    return str((long or [parameter.name])[0])


def _value_after(name: str, words: list[str]) -> str:
    """The value that follows an option, as ``--x 3`` or ``--x=3``; nothing where there is none."""
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and i + 1 < len(words) and not words[i + 1].startswith("-"):
            return words[i + 1]
    return ""


def _replaced(name: str, right: str, words: list[str], takes: str = "") -> str:
    """The words with an option under its right name; ``takes`` is a value that the new one holds already."""
    line, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word == name or word.startswith(f"{name}="):
            value = word[len(name) :]
            skip = bool(takes) and not value
            line += [right + (value if value and not takes else "")] if right else []
        else:
            line.append(shlex.quote(word))
    return " ".join(line)


def _example(path: str) -> str:
    """An example of a command, or of the first of a group."""
    for name, rests in EXAMPLES.items():
        if name == path or name.startswith(f"{path} "):
            return f"{name} {rests[0]}".strip()
    return f"{path} --help".strip()
