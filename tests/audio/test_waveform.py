"""Samples in memory are what the same samples in a file are."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.stream import AudioStream
from birdinfer.audio.waveform import WaveformSound, blocks_of, check_array, check_sample_rate, to_floats
from birdinfer.errors import AudioError, ConfigError

RATE = 8_000
NOISE = np.random.default_rng(0).normal(0, 0.2, (RATE * 3, 2))
SUBTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "int16": "PCM_16", "int32": "PCM_32"}


def as_type(dtype):
    return NOISE.astype(dtype) if dtype.startswith("float") else (NOISE * np.iinfo(dtype).max).astype(dtype)


def streamed(stream):
    """All that a stream gives at another rate, its status and its problem."""
    samples = np.concatenate(list(stream.blocks()))
    return samples, stream.status, stream.damage


def in_memory(blocks, rate=RATE, channel="mean"):
    return AudioStream(Path("sound"), 32_000, sound=WaveformSound(blocks, rate, "sound", channel=channel))


@pytest.mark.parametrize("dtype", SUBTYPES)
@pytest.mark.parametrize(("n_channels", "channel"), [(1, "mean"), (2, "mean"), (2, "2"), (1, "loudest")])
def test_samples_in_memory_are_those_of_the_file(tmp_path, dtype, n_channels, channel):
    samples = as_type(dtype)[:, :n_channels]
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype=SUBTYPES[dtype])
    with AudioStream(tmp_path / "a.wav", 32_000, channel) as file:
        wanted, *_ = streamed(file)
    memory = in_memory([samples], channel=channel)
    found, *_ = streamed(memory)
    assert np.array_equal(found, wanted)
    assert (memory.channel, memory.levels) == (file.channel, file.levels)


def test_a_channel_that_is_not_there_or_not_known_is_refused():
    with pytest.raises(AudioError, match=r"sound: has 2 channels, 3 is not among them"):
        streamed(in_memory([NOISE], channel="3"))
    with pytest.raises(ConfigError, match=r"channel: is loudest, .* - pass the one that you want: samples\[:, 0\]"):
        streamed(in_memory([NOISE], channel="loudest"))


@given(cuts=st.lists(st.integers(0, RATE * 3), max_size=6))
def test_blocks_of_any_length_are_the_whole(cuts):
    wanted, *_ = streamed(in_memory([NOISE]))
    found, *_ = streamed(in_memory(np.split(NOISE, sorted(cuts))))
    assert np.array_equal(found, wanted)


def test_an_array_is_cut_into_views():
    samples = np.zeros(25 * RATE, np.int16)
    blocks = list(blocks_of(samples, RATE))
    assert [len(block) for block in blocks] == [10 * RATE, 10 * RATE, 5 * RATE]
    assert all(np.shares_memory(block, samples) for block in blocks)


def test_findings_are_those_of_a_file():
    silent = streamed(in_memory([np.zeros(RATE)]))
    assert silent[1:] == ("silent", "silent: all samples are 0")
    opposed = np.stack([NOISE[:, 0], -NOISE[:, 0]], axis=1)
    assert streamed(in_memory([opposed]))[1:] == ("silent", "silent: its channels cancel each other")
    odd = NOISE[:, 0].copy()
    odd[5:8] = np.nan, np.inf, 1e40
    samples, status, damage = streamed(in_memory([odd]))
    assert (status, damage) == ("non-finite", "3 samples are not finite, taken as 0")
    assert np.isfinite(samples).all()


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros((2, 800)), r"has the shape (2, 800) - needed is [samples] or [samples, channels]: pass samples.T"),
        (np.zeros((800, 0)), r"has the shape (800, 0) - needed is [samples] or [samples, channels]"),
        (np.zeros((800, 800)), r"has the shape (800, 800) - needed is [samples] or [samples, channels]"),
        (np.zeros((1, 2, 3)), r"has 3 axes - needed is [samples] or [samples, channels]"),
        (np.float32(1), r"has 0 axes - needed is [samples] or [samples, channels]"),
        (np.zeros(8, np.uint8), "holds uint8 - needed are floats in -1 to 1, int16 or int32"),
        (np.zeros(8, complex), "holds complex128 - needed are floats in -1 to 1, int16 or int32"),
        ([[0.0], [0.0, 1.0]], "is no array: its parts differ in length - needed is [samples] or [samples, channels]"),
    ],
)
def test_what_is_no_sound_is_refused(samples, problem):
    with pytest.raises(AudioError) as refused:
        check_array(samples, "dawn")
    assert str(refused.value) == f"dawn: {problem}"
    with pytest.raises(AudioError):
        streamed(in_memory([samples]))


@pytest.mark.parametrize("blocks", [[], [np.zeros(0)], [np.zeros((0, 2), np.int16)]])
def test_nothing_is_no_sound(blocks):
    with pytest.raises(AudioError, match="sound: holds no samples"):
        streamed(in_memory(blocks))


def test_the_order_of_bytes_and_lists_do_not_matter():
    assert to_floats(np.array([16384], ">i2")).tolist() == to_floats([0.5]).tolist() == [[0.5]]


@pytest.mark.parametrize("rate", [0, 99, -8_000, 44_100.5, 1_000_001, float("nan"), float("inf"), "48000", None])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(ConfigError, match=r"sample_rate: is .*, allowed are whole numbers of Hz"):
        check_sample_rate(rate)
    with pytest.raises(ConfigError):
        blocks_of(np.zeros(8), rate).__next__()
