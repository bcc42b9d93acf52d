"""Training data that is not named: data/, or what Kaggle has mounted."""

from pathlib import Path

import pytest

from birdinfer.cli import options
from birdinfer.errors import ConfigError


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """``mounted("competitions/birdclef-2026")`` mounts a competition's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "KAGGLE_INPUT", tmp_path / "input")

    def mount(name, table="train.csv"):
        folder = tmp_path / "input" / name
        (folder / "train_audio" / "species").mkdir(parents=True)
        (folder / table).write_text("filename,primary_label\n")
        return folder

    return mount


@pytest.mark.parametrize("name", ["birdclef-2024", "competitions/birdclef-2026", "datasets/owner/birdclef-extra"])
def test_what_kaggle_has_mounted_is_found_and_named(mounted, capsys, name):
    folder = mounted(name)
    assert options.find_data(None) == folder
    assert f"data: {folder}" in capsys.readouterr().err.replace("\n", "")


def test_a_named_folder_and_data_come_first(mounted, tmp_path):
    mounted("birdclef-2026")
    assert options.find_data(Path("mine")) == Path("mine")
    (tmp_path / "data").mkdir()
    assert options.find_data(None) is None


def test_several_are_named(mounted):
    mounted("birdclef-2025")
    mounted("competitions/birdclef-2026", "train_metadata.csv")
    with pytest.raises(ConfigError, match=r"2 data sets are mounted: .*2025, .*2026 - name one"):
        options.find_data(None)


def test_elsewhere_nothing_is_looked_for(mounted):
    assert options.find_data(None) is None
