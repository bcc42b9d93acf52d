import shutil
import struct

import numpy as np
import pytest
import soundfile
from decoded_sound import decode, decode_at
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio import decoder
from birdinfer.audio import stream as audio
from birdinfer.audio.decoder import Decoder
from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream, probe, read_segment
from birdinfer.errors import AudioError, InputNotFoundError


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_any_sample_rate_arrives_at_the_wanted_one(tmp_path, rate):
    path = tmp_path / "tone.wav"
    write_sound(path, tone(3.0, rate), rate, subtype="FLOAT")
    samples, damage = decode(path)
    assert damage == ""
    assert abs(len(samples) - 3 * SAMPLE_RATE) <= 2
    spectrum = np.abs(np.fft.rfft(samples[: 2 * SAMPLE_RATE]))
    assert np.argmax(spectrum) / 2 == pytest.approx(2_000, abs=1)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.wav", "PCM_U8"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS"),
     ("a.mp3", "MPEG_LAYER_III"), ("a.aiff", "PCM_16")],
)  # fmt: skip
def test_every_format_sounds_the_same(tmp_path, name, subtype):
    path, wanted = tmp_path / name, tone(2.0)
    write_sound(path, wanted, SAMPLE_RATE, subtype=subtype)
    samples, damage = decode(path)
    assert damage == ""
    assert abs(len(samples) - len(wanted)) < 2500  # MP3 pads
    lag = int(np.argmax(np.correlate(samples[:8000], wanted[2000:6000], "valid"))) - 2000
    error = samples[max(0, lag) + 8000 : max(0, lag) + 40_000] - wanted[8000 + max(0, -lag) :][:32_000]
    assert np.sqrt(np.mean(error**2)) < 0.02


def test_stereo_is_averaged(tmp_path):
    left = tone(1.0)
    write_sound(tmp_path / "a.wav", np.stack([left, 0 * left], 1), SAMPLE_RATE, subtype="FLOAT")
    samples, _ = decode(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, left / 2, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_samples_are_those_of_libsndfile(tmp_path, channels, subtype):
    path = tmp_path / "a.wav"
    write_sound(path, np.stack([tone(1.0, seed=seed) for seed in range(channels)], 1), SAMPLE_RATE, subtype=subtype)
    wanted = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_allclose(decode(path)[0], wanted, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(read_segment(path, 0.0, SAMPLE_RATE, SAMPLE_RATE), decode(path)[0])


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_16_bits_are_scaled_as_libsndfile_scales_them(tmp_path, name):
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    soundfile.write(tmp_path / name, every, SAMPLE_RATE, subtype="PCM_16")
    np.testing.assert_array_equal(decode(tmp_path / name)[0], soundfile.read(tmp_path / name, dtype="float32")[0])


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 9)), elements=st.floats(-1, 1, width=32)))
def test_mean_of_channels_is_numpys(samples):
    wanted = samples.mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(decoder.mean_of_channels(samples), wanted, rtol=0, atol=5e-7)


def test_one_channel_is_not_copied():
    samples = np.zeros((10, 1), np.float32)
    assert np.shares_memory(audio.finite(decoder.mean_of_channels(samples))[0], samples)


