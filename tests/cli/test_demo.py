import csv

import pytest

from birdinfer.cli.demo import demo


def test_the_demo_predicts_scores_and_shows(tmp_path, capsys):
    demo(tmp_path, files=2, seconds=30.0, seed=5)
    out = capsys.readouterr().out
    assert "macro ROC-AUC" in out
    assert "synthetic_S01" in out
    assert "Next:" in out
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + 2 * 6
    assert len(rows[0]) == 9


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
    demo(tmp_path, files=3, seconds=10.0, seed=1)
    demo(tmp_path, files=1, seconds=10.0, seed=2)
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 3
