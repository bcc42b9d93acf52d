"""The pages of an Ogg file (RFC 3533) -> the stretches of it that can be decoded without a break.

In: a path. Out: its streams one after another (a chain), each cut where pages are missing or broken, as ranges of
bytes. libsndfile reads the first stream of a chain and stops; behind a missing page it goes on as if nothing were
missing, so that all that follows is early, and a seek there makes it read sound twice.

Every page is held to its checksum. Beside decoding that is little (about 1 ms against 30 per minute of Vorbis), and
memory holds a few numbers for each stretch.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birdinfer.decoding.byte_ranges import ByteRange

_CAPTURE = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule, serial number, sequence number, checksum, number of segments."""
_BEGINS, _ENDS = 0x02, 0x04
_NO_GRANULE = -1
"""The granule of a page on which no packet ends."""
_SCAN_BYTES = 65_536
_MOST_BROKEN_PAGES = 1_000
"""A broken page is searched for the next one from its second byte on, so that a file of nothing but broken headers
would be read a thousand times: it is given up here."""
_FLAC_MAPPING_BYTES = 9
"""Of an Ogg FLAC stream's first packet, before the native stream begins (0x7F "FLAC", version, count)."""
_CODECS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex   ": "speex"}
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class _Page(NamedTuple):
    begin: int
    head_bytes: int
    body_bytes: int
    flags: int
    granule: int
    serial: int
    sequence: int
    codec: str
    """What its first bytes name, "" on all pages but the first ones."""
    is_whole: bool
    has_capture: bool = True
    """False: no page begins here at all."""

    @property
    def end(self) -> int:
        return self.begin + self.head_bytes + self.body_bytes


@dataclass(slots=True)
class OggStretch:
    """Pages of one stream without a break."""

    ranges: list[ByteRange]
    """The stream's headers and then the pages: a file of its own."""
    is_after_break: bool
    """Whether pages are missing before it."""
    granule: int = 0
    """Where it ends on the stream's clock: samples at the file's rate, for Opus at 48 kHz."""


@dataclass(slots=True)
class OggStream:
    """One logical stream: a link of the chain."""

    first: _Page
    stretches: list[OggStretch] = field(default_factory=list)
    is_ended: bool = False
    """Whether its last page is there."""
    is_alone: bool = True
    """Whether no other stream lies beside it."""
    _heads_end: int = 0
    _sequence: int = -1
    """Of the page taken last; -1 before the second."""

    @property
    def codec(self) -> str:
        """``vorbis``, ``opus``, ``flac``, ``speex``, or "" for what is none of them."""
        return self.first.codec

    def add(self, page: _Page) -> None:
        """Take the next page that is whole."""
        last = self.first.sequence if self._sequence < 0 else self._sequence
        is_next = page.sequence == (last + 1) & 0xFFFFFFFF
        self._sequence, self.is_ended = page.sequence, bool(page.flags & _ENDS)
        if self.codec == "flac":
            self._add_body(page)
        elif not self.stretches and is_next and page.granule in (0, _NO_GRANULE) and not self.is_ended:
            self._heads_end = page.end  # headers end at granule 0, and sound begins on a page of its own
        else:
            self._add_sound(page, is_next)

    def _add_sound(self, page: _Page, is_next: bool) -> None:
        if not self.stretches or not is_next:
            begin = self.first.begin
            heads = ByteRange(begin, (self._heads_end or self.first.end) - begin)
            self.stretches.append(OggStretch([heads, ByteRange(page.begin, 0)], not is_next))
        stretch = self.stretches[-1]
        begin = stretch.ranges[1].begin
        stretch.ranges[1] = ByteRange(begin, page.end - begin)
        if page.granule != _NO_GRANULE:
            stretch.granule = page.granule

    def _add_body(self, page: _Page) -> None:
        """Ogg FLAC is native FLAC cut into pages: their bodies, one after another, are a FLAC file."""
        if not self.stretches:
            head_bytes = self.first.head_bytes + _FLAC_MAPPING_BYTES
            native = ByteRange(self.first.begin + head_bytes, max(0, self.first.body_bytes - _FLAC_MAPPING_BYTES))
            self.stretches.append(OggStretch([native], is_after_break=False))
        self.stretches[0].ranges.append(ByteRange(page.begin + page.head_bytes, page.body_bytes))


