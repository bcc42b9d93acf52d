import subprocess
import sys
from pathlib import Path

import pytest

from birdinfer import own_folder
from birdinfer.errors import OutputError
from birdinfer.own_folder import OwnFolder


def taken(tmp_path):
    return OwnFolder(tmp_path / "work", tmp_path / "s.csv")


def test_it_belongs_to_one_until_it_is_let_go(tmp_path):
    first = taken(tmp_path)
    assert first.is_ours
    with pytest.raises(OutputError, match=r"s\.csv: another process is writing it \(see .*work\) - wait for it"):
        taken(tmp_path)
    first.let_go()
    assert not first.is_ours
    taken(tmp_path).let_go()


def test_it_goes_with_all_that_is_in_it(tmp_path):
    folder = taken(tmp_path)
    (folder.path / "a").write_text("b")
    folder.remove()
    assert not folder.is_ours
    assert list(tmp_path.iterdir()) == []


def test_it_goes_where_folders_in_use_cannot_be_moved(tmp_path, monkeypatch):
    """As on Windows: a folder stays where it is while a file in it is open."""
    folder, move = taken(tmp_path), Path.rename

    def rename(path, target):
        if folder.is_ours:
            raise PermissionError(13, "The process cannot access the file because it is being used")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_on_its_way_out_is_not_taken(tmp_path, monkeypatch):
    """The other process moves it away between our opening the lock and our taking it."""
    take = own_folder.is_free

    def lock(file):
        (tmp_path / "work").rename(tmp_path / "moved")
        return take(file)

    monkeypatch.setattr(own_folder, "is_free", lock)
    with pytest.raises(OutputError, match="another process is writing it"):
        taken(tmp_path)


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    taken(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


def test_who_was_killed_lets_it_go(tmp_path):
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom birdinfer.own_folder import OwnFolder\n"
        f"OwnFolder(Path({str(tmp_path / 'work')!r}), Path('s.csv'))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    taken(tmp_path).let_go()


def test_what_the_disk_complains_of_names_the_folder(tmp_path):
    folder = taken(tmp_path)
    with pytest.raises(OutputError, match=r"work: cannot be written \(Is a directory\)"), folder.named_errors():
        (tmp_path).write_text("a folder")
    folder.let_go()
