"""Environments: one with Kaggle's packages, made once; above it one for every run."""

import subprocess
import sys
from pathlib import Path

import pytest

from birdinfer.errors import ConfigError
from birdinfer.kaggle import sandbox
from birdinfer.kaggle.competitions import Image
from birdinfer.kaggle.sandbox import clean_python, find_python, layer, version_of

HERE = Path(sys.executable)
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
IMAGE = Image("2026-01", f"{MINOR}.0", "2.35", "x86_64", {})


def said_by(python, code):
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_layer_sees_what_lies_below_and_keeps_its_own(tmp_path):
    above = layer(tmp_path / "above", HERE)
    assert said_by(above, "import birdinfer, numpy; print(numpy.__name__)") == "numpy"
    inside = Path(said_by(above, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert inside.is_relative_to(tmp_path)
    (inside / "only_here.py").write_text("")
    assert said_by(above, "import only_here; print('yes')") == "yes"
    assert "No module named 'only_here'" in said_by(HERE, "import only_here")


def test_what_a_layer_installs_comes_before_what_lies_below(tmp_path):
    above = layer(tmp_path / "above", HERE)
    inside = Path(said_by(above, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (inside / "msgspec.py").write_text("")
    assert Path(said_by(above, "import msgspec; print(msgspec.__file__)")).is_relative_to(tmp_path)


def test_the_python_of_a_version_is_found_or_not():
    assert find_python("3.99") is None
    assert version_of(Path("nothing")) == ""
    assert version_of(HERE).startswith(f"{MINOR}.")


@pytest.fixture
def pip(monkeypatch):
    """What pip is asked to install; nothing is."""
    asked = []
    monkeypatch.setattr(sandbox, "_install", lambda python, requirements: asked.append(list(requirements)))
    monkeypatch.setattr(sandbox, "find_python", lambda minor: HERE)
    return asked


@pytest.mark.slow
def test_kaggles_environment_is_made_once_and_for_each_list_of_packages(tmp_path, pip):
    first = clean_python(IMAGE, tmp_path)
    assert first == clean_python(IMAGE, tmp_path)
    assert "No module named 'numpy'" in said_by(first, "import numpy")
    other = clean_python(Image("2026-02", IMAGE.python, "2.35", "x86_64", {"soxr": "1.0.0"}), tmp_path)
    assert other.parent != first.parent
    assert pip == [["matplotlib"], ["soxr==1.0.0", "matplotlib"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({first.parts[-3], other.parts[-3]})


@pytest.mark.slow
def test_a_failed_installation_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "find_python", lambda minor: HERE)
    broken = Image("2026-01", IMAGE.python, "2.35", "x86_64", {"not a name": "1"})
    with pytest.raises(ConfigError, match=r"Kaggle's packages cannot be installed \(.*\) - go online once"):
        clean_python(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_kaggles_python_it_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "find_python", lambda minor: None)
    with pytest.raises(ConfigError, match=r"there is no Python 3\.\d+, which Kaggle runs - uv python install 3"):
        clean_python(IMAGE, tmp_path)