@dataclass(slots=True)
class OggLayout:
    """What an Ogg file is made of."""

    streams: list[OggStream] = field(default_factory=list)
    n_broken: int = 0
    """Places where no whole page begins; what a cut leaves of the last page is none."""
    is_cut: bool = False
    """Whether the file ends within a page, or without the last page of its last stream."""

    @property
    def is_plain(self) -> bool:
        """Whether libsndfile reads it right by itself: one stream, alone, without a break, not of FLAC."""
        return len(self.streams) <= 1 and all(
            stream.is_alone and stream.codec != "flac" and len(stream.stretches) <= 1 for stream in self.streams
        )


def read_layout(path: Path) -> OggLayout:
    """Walk through the pages of an Ogg file.

    Of streams that lie side by side (sound beside a film) the first that is sound counts.

    Raises:
        OSError: the file cannot be read.
    """
    layout, is_beginning, page = OggLayout(), False, None
    with path.open("rb") as file:
        for page in _pages(file):
            if not page.is_whole:
                layout.n_broken += 1
            elif page.flags & _BEGINS:
                _begin_stream(layout.streams, page, is_beside=is_beginning)
            elif layout.streams and layout.streams[-1].first.serial == page.serial:
                layout.streams[-1].add(page)
            is_beginning = page.is_whole and bool(page.flags & _BEGINS)
    is_ended = bool(layout.streams) and layout.streams[-1].is_ended
    tail_is_page = page is not None and not page.is_whole and page.has_capture
    layout.is_cut = tail_is_page or not is_ended
    # The rest of a cut page is no damage of its own, and what is tagged on behind the last page no page.
    layout.n_broken -= page is not None and not page.is_whole
    return layout


def _begin_stream(streams: list[OggStream], page: _Page, is_beside: bool) -> None:
    """Streams that lie side by side all begin before any goes on; another beginning is the next link of a chain."""
    if not is_beside:
        streams.append(OggStream(page))
        return
    if not streams[-1].codec:
        streams[-1] = OggStream(page)
    streams[-1].is_alone = False


def checksum(page: bytes) -> int:
    """The checksum of a page whose own checksum field is zero: CRC-32 with the polynomial 0x04C11DB7, bits not
    reversed, beginning and ending with 0 (RFC 3533, section 6).

    zlib's CRC-32 is the same on reversed bits, beginning and ending with all ones.
    """  # noqa: D205
    reversed_bits = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_bits:032b}"[::-1], 2)


def _pages(file: BinaryIO) -> Iterator[_Page]:
    """All pages in order; a broken one, or a place where none begins, is handed out as not whole."""
    begin = n_broken = 0
    while n_broken < _MOST_BROKEN_PAGES:
        file.seek(begin)
        page = _read_page(file, begin)
        if page is None:
            return
        yield page
        begin = page.end
        if not page.is_whole:
            n_broken += 1
            begin = _find_capture(file, page.begin + 1)


def _read_page(file: BinaryIO, begin: int) -> _Page | None:
    """The page at this place; None at the end of the file."""
    head = file.read(_HEADER.size)
    if not head:
        return None
    if len(head) < _HEADER.size or not head.startswith(_CAPTURE):
        return _Page(begin, len(head), 0, 0, _NO_GRANULE, 0, 0, "", is_whole=False, has_capture=False)
    _, _, flags, granule, serial, sequence, claimed, n_segments = _HEADER.unpack(head)
    segments = file.read(n_segments)
    body_bytes = sum(segments)
    body = file.read(body_bytes)
    is_whole = len(body) == body_bytes and len(segments) == n_segments
    is_whole = is_whole and checksum(head[:22] + bytes(4) + head[26:] + segments + body) == claimed
    codec = next((name for magic, name in _CODECS.items() if body.startswith(magic)), "") if flags & _BEGINS else ""
    return _Page(begin, _HEADER.size + n_segments, body_bytes, flags, granule, serial, sequence, codec, is_whole)


def _find_capture(file: BinaryIO, begin: int) -> int:
    """Where the next page may begin; the end of the file if there is none."""
    file.seek(begin)
    kept = b""
    while piece := file.read(_SCAN_BYTES):
        found = (kept + piece).find(_CAPTURE)
        if found >= 0:
            return begin - len(kept) + found
        begin += len(piece)
        kept = (kept + piece)[-3:]
    return begin
