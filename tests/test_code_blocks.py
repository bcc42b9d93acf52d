"""What stands in code blocks of the documents: command lines are taken, and blocks run or say why not."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_clips import write_clips

from birdinfer.cli.app import COMMANDS, load_command
from birdinfer.synthetic.soundscapes import write_soundscapes

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.md")), *(ROOT / name for name in (
    "README.md", "CONTRIBUTING.md", "train/README.md", "submission/README.md", "exports/README.md",
    "benchmarks/README.md",
))]  # fmt: skip
RUN_ELSEWHERE = {"docs/python.md": "test_python_api.py", "docs/ensembles.md": "test_ensembles_page.py"}
BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>[^>\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(birdinfer [^`]+)`")


class Block(NamedTuple):
    """A fenced block; the reason why it is not run is "" if it is."""

    reason: str
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(found["reason"] or "", found["kind"], found["text"]) for found in BLOCK.finditer(page.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, as words; where their output goes is left out."""
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in {"&&", "|", ">"}:
                if command and command[0] != ">":
                    yield command
                command = [] if word != ">" else [">"]
            else:
                command.append(word)


def find_command(words: list[str]):
    """The command that words name, and those that follow its name."""
    assert words[1] in COMMANDS, words
    command, rest = load_command(words[1]), words[2:]
    children = getattr(command, "commands", {})
    if rest and rest[0] in children:
        return children[rest[0]], rest[1:]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_command_lines_of_blocks_are_taken(page):
    for block in blocks(page):
        if block.kind != "bash":
            continue
        for words in commands(block.text):
            if words[0] == "birdinfer" and words[1:2] != ["--help"]:
                command, rest = find_command(words)
                if rest or not hasattr(command, "commands"):
                    command.make_context(words[1], rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_in_the_text_exist(page):
    text = BLOCK.sub("", page.read_text())
    for found in INLINE.findall(text):
        words = found.replace("|", " ").split()
        if words[1] not in COMMANDS:
            assert words[1].isupper() or words[1] in {"--version", "--help"}, found
            continue
        command, rest = find_command(words)
        children = getattr(command, "commands", {}).values()
        known = {option for each in (command, *children) for parameter in each.params for option in parameter.opts}
        given = {re.split(r"[=\[]", word)[0].rstrip(".,") for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help", "-h"}, found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_indented_blocks_hold_no_commands(page):
    """They would be neither checked nor run."""
    assert re.findall(r"(?:^|\n)\n    (?:birdinfer|pip|make) .*", BLOCK.sub("", page.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_toml_blocks_can_be_read(page):
    for block in blocks(page):
        if block.kind == "toml":
            tomllib.loads(block.text)


RUN = [page for page in PAGES if any(not block.reason and block.kind in ("bash", "python") for block in blocks(page))]


@pytest.fixture
def place(tmp_path, monkeypatch, embedding_bundle, embedded):
    """A folder that has what the documents name: recordings, data to train on, bundles, embeddings."""
    made = tmp_path / "made"
    write_soundscapes(made, 2, 20, 1)
    for name in ("recordings", "soundscapes", "cards"):
        shutil.copytree(made, tmp_path / name, ignore=shutil.ignore_patterns("*.csv"))
    first = min(made.glob("*.ogg"))
    shutil.copy(first, tmp_path / "soundscape.ogg")
    shutil.copy(first, tmp_path / "song.wav")
    for name in ("efficientnet_b0", "birdnet", "mine", "NAME", "b0"):
        shutil.copytree(embedding_bundle.folder, tmp_path / "exports" / name)
    shutil.copytree(embedded, tmp_path / "embeddings")
    for name in ("DATA", "data"):
        write_clips(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_blocks_run(page, place, birdinfer):
    """As they stand, one after the other in one folder."""
    name = page.relative_to(ROOT).as_posix()
    if name in RUN_ELSEWHERE:
        assert (ROOT / "tests" / RUN_ELSEWHERE[name]).read_text().count(page.name)
        return
    for block in blocks(page):
        if block.reason or block.kind not in ("bash", "python"):
            continue
        if block.kind == "python":
            exec(compile(block.text, name, "exec"), {})  # our own text
            continue
        for words in commands(block.text):
            assert words[0] == "birdinfer", f"{words} is not run: say why"
            code, _, err = birdinfer(*words[1:])
            assert code == 0, (words, err)
