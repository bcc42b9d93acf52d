from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_detections import SETTINGS, found, found_in

from birdinfer.detections.formats import write_table
from birdinfer.detections.formats.folders import safe_name
from birdinfer.errors import OutputError


def tables_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt"))


PARTS = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=300)


@given(PARTS)
def test_safe_name_can_be_a_file_anywhere(name):
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 200
    assert safe.isprintable() or not name.isprintable()
    assert not set(safe) & set('<>:"/\\|?*\n\t')
    assert safe[0] != "."
    assert safe[-1] not in ". "
    assert safe == safe_name(safe)


def test_names_that_are_one_when_they_are_safe_have_a_table_each(tmp_path):
    names = ("a:b.wav", "a?b.wav", "a_b.wav", "x" * 240 + "1.wav", "x" * 240 + "2.wav")
    folder = write_table("audacity", tmp_path, lambda: iter(found_in(*names)), SETTINGS)
    assert len(tables_of(folder)) == 5
    assert tables_of(folder)[:3] == ["a_b.txt", "a_b~2.txt", "a_b~3.txt"]


def test_a_disk_that_knows_no_case_is_asked(tmp_path, monkeypatch):
    def exists(path, **_):
        return path.name.casefold() in {each.name.casefold() for each in path.parent.iterdir()}

    monkeypatch.setattr(Path, "exists", exists)
    folder = write_table("audacity", tmp_path, lambda: iter(found_in("A.wav", "a.wav")), SETTINGS)
    assert tables_of(folder) == ["A.txt", "a~2.txt"]


def test_a_folder_may_have_the_name_of_a_table(tmp_path):
    for names in (("a.wav", "a.txt/b.wav"), ("a.txt/b.wav", "a.wav")):
        folder = write_table("audacity", tmp_path, lambda names=names: iter(found_in(*names)), SETTINGS)
        assert tables_of(folder) == ["a.txt", "a.txt_/b.txt"]


def test_no_name_leads_out_of_the_folder(tmp_path):
    folder = write_table("raven", tmp_path / "out", lambda: iter(found_in("../../a.wav", "/b.wav")), SETTINGS)
    assert len(tables_of(folder)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_older_folder_is_replaced_whole(tmp_path):
    write_table("raven", tmp_path, found, SETTINGS)
    folder = write_table("raven", tmp_path, lambda: iter(found_in("new.wav")), SETTINGS)
    assert tables_of(folder) == ["new.selections.txt"]


def test_what_is_not_birdinfers_is_not_replaced(tmp_path):
    (tmp_path / "raven").mkdir()
    (tmp_path / "raven" / "mine.txt").touch()
    with pytest.raises(OutputError, match="raven: holds other things than tables of birdinfer"):
        write_table("raven", tmp_path, found, SETTINGS)
    assert tables_of(tmp_path / "raven") == ["mine.txt"]
