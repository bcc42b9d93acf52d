"""The pages of an Ogg file (RFC 3533) -> the stretches of it that can be decoded without a break.

In: a path. Out: its streams one after another (a chain), each cut where pages are missing or broken, as ranges of
bytes. libsndfile alone reads the first stream of a chain and stops; behind a missing page it continues as if nothing
were missing, so that all that follows is early, and a seek there makes it read sound twice.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birdinfer.audio.decoder import ByteRange

_CAPTURE = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
"""Capture pattern, version, flags, granule, serial number, sequence number, checksum, number of segments."""
_BEGINS, _ENDS = 0x02, 0x04
_NO_GRANULE = -1
"""The granule of a page on which no packet ends."""
_MOST_PACKET_SAMPLES = 8_192
"""Of Vorbis; of Opus 5,760."""
_SCAN_BYTES = 65_536
_LONGEST_PAGE = 27 + 255 + 255 * 255
_MOST_BROKEN_PAGES = 1_000
"""The next page is searched from a broken one's second byte on, so that a file of nothing but broken headers would be
read a thousand times: reading ends here."""
_FLAC_MAPPING_BYTES = 9
"""Of an Ogg FLAC stream's first packet, before the native stream begins (0x7F "FLAC", version, count)."""
_CODECS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex   ": "speex"}
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class _Page(NamedTuple):
    begin: int
    head_bytes: int
    is_whole: bool
    body_bytes: int = 0
    flags: int = 0
    granule: int = _NO_GRANULE
    serial: int = 0
    sequence: int = 0
    n_packets: int = 0
    """That end on it."""
    skipped: int = 0
    """Samples on the clock of an Opus stream before its sound (RFC 7845, section 4.2)."""
    codec: str = ""
    """By the first bytes of its stream; "" on all but the first page."""
    has_capture: bool = True

    @property
    def end(self) -> int:
        return self.begin + self.head_bytes + self.body_bytes


@dataclass(slots=True)
class OggStretch:
    """Pages of one stream without a break."""

    ranges: list[ByteRange | bytes]
    """The stream's headers and then the pages: a file of its own."""
    is_after_break: bool
    granule: int = 0
    """Where it ends on the stream's clock: samples at the file's rate, for Opus at 48 kHz."""
    is_mended: bool = False
    """Whether its last page ends before the one before it does, or nowhere, and has got a later end."""
    _before: int = 0
    _last: _Page | None = None

    def add(self, page: _Page) -> None:
        """Add the next page."""
        begin = self._first_byte()
        self.ranges[1] = ByteRange(begin, page.end - begin)
        self._before, self._last = max(self._before, self.granule), page
        if page.granule != _NO_GRANULE:
            self.granule = page.granule

    def mend(self, file: BinaryIO) -> None:
        """Let the last page end after all its packets; a decoder leaves out what follows the end that it claims."""
        page = self._last
        if page is None or not page.n_packets or page.granule >= self._before:
            return
        file.seek(page.begin)
        raw = file.read(page.end - page.begin)
        raw = raw[:6] + struct.pack("<q", self._before + page.n_packets * _MOST_PACKET_SAMPLES) + raw[14:]
        raw = raw[:22] + struct.pack("<I", checksum(raw[:22] + bytes(4) + raw[26:])) + raw[26:]
        begin = self._first_byte()
        self.ranges[1:] = [ByteRange(begin, page.begin - begin), raw]
        self.is_mended, self.granule = True, page.granule

    def _first_byte(self) -> int:
        pages = self.ranges[1]
        assert isinstance(pages, ByteRange)
        return pages.begin


@dataclass(slots=True)
class OggStream:
    """One logical stream: a link of the chain."""

    first: _Page
    stretches: list[OggStretch] = field(default_factory=list)
    is_ended: bool = False
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
        """Add the next whole page."""
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
        self.stretches[-1].add(page)

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
    """Places where no whole page begins, without the rest of a last page that is cut."""
    is_cut: bool = False
    """Whether the file ends within a page, or without the last page of its last stream."""

    @property
    def is_plain(self) -> bool:
        """Whether libsndfile reads it correctly by itself: one stream, alone, without a break, not of FLAC."""
        return len(self.streams) <= 1 and all(
            stream.is_alone
            and stream.codec != "flac"
            and len(stream.stretches) <= 1
            and not any(stretch.is_after_break or stretch.is_mended for stretch in stream.stretches)
            for stream in self.streams
        )


