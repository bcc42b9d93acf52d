"""The first frame of an MP3 -> whether more sound follows than a decoder expects, and how to read all of it.

In: a path. Out: what the Xing header in the first frame claims (a frame without sound, written by the encoder), and a
header that claims more than any file holds. libsndfile stops at the claim; where there is none, at a guess by the first
frame's bit rate, which is wrong wherever the rate varies.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birdinfer.audio.decoder import ByteRange, ByteRanges, Decoder

MOST_PADDING = 2 * 1_152
"""Samples; encoders differ in whether they count the frames that they add at both ends."""
_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Of MPEG 1, and of 2 and 2.5."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LAYER_3 = 1
_ROOMY = 9
"""Index of a bit rate whose frames are long enough for any header."""
_MANY_FRAMES = 1 << 24
_DECODER_DELAY = 529
"""Samples that libmpg123 leaves out where there is a Xing header."""
_MOST_TAGS = 16


class _Frame(NamedTuple):
    kind: tuple[int, int]
    """MPEG version and rate: the same in all frames."""
    n_bytes: int
    side_bytes: int
    """Between its head and a Xing header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mp3:
    """What the first frame of an MP3 says."""

    path: Path
    claims_frames: bool
    """Whether there is a Xing header that counts them."""
    is_whole: bool
    """Whether the file has the number of bytes that the Xing header counts."""
    kind: tuple[int, int]
    sound_begin: int
    """Byte of the first frame that holds sound."""
    endless: bytes
    """The first frame with a Xing header that claims more than any file holds."""
    n_skipped: int
    """Samples at the beginning that are decoded without this header and not with it."""

    def has_frame_at(self, at: int | None) -> bool:
        """Whether a frame of this stream begins at a byte."""
        if at is None:
            return False
        with self.path.open("rb") as file:
            file.seek(at)
            frame = parse_frame(file.read(4))
        return frame is not None and frame.kind == self.kind

    def open_all(self) -> Decoder:
        """Open the file so that its last byte is its end."""
        length = self.path.stat().st_size - self.sound_begin
        return Decoder(self.path, ByteRanges(self.path, [self.endless, ByteRange(self.sound_begin, length)]))


def read_mp3(path: Path) -> Mp3 | None:
    """Read the first frame of an MP3, behind its tags; None for other files."""
    with path.open("rb") as file:
        begin = _behind_tags(file)
        file.seek(begin)
        head = file.read(4)
        frame = parse_frame(head)
        if frame is None:
            return None
        raw = head + file.read(frame.n_bytes - 4)
        n_bytes = file.seek(0, 2) - begin
    at = 4 + frame.side_bytes
    has_xing = raw[at : at + 4] in (b"Xing", b"Info") and len(raw) >= at + 16
    flags, claimed, claimed_bytes = struct.unpack_from(">III", raw, at + 4) if has_xing else (0, 0, 0)
    is_counted = bool(flags & 1) and claimed > 0
    return Mp3(
        path=path,
        claims_frames=is_counted,
        is_whole=flags & 3 == 3 and claimed_bytes == n_bytes,
        kind=frame.kind,
        sound_begin=begin + frame.n_bytes if has_xing else begin,
        endless=_with_many(raw, at) if is_counted else _endless(head),
        n_skipped=0 if is_counted else _DECODER_DELAY,
    )


def _with_many(raw: bytes, at: int) -> bytes:
    return raw[: at + 8] + struct.pack(">I", _MANY_FRAMES) + raw[at + 12 :]


def _endless(head: bytes) -> bytes:
    """Make a frame that holds nothing but a Xing header."""
    roomy = bytes([head[0], head[1] | 1, head[2] & 0x0C | _ROOMY << 4, head[3]])
    frame = parse_frame(roomy)
    assert frame is not None
    return (roomy + bytes(frame.side_bytes) + b"Xing" + struct.pack(">II", 1, _MANY_FRAMES)).ljust(frame.n_bytes, b"\0")


def _behind_tags(file: BinaryIO) -> int:
    at = 0
    for _ in range(_MOST_TAGS):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            break
        at += 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:])))
    return at


def parse_frame(head: bytes) -> _Frame | None:
    """Read the head of a frame of layer III (ISO 11172-3, 2.4.1.3); None where there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate_index, kbps_index = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer != _LAYER_3 or rate_index == 3 or not 1 <= kbps_index <= 14:
        return None
    is_first, is_mono = version == 3, head[3] >> 6 == 3
    rate = _RATES[version][rate_index]
    kbps = (_KBPS_1 if is_first else _KBPS_2)[kbps_index - 1]
    n_bytes = (144_000 if is_first else 72_000) * kbps // rate + (head[2] >> 1 & 1)
    side_bytes = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    return _Frame((version, rate), n_bytes, side_bytes)
