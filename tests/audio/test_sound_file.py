import struct

import numpy as np
import pytest
import soundfile
from decoded_sound import decode, decode_at, page
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream, probe, read_segment


def test_truncated_flac_gives_every_sample_that_is_there(tmp_path):
    whole, cut = tmp_path / "whole.flac", tmp_path / "cut.flac"
    write_sound(whole, tone(30.0), SAMPLE_RATE)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    samples, damage = decode(cut)
    # A frame has 4,096 samples, and soundfile throws away the 10 s that it was asked for.
    assert abs(len(samples) - 20 * SAMPLE_RATE) < 2 * 4_096
    assert damage == "truncated: 20.0 of 30.0 s (flac decoder lost sync)"
    np.testing.assert_array_equal(samples, decode(whole)[0][: len(samples)])


def test_flac_with_a_tag_behind_its_sound_is_whole(tmp_path):
    # As taggers of MP3 leave it: 128 bytes that are no frame, behind the last sample that the header counts.
    write_sound(tmp_path / "a.flac", tone(12.0), SAMPLE_RATE)
    wanted = decode(tmp_path / "a.flac")[0]
    with (tmp_path / "a.flac").open("ab") as file:
        file.write(b"TAG" + bytes(125))
    with AudioStream(tmp_path / "a.flac", SAMPLE_RATE) as stream:
        np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), wanted)
    assert (stream.status, stream.damage) == (Status.ok, "")
    tail = read_segment(tmp_path / "a.flac", 11.0, 5 * SAMPLE_RATE, SAMPLE_RATE)
    np.testing.assert_array_equal(tail, wanted[11 * SAMPLE_RATE :])


def with_zeros(path, begin_share, n_zeros):
    """A copy with zeros in place of some of its bytes."""
    raw = bytearray(path.read_bytes())
    begin = int(len(raw) * begin_share)
    raw[begin : begin + n_zeros] = bytes(n_zeros)
    broken = path.with_name(f"broken{path.suffix}")
    broken.write_bytes(raw)
    return broken


@pytest.mark.parametrize("native_rate", [32_000, 44_100])
def test_flac_continues_behind_broken_frames_at_its_own_time(tmp_path, native_rate):
    write_sound(tmp_path / "a.flac", tone(30.0), native_rate)
    wanted = decode(tmp_path / "a.flac", native_rate)[0]
    samples, damage = decode(with_zeros(tmp_path / "a.flac", 0.5, 100), native_rate)
    assert len(samples) == len(wanted)
    differ = np.flatnonzero(samples != wanted)
    assert 0 < differ[-1] - differ[0] < 2 * 4_096
    assert not samples[differ].any()
    assert damage == f"0.1 s missing at {differ[0] / native_rate:.1f} s, taken as silence"


def test_flac_with_a_hundred_breaks_ends(tmp_path):
    write_sound(tmp_path / "a.flac", tone(60.0), SAMPLE_RATE)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    for place in range(10_000, len(raw), 9_000):
        raw[place] ^= 255
    (tmp_path / "a.flac").write_bytes(raw)
    with AudioStream(tmp_path / "a.flac", SAMPLE_RATE) as stream:
        samples = np.concatenate(list(stream.blocks()))
    assert stream.status in (Status.damaged, Status.truncated)
    assert stream.decoded_seconds < len(samples) / SAMPLE_RATE <= 60


