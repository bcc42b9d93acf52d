"""Sound files whose headers lie and whose ends are cut off, and the law that holds for them.

Decoded and reported missing are together what is there: no byte of sound behind a wrong size is passed over in silence.
``odd_sound(numpy generator, kind)`` makes one, ``broken_law(file, folder)`` reads it and returns what is wrong, "" if
nothing is. Hypothesis draws the seeds of a few in the tests, benchmarks/test_fuzzing.py runs thousands.
"""

import struct
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from decoded_sound import slow_checksum

from birdinfer.audio.flac import parse_frame as parse_flac_frame
from birdinfer.audio.mp3 import MOST_PADDING
from birdinfer.audio.mp3 import parse_frame as parse_mp3_frame
from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError

RATE = 8_000
KINDS = ("RIFF", "RIFX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "VORBIS", "OPUS", "MP3")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Sound:
    """A file, true or not."""

    kind: str
    raw: bytes
    rate: int
    n_frames: int
    """Samples per channel when it was whole."""
    begin: int = 0
    """Of uncompressed samples."""
    frame_bytes: int = 0
    ends: tuple[tuple[int, int], ...] = ()
    """(byte, samples that end with it) of each frame or page of a compressed file."""
    sizes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name -> place and struct of each field that counts something."""
    lies: tuple[tuple[str, int, int], ...] = ()
    """Name, truth, lie."""
    whole: bytes = b""

    @property
    def end(self) -> int:
        return self.begin + self.n_frames * self.frame_bytes

    @property
    def n_there(self) -> int:
        """Samples per channel that are still there."""
        if self.frame_bytes:
            return max(0, min(len(self.raw), self.end) - self.begin) // self.frame_bytes
        return max((n for end, n in self.ends if end <= len(self.raw)), default=0)


# What is true.


def _chunk(kind: str, name: bytes, body: bytes, size: int | None = None) -> bytes:
    if kind == "W64":
        size = 24 + len(body) if size is None else size
        return name.lower() + _W64_TAIL + struct.pack("<Q", size) + body + bytes(-len(body) % 8)
    order = ">" if kind == "RIFX" else "<"
    return name + struct.pack(f"{order}I", len(body) if size is None else size) + body + bytes(len(body) % 2)


_BEFORE = {
    "list": (b"LIST", b"INFOICMT\x2a\0\0\0Recorded at 03:00:00 27/02/2025 (UTC) by A.\0"),
    "bext": (b"bext", b"A bext of a recorder".ljust(602, b"\0")),
    "junk": (b"JUNK", bytes(28)),
}
_AFTER = {
    "list_after": (b"LIST", b"INFOIART\x10\0\0\0AudioMoth 24E144"),
    "ixml_after": (b"iXML", b"<BWFXML><NOTE>none</NOTE></BWFXML>"),
    "guan_after": (b"guan", b"GUANO|Version:1.0\nMake:Wildlife Acoustics\n"),
}
_ENCODINGS = ((1, 1), (1, 2), (1, 3), (1, 4), (3, 4), (3, 8))
"""Format tag and bytes of a sample."""


def _wave(rng: np.random.Generator, kind: str) -> Sound:
    order = ">" if kind == "RIFX" else "<"
    tag, width = _ENCODINGS[rng.integers(len(_ENCODINGS))]
    channels, n_frames = int(rng.integers(1, 3)), int(rng.integers(200, 3_000))
    samples = _samples(rng, n_frames * channels, tag, width, order)
    frame_bytes = channels * width
    form = struct.pack(f"{order}HHIIHH", tag, channels, RATE, RATE * frame_bytes, frame_bytes, width * 8)
    if rng.random() < 0.3:
        guid = struct.pack(f"{order}IHH", tag, 0, 16) + bytes.fromhex("800000aa00389b71")
        form = struct.pack(f"{order}H", 0xFFFE) + form[2:] + struct.pack(f"{order}HHI", 22, width * 8, 0) + guid
    raw, sizes = _wave_head(kind), {}
    if kind == "RF64":
        sizes |= {"ds64": (16, "<I"), "ds64_riff": (20, "<Q"), "size": (28, "<Q"), "ds64_samples": (36, "<Q")}
        raw += _chunk(kind, b"ds64", struct.pack("<QQQI", 0, len(samples), n_frames, 0))
    if kind != "W64":
        sizes["riff"] = (4, f"{order}I")
    size_shape, name_bytes = ("<Q", 16) if kind == "W64" else (f"{order}I", 4)
    before = [name for name in _BEFORE if rng.random() < 0.4]
    for name in [*before, "fmt"]:
        sizes[name] = (len(raw) + name_bytes, size_shape)
        raw += _chunk(kind, *(_BEFORE | {"fmt": (b"fmt ", form)})[name])
    sizes["size_32" if kind == "RF64" else "size"] = (len(raw) + name_bytes, size_shape)
    begin = len(raw) + (24 if kind == "W64" else 8)
    raw += _chunk(kind, b"data", samples, 0xFFFFFFFF if kind == "RF64" else None)
    for name in _AFTER:
        if rng.random() < 0.25:
            sizes[name] = (len(raw) + name_bytes, size_shape)
            raw += _chunk(kind, *_AFTER[name])
    if kind != "W64" and kind != "RF64":
        raw = raw[:4] + struct.pack(f"{order}I", len(raw) - 8) + raw[8:]
    return Sound(kind, raw, RATE, n_frames, begin, frame_bytes, sizes=sizes)


def _wave_head(kind: str) -> bytes:
    if kind == "W64":
        return b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + bytes(8) + b"wave" + _W64_TAIL
    return kind.encode() + b"\xff\xff\xff\xffWAVE"


def _samples(rng: np.random.Generator, count: int, tag: int, width: int, order: str) -> bytes:
    """Noise, and no zero at its end, which might be taken for one that was never written."""
    if tag == 3:
        return rng.normal(0, 0.1, count).astype(f"{order}f{width}").tobytes()
    return rng.integers(1, 256, count * width, np.uint8).tobytes()


def _written(rng: np.random.Generator, kind: str) -> Sound:
    """AIFF, CAF and AU, as libsndfile writes them."""
    subtype, width = [("PCM_16", 2), ("PCM_24", 3), ("FLOAT", 4)][rng.integers(3)]
    channels, n_frames = int(rng.integers(1, 3)), int(rng.integers(200, 3_000))
    raw = encoded(rng.normal(0, 0.1, (n_frames, channels)), RATE, kind, subtype)
    names = {"AIFF": (b"SSND", b"COMM"), "CAF": (b"data",), "AU": (b".snd",)}[kind]
    at = raw.find(names[0])
    sizes = {"AIFF": {"riff": (4, ">I"), "ssnd": (at + 4, ">I"), "size": (raw.find(b"COMM") + 10, ">I")},
             "CAF": {"size": (at + 4, ">q")}, "AU": {"size": (8, ">I")}}[kind]  # fmt: skip
    begin = {"AIFF": at + 16, "CAF": at + 16, "AU": 24}[kind]
    return Sound(kind, raw, RATE, n_frames, begin, channels * width, sizes=sizes)


def encoded(samples: np.ndarray, rate: int, kind: str, subtype: str) -> bytes:
    with TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "a", samples, rate, format=kind, subtype=subtype)
        return (Path(folder) / "a").read_bytes()


@cache
def _noise(rate: int, n_frames: int, kind: str, subtype: str, seed: int) -> bytes:
    return encoded(np.random.default_rng(seed).normal(0, 0.1, n_frames), rate, kind, subtype)


def _flac(rng: np.random.Generator, kind: str) -> Sound:
    n_frames = int(rng.choice([3_000, 4_096 * 3, 20_000, 45_678]))
    raw = _noise(RATE, n_frames, "FLAC", "PCM_16", n_frames)
    padding = bytes([1]) + (500).to_bytes(3, "big") + bytes(500)
    raw = raw[:42] + padding + raw[42:]
    sizes = {"info": (4, "<3B"), "padding": (42, "<3B"), "comment": (42 + len(padding), "<3B"), "size": (21, "<5B")}
    sizes |= {"min_frame": (12, "<3B"), "max_frame": (15, "<3B")}
    at, ends, n_samples = 42, [], 0
    while at < len(raw):
        frame = parse_flac_frame(raw, at, 0)
        if frame is not None and frame.number == len(ends):
            ends.append((at, n_samples))
            n_samples += frame.n_samples
        at += 1
    assert n_samples == n_frames
    return Sound(kind, raw, RATE, n_frames, ends=(*ends[1:], (len(raw), n_frames)), sizes=sizes)


def _ogg(rng: np.random.Generator, kind: str) -> Sound:
    rate = 48_000 if kind == "OPUS" else 32_000
    raw = _noise(rate, int(rng.choice([50_000, 123_456])), "OGG", kind, 1)
    skipped = struct.unpack_from("<H", raw, raw.find(b"OpusHead") + 10)[0] if kind == "OPUS" else 0
    ends, sizes, at = [], {}, 0
    while at < len(raw):
        granule, n_segments = struct.unpack_from("<q", raw, at + 6)[0], raw[at + 26]
        if granule > 0 and at + 27 < len(raw):
            places = {"granule": (6, "<I"), "segments": (26, "<B"), "packet": (27, "<B")}
            sizes |= {f"{name}_{at}": (at + place, shape) for name, (place, shape) in places.items()}
        last = at
        at += 27 + n_segments + sum(raw[at + 27 : at + 27 + n_segments])
        ends.append((at, max(0, granule - skipped)))
    sizes["size"] = (last + 6, "<Q")
    return Sound(kind, raw, rate, ends[-1][1], ends=tuple(ends), sizes=sizes)


def _mp3(rng: np.random.Generator, kind: str) -> Sound:
    raw, n_frames = _noise(32_000, 60_000, "MP3", "MPEG_LAYER_III", 1), 60_000
    xing = raw.find(b"Xing")
    at, ends = parse_mp3_frame(raw[:4]).n_bytes, []
    while at < len(raw):
        at += parse_mp3_frame(raw[at : at + 4]).n_bytes
        ends.append((at, min(n_frames, max(0, 1_152 * (len(ends) + 1) - 1_105))))
    sizes = {"size": (xing + 8, ">I"), "bytes": (xing + 12, ">I")}
    return Sound(kind, raw, 32_000, n_frames, ends=tuple(ends), sizes=sizes)


_MAKERS = {"AIFF": _written, "CAF": _written, "AU": _written, "FLAC": _flac, "VORBIS": _ogg, "OPUS": _ogg, "MP3": _mp3}


# What is not.


def odd_sound(rng: np.random.Generator, kind: str) -> Sound:
    """A file with a lie, a cut, both or neither."""
    sound = _MAKERS.get(kind, _wave)(rng, kind)
    sound = replace(sound, whole=sound.raw)
    if rng.random() < 0.7:
        more = ["size"] if "size" in sound.sizes else []
        sound = _with_lie(rng, sound, str(rng.choice([*more, *sound.sizes])))
    if rng.random() < 0.5:
        first = sound.begin or (sound.ends[0][0])
        sound = replace(sound, raw=sound.raw[: int(rng.integers(first, len(sound.raw) + 1))])
    return sound


def _with_lie(rng: np.random.Generator, sound: Sound, name: str) -> Sound:
    at, shape = sound.sizes[name]
    raw, width = bytearray(sound.raw), struct.calcsize(shape)
    order = "big" if shape[0] == ">" or shape[1:] in ("3B", "5B") else "little"
    at += sound.kind == "FLAC" and shape == "<3B" and name in ("info", "padding", "comment")
    is_total = sound.kind == "FLAC" and name == "size"
    kept = raw[at] & 0xF0 if is_total else 0
    truth = int.from_bytes(raw[at : at + width], order) & ((1 << 36) - 1 if is_total else (1 << 64) - 1)
    near = truth + int(rng.integers(-100, 101))
    values = [0, 1, 44, near, near, truth // 2, truth * 2, truth + sound.begin, len(raw), 2**31 - 1, 2**32 - 1]
    lie = max(0, int(rng.choice([*values, int(rng.integers(2**32))]))) % (1 << (36 if is_total else 8 * width))
    raw[at : at + width] = lie.to_bytes(width, order)
    if is_total:
        raw[at] |= kept
    if sound.kind in ("VORBIS", "OPUS") and name == "size":  # a lie that the page's checksum covers
        page = raw[at - 6 :]
        page[22:26] = bytes(4)
        raw[at + 16 : at + 20] = struct.pack("<I", slow_checksum(page))
    return replace(sound, raw=bytes(raw), lies=(*sound.lies, (name, truth, lie)))


# The law.


def broken_law(sound: Sound, folder: Path) -> str:
    """Read a file; what breaks the law, "" if nothing does."""
    whole, _ = _read(folder, sound, sound.whole)
    decoded, stream = _read(folder, sound, sound.raw)
    status = stream.status if stream is not None else Status.unreadable
    what = f"{sound.kind}, lies {sound.lies}, {len(sound.raw)} of {len(sound.whole)} bytes: "
    what += f"{len(decoded)} of {sound.n_there} samples that are there (of {sound.n_frames}) decoded, {status}: "
    what += stream.damage if stream is not None else ""
    law = _broken_ogg if sound.kind in ("VORBIS", "OPUS") else _broken
    wrong = law(sound, decoded, status, stream)
    if ("size", 0) in [(name, lie) for name, _, lie in sound.lies] and sound.kind == "MP3":
        decoded = decoded[1_105:]  # without a count of frames nothing is known of the encoder's delay
    if not wrong and not np.array_equal(decoded[: len(whole)], whole[: len(decoded)]) and status is not Status.damaged:
        wrong = "not the samples of the whole file"
    return wrong and f"{wrong}: {what}"


def _read(folder: Path, sound: Sound, raw: bytes) -> tuple[np.ndarray, AudioStream | None]:
    path = folder / "a.sound"
    path.write_bytes(raw)
    try:
        with AudioStream(path, sound.rate) as stream:
            return np.concatenate([np.zeros(0, np.float32), *stream.blocks()]), stream
    except AudioError:
        return np.zeros(0, np.float32), None


def _broken(sound: Sound, decoded: np.ndarray, status: Status, stream: AudioStream | None) -> str:
    there, lies = sound.n_there, {name: lie for name, truth, lie in sound.lies if truth != lie}
    torn = len(sound.raw) - sound.end if sound.frame_bytes else 0
    torn = torn if torn < (8 if sound.kind == "W64" else 4) else 0
    padding = MOST_PADDING if sound.kind == "MP3" and "size" in lies else 0
    heads = {"W64": 24, "CAF": 4}.get(sound.kind, 0)
    if sound.frame_bytes and 0 <= len(sound.raw) - sound.begin - lies.get("size", 0) + heads < 8:
        return ""  # the lie ends where the file does, and counts the chunks behind the sound
    if not 0 <= len(decoded) - there <= max(padding, torn):  # of a chunk's name, three letters are none
        return "not decoded what is there"
    if not there:
        return ""
    unit = sound.frame_bytes or 1
    header = sound.begin // unit if sound.frame_bytes else MOST_PADDING if sound.kind == "MP3" else 0
    n_cut = sound.n_frames - there
    if not lies.keys() & {"size"}:
        wanted = {Status.ok, Status.silent} if n_cut <= header + 1 else {Status.truncated}
        wanted |= {Status.truncated} if n_cut == header + 1 else {Status.length_unknown} if lies else set()
        if status not in wanted:
            return "its status is not true"
        if status is Status.truncated and abs(stream.expected_seconds * sound.rate - sound.n_frames) > 0.5:
            return "not what is missing"
        return ""
    claim = lies["size"] - heads
    claim = claim // unit if sound.frame_bytes and sound.kind != "AIFF" else claim
    claim = max(there, claim * 1_152 - MOST_PADDING) if sound.kind == "MP3" and claim else claim
    if sound.kind == "AIFF" and n_cut <= header + 1:  # it counts twice, and the other count is true
        return ""
    is_open = claim == 0 and sound.kind in ("FLAC", "MP3")
    is_true = there <= claim <= there + header + 1
    return "a wrong claim and no one says so" if status is Status.ok and not is_true and not is_open else ""


def _broken_ogg(sound: Sound, decoded: np.ndarray, status: Status, stream: AudioStream | None) -> str:
    """A page whose checksum is wrong is lost, and named; its place is kept."""
    lost = {at for at, _ in sound.ends if any(name.endswith(f"_{at}") and t != lie for name, t, lie in sound.lies)}
    kept = [n for (end, n), (begin, _) in zip(sound.ends, ((0, 0), *sound.ends), strict=False)
            if end <= len(sound.raw) and begin not in lost]  # fmt: skip
    there = max(kept, default=0)
    if not there:
        return ""
    clock = [(truth, lie) for name, truth, lie in sound.lies if name == "size" and truth != lie]
    if clock and len(sound.raw) == len(sound.whole):
        (truth, lie), before = clock[0], sound.ends[-2][1]
        if truth - (there - before) <= lie < truth:  # samples of the last page may be left out
            return "" if abs(len(decoded) - (there - truth + lie)) < 2 else "not decoded what is there"
        is_named = status is Status.length_unknown or lie - truth < 100
        return "" if 0 <= len(decoded) - there <= 100 and is_named else "a wrong claim and no one says so"
    if stream is None or "in part" in stream.damage:  # libsndfile does not open a last page alone
        return "" if lost else "unreadable"
    if abs(len(decoded) - there) > 1:
        return f"not decoded what is there, {there}"
    is_whole = not lost and len(sound.raw) == len(sound.whole)
    return "" if (status is Status.ok) == is_whole else "its status is not true"
