import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_clips import RATE, call

from birdinfer.training.augment.level import rms
from birdinfer.training.augment.waveform import mix_at_snr, pink_noise, white_noise


def decibels(ratio):
    return 20 * np.log10(ratio)


def slope_db_per_octave(noise, rate, low_hz, high_hz):
    """Of the spectrum's power density."""
    hz = np.fft.rfftfreq(len(noise), 1 / rate)
    within = (hz >= low_hz) & (hz < high_hz)
    octave = np.floor(np.log2(hz[within] / low_hz))
    power = np.square(np.abs(np.fft.rfft(noise)))[within]
    means = [10 * np.log10(power[octave == index].mean()) for index in np.unique(octave)]
    return np.polyfit(np.unique(octave), means, 1)[0]


class TestMixAtSnr:
    @given(st.floats(-30, 80), st.floats(1e-4, 1e3), st.floats(1e-4, 1e3))
    def test_lies_at_the_ratio_asked_for(self, snr_db, signal_level, noise_level):
        rng = np.random.default_rng(0)
        signal, noise = (level * rng.standard_normal(2000) for level in (signal_level, noise_level))
        # In double, where what was added is the difference.
        added = mix_at_snr(signal, noise, snr_db) - signal
        assert decibels(rms(signal) / rms(added)) == pytest.approx(snr_db, abs=1e-3)

    @pytest.mark.parametrize("silent", ["signal", "noise"])
    def test_silence_has_no_ratio(self, silent):
        tone, zeros = call("0012", 0.1, 0), np.zeros(RATE // 10, np.float32)
        signal, noise = (zeros, tone) if silent == "signal" else (tone, zeros)
        assert mix_at_snr(signal, noise, 3.0) is signal

    def test_a_damaged_noise_is_left_out(self):
        tone = call("0012", 0.1, 0)
        assert mix_at_snr(tone, np.full_like(tone, 1e30), 3.0) is tone


@pytest.mark.parametrize("n_samples", [1, 2, 3, 8_000, 8_001])
@pytest.mark.parametrize("make", [white_noise, lambda n, rng: pink_noise(n, RATE, rng)], ids=["white", "pink"])
class TestEveryNoise:
    def test_is_as_long_as_asked_for(self, make, n_samples):
        noise = make(n_samples, np.random.default_rng(0))
        assert noise.shape == (n_samples,)
        assert noise.dtype == np.float32
        assert np.isfinite(noise).all()

    def test_same_generator_same_noise(self, make, n_samples):
        once, again = (make(n_samples, np.random.default_rng(1)) for _ in range(2))
        np.testing.assert_array_equal(once, again)


def test_white_noise_is_as_loud_in_every_hz():
    noise = white_noise(32_000, np.random.default_rng(0))
    assert slope_db_per_octave(noise, RATE, 50, 4_000) == pytest.approx(0.0, abs=0.3)


def test_pink_noise_falls_by_3_db_an_octave():
    noise = pink_noise(32_000, RATE, np.random.default_rng(0))
    assert slope_db_per_octave(noise, RATE, 50, 4_000) == pytest.approx(-10 * np.log10(2), abs=0.3)


def test_pink_noise_has_little_power_below_20_hz():
    noise = pink_noise(80_000, RATE, np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise)))
    assert power[0] < 1e-6 * power.sum()
    assert power[: 20 * 10].sum() < 0.25 * power.sum()
