import os
import stat
from pathlib import Path

import pytest

from birdinfer.errors import BundleError, OutputError
from birdinfer.system.files import (
    atomic_file,
    atomic_folder,
    atomic_text,
    check_writable,
    remove_leftovers,
    utf8_text,
    write_atomic,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:  # noqa: PT012 - the write must have begun
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_folders_are_made_and_the_file_is_readable_by_others(tmp_path):
    path = tmp_path / "new" / "a.bin"
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert path.stat().st_mode & stat.S_IRUSR


def test_a_file_name_that_is_not_utf8_is_written_with_escapes(tmp_path):
    name = b"caf\xe9\xff \xc3\xa9.ogg".decode("utf-8", "surrogateescape")
    with atomic_text(tmp_path / "a.csv") as file:
        file.write(f"{name},\ud800")
    written = (tmp_path / "a.csv").read_bytes().decode()
    assert written == f"{utf8_text(name)},\\ud800" == "caf\\xe9\\xff é.ogg,\\ud800"


@pytest.mark.parametrize("act", [check_writable, lambda path: write_atomic(path, "x")])
def test_a_place_that_takes_no_files_is_named(tmp_path, act):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match=r"submission.csv: cannot be written \(") as caught:
        act(blocked / "submission.csv")
    assert "\n" not in str(caught.value)


