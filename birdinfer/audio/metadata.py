"""What a recorder wrote into its file beside the sound -> when and where it began, and which recorder it was.

In: a path (WAV, FLAC, Ogg). Out: :class:`FileMetadata`. Nothing is decoded: a file costs a few reads at its begin and
its end. Read are GUANO, Wildlife Acoustics' ``wamd``, ``bext`` of broadcast WAV, AudioMoth's comment (also as
OpenSoundscape and converters to FLAC or Ogg keep it) and Frontier Labs' Vorbis comments. What makes no sense is left
out, as a clock that was never set is: a wrong time is worse than none.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Position(NamedTuple):
    """A place in degrees (WGS84)."""

    latitude: float
    """-90 to 90; south is negative."""
    longitude: float
    """-180 to 180; west is negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileMetadata:
    """What a file says about its recording, as far as it does."""

    start: datetime | None = None
    """The clock at the first sample; without a zone where the file gives none."""
    source: str = ""
    """What ``start`` is from: ``GUANO``, ``WAMD``, ``bext``, ``AudioMoth``, ``Vorbis comment``; "" without one."""
    position: Position | None = None
    device: str = ""
    """Model and serial number: ``AudioMoth 242A2604603691DD``."""


_MAGICS = (b"RIFF", b"RF64", b"BW64")
_MOST_CHUNKS = 1_000
_MOST_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 16
"""Searched for chunks behind samples whose length is wrong."""
_HEAD_BYTES = 1 << 16
"""In which the comments of an Ogg file stand."""
_LENGTH_IN_DS64 = 0xFFFFFFFF
_CLOCK = re.compile(
    r"(?P<year>(?:19|20)\d\d)[-:/._](?P<month>\d\d?)[-:/._](?P<day>\d\d?)[T _]+(?P<hour>\d\d?):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?\s*(?P<zone>Z|(?:UTC)?(?:[+-][\d:]+)?)",
    re.ASCII,
)
_ZONE = re.compile(r"(?:UTC|GMT)?(?:(?P<sign>[+-])(?P<hours>\d\d?)(?::?(?P<minutes>\d\d))?)?|Z", re.ASCII)
_MOST_OFFSET = timedelta(hours=14)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
_AUDIOMOTH = re.compile(
    r"Recorded at (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?) (?P<day>\d\d)/(?P<month>\d\d)/(?P<year>\d{4})"
    r"(?: \((?P<zone>UTC[^)]*)\))?",
    re.ASCII,
)
_AUDIOMOTH_ID = re.compile("AudioMoth [0-9A-F]{16}")
_OPENSOUNDSCAPE = re.compile(r'"recording_start_time": "([^"]+)"')
_WAMD_MODEL, _WAMD_SERIAL, _WAMD_TIME, _WAMD_FIRST_POSITION, _WAMD_LAST_POSITION = 0x01, 0x02, 0x05, 0x06, 0x14
_WAMD_POSITION = re.compile(
    r",\s*(?P<lat>-?\d+(?:\.\d+)?)(?:,\s*(?P<ns>[NS]))?,\s*(?P<lon>-?\d+(?:\.\d+)?)(?:,\s*(?P<ew>[EW]))?", re.ASCII
)
_NEVER_SET = tuple(
    (datetime(year, 1, 1) - timedelta(days=1), datetime(year, 1, 1) + timedelta(days=days))
    for year, days in ((1970, 365), (1980, 31), (2000, 31))
)
"""A clock without power begins there, up to a day earlier by its time zone, and runs on until it is set."""


