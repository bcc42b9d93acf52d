"""Text files as editors and spreadsheets write them: bytes -> the encoding that their first bytes show."""

import codecs
from pathlib import Path

_ENOUGH_BYTES = 64
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""UTF-32 first: the little mark of UTF-16 begins like its own."""


def encoding_of(head: bytes) -> str:
    r"""Find the encoding of a text from its beginning: by its mark, or, without one, by every other byte being 0.

    >>> encoding_of(b"\xff\xfea\0"), encoding_of(b"a\0b\0"), encoding_of(b"ab")
    ('utf-16', 'utf-16-le', 'utf-8-sig')
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    start = head[: min(len(head), _ENOUGH_BYTES) // 2 * 2]
    for encoding, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if start and not any(zeros) and all(others):
            return encoding
    return "utf-8-sig"


def read_text(path: Path) -> str:
    """Read a text that a person may have written: UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no such text.
    """
    with path.open("rb") as file:
        head = file.read(_ENOUGH_BYTES)
    return path.read_text(encoding=encoding_of(head))