def test_a_device_is_no_output_file(tmp_path):
    """Written in one step, a file would take its place."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe: is no file - name a file"):
        check_writable(tmp_path / "pipe")


def test_a_name_that_is_too_long_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"cannot be written \(File name too long\)"):
        check_writable(tmp_path / ("a" * 300))


def test_a_folder_is_no_output_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="is a folder"):
        write_atomic(tmp_path, "x")


def test_a_full_disk_is_named():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def folder_at(path, marker="manifest.json"):
    return atomic_folder(path, "a bundle", "choose another place: --out", marker)


def fill(folder, text):
    (folder / "manifest.json").write_text(text)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def older(tmp_path):
    """A bundle that stands where a new one is to stand; nothing else is beside it."""
    path = tmp_path / "exports" / "tiny"
    path.mkdir(parents=True)
    fill(path, "old")
    (path / "fold1.onnx").write_text("graph")
    return path


class TestFolder:
    def test_appears_whole_and_with_the_folders_above_it(self, tmp_path):
        path = tmp_path / "a" / "b"
        with folder_at(path) as folder:
            fill(folder, "new")
            (folder / "inner").mkdir()
            (folder / "inner" / "x").write_text("y")
            assert not path.exists()
        assert tree(path) == {"manifest.json": "new", "inner/x": "y"}
        assert [entry.name for entry in path.parent.iterdir()] == ["b"]

    def test_may_be_read_by_others_as_the_user_has_set_it(self, tmp_path):
        with folder_at(tmp_path / "a") as folder:
            fill(folder, "new")
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_replaces_an_older_one_of_which_nothing_stays(self, older):
        with folder_at(older) as folder:
            fill(folder, "new")
            assert tree(older)["manifest.json"] == "old"
        assert tree(older) == {"manifest.json": "new"}
        assert [entry.name for entry in older.parent.iterdir()] == ["tiny"]

    def test_replaces_an_empty_folder(self, tmp_path):
        (tmp_path / "a").mkdir()
        with folder_at(tmp_path / "a", marker=None) as folder:
            fill(folder, "new")
        assert tree(tmp_path / "a") == {"manifest.json": "new"}

    def test_a_link_is_followed_and_stays(self, older, tmp_path):
        (tmp_path / "link").symlink_to(older, target_is_directory=True)
        with folder_at(tmp_path / "link") as folder:
            fill(folder, "new")
        assert (tmp_path / "link").is_symlink()
        assert tree(older) == {"manifest.json": "new"}

    @pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), BundleError("x", "y")])
    def test_an_error_in_the_middle_leaves_the_older_one_and_no_rubbish(self, older, error):
        before = tree(older)
        with pytest.raises(type(error)), folder_at(older) as folder:  # noqa: PT012 - it must have begun
            fill(folder, "half")
            raise error
        assert tree(older) == before
        assert [entry.name for entry in older.parent.iterdir()] == ["tiny"]

    @pytest.mark.parametrize("n_done", [0, 1])
    @pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
    def test_a_rename_that_fails_leaves_the_older_one_and_no_rubbish(self, older, monkeypatch, n_done, error):
        before, rename, calls = tree(older), Path.rename, []

        def failing(self, target):
            calls.append(self.name)
            if len(calls) == n_done + 1:
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises((OutputError, KeyboardInterrupt)), folder_at(older) as folder:
            fill(folder, "new")
        assert tree(older) == before
        assert [entry.name for entry in older.parent.iterdir()] == ["tiny"]

    def test_an_older_one_that_cannot_even_be_restored_is_kept(self, older, monkeypatch):
        before, rename = tree(older), Path.rename

        def failing(self, target):
            if self.name != "tiny":
                raise OSError(16, "Device or resource busy")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(OutputError, match=r"tiny: cannot be written \(Device or resource busy\)"):  # noqa: SIM117
            with folder_at(older) as folder:
                fill(folder, "new")
        (kept,) = older.parent.glob(".tiny.*.part/old")
        assert tree(kept) == before

    @pytest.mark.parametrize("marker", ["manifest.json", None])
    def test_a_folder_with_other_things_is_never_touched(self, tmp_path, marker):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
        with pytest.raises(OutputError, match="thesis: holds other things than a bundle - choose another place: --out"):  # noqa: SIM117
            with folder_at(tmp_path / "thesis", marker):
                pytest.fail("hours of work have begun")
        assert tree(tmp_path) == {"thesis/chapter1.txt": "years of work"}

    def test_nor_one_that_came_to_hold_them_meanwhile(self, tmp_path):
        with pytest.raises(OutputError, match="holds other things"), folder_at(tmp_path / "a") as folder:  # noqa: PT012
            fill(folder, "new")
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "chapter1.txt").write_text("years of work")
        assert tree(tmp_path) == {"a/chapter1.txt": "years of work"}

    def test_without_a_marker_an_older_one_is_not_replaced(self, older):
        with pytest.raises(OutputError, match="holds other things"), folder_at(older, marker=None):
            pytest.fail("hours of work have begun")

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "a").write_text("x")
        with pytest.raises(OutputError, match="a: is a file - choose another place: --out"), folder_at(tmp_path / "a"):
            pytest.fail("hours of work have begun")
        with pytest.raises(OutputError, match=r"b: cannot be written \(.*\) - choose"), folder_at(tmp_path / "a" / "b"):
            pytest.fail("hours of work have begun")

    def test_a_full_disk_is_named_and_anothers_error_is_not(self, tmp_path):
        with pytest.raises(OutputError, match=r"a: cannot be written \(No space left on device\)"):  # noqa: SIM117
            with folder_at(tmp_path / "a"):
                raise OSError(28, os.strerror(28))
        with pytest.raises(FileNotFoundError) as caught, folder_at(tmp_path / "a"):
            (tmp_path / "clip.ogg").read_bytes()
        assert not isinstance(caught.value, OutputError)
        assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".s[1].csv.abc.part", ".s[1].csv.x.y.part", ".s1.csv.abc.part", "s[1].csv", ".s[1].csv.abc"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "s[1].csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s1.csv.abc.part", ".s[1].csv.abc", "s[1].csv"]
    remove_leftovers(tmp_path / "gone" / "s.csv")


def test_of_folders_what_killed_writers_left_is_removed_but_for_an_older_one_that_nothing_replaces(tmp_path):
    for name in ("raven", ".raven.a.part/new", ".raven.a.part/old", ".audacity.b.part/old", ".audacity.c.part/new"):
        (tmp_path / name).mkdir(parents=True)
    remove_leftovers(tmp_path / "raven")
    remove_leftovers(tmp_path / "audacity")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".audacity.b.part", "raven"]
