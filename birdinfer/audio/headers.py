"""What the header of uncompressed sound claims, held against the bytes that are there -> where the samples lie.

In: a path (WAV, RF64, BW64, W64, AIFF, CAF, AU). Out: the samples' format and bytes, and how many the header claims.
Sizes are wrong in the field: never written (0, 44 or the highest number, where a battery died), wrapped at 4 GiB, off
by the header's length. Bytes behind a claim that are no chunk are samples. A header costs a few reads; the end of a
file is searched for chunks only where a size is wrong.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birdinfer.audio.decoder import ByteRange, ByteRanges, Decoder, RawFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """A header's claim beside what is there, in samples per channel."""

    frames: int
    """By the bytes of the file."""
    claimed: int | None
    """None: the header leaves the length open."""
    is_whole: bool = False
    """Whether the file shows its own end, so that a greater claim is wrong and nothing is missing."""
    is_wrapped: bool = False
    """Whether the claim is the true length less a multiple of 4 GiB."""
    is_wrong: bool = False
    """Whether libsndfile is not to be asked to read the file by its header."""
    open: Callable[[], Decoder] | None = None
    """Opens what is there, whatever the header says."""

    @property
    def is_believed(self) -> bool:
        """Whether the claim may be true: as much is there, or the rest is missing."""
        return self.claimed is not None and (
            self.claimed == self.frames or (self.claimed > self.frames and not self.is_whole)
        )


def read_header(path: Path) -> Header | None:
    """Read the header of uncompressed sound; None where a file is something else, or its header cannot be read."""
    with path.open("rb") as file:
        magic = file.read(24)
        n_bytes = file.seek(0, 2)
        if magic[:4] in _AU_BYTE_ORDERS:
            found = _au(magic, n_bytes)
        else:
            dialect = _DIALECTS.get(magic[:4])
            found = _Chunks(file, n_bytes, dialect).samples() if dialect else None
    # libsndfile takes the samples of a W64 from the wrong place where chunks that it does not know lie before them.
    return None if found is None or found.begin > n_bytes else _header(path, found, is_wrong=magic.startswith(b"riff"))


def _header(path: Path, found: "_Samples", is_wrong: bool) -> Header:
    raw, size = found.format, found.claimed
    ranges = [ByteRange(found.begin, found.n_bytes)]
    is_short = size is not None and found.n_bytes < size <= found.n_bytes + found.begin
    return Header(
        frames=found.n_bytes // raw.frame_bytes,
        # Some recorders count the header among the samples (known problems, FL005): nothing is missing then.
        claimed=None if size is None else (found.n_bytes if is_short else size) // raw.frame_bytes,
        is_whole=found.is_whole,
        is_wrapped=found.is_wrapped,
        is_wrong=is_wrong,
        open=lambda: Decoder(path, ByteRanges(path, ranges), raw),
    )


class _Samples(NamedTuple):
    format: RawFormat
    begin: int
    n_bytes: int
    claimed: int | None
    is_whole: bool = False
    is_wrapped: bool = False


class _Dialect(NamedTuple):
    """How a container writes its chunks."""

    order: str
    first: int
    """Where its chunks begin."""
    head: str = "4sI"
    """A chunk's name and size."""
    padding: int = 2
    """Chunks begin at its multiples."""
    name_end: bytes = b""
    """Of names that are longer than four bytes; the size then counts the head, too."""


class _Chunk(NamedTuple):
    name: bytes
    begin: int
    """Of its body."""
    size: int
    body: bytes
    """As far as it is read."""


class _Claims(NamedTuple):
    format: RawFormat
    begin: int
    sizes: list[int]
    """Bytes, the likeliest first."""


