"""What a file is that cannot be decoded, told by its first bytes: for a better word than "format not recognised".

In: a path. Out: a name and what to do, or None. Nothing here decides what is decoded; libsndfile does, and is asked
first.
"""

from pathlib import Path
from typing import NamedTuple

_HEAD_BYTES = 512
_CONVERT = "convert it to FLAC"


class Known(NamedTuple):
    """A kind of file."""

    what: str
    remedy: str


_AT_THE_BEGINNING = {
    b"version https://git-lfs": Known("a Git LFS pointer, not the sound itself", "run git lfs pull"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Known("WMA, which cannot be decoded here", _CONVERT),
    b"\x1a\x45\xdf\xa3": Known("Matroska or WebM, which cannot be decoded here", _CONVERT),
    b"MAC ": Known("Monkey's Audio, which cannot be decoded here", _CONVERT),
    b"wvpk": Known("WavPack, which cannot be decoded here", _CONVERT),
    b"PK\x03\x04": Known("a ZIP archive", "unpack it"),
    b"\x1f\x8b": Known("packed with gzip", "unpack it"),
    b"<!DOCTYPE": Known("a web page, not sound", "download it again"),
    b"<html": Known("a web page, not sound", "download it again"),
}
_ANYWHERE = {
    b"Speex   ": Known("Speex, which cannot be decoded here", _CONVERT),
    b"\x80theora": Known("a film (Theora)", "take its sound out of it"),
}


def known_as(path: Path) -> Known | None:
    """What a file is, by its first bytes; None where they say nothing, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return Known("MP4 (AAC or ALAC), which cannot be decoded here", _CONVERT)
    if head and not head.strip(b"\0"):
        return Known("no sound: it begins with zeros, as failed copies do", "copy it again")
    beginnings = (known for magic, known in _AT_THE_BEGINNING.items() if head.startswith(magic))
    inner = (known for magic, known in _ANYWHERE.items() if head.startswith(b"OggS") and magic in head)
    return next(beginnings, None) or next(inner, None)
