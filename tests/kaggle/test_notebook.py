"""The notebook's cells: one program in two forms, which says in plain words what it misses and leaves a submission."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from make_bundles import LABELS

from birdinfer.errors import ConfigError
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.notebook import NotebookSettings, cells, write_notebook, write_script
from birdinfer.kaggle.sandbox import layer

SETTINGS = NotebookSettings(competition=competition("birdclef-2025"), budget_minutes=85.0, engine="onnxruntime")
SAMPLE = [["row_id", *reversed(LABELS)], *([f"soundscape_{n}_5", "0.25", "0.25", "0.25", "0.25"] for n in range(3))]


@pytest.fixture
def kaggle(tmp_path):
    """A root without inputs."""
    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    (tmp_path / "kaggle" / "input").mkdir()
    return tmp_path / "kaggle"


def add_competition(root, sounds=None, folder="train_soundscapes"):
    place = root / "input" / "competitions" / "birdclef-2025"
    (place / "test_soundscapes").mkdir(parents=True)
    if sounds:
        shutil.copytree(sounds, place / folder, dirs_exist_ok=True)
    with (place / "sample_submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows(SAMPLE)
    return place


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python without birdinfer."""
    return layer(tmp_path_factory.mktemp("bare") / "python", Path(sys.base_prefix, "bin", "python3"))


def run_script(root, settings=SETTINGS, python=sys.executable):
    """The script's exit code and all that it says."""
    script = root.parent / "birdinfer.py"
    write_script(script, settings)
    environment = {**os.environ, "BIRDINFER_KAGGLE_ROOT": str(root), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [python, script],
        cwd=root / "working",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def record(root):
    return json.loads((root / "working" / "birdinfer_kaggle.json").read_text())


def test_notebook_and_script_are_one_program(tmp_path):
    write_notebook(tmp_path / "n.ipynb", SETTINGS)
    write_script(tmp_path / "n.py", SETTINGS)
    found = json.loads((tmp_path / "n.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse((tmp_path / "n.py").read_text()))
    assert [cell["cell_type"] for cell in found].count("markdown") >= 5
    assert len({cell["id"] for cell in found}) == len(found)
    assert all(cell["outputs"] == [] for cell in found if cell["cell_type"] == "code")


def test_the_clock_starts_before_anything_else():
    first = next(cell for cell in cells(SETTINGS) if cell.kind == "code")
    assert [ast.unparse(line) for line in ast.parse(first.source).body[:2]] == [
        "import time",
        "BEGAN = time.monotonic()",
    ]


def test_settings_stand_in_one_cell_as_they_were_given():
    settings = replace(SETTINGS, budget_minutes=42.5, options=("--overlap", "2.5", "--post", 'it\'s "so"'))
    source = next(cell for cell in cells(settings) if cell.kind == "code").source
    given = {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in ast.parse(source).body
        if isinstance(line, ast.Assign) and not isinstance(line.value, ast.Call)
    }
    assert given["BUDGET_MINUTES"] == 42.5
    assert given["OPTIONS"] == list(settings.options)
    assert given["COMPETITION"] == "birdclef-2025"
    assert (given["N_HIDDEN_FILES"], given["YEAR"]) == (700, 2025)


@pytest.mark.parametrize("minutes", [0, -1, 91, float("nan")])
def test_a_budget_that_the_competition_does_not_allow_is_refused(minutes):
    with pytest.raises(ConfigError, match="allows 90 minutes"):
        cells(replace(SETTINGS, budget_minutes=minutes))


def test_the_script_keeps_the_house_in_order(tmp_path):
    write_script(tmp_path / "birdinfer.py", SETTINGS)
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--isolated", "--line-length", "120", "--select"]
    done = subprocess.run(
        [*ruff, "E,F,I,B,UP,SIM,RUF,PTH", "--ignore", "E402,I001", tmp_path / "birdinfer.py"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_nothing_at_all_is_said_in_plain_words(kaggle):
    code, output = run_script(kaggle)
    assert code == 1
    assert "no sample_submission.csv below" in output
    assert "add the competition birdclef-2025 as an input" in output
    assert "no bundle (manifest.json) below" in output
    assert "Traceback" not in output
    assert len(record(kaggle)["problems"]) == 2


def test_without_a_bundle_the_sample_is_left_as_submission(kaggle):
    add_competition(kaggle)
    code, output = run_script(kaggle)
    assert code == 1
    assert "add the data set with the bundle as an input" in output
    assert "neither test_soundscapes nor train_soundscapes" in output
    assert table(kaggle / "working" / "submission.csv") == SAMPLE


def test_without_wheels_the_data_set_is_asked_for(kaggle, bundle, bare_python):
    add_competition(kaggle)
    shutil.copytree(bundle, kaggle / "input" / "bundle")
    code, output = run_script(kaggle, python=bare_python)
    assert code == 1
    assert "birdinfer is not installed, 0 wheels lie below" in output
    assert "Traceback" not in output
    assert table(kaggle / "working" / "submission.csv") == SAMPLE


def test_a_wheel_for_another_python_is_named(kaggle, bundle, bare_python):
    add_competition(kaggle)
    shutil.copytree(bundle, kaggle / "input" / "bundle")
    for name in ("onnxruntime-1.25.0-cp38-cp38-manylinux_2_28_x86_64.whl", "soxr-1.0-cp312-abi3-linux_x86_64.whl"):
        (kaggle / "input" / "bundle" / name).write_bytes(b"")
    code, output = run_script(kaggle, python=bare_python)
    assert code == 1
    note = next(line for line in output.splitlines() if line.startswith("NOTE: not for Python"))
    assert "onnxruntime-1.25.0-cp38" in note
    assert "the wheels cannot be installed" in output


def test_a_damaged_bundle_leaves_the_sample_and_one_line(kaggle, bundle, soundscapes):
    add_competition(kaggle, soundscapes)
    shutil.copytree(bundle, kaggle / "input" / "bundle")
    (kaggle / "input" / "bundle" / "fold1.onnx").unlink()
    code, output = run_script(kaggle)
    assert code == 1
    assert "birdinfer predict ended with 2" in output
    assert "fold1.onnx" in record(kaggle)["problems"][0]
    assert "Traceback" not in output
    assert table(kaggle / "working" / "submission.csv") == SAMPLE


def test_a_hidden_run_with_a_problem_still_ends_well(kaggle, bundle, soundscapes):
    """An exception would cost the submission; the sample is valid, and the record says what was wrong."""
    add_competition(kaggle, soundscapes, "test_soundscapes")
    code, output = run_script(kaggle)
    assert code == 0
    assert "PROBLEM: no bundle" in output
    assert record(kaggle)["run"] == "hidden"
    assert table(kaggle / "working" / "submission.csv") == SAMPLE


def test_the_public_run_predicts_training_soundscapes_and_the_samples_rows(kaggle, bundle, soundscapes):
    add_competition(kaggle, soundscapes)
    shutil.copytree(bundle, kaggle / "input" / "datasets" / "someone" / "bundle")
    code, output = run_script(kaggle)
    assert code == 0, output
    submission = table(kaggle / "working" / "submission.csv")
    assert [row[0] for row in submission] == [row[0] for row in SAMPLE]
    assert submission[0] == SAMPLE[0]
    assert submission[1] != SAMPLE[1]
    rows = table(kaggle / "working" / "train_soundscapes.csv")
    assert len(rows) == 1 + 12 + 3 + 2
    assert (kaggle / "working" / "first_soundscape.png").stat().st_size > 5_000
    assert record(kaggle)["run"] == "public"
    assert record(kaggle)["problems"] == []
