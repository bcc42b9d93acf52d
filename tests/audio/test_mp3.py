import struct

import numpy as np
import pytest
from lies import encoded

from birdinfer.audio.mp3 import read_mp3
from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream

RATES = [(44_100, 2), (32_000, 1), (22_050, 1), (16_000, 2)]
SECONDS = 6.0
DELAY = 1_105
"""Samples that the encoder adds before the sound, and that only a count of frames lets a decoder leave out."""


def made(tmp_path, rate, channels):
    """An MP3 of varying bit rate and the byte where its frames with sound begin."""
    wave = np.random.default_rng(1).normal(0, 0.1, round(SECONDS * rate)) * np.linspace(0, 1, round(SECONDS * rate))
    raw = encoded(np.stack([wave] * channels, 1), rate, "MP3", "MPEG_LAYER_III")
    (tmp_path / "a.mp3").write_bytes(raw)
    return raw, read_mp3(tmp_path / "a.mp3").sound_begin


def decoded(tmp_path, raw, rate):
    (tmp_path / "a.mp3").write_bytes(raw)
    with AudioStream(tmp_path / "a.mp3", rate) as stream:
        return np.concatenate(list(stream.blocks())), stream


@pytest.mark.parametrize(("rate", "channels"), RATES)
def test_without_a_count_of_frames_all_is_decoded(tmp_path, rate, channels):
    raw, begin = made(tmp_path, rate, channels)
    wanted, _ = decoded(tmp_path, raw, rate)
    samples, stream = decoded(tmp_path, raw[begin:], rate)
    np.testing.assert_allclose(samples[DELAY : DELAY + len(wanted)], wanted, rtol=0, atol=0.05)
    assert np.abs(samples[2 * DELAY : DELAY + len(wanted)] - wanted[DELAY:]).max() < 1e-6
    assert stream.status is Status.ok


@pytest.mark.parametrize(("rate", "channels"), RATES)
@pytest.mark.parametrize("n_frames", [1, 2, 50, 100_000, 2**32 - 1])
def test_a_wrong_count_of_frames_costs_no_sound(tmp_path, rate, channels, n_frames):
    raw, _ = made(tmp_path, rate, channels)
    wanted, _ = decoded(tmp_path, raw, rate)
    at = raw.find(b"Xing") + 8
    samples, stream = decoded(tmp_path, raw[:at] + struct.pack(">I", n_frames) + raw[at + 4 :], rate)
    np.testing.assert_array_equal(samples[: len(wanted)], wanted)
    assert len(samples) - len(wanted) < 2_304
    assert stream.status is Status.length_unknown
    assert stream.claimed_seconds < 1_000


def test_a_cut_mp3_that_counts_its_frames_is_truncated(tmp_path):
    raw, _ = made(tmp_path, 32_000, 1)
    samples, stream = decoded(tmp_path, raw[: len(raw) // 2], 32_000)
    assert stream.status is Status.truncated
    assert stream.damage == f"truncated: {len(samples) / 32_000:.1f} of 6.0 s"


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"APETAGEX" + bytes(9_000), bytes(5_000)])
def test_a_tag_behind_the_frames_changes_nothing(tmp_path, tag):
    raw, _ = made(tmp_path, 32_000, 1)
    wanted, _ = decoded(tmp_path, raw, 32_000)
    id3 = b"ID3\x03\0\0\0\0\x07\x76" + bytes(1_014)
    samples, stream = decoded(tmp_path, id3 + raw + tag, 32_000)
    np.testing.assert_array_equal(samples, wanted)
    assert stream.status is Status.ok


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\xff\xfb\xf0\0" + bytes(100), b"ID3" + bytes(7), b"OggS" + bytes(99)])
def test_what_is_no_mp3_is_none(tmp_path, raw):
    (tmp_path / "a.mp3").write_bytes(raw)
    assert read_mp3(tmp_path / "a.mp3") is None


def test_a_frame_is_recognised_where_it_begins(tmp_path):
    raw, begin = made(tmp_path, 44_100, 2)
    mp3 = read_mp3(tmp_path / "a.mp3")
    assert mp3.has_frame_at(begin)
    assert not any(mp3.has_frame_at(at) for at in (None, begin + 1, len(raw), len(raw) + 10))
