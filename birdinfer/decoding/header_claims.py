"""How many samples the header of a WAV or AIFF file claims, whatever is left of the file.

In: a path. Out: samples per channel. libsndfile shortens the claim to what the file holds, so that a file that was cut
looks whole. WAV: the sizes of the chunks ``fmt`` and ``data`` (RIFF, RIFX, and RF64 with ``ds64``, EBU Tech 3306).
AIFF: the chunk ``COMM``.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_BYTE_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<", b"FORM": ">"}
_MOST_CHUNKS = 1_000
_HEAD_BYTES = 40
"""Of a chunk, as much as is looked at."""
_IN_DS64 = 0xFFFFFFFF


class _Chunk(NamedTuple):
    name: bytes
    n_bytes: int
    head: bytes


def claimed_frames(path: Path) -> int | None:
    """Samples per channel that a header claims; None where it is no WAV or AIFF, or leaves the length open.

    Writers that cannot go back to the header (a pipe, a recorder that lost its power) leave 0 or the highest number.
    The claim is that of uncompressed samples.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        kind = file.read(12)[:4]
        order = _BYTE_ORDERS.get(kind)
        if order is None:
            return None
        chunks = _chunks(file, order)
        return _aiff_frames(chunks) if kind == b"FORM" else _wav_frames(chunks, order)


def _chunks(file: BinaryIO, order: str) -> Iterator[_Chunk]:
    """The chunks behind a header of 12 bytes, in order."""
    begin = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        head = file.read(8 + _HEAD_BYTES)
        if len(head) < 8:
            return
        name, n_bytes = struct.unpack(f"{order}4sI", head[:8])
        yield _Chunk(name, n_bytes, head[8 : 8 + n_bytes])
        begin += 8 + n_bytes + n_bytes % 2


def _wav_frames(chunks: Iterator[_Chunk], order: str) -> int | None:
    frame_bytes = data_64 = 0
    for chunk in chunks:
        if chunk.name == b"fmt " and len(chunk.head) >= 14:
            (frame_bytes,) = struct.unpack(f"{order}H", chunk.head[12:14])
        elif chunk.name == b"ds64" and len(chunk.head) >= 16:
            (data_64,) = struct.unpack(f"{order}Q", chunk.head[8:16])
        elif chunk.name == b"data":
            n_bytes = data_64 if chunk.n_bytes == _IN_DS64 and data_64 else chunk.n_bytes
            return n_bytes // frame_bytes if frame_bytes and not _is_open(n_bytes) else None
    return None


def _aiff_frames(chunks: Iterator[_Chunk]) -> int | None:
    for chunk in chunks:
        if chunk.name == b"COMM" and len(chunk.head) >= 6:
            (frames,) = struct.unpack(">I", chunk.head[2:6])
            return None if _is_open(frames) else int(frames)
    return None


def _is_open(size: int) -> bool:
    """Whether a size is one of those that stand for "not known": 0, about 2 GiB (SoX, ALSA), about 4 GiB (ffmpeg)."""
    return size == 0 or 0x7FFFF000 <= size <= 0x80000000 or 0xFFFFF000 <= size <= 0xFFFFFFFF
