"""Every recipe in train/ trains on real sound, is exported with parity, and predicts a soundscape.

With --debug, on a few clips and without timm's hub: all of the code of a recipe runs, nothing is learned. The older
exporter makes the graphs; the newer one, which takes ten times as long, makes those of the same networks in
tests/export/test_backbones.py. Without the profile ``ci`` four recipes of small networks stand for
all; with it two train whole networks (see ``shallow_networks``), and both exporters make a graph of a small one.
"""

import csv
import json
import os
from pathlib import Path

import pytest
from make_bundles import FRONTEND
from shallow_networks import make_networks_shallow
from tiny_teachers import write_teacher

from birdinfer.cli import train
from birdinfer.export.onnx import choose_exporter as faster_export

pytestmark = pytest.mark.no_cover
"""Modules have tests of their own; tracing all of them at work on large networks takes half as long again."""
SHIPPED = sorted(path for path in (Path(__file__).parents[2] / "train").glob("*.toml") if path.name != "space.toml")
IS_CI = os.environ.get("TEST_PROFILE") == "ci"
FEW = {
    "model.pretrained": "false",
    "data.max_clips": "8",
    "data.min_clips_per_species": "1",
    "data.upsample_to": "0",
    "loop.batch_size": "4",
    "loop.val_windows": "1",
    "loop.num_workers": "0",
}
BOTH_EXPORTERS = {"demo"} if IS_CI else set()
"""Here each exporter makes a graph and the faster is kept, as for a user."""
DRAWN = {"demo"}
"""What pictures show does not depend on the network; a picture takes as long as an epoch."""
QUICK = {"demo", "esc10", "esc10_rnn", "esc10_sed"}
"""A recipe of each family; the others are as slow as their networks."""
WHOLE = {"efficientnet_b0", "te1ord_nfnet_l0"} if IS_CI else set()
TAUGHT = {"distilled_sed", "strong", "strong_hgnet"}
"""Recipes with a teacher, in whose place a tiny one stands."""
MORE = {"train_to_failure": "20", **dict.fromkeys(("demo", "esc10", "esc10_rnn", "esc10_sed"), "12")}
"""Clips of recipes whose folds for validation would have none of fewer."""


@pytest.fixture(scope="module")
def few_clips(shared_data, tmp_path_factory):
    """One clip of each class and official fold of ESC-10: searched for duplicates and decoded in a second."""
    folder, whole = tmp_path_factory.mktemp("few"), shared_data / "esc10"
    (folder / "train_audio").symlink_to(whole / "train_audio", target_is_directory=True)
    (folder / "taxonomy.csv").write_bytes((whole / "taxonomy.csv").read_bytes())
    with (whole / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = {(row["primary_label"], row["esc10_fold"]): row for row in reversed(rows)}
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(first.values())
    return folder


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow]) for path in SHIPPED],
)
def test_trains_exports_and_predicts(path, birdinfer, few_clips, soundscapes, tmp_path, monkeypatch):
    make_networks_shallow(monkeypatch, whole_in_ci=path.stem in WHOLE)
    if path.stem not in BOTH_EXPORTERS:
        monkeypatch.setattr(faster_export, "_TOGETHER", (("torchscript",),))
    if path.stem not in DRAWN:
        monkeypatch.setattr(train, "draw", lambda *arguments: None)
    name = f"{path.stem}-debug"
    few = FEW | {"data.max_clips": MORE.get(path.stem, FEW["data.max_clips"])}
    if path.stem in TAUGHT:
        few["distil.teacher"] = str(write_teacher(tmp_path / "teacher", frontend=FRONTEND))
    keys = [word for key, value in few.items() for word in ("--set", f"{key}={value}")]
    code, _, err = birdinfer(
        "train", "--recipe", path, "--data", few_clips, "--debug", "--runs-dir", tmp_path / "runs", "--device", "cpu",
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
