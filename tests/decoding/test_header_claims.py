import struct

import numpy as np
import pytest
from making import write_sound

from birdinfer.decoding.header_claims import claimed_frames


def riff(*chunks, kind=b"RIFF", order="<"):
    body = b"".join(struct.pack(f"{order}4sI", name, size) + payload for name, size, payload in chunks)
    return kind + struct.pack(f"{order}I", 4 + len(body)) + b"WAVE" + body


def fmt(frame_bytes=2, order="<"):
    return (b"fmt ", 16, struct.pack(f"{order}HHIIHH", 1, 1, 32_000, 32_000 * frame_bytes, frame_bytes, 16))


@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_24", 3), ("FLOAT", 2), ("PCM_U8", 1)])
def test_a_wav_claims_what_was_written(tmp_path, subtype, channels):
    write_sound(tmp_path / "a.wav", np.zeros((1_001, channels)), subtype=subtype)
    assert claimed_frames(tmp_path / "a.wav") == 1_001


@pytest.mark.parametrize("name", ["a.aiff", "a.flac", "a.ogg"])
def test_an_aiff_claims_what_was_written_and_others_are_none_of_it(tmp_path, name):
    write_sound(tmp_path / name, np.zeros(1_001))
    assert claimed_frames(tmp_path / name) == (1_001 if name == "a.aiff" else None)


@pytest.mark.parametrize(
    ("raw", "frames"),
    [
        (riff(fmt(), (b"data", 1_000, b"")), 500),
        (riff(fmt(4), (b"data", 1_003, b"")), 250),  # a rest of a sample is none
        (riff((b"LIST", 3, b"abc\0"), fmt(), (b"data", 10, b"")), 5),  # chunks end on even bytes
        (riff(fmt(2, ">"), (b"data", 10, b""), kind=b"RIFX", order=">"), 5),
        (riff((b"ds64", 28, struct.pack("<QQQI", 0, 6 << 32, 0, 0)), fmt(), (b"data", 0xFFFFFFFF, b""), kind=b"RF64"),
         3 << 32),
        (riff(fmt(), (b"data", 0xFFFFFFFF, b"")), None),  # ffmpeg into a pipe
        (riff(fmt(), (b"data", 0x7FFFFFFF, b"")), None),  # ALSA
        (riff(fmt(), (b"data", 0, b"")), None),  # a recorder without power
        (riff(fmt(0), (b"data", 10, b"")), None),
        (riff((b"data", 10, b"")), None),
        (riff((b"data", 10, b""))[:15], None),
        (b"", None),
        (b"RIFF", None),
        (riff(*[(b"junk", 0, b"")] * 5_000), None),
    ],
)  # fmt: skip
def test_claims_by_hand(tmp_path, raw, frames):
    (tmp_path / "a.wav").write_bytes(raw)
    assert claimed_frames(tmp_path / "a.wav") == frames
