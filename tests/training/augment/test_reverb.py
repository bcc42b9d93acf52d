import numpy as np
import pytest
from tiny_clips import RATE, call

from birdinfer.training.augment.level import rms
from birdinfer.training.augment.waveform import impulse_response, reverberate


def decay_seconds(response, rate):
    """T60 by Schroeder's backward integration (1965), from the line between -5 and -35 dB."""
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    level_db = 10 * np.log10(left / left[0])
    place = np.flatnonzero((level_db < -5) & (level_db > -35))
    return -60 / np.polyfit(place / rate, level_db[place], 1)[0]


def echo_of(seconds, seed=0, n_samples=RATE * 2):
    return impulse_response(n_samples, seconds, RATE, np.random.default_rng(seed))


class TestImpulseResponse:
    @pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8])
    def test_falls_by_60_db_in_the_time_asked_for(self, seconds):
        assert decay_seconds(echo_of(seconds), RATE) == pytest.approx(seconds, rel=0.1)

    def test_is_no_longer_than_can_be_used(self):
        assert len(echo_of(5.0, n_samples=1000)) == 1000
        assert len(echo_of(0.1)) == 0.1 * RATE

    def test_another_generator_is_another_echo(self):
        np.testing.assert_array_equal(echo_of(0.2, seed=1), echo_of(0.2, seed=1))
        assert not np.array_equal(echo_of(0.2, seed=1), echo_of(0.2, seed=2))


class TestReverberate:
    def test_is_the_convolution(self):
        samples, response = call("0012", 0.1, 0), echo_of(0.05)
        expected = np.convolve(samples.astype(np.float64), response)[: len(samples)]
        np.testing.assert_allclose(
            reverberate(samples, response, 1.0), expected * rms(samples) / rms(expected), atol=1e-5
        )

    def test_an_echo_decays_as_the_response_does(self):
        click = np.zeros(RATE, np.float32)
        click[100] = 1.0
        echo = reverberate(click, echo_of(0.4), 1.0)
        assert decay_seconds(echo[101:], RATE) == pytest.approx(0.4, rel=0.1)

    def test_nothing_sounds_before_the_onset_and_the_onset_stays(self):
        click = np.zeros(RATE, np.float32)
        click[3000] = 1.0
        output = np.abs(reverberate(click, echo_of(0.5), 0.3))
        assert output[:3000].max() < 1e-6
        assert output.argmax() == 3000

    @pytest.mark.parametrize("wet", [0.0, 0.1, 0.5, 0.9, 1.0])
    def test_the_level_stays_and_the_echo_has_its_share(self, wet):
        noise = np.random.default_rng(5).normal(0, 0.1, 2 * RATE).astype(np.float32)
        output = reverberate(noise, echo_of(0.3), wet)
        assert output.dtype == np.float32
        assert rms(output) == pytest.approx(rms(noise), rel=1e-4)
        dry_share = np.dot(output, noise).item() / np.dot(noise, noise).item()
        assert dry_share == pytest.approx((1 - wet) ** 0.5, abs=0.05)

    def test_dry_is_what_it_was(self):
        samples = call("0012", 0.1, 0)
        np.testing.assert_allclose(reverberate(samples, echo_of(0.3), 0.0), samples, rtol=1e-6)

    def test_silence_stays_silence(self):
        silence = np.zeros(1000, np.float32)
        assert reverberate(silence, echo_of(0.1), 0.5) is silence

    @pytest.mark.parametrize("n_samples", [1, 2, 3, 255, 256, 257])
    def test_any_length_will_do(self, n_samples):
        samples = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
        assert reverberate(samples, echo_of(0.1, n_samples=n_samples), 0.5).shape == (n_samples,)

    def test_an_echo_that_would_come_after_the_end_leaves_the_sound(self):
        late = np.zeros(100, np.float32)
        late[-1] = 1.0
        assert reverberate(late, echo_of(0.1), 0.5)[-1] == pytest.approx(1.0)
