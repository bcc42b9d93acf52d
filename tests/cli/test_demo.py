import csv
import re

import pytest

from birdinfer.cli.demo import demo
from birdinfer.inference.bundle import forest_demo_path


@pytest.mark.slow
def test_the_demo_scores_real_sound_and_makes_a_page(tmp_path, capsys):
    demo(tmp_path / "demo")
    out = capsys.readouterr().out
    score = float(re.search(r"macro ROC-AUC ([\d.]+)", out)[1])
    assert score >= 0.9
    assert "FOREST1" in out
    page = tmp_path / "demo" / "detections" / "index.html"
    assert str(page) in out.replace("\n", "")
    assert page.is_file()
    assert (tmp_path / "demo" / "ATTRIBUTION.md").is_file()
    with (tmp_path / "demo" / "submission.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 3 * 12


def test_every_clip_of_the_demo_is_in_the_public_domain_and_named():
    """Nothing else of ESC-10 may be passed on without its author's name and licence."""
    folder = forest_demo_path()
    with (folder / "soundscapes" / "events.csv").open(newline="") as file:
        clips = {row["clip"] for row in csv.DictReader(file)}
    attribution = (folder / "ATTRIBUTION.md").read_text()
    assert all(f"- {clip}: " in attribution for clip in clips)
    assert "CC0" in attribution
    assert "Redistribution" in (folder / "LICENSE.scikit-maad.txt").read_text()
    assert sum(path.stat().st_size for path in folder.glob("soundscapes/*.ogg")) <= 1_500_000
    assert sum(path.stat().st_size for path in folder.glob("forest/*.onnx")) <= 1.5 * 2**20


def test_the_demo_predicts_scores_and_shows(tmp_path, capsys):
    demo(tmp_path, synthetic=True, files=2, seconds=30.0, seed=5)
    out = capsys.readouterr().out
    assert "macro ROC-AUC" in out
    assert "synthetic_S01" in out
    assert "Next:" in out
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + 2 * 6
    assert len(rows[0]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_the_demo_bundle_recognises_its_species(tmp_path, seed):
    """Measured on new soundscapes; the quick start promises 0.95."""
    from birdinfer import Bundle, Predictor, predict_soundscapes
    from birdinfer.evaluation.metrics import macro_roc_auc
    from birdinfer.inference.bundle import demo_bundle_path
    from birdinfer.synthetic.soundscapes import write_soundscapes
    from birdinfer.tables.scores import read_scores

    truth = read_scores(write_soundscapes(tmp_path, 6, 60.0, seed=seed))
    predictor = Predictor(Bundle.load(demo_bundle_path()))
    assert list(predictor.labels) == list(truth.labels)
    results = {r.path.stem: r.probabilities for r in predict_soundscapes(predictor, sorted(tmp_path.glob("*.ogg")))}
    scores = []
    for row_id in truth.row_ids:
        stem, _, end = row_id.rpartition("_")
        scores.append(results[stem][int(end) // 5 - 1])
    assert macro_roc_auc(truth.values, scores) >= 0.95


def test_a_second_demo_does_not_predict_the_first(tmp_path):
    demo(tmp_path, synthetic=True, files=3, seconds=10.0, seed=1)
    demo(tmp_path, synthetic=True, files=1, seconds=10.0, seed=2)
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 3
