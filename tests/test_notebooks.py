"""The notebooks of the documents run as Jupyter runs them, from first to last cell, and are stored without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
EXECUTE = Path(__file__).with_name("execute_notebook.py")
SHOWN = {
    "field": ["4 files (all ok)", "Synth", "siteB", "image/png", "audio/"],
    "kaggle": ["report/index.html", "1 member, 8 labels", "18 rows", "good", "macro ROC-AUC", "image/png"],
    "python": ["<Result of", "True", "18 rows", "not_there.ogg: no such file"],
}
"""What the outputs of each must hold."""


def test_there_is_a_notebook_for_each_door():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert path.stat().st_size < 10_000
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, EXECUTE, path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for shown in SHOWN[path.stem]:
        assert shown in done.stdout, done.stdout
