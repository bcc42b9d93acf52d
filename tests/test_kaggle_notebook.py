"""The notebook of submission/ runs as it stands: in both of Kaggle's mount layouts, in the public and hidden run."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from making import LABELS

NOTEBOOK = Path(__file__).parents[1] / "submission" / "birdinfer.ipynb"


def code():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("layout", ["birdclef-2025", "competitions/birdclef-2026"])
@pytest.mark.parametrize("hidden", [True, False])
def test_the_notebook_writes_a_submission(tmp_path, bundle, soundscapes, layout, hidden):
    kaggle, working = tmp_path / "input", tmp_path / "working"
    competition = kaggle / layout
    shutil.copytree(bundle, kaggle / ("bundle" if hidden else "datasets/somebody/bundle"))
    shutil.copytree(soundscapes, competition / ("test_soundscapes" if hidden else "train_soundscapes"))
    (competition / "test_soundscapes").mkdir(exist_ok=True)
    working.mkdir()
    row_ids = ["site_2_10", "site_0_60", "site_1_5", "lost_5"]
    sample = [["row_id", *reversed(LABELS)], *([row_id, 0, 0, 0, 0] for row_id in row_ids)]
    with (competition / "sample_submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows(sample)
    script = code().replace('"/kaggle/input"', repr(str(kaggle)))
    run = subprocess.run([sys.executable, "-c", script], cwd=working, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with (working / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    if hidden:
        assert [row[0] for row in rows[1:]] == row_ids
        assert rows[0] == sample[0]
    else:
        assert len(rows) == 1 + 17
