"""What docs/python.md shows runs as it stands there, on a few tiny clips."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from simulated_reviews import simulate_reviews, write_reviews
from tiny_clips import TINY_FRONTEND, write_clips
from untrained_runs import hasten, write_run

from birdinfer import Bundle
from birdinfer.training import run as training_run
from birdinfer.training.launch import worker
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, Recipe
from birdinfer.training.recipe.toml import write_recipe

SECTIONS = re.findall(
    r"^## ([^\n]+)\n(.*?)(?=^## |\Z)",
    (Path(__file__).parents[1] / "docs" / "python.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
SNIPPETS = {title: re.findall(r"```python\n(.*?)```", section, re.DOTALL) for title, section in SECTIONS}
RECIPE = Recipe(
    name="esc10",
    data=DataConfig(n_folds=2),
    frontend=TINY_FRONTEND,
    model=ModelConfig(family="rnn", backbone="gru", hidden=8, layers=1),
    loop=LoopConfig(epochs=1, batch_size=4, val_windows=1),
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder that the snippets expect: data and train/, small enough for a test."""
    write_clips(tmp_path / "data")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "esc10.toml").write_text(write_recipe(RECIPE))
    (tmp_path / "train" / "space.toml").write_text("optim.lr = {low = 1e-4, high = 1e-2, log = true}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def places(bundle, *others: str) -> tuple[tuple[str, str], ...]:
    """What stands in a snippet for the bundle, and for other paths, and what does here."""
    return (("exports/efficientnet_b0", str(bundle)), *zip(others[::2], others[1::2], strict=True))


def run(title: str, *replacements: tuple[str, str], number: int = 0, **given: object) -> dict[str, object]:
    """Run a snippet of a section; its variables."""
    source = SNIPPETS[title][number]
    assert len([line for line in source.splitlines() if line.strip()]) < 10
    for old, new in replacements:
        assert old in source
        source = source.replace(old, new)
    found = given
    exec(compile(source, title, "exec"), found)  # our own text
    return found


def test_embed_and_search(embedding_bundle, embedded, soundscapes, capsys):
    there = (("exports/birdnet", str(embedding_bundle.folder)), ("song.wav", str(soundscapes / "site_1.ogg")),
             ('"embeddings"', f'"{embedded}"'))  # fmt: skip
    variables = run("Embed and search", *there)
    assert variables["found"].values.shape == (3, 32)
    assert capsys.readouterr().out.count("site_") >= 5


def in_this_process(jobs, devices, callback, on_event):
    """Train folds one after another here; tests/cli/test_train.py has a process for each."""
    for job in jobs:
        worker.main(list(job.command[3:]))
    return {job.name: "" for job in jobs}


def test_predict_a_recording(monkeypatch, capsys, bundle, soundscapes):
    monkeypatch.chdir(soundscapes)
    found = run("Predict a recording", *places(bundle, "soundscapes/S05_20260501_053000.ogg", "site_0.ogg"))
    first, second, *listed = capsys.readouterr().out.splitlines()
    assert first.startswith("<Result of site_0.ogg: ok, 60.0 s, 12 windows of 5 s, 4 species; highest ")
    assert second == "(12, 4) comcuc [ 0.  5. 10.]"
    assert len(listed) > 1
    assert list(found["table"].file.unique()) == ["site_0.ogg"]


def test_know_the_data(place, capsys):
    found = run("Know the data", ('"comcuc", n=12', '"comcuc", n=2'))
    assert "- " in capsys.readouterr().out
    assert found["report"].page == Path("report/index.html")
    assert {"species", "clips", "folds"} <= set(found["report"].tables)


def test_predict_what_is_in_memory(monkeypatch, soundscapes):
    monkeypatch.chdir(soundscapes)
    found = run("Predict a recording", ("soundscape.ogg", "site_2.ogg"), number=1)
    assert found["result"].status == "ok"
    assert found["result"].probabilities.shape == (2, 8)


def test_predict_many_recordings(capsys, bundle, soundscapes):
    run("Predict many recordings", *places(bundle, "soundscapes", str(soundscapes)))
    lines = sorted(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert lines == [["site_0", "ok"], ["site_1", "ok"], ["site_2", "ok"]]


def test_predict_a_live_source(capsys, bundle):
    blocks = (np.zeros(48_000, np.float32) for _ in range(10))
    run("Predict a live source", *places(bundle), ("microphone()", "blocks"), blocks=blocks)
    assert [line.split(" s:")[0] for line in capsys.readouterr().out.splitlines()] == ["0"] * 3 + ["5"] * 3


def test_detect_with_resume(tmp_path, monkeypatch, capsys, bundle, soundscapes):
    monkeypatch.chdir(tmp_path)
    found = run("Detect with resume", *places(bundle, '"soundscapes"', repr(str(soundscapes))))
    assert found["outcome"].is_complete
    assert capsys.readouterr().out.startswith("[(")
    assert {"detections.csv", "files.csv", "raven"} <= {path.name for path in (tmp_path / "results").iterdir()}


def test_predict_with_resume_and_a_time_budget(tmp_path, monkeypatch, capsys, bundle, soundscapes):
    monkeypatch.chdir(tmp_path)
    replaced = places(bundle, '"soundscapes"', repr(str(soundscapes)))
    outcome = run("Predict with resume and a time budget", *replaced)["outcome"]
    assert capsys.readouterr().out == "17 0 0\n"
    assert [result.status for result in outcome.results] == ["ok"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission.csv", "submission.files.csv"]


def test_calibrate_with_reviews(tmp_path, monkeypatch, capsys, make_bundle):
    monkeypatch.chdir(tmp_path)
    folder = make_bundle()
    reviews = simulate_reviews(np.random.default_rng(0), 200, 20, n_species=4)
    write_reviews(tmp_path / "reviews.csv", reviews, Bundle.load(folder).labels)
    run("Calibrate with reviews", *places(folder))
    assert capsys.readouterr().out.startswith("{'comcuc': (0.")
    assert len(Bundle.load(folder).manifest.calibration.species) == 4


def test_train_two_folds_on_two_devices(place, monkeypatch, capsys):
    monkeypatch.setattr(training_run, "run_side_by_side", in_this_process)
    monkeypatch.setattr(worker, "run_child", lambda work: work(lambda event, *arguments: None))
    run("Train two folds on two devices", ('("0", "1")', '("cpu", "cpu")'))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["runs/esc10", "0"], ["runs/esc10", "1"]]
    assert (place / "runs" / "esc10" / "summary.json").is_file()


def test_search_with_two_workers(place):
    """One worker here, in this process; tests/cli/test_tune.py has several."""
    outcome = run("Search with two workers", ("trials=20", "trials=3"), ('("cpu", "cpu")', '("cpu",)'))["outcome"]
    assert outcome.is_done
    assert [record.is_finished for record in outcome.records] == [True] * 3
    assert {record.worker for record in outcome.records if record.worker}
    assert (place / "runs" / "esc10-tune" / "best.toml").is_file()


def test_export_a_bundle(place, monkeypatch, capsys):
    hasten(monkeypatch)
    write_run(place / "runs" / "esc10", place / "data")
    run("Export a bundle", (', quantize=("static",)', ', halves=("bf16",)'))
    assert capsys.readouterr().out.startswith("fold0 [('fp32', 'accepted'), ('bf16', ")
    assert (place / "exports" / "esc10" / "manifest.json").is_file()


def test_submit_to_slurm(place, capsys):
    run("Submit to SLURM")
    script = capsys.readouterr().out
    assert "sbatch --parsable --job-name=esc10 --array=0-1" in script
    assert "--partition=gpu --gres=gpu:1 --time=12:00:00" in script
    assert not (place / "runs").exists()
    shutil.rmtree(place / "data")
