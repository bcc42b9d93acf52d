import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_clips import RATE, TINY_FRONTEND

from birdinfer.config import WaveformConfig
from birdinfer.training.augment import WaveformAugment, find_background
from birdinfer.training.augment import waveform as module
from birdinfer.training.augment.level import LOUDEST_RMS, rms
from birdinfer.training.recipe.schema import AugmentConfig

STEPS = ["stretch", "pitch", "roll", "reverb", "white_noise", "pink_noise", "background", "gain"]
ALL = {f"{step}_probability": 1.0 for step in STEPS}


def rng(*seed):
    return np.random.default_rng(seed or 0)


def decibels(ratio):
    return 20 * np.log10(ratio)


@pytest.fixture(scope="module")
def background(background_dir):
    return find_background(str(background_dir), background_dir).files


@pytest.mark.parametrize("step", STEPS)
class TestEveryStep:
    @pytest.fixture
    def augment(self, step, only, background):
        return WaveformAugment(only(**{f"{step}_probability": 1.0}), TINY_FRONTEND, background)

    def test_changes_the_sound_and_nothing_about_its_form(self, augment, samples):
        before = samples.copy()
        after = augment(samples, rng(1))
        np.testing.assert_array_equal(samples, before)
        assert not np.array_equal(after, samples)
        assert after.dtype == np.float32
        assert after.shape == samples.shape

    def test_same_generator_same_sound(self, augment, samples):
        once, again, other = (augment(samples, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(once, again)
        assert not np.array_equal(once, other)

    def test_happens_as_often_as_asked_for(self, step, only, background, samples):
        augment = WaveformAugment(only(**{f"{step}_probability": 0.5}), TINY_FRONTEND, background)
        untouched = sum(augment(samples, rng(seed)) is samples for seed in range(40))
        assert 10 <= untouched <= 30

    def test_silence_stays_silence(self, augment):
        silence = np.zeros(9000, np.float32)
        np.testing.assert_array_equal(augment(silence, rng()), silence)


class TestWhatItDoes:
    def test_off_is_off(self, only, samples, background):
        assert WaveformAugment(only(), TINY_FRONTEND, background)(samples, rng()) is samples

    def test_gain_stays_in_range(self, only, samples):
        augment = WaveformAugment(only(gain_probability=1.0, gain_db=6.0), TINY_FRONTEND)
        gains = [decibels(rms(augment(samples, rng(seed))) / rms(samples)) for seed in range(50)]
        assert -6.001 < min(gains) < -3
        assert 3 < max(gains) < 6.001

    def test_roll_keeps_every_sample(self, only, samples):
        rolled = WaveformAugment(only(roll_probability=1.0), TINY_FRONTEND)(samples, rng())
        np.testing.assert_array_equal(np.sort(rolled), np.sort(samples))

    @pytest.mark.parametrize("noise", ["white_noise", "pink_noise"])
    def test_noise_at_the_ratio_asked_for(self, noise, only, samples):
        config = only(**{f"{noise}_probability": 1.0}, noise_snr_db=(10.0, 10.0))
        added = WaveformAugment(config, TINY_FRONTEND)(samples, rng()) - samples
        assert decibels(rms(samples) / rms(added)) == pytest.approx(10.0, abs=0.01)

    def test_background_at_the_ratio_asked_for(self, only, samples, background):
        config = only(background_probability=1.0, background_snr_db=(10.0, 10.0))
        added = WaveformAugment(config, TINY_FRONTEND, background)(samples, rng()) - samples
        assert decibels(rms(samples) / rms(added)) == pytest.approx(10.0, abs=0.01)

    def test_without_files_there_is_no_background(self, only, samples):
        assert WaveformAugment(only(background_probability=1.0), TINY_FRONTEND)(samples, rng()) is samples

    def test_background_that_cannot_be_decoded_adds_nothing(self, only, samples, tmp_path):
        (tmp_path / "broken.ogg").write_text("no sound")
        augment = WaveformAugment(only(background_probability=1.0), TINY_FRONTEND, [tmp_path / "broken.ogg"])
        np.testing.assert_array_equal(augment(samples, rng()), samples)

    def test_a_model_that_takes_waveforms_gets_its_own_length(self, only, background):
        input_config = WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)
        window = rng(1).normal(0, 0.1, input_config.window_samples).astype(np.float32)
        assert WaveformAugment(only(**ALL), input_config, background)(window, rng()).shape == window.shape


class TestWhatIsDrawn:
    """Ranges of the recipe reach the functions that know what to do with them, even and within."""

    @pytest.fixture
    def drawn(self, monkeypatch, samples):
        def draw(name, config):
            calls = []
            monkeypatch.setattr(module, name, lambda *given: calls.append(given) or samples)
            augment = WaveformAugment(config, TINY_FRONTEND)
            for seed in range(60):
                augment(samples, rng(seed))
            return calls

        return draw

    @pytest.mark.parametrize(
        ("name", "place", "keys", "low", "high"),
        [
            ("stretch", 1, {"stretch_probability": 1.0, "stretch_rate": (0.8, 1.5)}, 0.8, 1.5),
            ("shift_pitch", 1, {"pitch_probability": 1.0, "pitch_semitones": 3.0}, -3.0, 3.0),
            ("impulse_response", 1, {"reverb_probability": 1.0, "reverb_seconds": (0.2, 0.6)}, 0.2, 0.6),
            ("reverberate", 2, {"reverb_probability": 1.0, "reverb_wet": (0.3, 0.9)}, 0.3, 0.9),
            ("mix_at_snr", 2, {"pink_noise_probability": 1.0, "noise_snr_db": (-5.0, 20.0)}, -5.0, 20.0),
        ],
    )
    def test_evenly_from_the_range(self, drawn, only, name, place, keys, low, high):
        values = np.array([given[place] for given in drawn(name, only(**keys))])
        assert low <= values.min() < low + 0.15 * (high - low)
        assert high - 0.15 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))

    def test_at_the_rate_of_the_input(self, drawn, only):
        assert {given[2] for given in drawn("stretch", only(stretch_probability=1.0))} == {RATE}

    def test_the_order_is_that_of_a_sounds_way(self, monkeypatch, only, samples, background):
        order = []
        for name in ("stretch", "shift_pitch", "reverberate", "white_noise", "pink_noise", "random_background"):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *given, n=name, f=original: (order.append(n), f(*given))[1])
        WaveformAugment(only(**ALL), TINY_FRONTEND, background)(samples, rng())
        assert order == ["stretch", "shift_pitch", "reverberate", "white_noise", "pink_noise", "random_background"]