_DIALECTS = {
    b"RIFF": _Dialect("<", 12),
    b"RF64": _Dialect("<", 12),
    b"BW64": _Dialect("<", 12),
    b"RIFX": _Dialect(">", 12),
    b"riff": _Dialect("<", 40, "16sQ", 8, bytes.fromhex("f3acd3118cd100c04f8edb8a")),
    b"FORM": _Dialect(">", 12),
    b"caff": _Dialect(">", 8, "4sq", 1),
}
_OF_FORMAT, _OF_SAMPLES = frozenset({b"fmt ", b"COMM", b"desc"}), frozenset({b"data", b"SSND"})
_METADATA = frozenset(
    name.ljust(4)
    for name in (
        b"LIST list bext iXML ixml axml aXML fact PEAK cue PAD id3 ID3 smpl inst junk JUNK FLLR ds64 guan wamd levl "
        b"r64m _PMX chna cart minf elm1 regn umid DGDA conf afsp DISP plst MARK INST NAME ANNO AUTH (c) COMT FVER APPL "
        b"CHAN free info chan strg mark pakt kuki peak uuid"
    ).split()
)
_KNOWN = _OF_FORMAT | _OF_SAMPLES | _METADATA
_AT_THE_END = re.compile(b"|".join(re.escape(name) for name in sorted(_METADATA)))
_MOST_CHUNKS = 1_000
_BODY_BYTES = 48
_SEARCHED_BYTES = 1 << 20
"""At the beginning and at the end, where sizes are wrong."""
_NEVER_WRITTEN = 44
"""The header's own length, in place of the samples' (Frontier Labs, the list of known problems' FL003)."""
_WRAP = 1 << 32
_HIGHEST = 1 << 62


class _Chunks:
    def __init__(self, file: BinaryIO, n_bytes: int, dialect: _Dialect) -> None:
        self._file, self._n_bytes, self._dialect = file, n_bytes, dialect
        self._head = struct.Struct(dialect.order + dialect.head)

    def samples(self) -> _Samples | None:
        """Find format and samples; None where one of them is not there, or the samples are compressed."""
        chunks: dict[bytes, _Chunk] = {}
        for chunk in self._walk(self._dialect.first):
            chunks.setdefault(chunk.name, chunk)
            if chunk.name in _OF_SAMPLES:
                break
        is_complete = _OF_FORMAT & chunks.keys() and _OF_SAMPLES & chunks.keys()
        claims = self._claims(chunks if is_complete else self._searched())
        return None if claims is None else self._against_bytes(claims)

    def _claims(self, chunks: dict[bytes, _Chunk]) -> _Claims | None:
        if b"data" in chunks and b"fmt " in chunks:
            return _of_wave(chunks, self._dialect.order)
        if b"SSND" in chunks and b"COMM" in chunks:
            return _of_aiff(chunks, self._n_bytes)
        return _of_caf(chunks) if b"data" in chunks and b"desc" in chunks else None

    def _walk(self, at: int) -> Iterator[_Chunk]:
        for _ in range(_MOST_CHUNKS):
            chunk = self._read(at)
            if chunk is None:
                return
            yield chunk
            at = self._padded(chunk.begin + chunk.size)

    def _read(self, at: int) -> _Chunk | None:
        if at + self._head.size > self._n_bytes:
            return None
        self._file.seek(at)
        head = self._file.read(self._head.size + _BODY_BYTES)
        name, size = self._head.unpack_from(head)
        size -= self._head.size if self._dialect.name_end else 0
        size = _HIGHEST if size == -1 else max(0, size)  # CAF's -1: to the end of the file
        return _Chunk(name[:4], at + self._head.size, size, head[self._head.size :])

    def _padded(self, at: int) -> int:
        return at + -at % self._dialect.padding

    def _searched(self) -> dict[bytes, _Chunk]:
        """Find the chunks by their names, where a size has led the walk astray."""
        self._file.seek(0)
        head = self._file.read(_SEARCHED_BYTES)
        chunks: dict[bytes, _Chunk] = {}
        at = self._dialect.first
        for name in (b"ds64", *sorted(_OF_FORMAT), *sorted(_OF_SAMPLES)):
            for place in re.finditer(re.escape(name + self._dialect.name_end), head[at:]):
                chunk = self._read(at + place.start())
                if chunk and (name not in _OF_FORMAT or _format_of(chunk, self._dialect.order)):
                    chunks[name] = chunk
                    at = chunk.begin if name in _OF_FORMAT else at
                    break
        return chunks

    def _against_bytes(self, claims: _Claims) -> _Samples:
        raw, begin, sizes = claims
        there = max(0, self._n_bytes - begin)
        for size in sizes:
            if self._may_end(begin, size, raw.frame_bytes):
                return _Samples(raw, begin, size, size)
        for size in sizes:
            for whole in range(size + _WRAP, there + 1, _WRAP):
                if self._may_end(begin, whole, raw.frame_bytes):
                    return _Samples(raw, begin, whole, size, is_wrapped=True)
        believed = next((size for size in sizes if not _is_open(size)), None)
        end = self._chunks_at_the_end(begin, raw.frame_bytes)
        return _Samples(raw, begin, there if end is None else end - begin, believed, is_whole=end is not None)

    def _may_end(self, begin: int, size: int, frame_bytes: int) -> bool:
        """Whether samples may end here: at the end of the file, or where chunks lead to it."""
        end = begin + size
        if end >= self._n_bytes or size % frame_bytes:
            return end == self._n_bytes
        self._file.seek(end)
        if any(self._file.read(self._padded(end) - end)):
            return self._is_known(end) or self._leads_to_the_end(end)  # some writers do not pad
        # The name of a chunk where a size says that one begins is no coincidence, however wrong its own size.
        end = self._padded(end)
        return end >= self._n_bytes or self._is_known(end) or self._leads_to_the_end(end)

    def _is_known(self, at: int) -> bool:
        chunk = self._read(at)
        return chunk is not None and chunk.name in _KNOWN

    def _leads_to_the_end(self, at: int) -> bool:
        n_known = 0
        for chunk in self._walk(at):
            if not all(32 <= byte < 127 for byte in chunk.name):
                break
            n_known += chunk.name in _KNOWN
            at = self._padded(chunk.begin + chunk.size)
            over = chunk.begin + chunk.size - self._n_bytes
            if over >= -1:  # a file may be cut in its last chunk
                return over <= 0 or (chunk.name in _KNOWN and over < _SEARCHED_BYTES)
        self._file.seek(at)
        rest = self._file.read(129)
        if n_known and not any(rest):  # zeros fill a sector
            return True
        is_tag = len(rest) == 128 and rest.startswith(b"TAG")  # as taggers of MP3 leave it
        return is_tag or (2 <= len(rest) < self._head.size and any(name.startswith(rest[:4]) for name in _KNOWN))

    def _chunks_at_the_end(self, begin: int, frame_bytes: int) -> int | None:
        """Find where samples of unknown length end, because chunks follow; None where none do."""
        since = max(begin, self._n_bytes - _SEARCHED_BYTES)
        self._file.seek(since)
        tail = self._file.read(_SEARCHED_BYTES)
        for place in _AT_THE_END.finditer(tail):
            at = since + place.start()
            if (at - begin) % frame_bytes < self._dialect.padding and self._leads_to_the_end(at):
                n_zeros = len(tail[: place.start()]) - len(tail[: place.start()].rstrip(b"\0"))
                least = at - min(n_zeros, self._dialect.padding - 1)
                return next((end for end in range(least, at) if (end - begin) % frame_bytes == 0), at)
        return None


