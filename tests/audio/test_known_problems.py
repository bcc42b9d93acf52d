"""The faults of recorders that the list github.com/ecoacoustics/known-problems describes, made again."""

import struct

import numpy as np
import pytest
import soundfile
from lies import encoded

from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError

RATE, SECONDS = 8_000, 11
NOISE = np.random.default_rng(7).normal(0, 0.05, SECONDS * RATE)
PCM = (NOISE * 32_767).astype("<i2").tobytes()
FLAC = encoded(NOISE, RATE, "FLAC", "PCM_16")


def wav(samples=PCM, data=None, riff=None):
    data = len(samples) if data is None else data
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", 36 + data if riff is None else riff, b"WAVE")
    return head + fmt + struct.pack("<4sI", b"data", data) + samples


def flac(factor):
    """A FLAC whose header claims this many times its samples."""
    fields = int.from_bytes(FLAC[18:26], "big")
    n_samples = fields & (1 << 36) - 1
    return FLAC[:18] + (fields - n_samples + round(n_samples * factor)).to_bytes(8, "big") + FLAC[26:]


HALF = SECONDS * RATE // 2 * 2


@pytest.mark.parametrize(
    ("raw", "status", "seconds", "text"),
    [
        pytest.param(
            wav(PCM[:HALF] + bytes(HALF), 44, 80), Status.length_unknown, 11, "last 5.5 s are zeros", id="FL003"
        ),
        pytest.param(wav(data=len(PCM) + 44, riff=len(PCM) + 80), Status.ok, 11, "", id="FL005"),
        pytest.param(flac(2), Status.length_unknown, 11, "its header claims 22.0 s, the file holds 11.0 s", id="FL010"),
        pytest.param(
            flac(0.5), Status.length_unknown, 11, "its header claims 5.5 s, the file holds 11.0 s", id="FLAC-half"
        ),
        pytest.param(wav(bytes(len(PCM)), 44), Status.silent, 11, "all samples are 0", id="FL011-2"),
        pytest.param(FLAC, Status.ok, 11, "", id="FL011-3"),
        pytest.param(FLAC[: len(FLAC) // 2] + PCM, Status.truncated, 5.5, "of 11.0 s", id="FL011-4"),
        pytest.param(wav(data=0, riff=36), Status.length_unknown, 11, "leaves the length open", id="FL012"),
        pytest.param(wav(), Status.ok, 11, "", id="WA003"),
    ],
)
def test_recorders_faults_are_decoded_and_named(tmp_path, raw, status, seconds, text):
    (tmp_path / "data").write_bytes(raw)
    with AudioStream(tmp_path / "data", RATE) as stream:
        assert sum(map(len, stream.blocks())) == pytest.approx(seconds * RATE, abs=4_096)
    assert stream.status is status
    assert text in stream.damage
    assert bool(text) == bool(stream.damage)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "is empty", id="FL011-1, OE004"),
        pytest.param(bytes(131_072), r"is no sound: its 131072 bytes are zeros", id="WA002, OE005"),
        pytest.param(np.random.default_rng(1).bytes(100_000), "cannot be decoded", id="WA004"),
        pytest.param(
            bytes(488) + PCM, r"has no header, 176000 bytes that may be 16-bit samples", id="zeros for a header"
        ),
        pytest.param(wav(b""), "holds no sound", id="FL001"),
    ],
)
def test_recorders_faults_without_sound_are_named(tmp_path, raw, message):
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(AudioError, match=message), AudioStream(tmp_path / "a.wav", RATE) as stream:
        list(stream.blocks())


def test_zeros_at_the_end_are_named_in_each_encoding(tmp_path):
    wave = np.concatenate([NOISE, np.zeros(2 * RATE)])
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        soundfile.write(tmp_path / "a.wav", wave, RATE, subtype=subtype)
        with AudioStream(tmp_path / "a.wav", RATE) as stream:
            assert sum(map(len, stream.blocks())) == len(wave)
        assert (stream.status, stream.damage[:24]) == (Status.length_unknown, "its last 2.0 s are zeros")


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_zeros_behind_compressed_sound_are_named(tmp_path, kind, is_cut):
    subtype = {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}[kind]
    raw = encoded(NOISE, RATE, kind, subtype)
    (tmp_path / "a").write_bytes(raw[: len(raw) // 2 if is_cut else None] + bytes(3 << 20))
    with AudioStream(tmp_path / "a", RATE) as stream:
        n_samples = sum(map(len, stream.blocks()))
    assert "3145728 zero bytes follow" in stream.damage
    assert 0.3 < n_samples / len(NOISE) <= 1
    assert stream.status is (Status.length_unknown if not is_cut else Status.truncated)
    assert not is_cut or n_samples < 0.7 * len(NOISE)
