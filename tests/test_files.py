import stat

import pytest

from birdinfer.errors import OutputError
from birdinfer.files import atomic_file, atomic_text, check_writable, write_atomic


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


def test_a_file_name_that_is_not_utf8_is_written_as_its_bytes(tmp_path):
    with atomic_text(tmp_path / "a.csv") as file:
        file.write(b"caf\xe9.ogg".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9.ogg"


@pytest.mark.parametrize("act", [check_writable, lambda path: write_atomic(path, "x")])
def test_a_place_that_takes_no_files_is_named(tmp_path, act):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match=r"submission.csv: cannot be written \(") as caught:
        act(blocked / "submission.csv")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_output_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomic(tmp_path, "x")


def test_a_full_disk_is_named():
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
