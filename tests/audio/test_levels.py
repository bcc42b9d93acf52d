import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.levels import Finding, LevelMeter, loudest
from birdinfer.synthetic.soundscapes import make_soundscape

RATE = 32_000
STEP = 2.0**-15


@pytest.fixture(scope="module")
def soundscape():
    return make_soundscape(np.random.default_rng(1), 30.0)[0]


def noise(sigma, seconds=30.0, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, round(seconds * RATE)).astype(np.float32)


def measured(*channels, rate=RATE, step=STEP, block=10 * RATE):
    frames = np.stack(channels, axis=1).astype(np.float32)
    meter = LevelMeter()
    for begin in range(0, len(frames), block):
        meter.add(frames[begin : begin + block], rate, step)
    return meter.levels()


def kinds(level):
    return [finding for finding, _ in level.findings]


def test_a_sine_has_the_level_that_it_is_made_with():
    clock = np.arange(2 * RATE) / RATE
    (level,) = measured(0.5 * np.sin(2 * np.pi * 1_000 * clock) + 0.01)
    assert level.peak == pytest.approx(0.51, abs=1e-4)
    assert level.rms_dbfs == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.01)
    assert level.usual_dbfs == pytest.approx(level.rms_dbfs, abs=0.1)
    assert level.dc == pytest.approx(0.01, abs=1e-6)
    assert not level.findings


@given(st.integers(0, 2**32 - 1), st.floats(-0.9, 0.9), st.sampled_from([0.0, 1e-4, 1e-2, 0.5]), st.integers(1, 5_000))
def test_levels_are_those_of_all_samples_however_they_are_cut(seed, dc, sigma, block):
    samples = (noise(sigma, 0.3, seed) + np.float32(dc)).clip(-1, 1)
    samples[::7] = 0
    (level,) = measured(samples, block=block)
    assert level.peak == np.abs(samples).max()
    assert level.dc == pytest.approx(samples.mean(dtype=np.float64), abs=1e-6)
    deviation = samples.std(dtype=np.float64)
    assert 10 ** ((-300.0 if level.rms_dbfs is None else level.rms_dbfs) / 20) == pytest.approx(deviation, abs=1e-5)
    assert level.zeros == (samples == 0).mean()
    assert level.clipped == (np.abs(samples) >= 0.999).mean()


@pytest.mark.parametrize("value", [0.0, -0.99, 1.0])
def test_a_channel_of_one_value_is_dead(value):
    (level,) = measured(np.full(RATE, value))
    assert kinds(level) == [Finding.dead]
    assert level.rms_dbfs is None
    assert level.text == f"dead (all samples are {np.float32(value):g})"


def test_a_channel_much_quieter_than_another_is_dead(soundscape):
    levels = measured(noise(1e-4), soundscape, 0.3 * soundscape)
    assert [kinds(level) for level in levels] == [[Finding.dead], [], []]
    assert "dB quieter than another channel" in levels[0].text
    assert not measured(noise(1e-4))[0].findings  # alone it may be a quiet night


def test_steady_noise_is_named_when_it_is_loud(soundscape):
    levels = measured(soundscape, noise(0.3), noise(1e-3))
    assert [kinds(level) for level in levels][:2] == [[], [Finding.noise]]
    assert levels[1].text == "noise without any other sound (RMS -10 dBFS)"


def test_wind_or_rain_that_swells_is_no_broken_microphone():
    clock = np.arange(30 * RATE) / RATE
    (level,) = measured(noise(0.1) * (1 + 0.8 * np.sin(2 * np.pi * clock / 3)))
    assert not level.findings


def test_an_offset_is_named_and_not_counted_as_loudness(soundscape):
    plain, shifted = measured(soundscape, soundscape + 0.2)
    assert kinds(shifted) == [Finding.offset]
    assert shifted.text == "DC-shifted by +0.20"
    assert shifted.rms_dbfs == pytest.approx(plain.rms_dbfs, abs=0.01)


def test_clipped_samples_are_counted(soundscape):
    loud = (soundscape * (3 / np.abs(soundscape).max())).clip(-1, 1)
    (level,) = measured(loud)
    assert kinds(level) == [Finding.clipped]
    assert level.clipped == (np.abs(loud) >= 0.999).mean() > 1e-3


def test_floats_above_full_scale_are_not_clipped(soundscape):
    loud = soundscape * (3 / np.abs(soundscape).max())
    assert not measured(loud, step=0.0)[0].findings


def test_zeros_amid_sound_are_gaps_and_those_of_few_steps_are_not(soundscape):
    holed = soundscape.copy()
    holed[5 * RATE : 12 * RATE] = 0
    assert Finding.gaps in kinds(measured(holed)[0])
    few_steps = np.round(noise(0.5 * STEP) / STEP) * STEP
    (level,) = measured(few_steps)
    assert level.zeros > 0.5
    assert Finding.gaps not in kinds(level)


@pytest.mark.parametrize("edge_hz", [4_000, 8_000, 16_000])
def test_bandwidth_is_that_of_the_sound_and_not_of_the_sample_rate(edge_hz):
    spectrum = np.fft.rfft(noise(0.05, 10))
    spectrum[round(len(spectrum) * edge_hz / (RATE / 2)) :] = 0
    samples = np.round(np.fft.irfft(spectrum) / STEP) * STEP
    (level,) = measured(samples)
    assert level.bandwidth_hz == pytest.approx(edge_hz, abs=250)


def test_what_is_not_finite_counts_as_zero():
    samples = noise(0.1, 2)
    samples[:3] = np.nan, np.inf, 1e30
    (level,) = measured(samples)
    assert level.peak < 1
    assert level.zeros == 3 / len(samples)


@pytest.mark.parametrize("rate", [100, 1_000, 8_000, 44_100, 192_000])
def test_any_sample_rate_is_measured(rate):
    (level,) = measured(noise(0.1, 2), rate=rate)
    assert level.rms_dbfs == pytest.approx(-20, abs=0.1)
    assert level.bandwidth_hz == rate // 2


def test_a_channel_that_appears_later_is_measured():
    meter = LevelMeter()
    meter.add(np.ones((10, 1), np.float32), RATE, STEP)
    meter.add(np.zeros((10, 2), np.float32), 44_100, STEP)
    assert [level.dc for level in meter.levels()] == [0.5, 0.0]
    assert not LevelMeter().levels()


def test_loudest_is_the_first_of_equally_loud_ones(soundscape):
    assert loudest(measured(soundscape, soundscape)) == 0
    assert loudest(measured(0.5 * soundscape, soundscape, 0.98 * soundscape)) == 1


def test_loudest_takes_least_harm_where_all_have_some(soundscape):
    assert loudest(measured(np.zeros(len(soundscape)), noise(0.3), soundscape + 0.1)) == 2
    assert loudest(measured(np.zeros(RATE), np.full(RATE, 0.5))) == 0


def test_a_shifted_microphone_is_louder_than_dead_ones(soundscape):
    levels = measured(noise(1e-4), soundscape + 0.1, noise(1e-4))
    assert loudest(levels) == 1
    assert [level.has_sound for level in levels] == [False, True, False]
    hiss = noise(0.1 * float(soundscape.std()))  # 20 dB below: its microphone has come off, its recorder has not
    assert loudest(measured(hiss, soundscape + 0.1)) == 1


def test_a_knock_makes_no_channel_the_loudest(soundscape):
    knocked = 0.5 * soundscape
    knocked[RATE : RATE + 2_000] += 0.9 * np.hanning(2_000).astype(np.float32)
    assert loudest(measured(knocked, soundscape)) == 1