def read_metadata(path: Path) -> FileMetadata:
    """Read what a recorder wrote into a file; nothing where it wrote nothing.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(12)
        n_bytes = file.seek(0, 2)
        if magic[:4] in _MAGICS and magic[8:] == b"WAVE":
            found = [_of_chunk(name, body) for name, body in _chunks(file, n_bytes)]
        elif magic[:4] == b"fLaC":
            found = list(_of_flac(file))
        elif magic[:4] == b"OggS":
            found = [_of_ogg(file)]
        else:
            found = []
    found.sort(key=lambda each: _ORDER.index(each.source))
    timed = next((each for each in found if each.start is not None), FileMetadata())
    return FileMetadata(
        start=timed.start,
        source=timed.source if timed.start else "",
        position=next((each.position for each in found if each.position), None),
        device=next((each.device for each in found if each.device), ""),
    )


def parse_clock(text: str) -> datetime | None:
    """Read a time as recorders write it, with its zone where there is one; None where it is none, or was never set.

    >>> parse_clock("2024-04-16 02:41:48+1:00").isoformat()
    '2024-04-16T02:41:48+01:00'
    """
    found = _CLOCK.fullmatch(text.strip("\0 \t\r\n"))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[name] or 0) for name in _CLOCK_PARTS)
    microseconds = int((found["fraction"] or "").ljust(6, "0")[:6])
    try:
        clock = datetime(year, month, day, hour, minute, second, microseconds)
    except ValueError:
        return None
    return clock.replace(tzinfo=parse_offset(found["zone"])) if is_clock_set(clock) else None


_CLOCK_PARTS = ("year", "month", "day", "hour", "minute", "second")


def parse_offset(text: str) -> timezone | None:
    """Read ``Z``, ``UTC``, ``+1:00``, ``-0330`` or ``UTC+2``; None where it is none of them.

    ``-00:00`` means that the offset is not known (RFC 3339, section 4.3): Song Meters write it where none was set.
    """
    found = _ZONE.fullmatch(text)
    if not text or found is None or (found["sign"] == "-" and not int(found["hours"] + (found["minutes"] or ""))):
        return None
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    if offset > _MOST_OFFSET:
        return None
    return timezone(-offset if found["sign"] == "-" else offset) if offset else UTC


def is_clock_set(clock: datetime) -> bool:
    """Whether a clock without a zone shows a time that someone has set.

    Without power a clock begins again in 1970 (AudioMoth), 1980 or 2000; its first month counts as not set, in 1970
    the whole year.
    """
    return 1900 <= clock.year < 2100 and not any(since <= clock < until for since, until in _NEVER_SET)


def position_at(latitude: float, longitude: float) -> Position | None:
    """Return a position; None outside the earth, and at 0, 0, which stands where a receiver had none."""
    is_place = abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude or longitude)
    return Position(latitude, longitude) if is_place else None


def _of_chunk(name: bytes, body: bytes) -> FileMetadata:
    return _READERS[name](body) if name in _READERS else FileMetadata()


def _of_guano(body: bytes) -> FileMetadata:
    lines = (line.partition(":") for line in body.decode(errors="replace").split("\n"))
    fields = {key.strip(): value.strip("\0 \t\r\n") for key, _, value in lines}
    return FileMetadata(
        start=parse_clock(fields.get("Timestamp", "")),
        source="GUANO",
        position=_first_position(fields.get("Loc Position", "")),
        device=" ".join(filter(None, (fields.get("Model"), fields.get("Serial")))),
    )


def _of_wamd(body: bytes) -> FileMetadata:
    fields: dict[int, str] = {}
    at = 0
    while at + 6 <= len(body):
        number, size = struct.unpack_from("<HI", body, at)
        fields[number] = body[at + 6 : at + 6 + size].decode(errors="replace").strip("\0 ")
        at += 6 + size
    places = map(_wamd_position, (fields.get(_WAMD_FIRST_POSITION, ""), fields.get(_WAMD_LAST_POSITION, "")))
    return FileMetadata(
        start=parse_clock(fields.get(_WAMD_TIME, "")),
        source="WAMD",
        position=next(filter(None, places), None),
        device=" ".join(filter(None, (fields.get(_WAMD_MODEL), fields.get(_WAMD_SERIAL)))),
    )


def _wamd_position(text: str) -> Position | None:
    """Read ``WGS84,52.1,N,4.5,W``, or ``WGS84,52.1,-4.5`` of the EchoMeter Touch."""
    found = _WAMD_POSITION.search(text)
    if found is None:
        return None
    south, west = found["ns"] == "S", found["ew"] == "W"
    return position_at(float(found["lat"]) * (-1 if south else 1), float(found["lon"]) * (-1 if west else 1))


def _of_bext(body: bytes) -> FileMetadata:
    """Read OriginationDate and OriginationTime (EBU Tech 3285), whose parts any sign may separate."""
    date, time = (body[begin:end].partition(b"\0")[0].decode("latin-1") for begin, end in ((320, 330), (330, 338)))
    originator = body[256:288].partition(b"\0")[0].decode("latin-1").strip()
    return FileMetadata(
        start=parse_clock(f"{date.replace(' ', '-')} {re.sub('[-_. ]', ':', time)}"),
        source="bext",
        device=originator if originator.isprintable() else "",
    )


def _of_info(body: bytes) -> FileMetadata:
    """Read the comment of a LIST of INFO."""
    at = 4 if body.startswith(b"INFO") else len(body)
    while at + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, at)
        if name == b"ICMT":
            return _of_comment(body[at + 8 : at + 8 + size].decode(errors="replace"))
        at += 8 + size + size % 2
    return FileMetadata()


def _of_comment(text: str) -> FileMetadata:
    """Read AudioMoth's comment, whose wording after the time changes with the firmware."""
    found, cut, device = _AUDIOMOTH.search(text), _OPENSOUNDSCAPE.search(text), _AUDIOMOTH_ID.search(text)
    if found is None:
        return FileMetadata()
    day = f"{found['year']}-{found['month']}-{found['day']}"
    start = parse_clock(f"{day} {found['time']}{found['zone'] or 'UTC'}")  # 1.0.0 has no zones, and names none
    # OpenSoundscape keeps the comment of the whole recording, and writes the time of a clip beside it.
    return FileMetadata(
        start=(cut and parse_clock(cut[1])) or start, source="AudioMoth", device=device[0] if device else ""
    )