def read_layout(path: Path) -> OggLayout:
    """Read the pages of an Ogg file; of streams beside each other (sound and film) the first that is sound counts."""
    layout, is_beginning, page = OggLayout(), False, None
    with path.open("rb", buffering=_SCAN_BYTES) as file:  # pages are short: with the usual 8 KiB each is a call or two
        for page in _pages(file):
            if not page.is_whole:
                layout.n_broken += 1
            elif page.flags & _BEGINS:
                _begin_stream(layout.streams, page, is_beside=is_beginning)
            elif layout.streams and layout.streams[-1].first.serial == page.serial:
                layout.streams[-1].add(page)
            is_beginning = page.is_whole and bool(page.flags & _BEGINS)
        for stream in layout.streams:
            if stream.codec != "flac" and stream.stretches and stream.is_ended:
                stream.stretches[-1].mend(file)
    is_ended = bool(layout.streams) and layout.streams[-1].is_ended
    tail_is_page = page is not None and not page.is_whole and page.has_capture
    layout.is_cut = tail_is_page or not is_ended
    # The rest of a cut page is no further damage, and a tag behind the last page is no page.
    layout.n_broken -= page is not None and not page.is_whole
    return layout


def is_ended(path: Path) -> bool:
    """Whether an Ogg file ends with a whole page that is marked as the last one, by its last bytes alone.

    What follows that page, as a tag of another format, is passed over.
    """
    with path.open("rb") as file:
        since = max(0, file.seek(0, 2) - _LONGEST_PAGE)
        file.seek(since)
        tail = file.read()
        at = tail.rfind(_CAPTURE)
        file.seek(max(0, since + at))
        page = _read_page(file, since + at) if at >= 0 else None
    return page is not None and page.is_whole and bool(page.flags & _ENDS)


def _begin_stream(streams: list[OggStream], page: _Page, is_beside: bool) -> None:
    """Streams beside each other all begin before any continues; another beginning is the next link of a chain."""
    if not is_beside:
        streams.append(OggStream(page))
        return
    if not streams[-1].codec:
        streams[-1] = OggStream(page)
    streams[-1].is_alone = False


def checksum(page: bytes) -> int:
    """Compute the checksum of a page whose own checksum field is zero (RFC 3533, section 6).

    It is CRC-32 with the polynomial 0x04C11DB7, bits not reversed, beginning and ending with 0; zlib's is the same on
    reversed bits, beginning and ending with all ones.
    """
    reversed_bits = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_bits:032b}"[::-1], 2)


def _pages(file: BinaryIO) -> Iterator[_Page]:
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
    head = file.read(_HEADER.size)
    if not head:
        return None
    if len(head) < _HEADER.size or not head.startswith(_CAPTURE):
        return _Page(begin=begin, head_bytes=len(head), is_whole=False, has_capture=False)
    _, _, flags, granule, serial, sequence, claimed, n_segments = _HEADER.unpack(head)
    segments = file.read(n_segments)
    body_bytes = sum(segments)
    body = file.read(body_bytes)
    is_whole = len(body) == body_bytes and len(segments) == n_segments
    is_whole = is_whole and checksum(head[:22] + bytes(4) + head[26:] + segments + body) == claimed
    codec = next((name for magic, name in _CODECS.items() if body.startswith(magic)), "") if flags & _BEGINS else ""
    skipped = int.from_bytes(body[10:12], "little") if codec == "opus" else 0
    return _Page(
        begin=begin, head_bytes=_HEADER.size + n_segments, body_bytes=body_bytes, flags=flags, granule=granule,
        serial=serial, sequence=sequence, codec=codec, skipped=skipped, is_whole=is_whole,
        n_packets=len(segments) - segments.count(255),
    )  # fmt: skip


def _find_capture(file: BinaryIO, begin: int) -> int:
    file.seek(begin)
    kept = b""
    while piece := file.read(_SCAN_BYTES):
        found = (kept + piece).find(_CAPTURE)
        if found >= 0:
            return begin - len(kept) + found
        begin += len(piece)
        kept = (kept + piece)[-3:]
    return begin
