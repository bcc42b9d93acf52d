"""With a stand-in for Kaggle's client that downloads an archive in steps, breaks off, or refuses."""

import os
import sys
import zipfile
from collections import namedtuple

import pytest

from birdinfer.errors import ConfigError, OutputError
from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.fetch import FetchCallback, FetchSettings, fetch

FILES = {"train.csv": b"filename,primary_label\n", "train_audio/a/1.ogg": b"sound" * 1000, "taxonomy.csv": b"x\n"}

STAND_IN = """#!{python}
import os, shutil, sys, time
from pathlib import Path

words = sys.argv[1:]
assert words[:2] == ["competitions", "download"] and words[3] == "--path", words
target = Path(words[4]) / f"{{words[2]}}.zip"
marker = target.with_name(target.name + ".kaggle-partial")
mode = Path(__file__).with_name("mode").read_text()
whole = Path(__file__).with_name("whole.zip").read_bytes()
if mode == "rules":
    print("403 Client Error: Forbidden for url: https://x", file=sys.stderr)
    sys.exit(1)
if mode == "token":
    print("Authentication required to call the Kaggle API.", file=sys.stderr)
    sys.exit(1)
had = target.stat().st_size if target.exists() else 0
if mode == "breaks":
    marker.write_text("x")
    target.write_bytes(whole[: len(whole) // 2])
    print("Connection aborted.", file=sys.stderr)
    sys.exit(1)
if mode == "slow":
    target.write_bytes(whole[:100])
    Path(__file__).with_name("pid").write_text(str(os.getpid()))
    time.sleep(60)
Path(__file__).with_name("had").write_text(str(had))
target.write_bytes(whole if mode != "page" else b"<html>")
marker.unlink(missing_ok=True)
"""


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """``kaggle(mode)`` puts a client on the PATH that behaves so."""
    folder = tmp_path / "bin"
    folder.mkdir()
    with zipfile.ZipFile(folder / "whole.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)

    def behaves(mode, extra=None):
        (folder / "mode").write_text(mode)
        if extra:
            with zipfile.ZipFile(folder / "whole.zip", "a") as archive:
                archive.writestr(extra, b"x")
        program = folder / "kaggle"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        return folder

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return behaves


class Seen(FetchCallback):
    def __init__(self):
        self.bytes, self.unpacked = [], []

    def on_bytes(self, n_bytes):
        self.bytes.append(n_bytes)

    def on_unpacked(self, done_bytes, all_bytes):
        self.unpacked.append((done_bytes, all_bytes))


def fetched(folder, **settings):
    seen = Seen()
    return fetch(FetchSettings(competition=competition("birdclef-2026"), output=folder, **settings), seen), seen


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_data_is_unpacked_and_the_archive_removed(tmp_path, kaggle):
    kaggle("works")
    n_files, seen = fetched(tmp_path / "data")
    assert n_files == 3
    assert contents(tmp_path / "data") == FILES
    assert seen.unpacked[-1] == (sum(map(len, FILES.values())),) * 2


def test_a_download_that_broke_off_is_continued(tmp_path, kaggle):
    folder = kaggle("breaks")
    with pytest.raises(OutputError, match="the same command again"):
        fetched(tmp_path / "data")
    kaggle("works")
    fetched(tmp_path / "data", keep_archive=True)
    assert int((folder / "had").read_text()) > 0
    assert contents(tmp_path / "data").keys() == FILES.keys() | {"birdclef-2026.zip"}


def test_what_is_unpacked_is_not_unpacked_again(tmp_path, kaggle):
    kaggle("works")
    fetched(tmp_path / "data", keep_archive=True)
    untouched = (tmp_path / "data" / "taxonomy.csv").stat().st_mtime_ns
    (tmp_path / "data" / "train.csv").write_bytes(b"half")
    kaggle("rules")  # the archive is whole: Kaggle is not asked
    _, seen = fetched(tmp_path / "data")
    assert contents(tmp_path / "data") == FILES
    assert len(seen.unpacked) == 1
    assert (tmp_path / "data" / "taxonomy.csv").stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    ("mode", "error", "line"),
    [
        (
            "rules",
            OutputError,
            "birdclef-2026: Kaggle does not give this account its data - accept its rules: https://",
        ),
        ("token", ConfigError, "kaggle: knows no valid token for your account - run: kaggle auth login"),
        ("page", OutputError, "birdclef-2026.zip: is no whole archive - remove it, and fetch again"),
    ],
)
def test_a_refusal_is_one_line(tmp_path, kaggle, mode, error, line):
    kaggle(mode)
    with pytest.raises(error) as raised:
        fetched(tmp_path / "data")
    assert line in str(raised.value)


def test_a_name_outside_the_folder_is_refused(tmp_path, kaggle):
    kaggle("works", extra="../outside.txt")
    with pytest.raises(OutputError, match="outside the folder"):
        fetched(tmp_path / "data")
    assert not (tmp_path / "outside.txt").exists()
    assert contents(tmp_path / "data").keys() == {"birdclef-2026.zip"}


def test_a_disk_that_fills_ends_the_client_and_is_named(tmp_path, kaggle, monkeypatch):
    folder = kaggle("slow")
    usage = namedtuple("usage", "total used free")(0, 0, 10)
    monkeypatch.setattr("birdinfer.kaggle.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"data: 0.0 GB are free, 1.0 GB are needed - free some"):
        fetched(tmp_path / "data")
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


def test_the_command_says_what_comes_next(tmp_path, kaggle, birdinfer):
    kaggle("works")
    code, out, err = birdinfer("kaggle", "fetch", "birdclef-2026", "-o", tmp_path / "data")
    assert (code, out) == (0, f"{tmp_path / 'data'}: 3 files\n")
    assert "next: birdinfer data" in err
