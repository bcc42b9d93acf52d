"""Folders as cards, disks and people leave them: every file is a recording, or listed with a reason, or counted."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import tone, write_sound

from birdinfer.audio.find import find_recordings, recording_name
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import InputNotFoundError
from birdinfer.tables.recordings import Recordings

RATE = 8_000


@pytest.fixture
def put(tmp_path):
    """Put an empty file, or one of these bytes, below the folder and return its path."""

    def put_one(name, content=b""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return put_one


def names_in(*inputs):
    return sorted(find_recordings(inputs).names.values())


def test_find_goes_to_the_bottom_and_ignores_case(put, tmp_path):
    for name in ("b/c/2.WAV", "a/1.Ogg", "a/notes.txt", "0.flac"):
        put(name)
    found = find_recordings([tmp_path, tmp_path / "a" / "notes.txt", tmp_path / "0.flac", tmp_path])
    assert list(found.names.values()) == ["0", "a/1", "b/c/2", "notes"]
    assert found.others == {".txt": 1}


FORMATS = {
    "aifc": "AIFF", "aiff": "AIFF", "au": "AU", "caf": "CAF", "flac": "FLAC", "mp3": "MP3", "ogg": "OGG",
    "rf64": "RF64", "voc": "VOC", "w64": "W64", "wav": "WAV", "wave": "WAVEX", "nist": "NIST", "avr": "AVR",
}  # fmt: skip


@pytest.mark.parametrize(("ending", "kind"), FORMATS.items())
@pytest.mark.parametrize("name", ["a.{}", "A.{}", "data", "SITE.20250227.010000", "b.card"])
def test_sound_that_can_be_decoded_is_found_by_its_ending_or_its_first_bytes(tmp_path, ending, kind, name):
    path = tmp_path / (name.format(ending.upper() if name[0] == "A" else ending))
    soundfile.write(path, tone(1.0, RATE), RATE, format=kind, subtype="MPEG_LAYER_III" if kind == "MP3" else None)
    assert list(find_recordings([tmp_path]).names) == [path]
    with AudioStream(path, RATE) as stream:
        assert sum(map(len, stream.blocks())) >= RATE


def test_mp3_without_tags_is_found_by_two_frames_and_text_in_utf_16_is_not(tmp_path, put):
    soundfile.write(tmp_path / "a.mp3", tone(1.0, RATE), RATE)
    raw = (tmp_path / "a.mp3").read_bytes()
    put("frames", raw[raw.index(b"\xff", 10 if raw.startswith(b"ID3") else 0) :])
    put("notes", b"\xff\xfe" + "AudioMoth of site 7".encode("utf-16-le"))
    put("aac", bytes([0xFF, 0xF1, 0x50, 0x80, 0x01, 0x20, 0xFC, 0, 0] * 3))
    found = find_recordings([tmp_path])
    assert sorted(found.names.values()) == ["a", "aac", "frames"]
    assert found.others == {"without an ending": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.m4a", b""), ("a.WMA", b""), ("a.wac", b"WAac"), ("a.mp4", b""), ("a.aac", b""), ("a.opus", b""),
     ("a.3gp", b""), ("voice", b"\0\0\0\x20ftypM4A "), ("x", b"WAac"), ("y.1", b"#!AMR\n"),
     ("z", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")],
)  # fmt: skip
def test_sound_that_may_not_be_decoded_is_offered_to_the_decoder(put, tmp_path, name, content):
    path = put(name, content)
    assert list(find_recordings([tmp_path]).names) == [path]


def test_what_is_no_sound_is_counted_by_ending(put, tmp_path):
    put("a.wav")
    for name in ("CONFIG.TXT", "b.txt", "c.jpg", "photo", "d.v2", "._e.wav"):
        put(name, b"\0\0\0\x18ftypheic" if name == "photo" else b"\x00\x05\x16\x07...")
    found = find_recordings([tmp_path])
    assert list(found.names.values()) == ["a"]
    assert found.others == {".txt": 2, ".jpg": 1, "without an ending": 1, ".v2": 1, "._* of macOS": 1}
    assert found.notes() == ["no sound, left out: 2 .txt, 1 ._* of macOS, 1 .jpg and 2 others"]
    assert not found.unopened


def test_a_recording_whose_name_begins_like_a_file_of_macos_is_found(tmp_path):
    write_sound(tmp_path / "._b.wav", tone(1.0), RATE)
    assert names_in(tmp_path) == ["._b"]


@pytest.mark.parametrize(
    "trash",
    [".Trash-1000/files", ".Trashes/501", "$RECYCLE.BIN/S-1", "System Volume Information", "@eaDir/a.wav", ".git/lfs",
     ".Spotlight-V100", "#recycle", "RECYCLER", "__MACOSX", ".snapshot/daily"],
)  # fmt: skip
def test_trash_and_system_folders_are_passed_over_and_named(put, tmp_path, trash):
    put("site/a.wav")
    put(f"site/{trash}/a.wav")
    found = find_recordings([tmp_path])
    assert list(found.names.values()) == ["site/a"]
    folder = tmp_path / "site" / trash.split("/")[0]
    assert found.passed_over == (folder,)
    assert found.notes() == [f"trash and system folders, not searched: {folder}"]
    assert names_in(folder)  # by its name it is searched


def test_links_are_followed_each_folder_once(put, tmp_path):
    put("in/siteA/a.wav")
    put("in/siteA/deep/b.wav")
    put("other_disk/c.wav")
    put("one.wav")
    links = {
        "siteB": "../other_disk", "siteC": "../other_disk", "loop": ".", "up": "..", "siteA/back": "../../in",
        "a_copy": "siteA", "siteA/self.wav": "a.wav", "d.wav": "../one.wav", "e.wav": "../one.wav",
    }  # fmt: skip
    for link, target in links.items():
        (tmp_path / "in" / link).symlink_to(target)
    found = find_recordings([tmp_path / "in"])
    assert sorted(found.names.values()) == ["d", "e", "siteA/a", "siteA/deep/b", "siteB/c"]
    left_out = ["a_copy", "loop", "siteA/back", "siteA/self.wav", "siteC", "up"]
    assert sorted(str(path.relative_to(tmp_path / "in")) for path in found.linked) == left_out
    assert not found.unopened
    assert names_in(tmp_path / "in" / "siteA", tmp_path / "in" / "a_copy") == ["siteA/a", "siteA/deep/b"]


def test_links_to_nothing_and_in_a_circle_are_listed(put, tmp_path):
    put("a.wav")
    for link, target in {"b.wav": "/gone/b.wav", "siteC": "/gone", "d.txt": "/gone/d.txt", "e.wav": "e.wav"}.items():
        (tmp_path / link).symlink_to(target)
    found = find_recordings([tmp_path])
    problems = {path.name: problem for path, problem in found.unopened}
    assert problems == {
        "b.wav": "links to /gone/b.wav, which is not there",
        "siteC": "links to /gone, which is not there",
        "e.wav": "cannot be opened (Too many levels of symbolic links)",
    }
    assert found.others == {".txt": 1}
    assert [path for path, _ in find_recordings([tmp_path / "a.wav", tmp_path / "b.wav"]).unopened] == [
        tmp_path / "b.wav"
    ]


def test_pipes_and_sockets_are_never_opened(put, tmp_path):
    put("a.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        found = find_recordings([tmp_path])
    assert [(path.name, problem) for path, problem in found.unopened] == [("pipe.wav", "is no file")]
    assert found.others == {"without an ending": 2}


def test_folders_and_files_of_other_users_are_listed(put, tmp_path, monkeypatch):
    put("a.wav")
    put("locked/b.wav")
    put("lost+found/c.wav")
    put("data", b"RIFF")
    real = os.scandir

    def scandir(path):
        if isinstance(path, Path) and path.name in ("locked", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    def unreadable(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr("birdinfer.audio.find.sounds_by_content", unreadable)
    found = find_recordings([tmp_path])
    assert list(found.names.values()) == ["a"]
    assert sorted((path.name, problem) for path, problem in found.unopened) == [
        ("data", "cannot be opened (Permission denied)"),
        ("locked", "is a folder that cannot be searched (Permission denied)"),
    ]
    assert found.passed_over == (tmp_path / "lost+found",)
    with pytest.raises(InputNotFoundError, match=r"locked: is a folder that cannot be searched \(Permission denied\)"):
        find_recordings([tmp_path / "locked"]).require()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_without_permission_is_listed(put, tmp_path):
    put("a.wav")
    put("locked/b.wav").parent.chmod(0)
    try:
        assert [path.name for path, _ in find_recordings([tmp_path]).unopened] == ["locked"]
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_disk_that_fails_in_mid_folder_keeps_what_was_listed(put, tmp_path, monkeypatch):
    put("a.wav")
    real = os.scandir

    class Failing:
        def __init__(self, path):
            self.entries = real(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            yield from self.entries
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Failing)
        found = find_recordings([tmp_path])
    assert list(found.names.values()) == ["a"]
    assert [problem for _, problem in found.unopened] == ["is a folder that cannot be searched (Input/output error)"]


def test_an_empty_input_among_others_is_listed_and_alone_an_error(put, tmp_path):
    put("siteA/a.wav")
    put("siteB/CONFIG.TXT")
    (tmp_path / "siteC").mkdir()
    found = find_recordings([tmp_path / "siteA", tmp_path / "siteB", tmp_path / "siteC"])
    assert list(found.names.values()) == ["siteA/a"]
    assert found.unopened == (
        (tmp_path / "siteB", "holds no sound file, only 1 .txt"), (tmp_path / "siteC", "holds no sound file")
    )  # fmt: skip
    found.require()
    nothing = find_recordings([tmp_path / "siteB", tmp_path / "siteC"])
    assert not nothing.names
    with pytest.raises(
        InputNotFoundError, match=r"siteB: holds no sound file, only 1 .txt \(1 more cannot be opened or hold none\)"
    ):
        nothing.require()


def test_a_folder_of_links_to_itself_alone_is_empty(tmp_path):
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "here").symlink_to(".")
    with pytest.raises(InputNotFoundError, match="holds no sound file"):
        find_recordings([tmp_path]).require()


def test_an_input_that_is_not_there_is_an_error(tmp_path, put):
    put("a.wav")
    with pytest.raises(InputNotFoundError, match="gone: no such file or folder"):
        find_recordings([tmp_path, tmp_path / "gone"])
    with pytest.raises(InputNotFoundError, match=r"cannot be looked for \(File name too long\)"):
        find_recordings([tmp_path / ("a" * 300)])
    with pytest.raises(InputNotFoundError, match="no such file or folder"):
        find_recordings([Path("a\0b")])


def test_recordings_are_named_by_their_path_in_the_input(put, tmp_path, monkeypatch):
    for name in ("siteA/1.WAV", "siteB/1.WAV", "siteB/day/2.WAV"):
        put(f"in/{name}")
    whole = ["siteA/1", "siteB/1", "siteB/day/2"]
    assert names_in(tmp_path / "in") == whole
    assert names_in(tmp_path / "in" / "siteA", tmp_path / "in" / "siteB") == whole
    assert names_in(tmp_path / "in" / "siteB") == ["1", "day/2"]
    assert names_in(tmp_path / "in" / "siteB", tmp_path / "in" / "siteB" / "day") == ["1", "day/2"]
    assert names_in(tmp_path / "in" / "siteB" / "day", tmp_path / "in" / "siteB") == ["1", "day/2"]
    assert names_in(tmp_path / "in/siteA/1.WAV", tmp_path / "in/siteB/day/2.WAV") == ["1", "2"]
    assert names_in(tmp_path / "in/siteA/1.WAV", tmp_path / "in/siteB/1.WAV") == ["siteA/1", "siteB/1"]
    monkeypatch.chdir(tmp_path / "in")
    assert names_in(Path()) == names_in(Path("siteA"), Path("siteB")) == whole
    assert names_in(Path("siteA/1.WAV"), tmp_path / "in/siteA/1.WAV") == ["1"]


def test_one_name_with_two_endings_keeps_them(put, tmp_path):
    for name in ("a.wav", "a.flac", "b.wav"):
        put(name)
    assert names_in(tmp_path) == ["a.flac", "a.wav", "b"]
    put("a.wav.ogg")
    assert len(set(names_in(tmp_path))) == 4


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf_8_are_escaped(put, tmp_path):
    put(os.fsdecode(b"H\xf6hle_1.wav"))
    assert names_in(tmp_path) == ["H\\xf6hle_1"]


PARTS = st.text(st.sampled_from([*'aBx. -_,"#\\\n\r', "\udcf6", "\u00e3", "\u0303"]), max_size=12)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
@given(names=st.sets(st.tuples(PARTS, PARTS, st.sampled_from([".wav", ".flac", ".WAV", ""])), min_size=1, max_size=8))
def test_names_differ_are_text_and_find_their_files_again(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    made = set()
    for first, second, ending in names:
        path = folder / f"d{first}" / f"f{second}{ending}"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(b"RIFF\0\0\0\0WAVE")
            made.add(path)
    found = find_recordings([folder])
    assert set(found.names) == made
    assert len(set(found.names.values())) == len(made)
    assert all(name.encode() and not name.startswith("/") for name in found.names.values())
    recordings = Recordings(found.names.values())
    assert all(recordings.find(name) == [name] for name in found.names.values())


def test_recording_name_is_the_file_without_its_ending():
    assert recording_name(Path("siteA/x.y.wav")) == "x.y"


def test_a_search_of_many_files_reads_none_of_them(put, tmp_path, monkeypatch):
    for number in range(50):
        put(f"{number:02d}.wav")
        put(f"{number:02d}.txt")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("was opened"))
    assert len(find_recordings([tmp_path]).names) == 50
    assert np.all(np.diff([int(path.stem) for path in find_recordings([tmp_path]).names]) == 1)
