"""Every recipe in train/ trains on real sound, is exported with parity, and predicts a soundscape.

With --debug, on a handful of clips and without timm's hub: all of the code of a recipe runs, nothing is learned.
"""

import csv
import json
from pathlib import Path

import pytest

SHIPPED = sorted((Path(__file__).parents[2] / "train").glob("*.toml"))
FEW = {
    "model.pretrained": "false",
    "data.max_clips": "10",
    "data.upsample_to": "0",
    "loop.batch_size": "4",
    "loop.val_windows": "1",
    "loop.num_workers": "0",
}
DATA = {"strong": "birds"}
"""Which data: ESC-10 where nothing is said; a long tail of birds for the one that is meant for it."""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_trains_exports_and_predicts(path, birdinfer, shared_data, soundscapes, tmp_path):
    name = f"{path.stem}-debug"
    data = shared_data / DATA.get(path.stem, "esc10")
    keys = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    code, _, err = birdinfer(
        "train", "--recipe", path, "--data", data, "--debug", "--runs-dir", tmp_path / "runs", "--device", "cpu",
        "--cache-dir", tmp_path / "cache", *keys,
    )  # fmt: skip
    assert code == 0, err
    fold = tmp_path / "runs" / name / "fold0"
    with (fold / "history.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2

    bundle = tmp_path / "bundle"
    code, _, err = birdinfer("export", "--onnx", "--run", tmp_path / "runs" / name, "--out", bundle)
    assert code == 0, err
    (member,) = json.loads((bundle / "manifest.json").read_text())["members"]
    assert member["graphs"]["fp32"]["max_probability_difference"] < 1e-4

    submission = tmp_path / "submission.csv"
    code, _, err = birdinfer("predict", soundscapes / "site_1.ogg", "--bundle", bundle, "-o", submission)
    assert code == 0, err
    with submission.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row_id"] for row in rows] == ["site_1_5", "site_1_10", "site_1_15"]
    scores = [float(value) for row in rows for key, value in row.items() if key != "row_id"]
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 3
