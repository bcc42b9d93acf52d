import struct

import numpy as np
import pytest
from make_bundles import write_sound

from birdinfer.audio.headers import read_header


def riff(*chunks, kind=b"RIFF", order="<"):
    body = b"".join(struct.pack(f"{order}4sI", name, size) + payload for name, size, payload in chunks)
    return kind + struct.pack(f"{order}I", 4 + len(body)) + b"WAVE" + body


def fmt(frame_bytes=2, order="<"):
    body = struct.pack(f"{order}HHIIHH", 1, 1, 32_000, 32_000 * frame_bytes, frame_bytes, frame_bytes * 8)
    return (b"fmt ", 16, body)


def read(tmp_path, raw):
    (tmp_path / "a.wav").write_bytes(raw)
    return read_header(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64"])
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_24", 3), ("FLOAT", 2)])
def test_a_header_claims_what_was_written(tmp_path, name, subtype, channels):
    write_sound(tmp_path / name, np.zeros((1_001, channels)), subtype=subtype)
    header = read_header(tmp_path / name)
    assert (header.claimed, header.frames) == (1_001, 1_001)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_compressed_sound_has_no_such_header(tmp_path, name):
    write_sound(tmp_path / name, np.zeros(1_001))
    assert read_header(tmp_path / name) is None


SOUND = bytes(range(1, 201)) * 5  # 500 samples of 16 bits
OPEN = (b"data", 2**32 - 1, SOUND)


@pytest.mark.parametrize(
    ("raw", "claimed"),
    [
        (riff(fmt(), (b"data", 1_000, SOUND)), 500),
        (riff((b"LIST", 3, b"abc\0"), fmt(), (b"data", 1_000, SOUND)), 500),  # chunks end on even bytes
        (riff(fmt(2, ">"), (b"data", 1_000, SOUND), kind=b"RIFX", order=">"), 500),
        (riff((b"ds64", 28, struct.pack("<QQQI", 0, 1_000, 500, 0)), fmt(), OPEN, kind=b"RF64"), 500),
        (riff(fmt(), (b"data", 1_000, SOUND), (b"LIST", 2**32 - 1, b"INFO")), 500),
        (riff(fmt(), (b"data", 1_000, SOUND), (b"none", 4, b"none")), 500),
        (riff(fmt(), (b"data", 1_000, SOUND)) + b"TAG" + bytes(125), 500),
        (riff(fmt(), (b"data", 1_000, SOUND), (b"LIST", 4, b"INFO")) + bytes(100), 500),  # to the end of a sector
        (riff(fmt(), (b"data", 1_044, SOUND)), 500),  # the whole file's length (FL005)
        (riff(fmt(), (b"data", 1_046, SOUND)), 523),
        (riff(fmt(), OPEN), None),  # ffmpeg into a pipe
        (riff(fmt(), (b"data", 2**31 - 1, SOUND)), None),  # ALSA
        (riff(fmt(), (b"data", 0, SOUND)), None),  # a recorder without power
        (riff(fmt(), (b"data", 44, SOUND)), None),
        (riff(fmt(), (b"data", 400, SOUND)), 200),
        (riff((b"LIST", 999_999, b"abc\0"), fmt(), (b"data", 1_000, SOUND)), 500),
        (riff((b"fmt ", 77_777, fmt()[2]), (b"data", 1_000, SOUND)), 500),
    ],
)  # fmt: skip
def test_all_samples_are_found_whatever_is_claimed(tmp_path, raw, claimed):
    header = read(tmp_path, raw)
    assert (header.claimed, header.frames) == (claimed, 500)
    with header.open() as decoder:
        np.testing.assert_array_equal(
            np.concatenate(list(decoder.blocks())),
            np.frombuffer(SOUND, ">i2" if raw.startswith(b"RIFX") else "<i2") / np.float32(2**15),
        )


def test_chunks_end_samples_of_unknown_length(tmp_path):
    raw = riff(fmt(), (b"data", 0, SOUND), (b"LIST", 4, b"INFO"), (b"iXML", 6, b"<none>"))
    assert read(tmp_path, raw).frames == 500


@pytest.mark.parametrize(
    "raw",
    [
        riff(fmt(0), (b"data", 10, bytes(10))),
        riff((b"data", 10, bytes(10))),
        riff((b"data", 10, b""))[:15],
        b"",
        b"RIFF",
        riff(*[(b"junk", 0, b"")] * 5_000),
        riff(fmt()),
        b".snd" + bytes(30),
        b"FORM" + bytes(100),
    ],
)
def test_what_is_no_header_is_none(tmp_path, raw):
    assert read(tmp_path, raw) is None


def test_a_claim_that_wrapped_at_4_gib_is_unwrapped(tmp_path):
    n_bytes = (1 << 32) + 40_000
    (tmp_path / "a.wav").write_bytes(riff(fmt(), (b"data", 40_000, b"")))
    with (tmp_path / "a.wav").open("r+b") as file:  # takes no disk: a hole
        file.truncate(44 + n_bytes)
    header = read_header(tmp_path / "a.wav")
    assert (header.claimed, header.frames, header.is_wrapped) == (20_000, n_bytes // 2, True)
    assert not header.is_believed