_READERS: Mapping[bytes, Callable[[bytes], FileMetadata]] = {
    b"guan": _of_guano, b"wamd": _of_wamd, b"bext": _of_bext, b"LIST": _of_info,
}  # fmt: skip
_ORDER = ("GUANO", "WAMD", "bext", "AudioMoth", "Vorbis comment", "")


def _chunks(file: BinaryIO, n_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that are read, in the file's order."""
    at, long_size = 12, 0
    for _ in range(_MOST_CHUNKS):
        if at + 8 > n_bytes:
            break
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            (long_size,) = struct.unpack_from("<8xQ", file.read(16).ljust(16, b"\0"))
        elif name in _READERS:
            yield name, file.read(min(size, _MOST_CHUNK_BYTES))
        elif name == b"data" and size == _LENGTH_IN_DS64:
            size = long_size
        at += 8 + size + size % 2
    if at not in (n_bytes, n_bytes + 1):  # samples of another length than their header says
        file.seek(max(12, n_bytes - _TAIL_BYTES))
        yield from _searched(file.read(_TAIL_BYTES))


def _searched(tail: bytes) -> Iterator[tuple[bytes, bytes]]:
    for place in re.finditer(b"guan|wamd|LIST", tail):
        (size,) = struct.unpack_from("<I", tail[place.end() :].ljust(4, b"\0"))
        yield place[0], tail[place.end() + 4 : place.end() + 4 + size]


def _of_flac(file: BinaryIO) -> Iterator[FileMetadata]:
    """Read the comments of a FLAC file, and the chunks of the WAV that it was made of where ``flac`` has kept them."""
    at = 4
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4:
            return
        kind, size = head[0] & 0x7F, int.from_bytes(head[1:])
        if kind == 4:
            yield _of_vorbis_comments(file.read(size))
        elif kind == 2 and file.read(4) == b"riff":
            chunk = file.read(min(size - 4, _MOST_CHUNK_BYTES))
            yield _of_chunk(chunk[:4], chunk[8:])
        if head[0] & 0x80:
            return
        at += 4 + size


def _of_ogg(file: BinaryIO) -> FileMetadata:
    """Read the comments of the first stream, as far as they stand on its second page."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    found = re.search(b"\x03vorbis|OpusTags", head)
    return _of_vorbis_comments(head[found.end() :]) if found else FileMetadata()


def _of_vorbis_comments(body: bytes) -> FileMetadata:
    tags: dict[str, str] = {}
    at = 4 + int.from_bytes(body[:4], "little") + 4  # behind the vendor and the number of comments
    while at + 4 <= len(body) and len(tags) < _MOST_CHUNKS:
        size = int.from_bytes(body[at : at + 4], "little")
        key, separator, value = body[at + 4 : at + 4 + size].decode(errors="replace").partition("=")
        if not separator:
            break
        tags.setdefault(key.upper(), value)
        at += 4 + size
    start = parse_clock(tags.get("RECORDINGSTART", ""))
    if start is None and (comment := _of_comment(tags.get("COMMENT") or tags.get("DESCRIPTION", ""))).start:
        return comment
    return FileMetadata(
        start=start,
        source="Vorbis comment",
        position=_first_position(tags.get("SENSORLOCATION", "")),
        device=tags.get("SENSORUID", ""),
    )


def _first_position(text: str) -> Position | None:
    """Read the first two numbers: ``52.1 4.5``, ``+44.67699-063.55557``."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return position_at(*numbers[:2]) if len(numbers) >= 2 else None