EXTREME = AugmentConfig(
    **ALL,
    gain_db=40.0,
    pitch_semitones=12.0,
    stretch_rate=(0.5, 2.0),
    reverb_seconds=(0.01, 5.0),
    reverb_wet=(0.0, 1.0),
    noise_snr_db=(-30.0, 80.0),
    background_snr_db=(-30.0, 80.0),
)


@given(st.floats(-44, 38), st.integers(1, 3000), st.integers(0, 1000), st.booleans())
def test_finite_sound_stays_finite_whatever_is_asked_for(exponent, n_samples, seed, is_click):
    shape = np.eye(1, n_samples)[0] if is_click else rng(seed).uniform(-1, 1, n_samples)
    samples = (shape * 10.0**exponent).astype(np.float32)
    after = WaveformAugment(EXTREME, TINY_FRONTEND)(samples, rng(seed))
    assert after.shape == samples.shape
    assert after.dtype == np.float32
    assert np.isfinite(after).all()


def test_damage_is_left_as_it_is(samples):
    damaged = samples * np.float32(100 * LOUDEST_RMS)
    assert WaveformAugment(EXTREME, TINY_FRONTEND)(damaged, rng()) is damaged


def test_loud_sound_is_not_clipped(only, samples):
    augment = WaveformAugment(only(gain_probability=1.0, gain_db=40.0), TINY_FRONTEND)
    louder = next(after for after in (augment(samples, rng(seed)) for seed in range(20)) if np.abs(after).max() > 5)
    np.testing.assert_allclose(louder / louder[0], samples / samples[0], rtol=1e-5)
