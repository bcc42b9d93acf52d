import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clips import RATE, call

from birdinfer.training.augment.level import rms
from birdinfer.training.augment.vocoder import shift_pitch, stretch

N = RATE + 256
"""A second with its margins."""
RATES = [0.5, 0.9, 1.1, 2.0]
SEMITONES = [-12.0, -2.0, -0.3, 0.4, 1.0, 7.0]


def tone(hz, n=N, rate=RATE):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(n) / rate)).astype(np.float32)


def pitch_hz(samples, rate=RATE):
    """Of the loudest partial, from a spectrum 16 times as fine as the window's own."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return spectrum.argmax() * rate / (16 * len(samples))


def cents(hz, expected_hz):
    return 1200 * np.log2(hz / expected_hz)


def centre_of(samples):
    power = np.square(samples, dtype=np.float64)
    return (power * np.arange(len(samples))).sum() / power.sum()


class TestStretch:
    @pytest.mark.parametrize("rate", RATES)
    def test_keeps_pitch_level_and_length(self, rate):
        before = tone(1000.0)
        after = stretch(before, rate, RATE)
        assert after.dtype == np.float32
        assert after.shape == before.shape
        assert abs(cents(pitch_hz(after), 1000.0)) < 3
        assert rms(after) == pytest.approx(rms(before), rel=0.05)

    @pytest.mark.parametrize("rate", [0.8, 1.25])
    @pytest.mark.parametrize("place", [3000, 4127, 5000])
    def test_moves_a_click_away_from_the_middle_or_towards_it(self, rate, place):
        click = np.zeros(N, np.float32)
        click[place] = 1.0
        middle = (N - 1) / 2
        # Within a quarter of a frame: the vocoder knows no finer when.
        assert centre_of(stretch(click, rate, RATE)) == pytest.approx(middle + (place - middle) / rate, abs=64)

    @pytest.mark.parametrize("rate", [0.7, 1.4])
    def test_a_sweep_goes_by_at_the_rate(self, rate):
        clock = np.arange(N) / RATE
        sweep = (0.3 * np.sin(2 * np.pi * (500 * clock + 500 * clock**2))).astype(np.float32)  # 500 Hz + 1000 Hz/s
        after = stretch(sweep, rate, RATE)
        ends = pitch_hz(after[3000:4000]), pitch_hz(after[4500:5500])
        assert (ends[1] - ends[0]) / (1500 / RATE) == pytest.approx(1000 * rate, rel=0.1)

    def test_a_sweep_keeps_its_level(self):
        # Its partial wanders from bin to bin: bins that were turned each by itself would lose a third of it.
        clock = np.arange(N) / RATE
        sweep = (0.3 * np.sin(2 * np.pi * (300 * clock + 1500 * clock**2))).astype(np.float32)
        assert rms(stretch(sweep, 0.9, RATE)) == pytest.approx(rms(sweep), rel=0.08)

    def test_beyond_the_ends_it_is_reflected(self):
        swelling = tone(1000.0) * np.linspace(0, 1, N, dtype=np.float32)
        faster = stretch(swelling, 2.0, RATE)
        quarters = [rms(part) for part in np.split(faster, 4)]
        assert quarters[0] == pytest.approx(quarters[1], rel=0.1)
        assert quarters[3] == pytest.approx(quarters[2], rel=0.1)
        assert quarters[3] > 2 * quarters[0]


class TestShiftPitch:
    @pytest.mark.parametrize("semitones", SEMITONES)
    def test_a_tone_comes_out_where_it_should(self, semitones):
        before = tone(1000.0)
        after = shift_pitch(before, semitones, RATE)
        assert after.dtype == np.float32
        assert after.shape == before.shape
        assert abs(cents(pitch_hz(after), 1000.0 * 2 ** (semitones / 12))) < 3
        assert rms(after) == pytest.approx(rms(before), rel=0.05)

    @pytest.mark.parametrize("semitones", [-3.0, 3.0])
    def test_keeps_when_things_happen(self, semitones):
        click = np.zeros(N, np.float32)
        click[2500] = 1.0
        assert centre_of(shift_pitch(click, semitones, RATE)) == pytest.approx(2500, abs=64)

    @pytest.mark.parametrize("semitones", SEMITONES)
    def test_margins_sound_as_the_window_does(self, semitones):
        after = shift_pitch(tone(1000.0), semitones, RATE)
        assert rms(after[:256]) == pytest.approx(rms(after), rel=0.25)
        assert rms(after[-256:]) == pytest.approx(rms(after), rel=0.25)

    @pytest.mark.parametrize("semitones", SEMITONES)
    def test_no_click_at_the_ends(self, semitones):
        # A resampler takes what lies beyond for silence; a level that continues shows it at once.
        level = np.full(N, 0.3, np.float32)
        np.testing.assert_allclose(shift_pitch(level, semitones, RATE), level, rtol=1e-4)

    def test_what_would_leave_the_spectrum_is_lost_instead_of_folded_back(self):
        assert rms(shift_pitch(tone(3000.0), 12.0, RATE)[256:-256]) < 0.01 * rms(tone(3000.0))


EITHER = pytest.mark.parametrize(
    "change", [stretch, lambda x, amount, rate: shift_pitch(x, 12 * np.log2(amount), rate)]
)


@EITHER
class TestBoth:
    def test_changing_nothing_gives_the_sound_back(self, change):
        samples = call("0012", 1.0, seed=0)
        np.testing.assert_allclose(change(samples, 1.0, RATE), samples, atol=1e-4 if change is stretch else 2e-3)

    def test_silence_stays_silence(self, change):
        assert not change(np.zeros(N, np.float32), 1.1, RATE).any()

    @pytest.mark.parametrize("n_samples", [1, 2, 3, 100, 801, 8001])
    def test_any_length_will_do(self, change, n_samples):
        samples = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
        changed = change(samples, 1.3, RATE)
        assert changed.shape == (n_samples,)
        assert np.isfinite(changed).all()

    @pytest.mark.parametrize("sample_rate", [1_000, 22_050, 32_000])
    def test_any_rate_will_do(self, change, sample_rate):
        hz = sample_rate / 10
        changed = change(tone(hz, n=sample_rate, rate=sample_rate), 0.9, sample_rate)
        wanted = hz if change is stretch else 0.9 * hz
        assert abs(cents(pitch_hz(changed, sample_rate), wanted)) < 5

    @settings(max_examples=15)
    @given(st.integers(-40, 4), st.floats(0.5, 2.0))
    def test_a_sound_that_swells_out_of_nothing_never_bursts(self, change, exponent, amount):
        # Near the least float32 a phase has no digits left; turned by it, what follows would grow frame by frame.
        samples = call("0012", 1.0, seed=0) * np.logspace(exponent, -1, RATE).astype(np.float32)
        changed = change(samples, amount, RATE)
        assert np.abs(changed).max() <= 3 * np.abs(samples).max()