def _is_open(size: int) -> bool:
    """Whether a size means "not known": 0, the header's own, about 2 GiB (SoX, ALSA), about 4 GiB (ffmpeg) or 2^63."""
    is_highest = 0x7FFFF000 <= size <= 0x80000000 or 0xFFFFF000 <= size <= 0xFFFFFFFF or size >= _HIGHEST
    return size in (0, _NEVER_WRITTEN) or is_highest


_FLOATS = {4: "FLOAT", 8: "DOUBLE"}
_INTEGERS = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}


def _raw(subtype: str | None, rate: float, channels: int, sample_bytes: int, order: str) -> RawFormat | None:
    if subtype is None or not 1 <= channels <= 1_024 or not 100 <= rate <= 1_000_000:
        return None
    return RawFormat(subtype, round(rate), channels, channels * sample_bytes, "LITTLE" if order == "<" else "BIG")


def _format_of(chunk: _Chunk, order: str) -> RawFormat | None:
    """Read a chunk that describes samples; None where they are compressed, or it makes no sense."""
    try:
        reader = {b"fmt ": _format_of_wave, b"COMM": _format_of_aiff, b"desc": _format_of_caf}[chunk.name]
        return reader(chunk.body, order)
    except (struct.error, ValueError, OverflowError):
        return None


