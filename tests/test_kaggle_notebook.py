"""The notebook as Jupyter runs it, from a bundle to a submission; and both of its runs as a script."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_bundles import LABELS
from packed_submission import SETTINGS, write_packed

from birdinfer.kaggle.fake_kaggle import KagglePlan, Layout, Run, write_tree
from birdinfer.kaggle.notebook import write_script
from birdinfer.submission.formats import read_sample
from birdinfer.tables.scores import read_scores

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EXECUTE = Path(__file__).with_name("execute_notebook.py")


@pytest.fixture
def packed(tmp_path, bundle):
    return write_packed(tmp_path / "packed", bundle)


def make_tree(
    root, packed, soundscapes, layout=Layout.mounts_2025, run=Run.hidden, n_test_files=3, labels=LABELS[::-1]
):
    sounds = tuple(sorted(soundscapes.glob("*.ogg")))
    plan = KagglePlan(
        competition=SETTINGS.competition,
        dataset=packed / "dataset",
        labels=labels,
        soundscapes=sounds,
        n_test_files=n_test_files,
    )
    return write_tree(root, layout, run, plan)


def run(command, tree):
    environment = {**os.environ, "BIRDINFER_KAGGLE_ROOT": str(tree.root)}
    # Jupyter's inline backend is what shows a picture; a script has none.
    environment.pop("MPLBACKEND", None)
    return subprocess.run(
        [sys.executable, *command], cwd=tree.working, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
def test_jupyter_runs_the_notebook_and_it_scores_as_predict_does(tmp_path, packed, soundscapes, birdinfer):
    # So many that the clock of the forecast, which looks 20 times a second, sees some of them done before others.
    tree = make_tree(tmp_path / "kaggle", packed, soundscapes, Layout.mounts_2026, n_test_files=60)
    done = run([EXECUTE, packed / "kernel" / "birdinfer.ipynb"], tree)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)
    output_text = COLOUR.sub("", "".join(output.get("text", "") for output in outputs))
    assert "the hidden run: 61 soundscapes" in output_text
    assert f"unreadable  {tree.corrupt}" in output_text
    assert "forecast for 700 soundscapes" in output_text
    assert "PROBLEM" not in output_text
    assert [1 for output in outputs if "image/png" in output.get("data", {})]
    by_hand = tmp_path / "by_hand.csv"
    tests = tree.sample.parent / "test_soundscapes"
    code, _, _ = birdinfer(
        "predict", tests, "--bundle", packed / "dataset", "--sample-submission", tree.sample, "-o", by_hand, "-q"
    )
    assert code == 3  # one is corrupt
    assert (tree.working / "submission.csv").read_bytes() == by_hand.read_bytes()


def test_the_hidden_run_writes_the_samples_rows_and_columns(tmp_path, packed, soundscapes):
    tree = make_tree(tmp_path / "kaggle", packed, soundscapes)
    write_script(tmp_path / "birdinfer.py", SETTINGS)
    done = run([tmp_path / "birdinfer.py"], tree)
    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = read_scores(tree.working / "submission.csv"), read_sample(tree.sample)
    assert tuple(found.row_ids) == wanted.row_ids
    assert tuple(found.labels) == wanted.columns
    # The corrupt soundscape's rows hold the bundle's prior, and no other row does.
    prior = np.float32([0.4, 0.3, 0.2, 0.1])
    is_prior = np.isclose(found.values, prior).all(axis=1)
    assert [row_id for row_id, one in zip(found.row_ids, is_prior, strict=True) if one] == [
        row_id for row_id in found.row_ids if row_id.startswith(tree.corrupt.stem)
    ]


def test_the_public_run_writes_three_rows(tmp_path, packed, soundscapes):
    tree = make_tree(tmp_path / "kaggle", packed, soundscapes, run=Run.public)
    write_script(tmp_path / "birdinfer.py", SETTINGS)
    done = run([tmp_path / "birdinfer.py"], tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the public run: 16 soundscapes" in done.stdout
    found = read_scores(tree.working / "submission.csv")
    assert tuple(found.row_ids) == read_sample(tree.sample).row_ids


def test_species_that_the_bundle_lacks_are_filled_and_named(tmp_path, packed, soundscapes):
    """Or else Kaggle would score the sample itself."""
    tree = make_tree(tmp_path / "kaggle", packed, soundscapes, labels=("houspa", *LABELS[::-1]))
    write_script(tmp_path / "birdinfer.py", SETTINGS)
    done = run([tmp_path / "birdinfer.py"], tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of its species are not in the bundle and hold 0.25 in all rows: houspa" in COLOUR.sub("", done.stdout)
    found = read_scores(tree.working / "submission.csv")
    assert (tuple(found.row_ids), tuple(found.labels)) == read_sample(tree.sample)[1:]
    assert (found.values[:, 0] == 0.25).all()
    assert len(np.unique(found.values[:, 1])) > 2


def test_a_bundle_of_other_species_leaves_the_sample_and_says_so(tmp_path, packed, soundscapes):
    tree = make_tree(tmp_path / "kaggle", packed, soundscapes, run=Run.public, labels=("houspa", "grekis"))
    write_script(tmp_path / "birdinfer.py", SETTINGS)
    done = run([tmp_path / "birdinfer.py"], tree)
    assert done.returncode == 1
    assert "asks for 2 species that the bundle does not score: houspa, grekis; it scores none" in done.stderr
    assert (tree.working / "submission.csv").read_bytes() == tree.sample.read_bytes()
