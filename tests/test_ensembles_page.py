"""The commands of docs/ensembles.md run as they stand there, on the demo bundle."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "ensembles.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if "exports/mine" not in line
]


@pytest.mark.slow
def test_the_commands_run(birdinfer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in COMMANDS:
        code, _, err = birdinfer(*words)
        assert code == 0, (words, err)
    assert (tmp_path / "same.csv").read_bytes() == (tmp_path / "ranked.csv").read_bytes()
    assert len(COMMANDS) == 7
