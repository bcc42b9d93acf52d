"""What a command's help shows beside its options: groups, examples, paragraphs that fill any screen."""

import itertools
import shlex

import pytest

from birdinfer.cli.app import COMMANDS, load_command
from birdinfer.cli.help import EXAMPLES, GROUPS, OPTION_GROUPS, join_lines


def commands():
    """Every command with its whole name, those of groups, too."""
    for name in COMMANDS:
        command = load_command(name)
        for child_name, child in getattr(command, "commands", {}).items():
            yield f"{name} {child_name}", child
        if not hasattr(command, "commands"):
            yield name, command


ALL = dict(commands())


def test_groups_hold_every_command_once():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_examples_that_it_takes(name):
    assert name in EXAMPLES
    for arguments in EXAMPLES[name]:
        ALL[name].make_context(name, shlex.split(arguments))
        assert f"birdinfer {name} {arguments}".strip() in ALL[name].epilog


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_of_a_paragraph_ends_before_the_next_word_needs_it(birdinfer, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("predict", "train", "bundle adopt"):
        _, out, _ = birdinfer(*name.split(), "--help")
        prose = out.partition("\u256d")[0].partition("Usage")[2].splitlines()[1:]
        assert max(len(line) for line in out.splitlines()) <= width
        for line, following in itertools.pairwise(prose):
            if line.strip() and following.strip() and not following.startswith("   "):
                assert len(line.rstrip()) + 1 + len(following.split()[0]) >= width - 1, line


def test_option_groups_name_options_that_some_command_has():
    known = {option for command in ALL.values() for parameter in command.params for option in parameter.opts}
    assert {option for options in OPTION_GROUPS.values() for option in options.split()} <= known


def test_option_help_is_no_fragment():
    """A line that begins with "Of the jobs" leaves out what it is about."""
    for name, command in ALL.items():
        for parameter in command.params:
            assert (parameter.help or "").split(" ")[0] not in {"Of", "Likewise", "Their"}, (name, parameter.name)


def test_join_lines_keeps_indented_lines():
    assert join_lines("a\nb\n\n    c\n    d") == "a b\n\n    c\n    d"
