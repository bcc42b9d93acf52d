"""Inputs that no one would make on purpose: damaged sound, manifests, tables and names, each from a generator's seed.

One generator for each kind of input, ``(numpy generator, good content) -> bytes``. The few hundred inputs of
tests/test_fuzz.py and the thousands of benchmarks/test_fuzzing.py are made by the same ones.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from make_bundles import tone

AUDIO_KINDS = {
    "vorbis.ogg": ("OGG", "VORBIS", 32_000, 1),
    "stereo.ogg": ("OGG", "VORBIS", 44_100, 2),
    "opus.opus": ("OGG", "OPUS", 48_000, 1),
    "flac.flac": ("FLAC", "PCM_16", 32_000, 1),
    "stereo.flac": ("FLAC", "PCM_24", 44_100, 2),
    "pcm.wav": ("WAV", "PCM_16", 32_000, 1),
    "float.wav": ("WAV", "FLOAT", 22_050, 2),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 32_000, 1),
    "gsm.wav": ("WAV", "GSM610", 8_000, 1),
    "rf64.wav": ("RF64", "PCM_24", 32_000, 1),
    "aiff.aiff": ("AIFF", "PCM_16", 32_000, 1),
    "mp3.mp3": ("MP3", "MPEG_LAYER_III", 32_000, 1),
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
MAGICS = (b"OggS", b"fLaC", b"RIFF", b"RIFX", b"RF64", b"FORM", b"ID3\x03", b"\xff\xfb", b"caff", b".snd", b"riff")


def audio_seeds(folder: Path) -> dict[str, bytes]:
    """One or two seconds in each format, as bytes."""
    seeds = {}
    for place, (name, (kind, subtype, rate, channels)) in enumerate(AUDIO_KINDS.items()):
        wave = np.stack([tone(1.0 + 0.2 * place, rate, seed=channel) for channel in range(channels)], 1)
        path = folder / name
        soundfile.write(path, wave, rate, format=kind, subtype=subtype)
        seeds[name] = path.read_bytes()
    return seeds


def _place(rng: np.random.Generator, raw: bytearray) -> int:
    """Half of all damage falls into the headers, which are a hundredth of the file."""
    most = len(raw) if rng.random() < 0.5 else min(200, len(raw))
    return int(rng.integers(max(1, most)))


def flip_bits(rng: np.random.Generator, raw: bytearray) -> bytearray:
    for _ in range(rng.integers(1, 40)):
        raw[_place(rng, raw)] ^= 1 << int(rng.integers(8))
    return raw


def cut(rng: np.random.Generator, raw: bytearray) -> bytearray:
    return raw[: _place(rng, raw) + 1]


def cut_out(rng: np.random.Generator, raw: bytearray) -> bytearray:
    begin = _place(rng, raw)
    del raw[begin : begin + int(rng.integers(1, 5_000))]
    return raw


def insert(rng: np.random.Generator, raw: bytearray) -> bytearray:
    begin = _place(rng, raw)
    raw[begin:begin] = rng.bytes(int(rng.integers(1, 500)))
    return raw


def zero(rng: np.random.Generator, raw: bytearray) -> bytearray:
    begin = _place(rng, raw)
    piece = raw[begin : begin + int(rng.integers(1, 4_000))]
    raw[begin : begin + len(piece)] = bytes(len(piece))
    return raw


def set_extreme(rng: np.random.Generator, raw: bytearray) -> bytearray:
    """A number of the header, 2 or 4 bytes of either order, at the end of its range."""
    for _ in range(rng.integers(1, 4)):
        value, shape = int(rng.choice(EXTREMES)), str(rng.choice(["<I", ">I", "<H", ">H"]))
        width = struct.calcsize(shape)
        begin = int(rng.integers(max(1, min(120, len(raw) - 8))))
        if begin + width <= len(raw):
            struct.pack_into(shape, raw, begin, value & (1 << 8 * width) - 1)
    return raw


def swap_pieces(rng: np.random.Generator, raw: bytearray) -> bytearray:
    one, two, three = sorted(_place(rng, raw) for _ in range(3))
    return raw[:one] + raw[two:three] + raw[one:two] + raw[three:]


def double_a_piece(rng: np.random.Generator, raw: bytearray) -> bytearray:
    begin, end = sorted(_place(rng, raw) for _ in range(2))
    return raw[:end] + raw[begin:end] * int(rng.integers(1, 4)) + raw[end:]


def other_magic(rng: np.random.Generator, raw: bytearray) -> bytearray:
    magic = MAGICS[rng.integers(len(MAGICS))]
    raw[: len(magic)] = magic
    return raw


MUTATIONS: tuple[Callable[[np.random.Generator, bytearray], bytearray], ...] = (
    flip_bits, cut, cut_out, insert, zero, set_extreme, swap_pieces, double_a_piece, other_magic,
)  # fmt: skip


def mutate(rng: np.random.Generator, raw: bytes, most: int = 3) -> bytes:
    """Bytes with one kind of damage or several."""
    damaged = bytearray(raw)
    for _ in range(rng.integers(1, most + 1)):
        if damaged:
            damaged = MUTATIONS[rng.integers(len(MUTATIONS))](rng, damaged)
    return bytes(damaged)


def odd_audio(rng: np.random.Generator, seeds: dict[str, bytes]) -> tuple[str, bytes]:
    """An ending of a file name, and what the file holds: a damaged file, or two end to end, or one in another."""
    names = list(seeds)
    name, other = (names[place] for place in rng.integers(len(names), size=2))
    raw = seeds[name]
    kind = rng.random()
    if kind < 0.1:
        raw += seeds[other]
    elif kind < 0.2:
        middle = int(rng.integers(len(raw)))
        raw = raw[:middle] + seeds[other] + raw[middle:]
    suffix = Path(other if rng.random() < 0.1 else name).suffix
    return suffix, raw if kind < 0.05 else mutate(rng, raw)


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, -1e308, 1e-320, 0.5, float("nan"),
    float("inf"), float("-inf"), "", "0", "NaN", "\u202e", "\ud800", "a" * 10_000, "../../etc/passwd", "/", "\0",
    "a\nb", "\x1b[31m", [], [[]], {}, {"": None}, [0] * 2_000, {"a": {"a": {"a": {}}}},
)  # fmt: skip


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [spot for key in keys for spot in [(value, key), *_spots(value[key])]]


def odd_json(rng: np.random.Generator, raw: bytes) -> bytes:
    """A JSON text with odd values, keys that are missing, doubled or unknown, nesting, or damaged bytes."""
    if rng.random() < 0.2:
        return mutate(rng, raw)
    if rng.random() < 0.05:
        deep = int(rng.integers(10, 200_000))
        return b"[" * deep + b"]" * int(rng.integers(deep + 1))
    whole = json.loads(raw)
    for _ in range(rng.integers(1, 4)):
        spots = _spots(whole)
        if not spots:
            break
        container, key = spots[rng.integers(len(spots))]
        _spoil(rng, container, key)
    return json.dumps(whole).encode("utf-8", "surrogatepass")


def _spoil(rng: np.random.Generator, container: Any, key: Any) -> None:
    kind = rng.integers(5)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}\u200b"] = container[key]
    elif kind == 2 and isinstance(container, list):
        container.extend(container)
    elif kind == 3 and isinstance(container[key], int | float):
        container[key] *= float(rng.choice([-1, 0.5, 1_000, 1e9]))
    else:
        container[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]


ODD_CELLS = (
    "", " ", "nan", "inf", "-inf", "1e999", "-0", "1_000", "0x10", "\uff11", "1,5", '"', '""', '"a', "=1+1", "x_5",
    "x_", "_5", "x_-5", "x_99999999999999999999", "row_id", "\0", "\r", "\ufeff", "\u2028", "a" * 200_000,
    "\U0001f426", "True",
)  # fmt: skip


def odd_table(rng: np.random.Generator, raw: bytes) -> bytes:
    """A CSV text with odd cells, rows and columns that are missing or doubled, other delimiters, or damaged bytes."""
    if rng.random() < 0.25:
        return mutate(rng, raw)
    rows = [line.split(",") for line in raw.decode("utf-8").splitlines()]
    for _ in range(rng.integers(1, 4)):
        _spoil_table(rng, rows)
    text = str(rng.choice(["\n", "\n", "\r\n", "\r"])).join(
        str(rng.choice([",", ",", ",", ";", "\t"])).join(row) for row in rows
    )
    encoding = str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(encoding, "replace")


def _spoil_table(rng: np.random.Generator, rows: list[list[str]]) -> None:
    if not rows:
        return
    row = rows[rng.integers(len(rows))]
    place = int(rng.integers(len(row))) if row else 0
    kind = rng.integers(6)
    if kind == 0 and row:
        del row[place]
    elif kind == 1:
        rows.append(list(row))
    elif kind == 2:
        rows.remove(row)
    elif kind == 3:
        for each in rows:
            each[place:place] = each[place : place + 1]
    elif row:
        row[place] = ODD_CELLS[rng.integers(len(ODD_CELLS))]


_NAME_PARTS = (
    b" ", b"  ", b"\n", b"\r", b"\t", b"\x1b[31m", b"\x1b]0;x\x07", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"'", b'"',
    b",", b";", b"$HOME", b"`id`", b"*", b"?", b"[a]", b"[red]", b"%s", b"{}", b"\\", b"--help", b"-o", b"..", b".",
    b"~", "\U0001f426".encode(), "a\u0308".encode(), "\u202e".encode(), "\u2028".encode(), b"a", b"soundscape_1", b"_5",
    b"=1+1",
)  # fmt: skip


def odd_name(rng: np.random.Generator, number: int, suffix: bytes) -> bytes:
    """The name of a file, unlike all others: of few odd parts, or as long as a name may be."""
    parts = [_NAME_PARTS[place] for place in rng.integers(len(_NAME_PARTS), size=rng.integers(1, 5))]
    own = b"%d" % number
    stem = b"".join(parts) + own
    if rng.random() < 0.1:
        stem += b"x" * (255 - len(stem) - len(suffix))
    return stem[:200] + own + suffix if len(stem) + len(suffix) > 255 else stem + suffix
