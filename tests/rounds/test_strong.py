"""The command in the comments of train/strong.toml, on a few real clips: two rounds of both recipes."""

import csv
import shlex
from pathlib import Path

import pytest
from make_bundles import FRONTEND
from shallow_networks import make_networks_shallow
from tiny_teachers import write_teacher

from birdinfer import Bundle
from birdinfer.export.onnx import choose_exporter
from birdinfer.tables.pseudo_labels import read_pseudo_labels
from birdinfer.training.checkpoint import load_header

pytestmark = [pytest.mark.slow, pytest.mark.no_cover]
RECIPE = Path(__file__).parents[2] / "train" / "strong.toml"
FEW = {
    "data.upsample_to": "0",
    "data.max_clips": "16",
    "frontend.mel.resize": "[64, 64]",
    "loop.batch_size": "8",
    "loop.num_workers": "0",
}


def command_of_the_recipe() -> list[str]:
    (line,) = [line for line in RECIPE.read_text().splitlines() if line.startswith("#   birdinfer rounds ")]
    return shlex.split(line.removeprefix("#   birdinfer "))


@pytest.fixture
def data(shared_data, tmp_path):
    """Two recordings of each class of ESC-10 in each of its folds."""
    folder, whole = tmp_path / "data", shared_data / "esc10"
    folder.mkdir()
    (folder / "train_audio").symlink_to(whole / "train_audio", target_is_directory=True)
    (folder / "taxonomy.csv").write_bytes((whole / "taxonomy.csv").read_bytes())
    with (whole / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows[::5])
    return folder


def test_two_rounds_of_both_from_clips_to_a_bundle(birdinfer, data, shared_data, tmp_path, monkeypatch):
    make_networks_shallow(monkeypatch)
    monkeypatch.setattr(choose_exporter, "_IN_TURN", (("torchscript",),))
    teacher = write_teacher(tmp_path / "teacher", frontend=FRONTEND)
    sounds = tmp_path / "train_soundscapes"
    sounds.mkdir()
    for path in sorted((shared_data / "soundscapes" / "public" / "audio").glob("esc*.ogg"))[:3]:
        (sounds / path.name).symlink_to(path)
    given = {"train_soundscapes": str(sounds), "DATA": str(data)}
    words = [given.get(word, word) for word in command_of_the_recipe()]
    keys = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    monkeypatch.chdir(tmp_path)
    code, out, err = birdinfer(
        *words, "--debug", "--device", "cpu", "--cache-dir", "cache", *keys, "--set", f"distil.teacher={teacher}"
    )
    assert code == 0, err
    place = tmp_path / "runs" / "strong-debug-rounds"
    with (place / "rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == ["strong-debug", "strong_hgnet-debug", "strong-debug"]
    assert [row["pseudo_windows"] for row in rows] == ["0", "36", "36"]
    families = [load_header(place / f"round{n}/run/fold0/best.safetensors").recipe.model.backbone for n in range(3)]
    assert [name.partition("_")[0] for name in families] == ["tf", "hgnetv2", "tf"]
    for number in (1, 2):
        pseudo = read_pseudo_labels(place / f"round{number}" / "pseudo")
        assert (pseudo.teacher.keep, pseudo.teacher.zero) == (0.0, 0.0)  # a network of two epochs reaches no threshold
    assert "runs/strong-debug-rounds/bundle: the bundle of round" in out
    bundle = Bundle.load(place / "bundle")
    assert len(bundle.labels) == 10
    table = tmp_path / "scores.csv"
    code, _, err = birdinfer("predict", sounds, "--bundle", place / "bundle", "-o", table)
    assert code == 0, err
    assert len(table.read_text().splitlines()) == 1 + 36
