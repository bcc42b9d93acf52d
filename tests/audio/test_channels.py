import numpy as np
import pytest
import soundfile
from make_bundles import SAMPLE_RATE, write_sound

from birdinfer.audio.channels import check_channel, mix_of
from birdinfer.audio.stream import AudioStream, read_segment
from birdinfer.errors import AudioError, ConfigError
from birdinfer.synthetic.soundscapes import make_soundscape


@pytest.fixture(scope="module")
def soundscape():
    return make_soundscape(np.random.default_rng(2), 24.0)[0]


def read(path, channel="mean"):
    with AudioStream(path, SAMPLE_RATE, channel) as stream:
        return np.concatenate(list(stream.blocks())), stream


def microphones(x):
    """What recorders with two microphones and more write, and the channel that is to be taken; from shared/cases."""
    rng, late = np.random.default_rng(0), 19
    return {
        "mono": ([x], "1"),
        "right_is_noise": ([x, rng.normal(0, 0.3, len(x))], "1"),
        "right_0.6_ms_later": ([x, np.r_[np.zeros(late), x[:-late]]], "1"),
        "left_at_the_rail": ([np.full(len(x), -0.99), x], "2"),
        "three_of_four_dead": ([*(rng.normal(0, 1e-4, len(x)) for _ in range(3)), x], "4"),
        "left_clipped": ([np.clip(20 * x, -1, 1), x], "2"),
        "left_shifted": ([2 * x + 0.3, x], "2"),
        "left_in_the_wind": ([x / 2 + np.cumsum(rng.normal(0, 2e-4, len(x))), x], "2"),
    }


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, "wav") for name in microphones(np.zeros(100))),
        ("right_is_noise", "flac"),
        ("three_of_four_dead", "ogg"),
    ],
)
def test_loudest_is_the_microphone_that_works(tmp_path, soundscape, name, ending):
    channels, wanted = microphones(soundscape)[name]
    path = tmp_path / f"a.{ending}"
    write_sound(path, np.clip(np.stack(channels, 1), -1, 1).astype(np.float32))
    samples, stream = read(path, "loudest")
    assert stream.channel == wanted
    assert len(stream.levels) == len(channels)
    decoded = soundfile.read(path, dtype="float32", always_2d=True)[0]
    np.testing.assert_array_equal(samples, decoded[:, int(wanted) - 1])


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0, 15.9])
def test_loudest_of_a_short_file(tmp_path, soundscape, seconds):
    x = soundscape[: round(seconds * SAMPLE_RATE)]
    write_sound(tmp_path / "a.wav", np.stack([np.zeros(len(x)), x], 1).astype(np.float32))
    assert read(tmp_path / "a.wav", "loudest")[1].channel == "2"


def test_loudest_of_a_file_that_breaks_off(tmp_path, soundscape):
    write_sound(tmp_path / "a.flac", np.stack([np.zeros(len(soundscape)), soundscape], 1).astype(np.float32))
    raw = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(raw[: len(raw) // 3])
    samples, stream = read(tmp_path / "a.flac", "loudest")
    assert (stream.channel, stream.status) == ("2", "truncated")
    assert len(samples) > 5 * SAMPLE_RATE


def test_each_channel_can_be_read_alone(tmp_path, soundscape):
    channels = np.stack([soundscape, soundscape[::-1], -soundscape], 1)
    write_sound(tmp_path / "a.wav", channels)
    decoded = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    for number in (1, 2, 3):
        samples, stream = read(tmp_path / "a.wav", str(number))
        np.testing.assert_array_equal(samples, decoded[:, number - 1])
        assert stream.channel == str(number)
        segment = read_segment(tmp_path / "a.wav", 1.0, SAMPLE_RATE, SAMPLE_RATE, channel=stream.channel)
        np.testing.assert_array_equal(segment, samples[SAMPLE_RATE : 2 * SAMPLE_RATE])


def test_a_channel_that_is_not_there_is_refused(tmp_path, soundscape):
    write_sound(tmp_path / "a.wav", soundscape)
    write_sound(tmp_path / "b.wav", np.stack([soundscape] * 2, 1))
    with pytest.raises(AudioError, match="has one channel, --channel 2 is not among them"):
        AudioStream(tmp_path / "a.wav", SAMPLE_RATE, "2")
    with pytest.raises(AudioError, match="has 2 channels, --channel 3 is not among them"):
        AudioStream(tmp_path / "b.wav", SAMPLE_RATE, "3")


@pytest.mark.parametrize("channel", ["mean", "loudest", "1", "12"])
def test_channels_that_can_be_asked_for(channel):
    assert check_channel(channel) == channel


@pytest.mark.parametrize("channel", ["", "0", "-1", "1.5", "left", "²", "99999"])
def test_other_channels_are_refused(channel):
    with pytest.raises(ConfigError, match=r"--channel.* allowed are mean, loudest"):
        check_channel(channel)


def test_a_link_with_fewer_channels_gives_its_last():
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(mix_of("4")(frames), frames[:, 1])
