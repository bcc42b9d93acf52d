import numpy as np
import pytest
from lies import encoded
from make_bundles import tone, write_sound

from birdinfer.audio.flac import read_flac
from birdinfer.audio.stream import AudioStream, probe

WAVE = tone(3.0)
RAW = encoded(WAVE, 32_000, "FLAC", "PCM_16")


def with_total(raw, n_samples):
    fields = int.from_bytes(raw[18:26], "big") >> 36 << 36
    return raw[:18] + (fields | n_samples).to_bytes(8, "big") + raw[26:]


@pytest.mark.parametrize("n_samples", [1, 100, 4_096, 50_000, len(WAVE) - 1, len(WAVE), len(WAVE) + 1, 2**36 - 1])
def test_frames_say_how_long_a_flac_is(tmp_path, n_samples):
    (tmp_path / "a.flac").write_bytes(with_total(RAW, n_samples))
    header = read_flac(tmp_path / "a.flac")
    assert (header.frames, header.claimed, header.is_wrong) == (len(WAVE), n_samples, n_samples != len(WAVE))
    assert probe(tmp_path / "a.flac").frames == len(WAVE)


@pytest.mark.parametrize("length", [0, 1, 39, 41, 60, 5_000, 2**24 - 1])
def test_a_wrong_length_of_metadata_costs_no_sound(tmp_path, length):
    (tmp_path / "a.flac").write_bytes(RAW[:43] + length.to_bytes(3, "big") + RAW[46:])
    with AudioStream(tmp_path / "a.flac", 32_000) as stream:
        assert sum(map(len, stream.blocks())) == len(WAVE)
    assert stream.damage == ""


@pytest.mark.parametrize("raw", [b"", b"fLaC", RAW[:60], RAW[:86], with_total(RAW, 0), b"fLaC" + bytes(10_000)])
def test_what_cannot_be_held_against_frames_is_left_to_the_decoder(tmp_path, raw):
    (tmp_path / "a.flac").write_bytes(raw)
    assert read_flac(tmp_path / "a.flac") is None


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (96_000, 1), (12_345, 3), (250_000, 1)])
def test_frames_of_all_rates_and_channels_are_found(tmp_path, rate, channels):
    write_sound(tmp_path / "a.flac", np.stack([WAVE] * channels, 1), rate)
    header = read_flac(tmp_path / "a.flac")
    assert (header.frames, header.is_wrong) == (len(WAVE), False)