def test_channels_whose_sum_is_not_finite_are_counted_without_a_warning(tmp_path):
    wave = np.zeros((100, 2), np.float32)
    wave[3], wave[5], wave[7] = (np.inf, -np.inf), (3e38, 3e38), (np.nan, 0)
    write_sound(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    samples, damage = decode(tmp_path / "a.wav")
    assert not samples.any()
    assert damage == "3 samples are not finite, taken as 0; silent: all samples are 0"


@pytest.mark.parametrize("value", [3e38, -3e38, 2e12])
def test_samples_that_no_resampler_can_add_up_are_taken_as_0(tmp_path, value):
    wave = tone(1.0, 44_100)
    wave[1_000:1_020] = value
    write_sound(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    for samples in (decode(tmp_path / "a.wav")[0], read_segment(tmp_path / "a.wav", 0.0, SAMPLE_RATE, SAMPLE_RATE)):
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() < 2
    assert decode(tmp_path / "a.wav")[1] == "20 samples are not finite, taken as 0"


def test_floats_of_a_recorder_that_counts_in_32_bits_are_sound(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1.0) * 2.0**31, subtype="FLOAT")
    samples, damage = decode(tmp_path / "a.wav")
    assert damage == ""
    assert np.abs(samples).max() > 1e8


@pytest.mark.parametrize("native_rate", [22_050, 32_000, 44_100, 192_000])
def test_several_rates_of_one_decoding_are_those_of_single_ones(tmp_path, native_rate):
    write_sound(tmp_path / "a.wav", tone(21.3, native_rate), native_rate)
    together = decode_at(tmp_path / "a.wav", [32_000, 48_000, 16_000, 32_000])
    assert sorted(together) == [16_000, 32_000, 48_000]
    for rate, samples in together.items():
        np.testing.assert_array_equal(samples, decode(tmp_path / "a.wav", rate)[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("native_rate", [32_000, 44_100])
def test_samples_do_not_depend_on_the_length_of_blocks(tmp_path, monkeypatch, name, native_rate):
    path, rates = tmp_path / name, [32_000, 48_000]
    write_sound(path, tone(23.0, native_rate), native_rate)
    wanted = decode_at(path, rates)
    for seconds in (0.7, 3.0, 60.0):
        monkeypatch.setattr(decoder, "BLOCK_SECONDS", seconds)
        for rate, samples in decode_at(path, rates).items():
            np.testing.assert_array_equal(samples, wanted[rate])


def test_a_file_is_decoded_once_for_all_rates(tmp_path, monkeypatch):
    write_sound(tmp_path / "a.wav", tone(25.0), SAMPLE_RATE)
    reads = []
    read = Decoder.read
    monkeypatch.setattr(Decoder, "read", lambda self, count: reads.append(count) or read(self, count))
    decode_at(tmp_path / "a.wav", [8_000, 32_000, 48_000])
    assert len(reads) == 4  # 10 s, 10 s, 5 s, the end


def test_one_sample_is_kept_at_every_rate(tmp_path):
    write_sound(tmp_path / "a.wav", np.full(1, 0.5, np.float32), SAMPLE_RATE)
    lengths = {rate: len(samples) for rate, samples in decode_at(tmp_path / "a.wav", [8_000, 32_000, 96_000]).items()}
    assert lengths[32_000] == 1
    assert max(lengths.values()) <= 3


def test_header_without_samples_is_refused_at_every_rate(tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    with pytest.raises(AudioError, match="holds no sound"):
        decode_at(tmp_path / "a.wav", [32_000, 48_000])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three seconds in each of the formats, as bytes."""
    folder, contents = tmp_path_factory.mktemp("whole"), {}
    for suffix in ("ogg", "flac", "wav", "mp3"):
        write_sound(folder / f"a.{suffix}", tone(3.0), SAMPLE_RATE)
        contents[suffix] = (folder / f"a.{suffix}").read_bytes()
    return folder, contents


@pytest.mark.parametrize("suffix", ["ogg", "flac", "wav", "mp3"])
@given(data=st.data())
def test_pitfall_13_whatever_bytes_are_damaged_there_is_sound_or_one_line(whole, suffix, data):
    folder, contents = whole
    raw = bytearray(contents[suffix])
    # Half of the damage falls into the headers, which are a hundredth of the file.
    places = st.one_of(st.integers(0, 4_000), st.integers(0, len(raw) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=20)):
        raw[place] = value
    path = folder / f"damaged.{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        samples, damage = decode(path)
    except AudioError as error:
        damage = str(error)
    else:
        assert np.isfinite(samples).all()
    assert "\n" not in damage


def test_streaming_resampler_equals_whole_file_resampling(tmp_path):
    import soxr

    wave = tone(25.0, 44_100)  # longer than two blocks
    write_sound(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    samples, _ = decode(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, soxr.resample(wave, 44_100, SAMPLE_RATE), atol=1e-6)


def test_pitfall_13_wrong_extension_is_decoded_by_its_content(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1.0), SAMPLE_RATE)
    shutil.move(tmp_path / "a.wav", tmp_path / "a.ogg")
    samples, damage = decode(tmp_path / "a.ogg")
    assert len(samples) == SAMPLE_RATE
    assert damage == ""


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_pitfall_13_truncated_ogg_gives_its_sound_and_says_so(tmp_path, share):
    whole, cut = tmp_path / "whole.ogg", tmp_path / "cut.ogg"
    write_sound(whole, tone(20.0), SAMPLE_RATE)
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    samples, damage = decode(cut)
    assert 0 < len(samples) < 20 * SAMPLE_RATE
    assert damage == f"truncated after {len(samples) / SAMPLE_RATE:.1f} s"
    assert decode(whole)[1] == ""


def test_truncated_wav_says_how_much_is_missing(tmp_path):
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    write_sound(whole, tone(2.0), SAMPLE_RATE, subtype="PCM_16")
    cut.write_bytes(whole.read_bytes()[:-1000])
    samples, damage = decode(cut)
    assert len(samples) == 2 * SAMPLE_RATE - 500
    assert damage == "truncated: 1.98 of 2.00 s"


def test_wav_of_a_streaming_writer_is_whole(tmp_path):
    path = tmp_path / "stream.wav"
    write_sound(path, tone(1.0), SAMPLE_RATE, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    raw[4:8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(raw)
    assert decode(path)[1] == ""


def status_of(path):
    with AudioStream(path, SAMPLE_RATE) as stream:
        for _ in stream.blocks():
            pass
    return stream.status, stream.damage


@pytest.mark.parametrize(("value", "said"), [(0.0, "0"), (-0.0, "0"), (0.25, "0.25"), (-1.0, "-1")])
def test_a_file_of_one_value_is_silent(tmp_path, value, said):
    write_sound(tmp_path / "a.wav", np.full(25 * SAMPLE_RATE, value), subtype="FLOAT")
    assert status_of(tmp_path / "a.wav") == (Status.silent, f"silent: all samples are {said}")


@pytest.mark.parametrize("place", [0, 1, 12 * SAMPLE_RATE, 25 * SAMPLE_RATE - 1])
def test_one_other_sample_is_no_silence(tmp_path, place):
    wave = np.zeros(25 * SAMPLE_RATE)
    wave[place] = 2**-15
    write_sound(tmp_path / "a.flac", wave)
    assert status_of(tmp_path / "a.flac") == (Status.ok, "")


def test_channels_that_cancel_each_other_differ_from_a_dead_microphone(tmp_path):
    counts = (tone(2.0) * 30_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", np.stack([counts, -counts], 1), SAMPLE_RATE)
    assert status_of(tmp_path / "a.wav") == (Status.silent, "silent: its channels cancel each other")


def test_the_worst_is_the_status_and_the_line_names_all(tmp_path):
    wave = np.zeros(2 * SAMPLE_RATE, np.float32)
    wave[5] = np.nan
    write_sound(tmp_path / "a.wav", wave, subtype="FLOAT")
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: -2 * SAMPLE_RATE])
    status, damage = status_of(tmp_path / "a.wav")
    assert status is Status.truncated
    assert damage == "truncated: 1.5 of 2.0 s; 1 samples are not finite, taken as 0; silent: all samples are 0"


@pytest.mark.parametrize(("suffix", "expected"), [("wav", 3.0), ("flac", 3.0), ("aiff", 3.0), ("ogg", None)])
def test_expected_seconds_are_the_headers_where_it_counts_samples(tmp_path, suffix, expected):
    write_sound(tmp_path / f"a.{suffix}", tone(3.0))
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes((tmp_path / f"a.{suffix}").read_bytes()[: (tmp_path / f"a.{suffix}").stat().st_size * 3 // 4])
    for path in (tmp_path / f"a.{suffix}", cut):
        with AudioStream(path, SAMPLE_RATE) as stream:
            assert stream.expected_seconds == expected
    assert status_of(cut)[0] is Status.truncated


def test_pitfall_13_nan_samples_become_zero_and_are_counted(tmp_path):
    wave = tone(1.0)
    wave[100:110] = np.nan
    wave[200] = np.inf
    write_sound(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    samples, damage = decode(tmp_path / "a.wav")
    assert np.isfinite(samples).all()
    assert damage == "11 samples are not finite, taken as 0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no sound, just text\n" * 50, "cannot be decoded"),
        (b"OggS" + bytes(50), "cannot be decoded"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.ogg"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        AudioStream(path, SAMPLE_RATE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_header_without_samples_is_refused(tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    with pytest.raises(AudioError, match="holds no sound"):
        decode(tmp_path / "a.wav")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        AudioStream(tmp_path / "a.ogg", SAMPLE_RATE)
    with pytest.raises(AudioError, match="is not a file"):
        AudioStream(tmp_path, SAMPLE_RATE)


def test_probe_reads_the_header(tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros((44_100, 2)), 44_100)
    info = probe(tmp_path / "a.wav")
    assert (info.sample_rate, info.channels, info.duration_seconds) == (44_100, 2, 1.0)


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".flac"])
def test_segment_equals_its_stretch_of_the_whole_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_sound(path, tone(20.0), SAMPLE_RATE)
    whole, _ = decode(path)
    segment = read_segment(path, 7.25, 50_000, SAMPLE_RATE)
    begin = round(7.25 * SAMPLE_RATE)
    np.testing.assert_allclose(segment, whole[begin : begin + 50_000], atol=1e-6)


def test_segment_past_the_end_is_short(tmp_path):
    write_sound(tmp_path / "a.wav", tone(2.0, 44_100), 44_100)
    assert abs(len(read_segment(tmp_path / "a.wav", 1.5, 99_999, SAMPLE_RATE)) - SAMPLE_RATE // 2) <= 2
    assert len(read_segment(tmp_path / "a.wav", 5.0, 99_999, SAMPLE_RATE)) == 0