def _format_of_wave(body: bytes, order: str) -> RawFormat | None:
    tag, channels, rate, _, align, bits = struct.unpack_from(f"{order}HHIIHH", body)
    if tag == 0xFFFE:
        (tag,) = struct.unpack_from(f"{order}I", body, 24)
    width = align // channels if channels else 0
    if width * channels != align or not 1 <= bits <= width * 8:
        return None
    subtypes = {1: _INTEGERS | {1: "PCM_U8"}, 3: _FLOATS, 6: {1: "ALAW"}, 7: {1: "ULAW"}}
    return _raw(subtypes.get(tag, {}).get(width), rate, channels, width, order)


def _format_of_aiff(body: bytes, order: str) -> RawFormat | None:
    channels, _, bits, exponent, mantissa, kind = struct.unpack_from(">hIhHQ4s", body.ljust(22, b"\0"))
    kind = b"NONE" if kind in _KNOWN or not any(kind) else kind  # plain AIFF: the next chunk begins there
    width = -(-bits // 8)
    subtypes = {b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "DOUBLE", b"FL64": "DOUBLE"}
    subtypes |= {b"ulaw": "ULAW", b"ULAW": "ULAW", b"alaw": "ALAW", b"ALAW": "ALAW"}
    widths = {"FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
    subtype = subtypes.get(kind) or (_INTEGERS.get(width) if kind in _PLAIN_AIFF else None)
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16_446)
    return _raw(subtype, rate, channels, widths.get(subtype or "", width), "<" if kind == b"sowt" else order)


_PLAIN_AIFF = (b"NONE", b"twos", b"sowt", b"in24", b"in32")


def _format_of_caf(body: bytes, order: str) -> RawFormat | None:
    rate, kind, flags, packet, _, channels, bits = struct.unpack_from(">d4sIIIII", body)
    width = packet // channels if channels else 0
    is_float, is_little = flags & 1, flags & 2
    subtype = (_FLOATS if is_float else _INTEGERS).get(width) if bits == width * 8 else None
    subtype = {b"lpcm": subtype, b"ulaw": "ULAW", b"alaw": "ALAW"}.get(kind)
    return _raw(subtype, rate, channels, width, "<" if is_little else order)


def _of_wave(chunks: dict[bytes, _Chunk], order: str) -> _Claims | None:
    form, data = _format_of(chunks[b"fmt "], order), chunks[b"data"]
    sizes = [data.size]
    if b"ds64" in chunks and len(chunks[b"ds64"].body) >= 16:
        sizes.insert(0, *struct.unpack_from(f"{order}Q", chunks[b"ds64"].body, 8))
    return None if form is None else _Claims(form, data.begin, sizes)


def _of_aiff(chunks: dict[bytes, _Chunk], n_bytes: int) -> _Claims | None:
    form, data = _format_of(chunks[b"COMM"], ">"), chunks[b"SSND"]
    if form is None or len(data.body) < 8:
        return None
    (frames,) = struct.unpack_from(">I", chunks[b"COMM"].body, 2)
    (offset,) = struct.unpack_from(">I", data.body)
    offset = offset if data.begin + 8 + offset < n_bytes else 0
    return _Claims(form, data.begin + 8 + offset, [frames * form.frame_bytes, max(0, data.size - 8 - offset)])


def _of_caf(chunks: dict[bytes, _Chunk]) -> _Claims | None:
    form, data = _format_of(chunks[b"desc"], ">"), chunks[b"data"]
    return None if form is None else _Claims(form, data.begin + 4, [max(0, data.size - 4)])


_AU_BYTE_ORDERS = {b".snd": ">", b"dns.": "<"}
_AU_SUBTYPES = {
    1: ("ULAW", 1), 2: ("PCM_S8", 1), 3: ("PCM_16", 2), 4: ("PCM_24", 3), 5: ("PCM_32", 4), 6: ("FLOAT", 4),
    7: ("DOUBLE", 8), 27: ("ALAW", 1),
}  # fmt: skip


def _au(head: bytes, n_bytes: int) -> _Samples | None:
    order = _AU_BYTE_ORDERS[head[:4]]
    if len(head) < 24:
        return None
    begin, size, encoding, rate, channels = struct.unpack_from(f"{order}5I", head, 4)
    subtype, width = _AU_SUBTYPES.get(encoding, (None, 0))
    form = _raw(subtype, rate, channels, width, order)
    if form is None:
        return None
    begin = begin if 24 <= begin <= n_bytes else 24
    return _Samples(form, begin, n_bytes - begin, None if _is_open(size) and size != n_bytes - begin else size)
