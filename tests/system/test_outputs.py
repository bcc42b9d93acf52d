"""The guard by itself; tests/cli/test_outputs.py asks it by every command."""

import os
import tempfile
from pathlib import Path

import pytest

from birdinfer.errors import OutputError
from birdinfer.system.outputs import FILES, PICTURE, PRIORS, SCORES, STDOUT, check_folder, check_outputs, side_table


@pytest.mark.parametrize(
    ("kind", "own", "others"),
    [
        (SCORES, ["row_id,a\nx_5,0.1234567\n", "row_id,birds\nx_5,nocall\n", ""],
         ["row_id,a\nx_5,0.004854368932038835\n", "site,hour,windows,a\n", "row_ids,a\n", "\ufeffrow_id,a\n"]),
        (FILES, ["file,status,seconds\n", ""], ["file,label\n", "row_id,a\n"]),
        (PRIORS, ["site,hour,windows,a\n", ""], ["row_id,a\n", "site,hour\n"]),
    ],
)  # fmt: skip
def test_a_table_of_birdinfer_is_recognised_by_its_beginning(tmp_path, kind, own, others):
    path = tmp_path / "a.csv"
    for text in own:
        path.write_text(text)
        check_outputs([(path, kind)], force=False)
    for text in others:
        path.write_text(text)
        for force, hint in ((False, "or give --force"), (None, "or remove it first")):
            with pytest.raises(OutputError, match=hint):
                check_outputs([(path, kind)], force=force)
        check_outputs([(path, kind)], force=True)
        with pytest.raises(OutputError, match="is an input of this command"):
            check_outputs([(path, kind)], [path], force=True)


def test_a_link_is_followed_before_anything_is_decided(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("devices").symlink_to("/dev")
    for number, target in enumerate(("/dev/null", "devices/stdout", "rec.wav", "l3.csv", "/proc/self/fd/1")):
        link = Path(f"l{number}.csv")
        link.symlink_to(target)
        with pytest.raises(OutputError, match=r"belongs to the system|is a link to|is a link in a circle"):
            check_outputs([(link, SCORES)], force=True)
    Path("l5.csv").symlink_to("new.csv")
    check_outputs([(Path("l5.csv"), SCORES)])
    with pytest.raises(OutputError, match=r"would be written twice, as l5\.csv and new\.csv"):
        check_outputs([(Path("l5.csv"), SCORES), (Path("new.csv"), SCORES)])


def test_shared_memory_is_an_ordinary_folder():
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        check_outputs([(Path(folder) / "a.csv", SCORES)])


@pytest.mark.parametrize("name", ["a.txt", "a.wav", "a.onnx", "a", "a.csv.gz", "a.files.csv", "a.FILES.CSV"])
def test_an_ending_that_is_not_known_is_refused_with_one_that_is(tmp_path, name):
    with pytest.raises(OutputError, match=r"\.csv"):
        check_outputs([(tmp_path / name, SCORES)], force=True)
    assert not list(tmp_path.iterdir())


def test_tables_alone_go_to_standard_output():
    check_outputs([(STDOUT, SCORES), (STDOUT, PRIORS)])
    with pytest.raises(OutputError, match="takes tables only"):
        check_outputs([(STDOUT, PICTURE)])


def test_tables_of_two_outputs_have_side_tables_of_their_own():
    assert side_table(Path("x/a.b.csv")) == Path("x/a.b.files.csv")
    assert side_table(Path("a.CSV")) == Path("a.files.CSV")


def test_a_folder_that_holds_an_input_is_refused(tmp_path):
    given = tmp_path / "x" / "rec.wav"
    given.parent.mkdir()
    given.touch()
    check_folder(tmp_path / "x")
    check_folder(tmp_path / "new" / "below", [given])
    for folder, inputs in ((tmp_path / "x", [given]), (tmp_path, [given]), (tmp_path / "x", [given.parent])):
        with pytest.raises(OutputError, match="an input of this command"):
            check_folder(folder, inputs)
    for folder in (given, given / "below", tmp_path / "model.onnx", Path("/proc/x"), Path("/dev/x")):
        with pytest.raises(OutputError, match=r"is a file|lies in|ends in|belongs to the system"):
            check_folder(folder)
