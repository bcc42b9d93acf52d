"""The frames of a FLAC file (RFC 9639) -> how many samples there are, whatever its header says.

In: a path. Out: the header's claim beside what the last frame shows, for each frame carries its number. Metadata and
the end of the file are read, nothing between. libFLAC stops where the header says; it is given a header that fits.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birdinfer.audio.decoder import ByteRange, ByteRanges, Decoder
from birdinfer.audio.headers import Header

_MAGIC = b"fLaC"
_INFO_BEGIN, _INFO_END = 8, 42
"""STREAMINFO, always the first block."""
_ONLY_BLOCK = b"\x80\0\0\x22"
"""Head of a STREAMINFO that no other block follows."""
_SYNC = re.compile(b"\xff[\xf8\xf9]")
_MOST_HEAD_BYTES = 16
_FIRST_TAIL_BYTES, _MOST_TAIL_BYTES = 1 << 16, 1 << 24
_MOST_METADATA_BYTES = 1 << 24
_LENGTH_BITS = 36


class _Frame(NamedTuple):
    begin: int
    kind: tuple[int, int, int]
    """What is the same in all frames: blocking strategy, rate, bits."""
    number: int
    n_samples: int


def read_flac(path: Path) -> Header | None:
    """Read the header of a FLAC; None for other files, and where no frame is found."""
    with path.open("rb") as file:
        start = file.read(_INFO_END)
        if not start.startswith(_MAGIC) or len(start) < _INFO_END:
            return None
        n_bytes = file.seek(0, 2)
        walked = _behind_metadata(file)
        first = walked or _first_frame(file)
        last = None if first is None else _last_frame(file, first, n_bytes)
        if first is None or last is None:
            return None
        begin = last.number if first.kind[0] & 1 else last.number * first.n_samples
        claimed = int.from_bytes(start[18:26], "big") & ((1 << _LENGTH_BITS) - 1)
        frames = begin + last.n_samples
        is_cut = claimed > frames and not _is_whole(file, last, n_bytes)
    if walked and not claimed:  # from a pipe, as the format allows
        return None
    # An encoder that was not interrupted ends with a block of what is left over.
    is_whole = not is_cut and last.n_samples < first.n_samples
    is_wrong = walked is None or claimed < frames or (claimed > frames and is_whole)
    header = Header(frames=begin if is_cut else frames, claimed=claimed or None, is_whole=is_whole, is_wrong=is_wrong)
    if not is_wrong:
        return header
    info = bytearray(start[_INFO_BEGIN:])
    fields = int.from_bytes(info[10:18], "big") >> _LENGTH_BITS << _LENGTH_BITS
    info[10:18] = (fields | frames).to_bytes(8, "big")
    ranges: list[ByteRange | bytes] = [
        _MAGIC + _ONLY_BLOCK + bytes(info),
        ByteRange(first.begin, n_bytes - first.begin),
    ]
    return replace(header, open=lambda: Decoder(path, ByteRanges(path, ranges)))


def _behind_metadata(file: BinaryIO) -> _Frame | None:
    """Return the frame behind the metadata; None where a block's length is wrong."""
    at = len(_MAGIC)
    for number in range(1_000):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or (number and not head[0] & 0x7F):
            return None
        at += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80:
            break
    file.seek(at)
    return parse_frame(file.read(_MOST_HEAD_BYTES), 0, at)


def _first_frame(file: BinaryIO) -> _Frame | None:
    file.seek(_INFO_END)
    head = file.read(_MOST_METADATA_BYTES)
    frames = (parse_frame(head, place.start(), _INFO_END) for place in _SYNC.finditer(head))
    return next((frame for frame in frames if frame is not None and frame.number == 0), None)


def _last_frame(file: BinaryIO, first: _Frame, n_bytes: int) -> _Frame | None:
    length = _FIRST_TAIL_BYTES
    while True:
        since = max(first.begin, n_bytes - length)
        file.seek(since)
        tail = file.read(n_bytes - since)
        for place in reversed([place.start() for place in _SYNC.finditer(tail)]):
            frame = parse_frame(tail, place, since)
            if frame is not None and frame.kind == first.kind:
                return frame
        if since == first.begin or length >= _MOST_TAIL_BYTES:
            return None
        length *= 16


def parse_frame(raw: bytes, at: int, since: int) -> _Frame | None:
    """Read a frame's header (section 9.1); None where there is none, or one whose checksum is wrong."""
    head = raw[at : at + _MOST_HEAD_BYTES]
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    n_more = _more_bytes(head[4])
    if not size_code or rate_code == 15 or n_more is None:
        return None
    end = 5 + n_more
    number = head[4] & (0xFF if not n_more else 0x3F >> n_more)
    for byte in head[5:end]:
        number = number << 6 | byte & 0x3F
    size_bytes, rate_bytes = {6: 1, 7: 2}.get(size_code, 0), {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    stored = int.from_bytes(head[end : end + size_bytes], "big") + 1
    end += size_bytes + rate_bytes
    if len(head) <= end or _crc(head[:end], 0x07, 8) != head[end]:
        return None
    n_samples = stored if size_bytes else _block_size(size_code)
    return _Frame(since + at, (head[1], rate_code, head[3] & 0x0E), number, n_samples)


def _more_bytes(first: int) -> int | None:
    """Return how many bytes follow the first of a number that is coded as in UTF-8."""
    n_ones = 8 - (~first & 0xFF).bit_length()
    return None if n_ones in (1, 8) else max(0, n_ones - 1)


def _block_size(code: int) -> int:
    if code == 1:
        return 192
    return 576 << code - 2 if code < 6 else 256 << code - 8


def _is_whole(file: BinaryIO, frame: _Frame, n_bytes: int) -> bool:
    """Whether a frame ends with the file: its last two bytes are its checksum."""
    file.seek(frame.begin)
    raw = file.read(n_bytes - frame.begin)
    return _crc(raw[:-2], 0x8005, 16) == int.from_bytes(raw[-2:], "big")


def _crc(raw: bytes, polynomial: int, n_bits: int) -> int:
    high, mask, crc = 1 << n_bits - 1, (1 << n_bits) - 1, 0
    for byte in raw:
        crc ^= byte << n_bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & high else crc << 1) & mask
    return crc
