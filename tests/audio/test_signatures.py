import pytest

from birdinfer.audio.decoder import known_as


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"OggS" + bytes(24) + b"Speex   1.2", "Speex"),
        (b"<!DOCTYPE html><title>404", "web page"),
        (bytes(600), "its 600 bytes are zeros"),
        (bytes(44) + b"\1\2" * 50, "100 bytes that may be 16-bit samples behind 44 zeros"),
    ],
)
def test_what_cannot_be_decoded_is_named(tmp_path, head, what):
    (tmp_path / "a").write_bytes(head)
    assert what in known_as(tmp_path / "a").what


@pytest.mark.parametrize(
    "head", [b"", b"text", b"Speex   without its container", b"RIFF", b"OggS\0\2", bytes(43) + b"text"]
)
def test_what_is_not_known_is_not_named(tmp_path, head):
    (tmp_path / "a").write_bytes(head)
    assert known_as(tmp_path / "a") is None


def test_what_is_not_there_is_not_named(tmp_path):
    assert known_as(tmp_path / "none") is None
