"""submission/train_on_kaggle.ipynb, run as Kaggle does, session after session, with a tiny network on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.inference.bundle import Bundle
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, Recipe
from birdinfer.training.recipe.toml import write_recipe

NOTEBOOK = Path(__file__).parents[1] / "submission" / "train_on_kaggle.ipynb"
EXECUTE = Path(__file__).with_name("execute_notebook.py")


def run_session(kaggle: Path, recipe: Path, hours: str) -> str:
    """Run all cells with /kaggle elsewhere; return what they print."""
    text = NOTEBOOK.read_text(encoding="utf-8").replace("/kaggle/", f"{kaggle}/")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        lines = [
            line.replace('"strong"', f'"{recipe}"').replace('"0,1"', '"cpu,cpu"').replace("11.0", hours)
            for line in cell["source"]
        ]
        cell["source"] = [line.replace('FURTHER = ""', f'FURTHER = "--data {kaggle}/input/clips"') for line in lines]
    (kaggle / "session.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, EXECUTE, kaggle / "session.ipynb"],
        capture_output=True, text=True, timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return "".join(output.get("text", "") for output in json.loads(done.stdout))


@pytest.mark.slow
def test_sessions_continue_one_another_until_all_folds_are_a_bundle(tmp_path):
    kaggle = tmp_path / "kaggle"
    (kaggle / "working").mkdir(parents=True)
    write_clips(kaggle / "input" / "clips")
    model, loop = ModelConfig(backbone="test_efficientnet"), LoopConfig(epochs=2, batch_size=8)
    recipe = Recipe(name="tiny", frontend=TINY_FRONTEND, data=DataConfig(n_folds=2), model=model, loop=loop)
    (tmp_path / "tiny.toml").write_text(write_recipe(recipe), encoding="utf-8")
    shown = run_session(kaggle, tmp_path / "tiny.toml", "0.0005")
    assert "exit code 124" in shown
    assert "not all folds are done" in shown
    runs = kaggle / "working" / "runs"
    if runs.exists():
        (kaggle / "input" / "earlier").mkdir()
        shutil.move(runs, kaggle / "input" / "earlier" / "runs")
    shown = run_session(kaggle, tmp_path / "tiny.toml", "1")
    assert "exit code 0" in shown
    assert len(Bundle.load(kaggle / "working" / "exports" / "tiny").manifest.members) == 2