def test_flac_from_a_pipe_is_whole_though_its_header_leaves_the_length_open(tmp_path):
    write_sound(tmp_path / "a.flac", tone(25.0), SAMPLE_RATE)
    wanted = decode(tmp_path / "a.flac")[0]
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] &= 0xF0  # STREAMINFO's 36 bits for the number of samples
    raw[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(raw)
    samples, damage = decode(tmp_path / "a.flac")
    assert damage == ""
    np.testing.assert_array_equal(samples, wanted)
    assert probe(tmp_path / "a.flac").frames == 25 * SAMPLE_RATE
    with AudioStream(tmp_path / "a.flac", SAMPLE_RATE) as stream:
        assert stream.expected_seconds is None
        assert 5 < stream.claimed_seconds < 500


def test_ogg_with_a_hole_keeps_its_time_and_repeats_nothing(tmp_path):
    write_sound(tmp_path / "a.ogg", tone(20.0), SAMPLE_RATE)
    wanted = decode(tmp_path / "a.ogg")[0]
    broken = with_zeros(tmp_path / "a.ogg", 0.5, 500)
    samples, damage = decode(broken)
    assert len(samples) == len(wanted)
    hole = np.flatnonzero(samples != wanted)
    assert (
        damage == f"{(hole[-1] + 1 - hole[0]) / SAMPLE_RATE:.1f} s missing at {hole[0] / SAMPLE_RATE:.1f} s, "
        "taken as silence; a page broken"
    )
    assert hole[-1] - hole[0] < 3 * SAMPLE_RATE
    assert not samples[hole[0] : hole[-1]].any()


@pytest.mark.parametrize("native_rate", [16_000, 48_000])
def test_opus_with_a_hole_keeps_its_time(tmp_path, native_rate):
    path = tmp_path / "a.opus"
    with soundfile.SoundFile(path, "w", native_rate, 1, format="OGG", subtype="OPUS") as file:
        file.write(tone(20.0, native_rate))
    samples, damage = decode(with_zeros(path, 0.5, 500))
    assert abs(len(samples) - 20 * SAMPLE_RATE) <= 2
    assert "taken as silence" in damage
    # The decoder starts again behind the hole, so bits differ; one sample early or late would be ten times this.
    error = samples[-5 * SAMPLE_RATE :] - decode(path)[0][-5 * SAMPLE_RATE :]
    assert np.sqrt(np.mean(error**2)) < 0.03


def chain(tmp_path, *parts):
    """Sound files end to end, as a recorder leaves them that closes and opens a stream."""
    raw = b""
    for index, (seconds, rate) in enumerate(parts):
        write_sound(tmp_path / f"{index}.ogg", tone(seconds, rate, seed=index), rate)
        raw += (tmp_path / f"{index}.ogg").read_bytes()
    (tmp_path / "chain.ogg").write_bytes(raw)
    return tmp_path / "chain.ogg"


def test_a_chained_ogg_is_all_its_links_each_from_a_rate_of_its_own(tmp_path):
    path = chain(tmp_path, (12.0, 32_000), (3.0, 44_100), (2.0, 16_000))
    samples, damage = decode(path)
    assert damage == ""
    links = [decode(tmp_path / f"{index}.ogg")[0] for index in range(3)]
    np.testing.assert_array_equal(samples, np.concatenate(links))
    with AudioStream(path, SAMPLE_RATE) as stream:
        assert sum(map(len, stream.blocks())) == len(samples)
        assert stream.decoded_seconds == pytest.approx(17.0)
        assert 8 < stream.claimed_seconds < 40


def test_a_chain_at_several_rates_is_that_of_single_ones(tmp_path):
    path = chain(tmp_path, (3.0, 44_100), (3.0, 22_050))
    together = decode_at(path, [16_000, 44_100])
    for rate, samples in together.items():
        np.testing.assert_array_equal(samples, decode(path, rate)[0])


def test_a_chain_whose_middle_cannot_be_decoded_gives_the_rest(tmp_path):
    path = chain(tmp_path, (2.0, 32_000), (2.0, 32_000), (2.0, 32_000))
    first, second = ((tmp_path / f"{index}.ogg").stat().st_size for index in (0, 1))
    raw = bytearray(path.read_bytes())
    raw[first + 100 : first + second - 5] = bytes(second - 105)
    path.write_bytes(raw)
    with AudioStream(path, SAMPLE_RATE) as stream:
        assert sum(map(len, stream.blocks())) == 4 * SAMPLE_RATE
    assert stream.status is Status.damaged


def test_pages_whose_clock_says_years_are_not_filled_with_years_of_silence(tmp_path):
    write_sound(tmp_path / "a.ogg", tone(4.0), SAMPLE_RATE)
    raw = (tmp_path / "a.ogg").read_bytes()
    begins = [place for place in range(len(raw)) if raw.startswith(b"OggS", place)]
    pages = [raw[begin:end] for begin, end in zip(begins, [*begins[1:], len(raw)], strict=True)]
    flags, serial, sequence = pages[-1][5], *struct.unpack_from("<II", pages[-1], 14)
    body = pages[-1][27 + pages[-1][26] :]
    late = page(body, serial, sequence, flags, granule=2**61)
    (tmp_path / "a.ogg").write_bytes(b"".join(pages[:-2]) + late)
    samples, damage = decode(tmp_path / "a.ogg")
    assert 0 < len(samples) < 4 * SAMPLE_RATE
    assert "s missing, left out" in damage
