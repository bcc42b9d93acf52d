import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.features import log_mel as mel
from birdinfer.features import normalize as mel_input


def small(n_mels=16, n_frames=20, **made):
    """A front end of so many bands and frames."""
    audio, window = AudioConfig(8_000), WindowConfig(n_frames * 80 / 8_000, 0.01)
    return FrontEndConfig(audio, window, MelConfig(128, 80, n_mels, 0.0, 4_000.0, **made))


def decibels(*shape, seed=2):
    return np.random.default_rng(seed).normal(-60, 12, shape).astype(np.float32)


class TestNormalise:
    def test_zscore_gives_mean_0_and_spread_1(self):
        found = mel_input.normalise(decibels(3, 16, 20), MelConfig(normalisation="zscore"))
        np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(found.std(axis=(1, 2)), 1, atol=1e-5)

    @pytest.mark.parametrize("shape", [(16, 20), (64, 157), (128, 320), (224, 512)])
    @pytest.mark.parametrize("kind", ["zscore", "minmax", "frequency"])
    def test_pitfall_6_a_window_without_any_spread_becomes_zeros(self, kind, shape):
        """Not what the rounding of its mean leaves, divided by itself: 0.43 everywhere at -77.7 dB."""
        levels = np.concatenate([[-77.7, -100.0, -80.0, 0.0], np.random.default_rng(0).uniform(-120, -20, 16)])
        silence = np.broadcast_to(levels[:, None, None], (len(levels), *shape)).astype(np.float32)
        found = mel_input.normalise(silence, MelConfig(normalisation=kind))
        np.testing.assert_allclose(found, 0, atol=1e-4 if kind == "frequency" else 0)

    def test_the_faintest_spread_that_is_more_than_rounding_is_kept(self):
        tremble = -80 + np.random.default_rng(0).normal(0, 3e-4, (1, 128, 320))
        found = mel_input.normalise(tremble.astype(np.float32), MelConfig(normalisation="zscore"))
        assert found.std() == pytest.approx(3e-4 / (3e-4 + mel_input.NORMALISATION_EPSILON), rel=0.01)

    def test_minmax_gives_0_to_1(self):
        found = mel_input.normalise(decibels(3, 16, 20), MelConfig(normalisation="minmax"))
        np.testing.assert_allclose((found.min(axis=(1, 2)), found.max(axis=(1, 2))), ([0] * 3, [1] * 3), atol=1e-5)

    def test_frequency_gives_each_band_mean_0_and_spread_1_over_time(self):
        loudness = np.linspace(-90, -20, 16)[:, None].astype(np.float32)
        found = mel_input.normalise(decibels(3, 16, 200) / 5 + loudness, MelConfig(normalisation="frequency"))
        np.testing.assert_allclose(found.mean(axis=2), 0, atol=1e-5)
        np.testing.assert_allclose(found.std(axis=2), 1, atol=1e-5)

    @pytest.mark.parametrize(("compression", "spread"), [("log", 1.0), ("pcen", 0.0747)])
    def test_frequency_does_not_amplify_rounding(self, compression, spread):
        """A band over the cut-off of an MP3: what trembles by a thousandth must not be stretched to a spread of 1."""
        config = MelConfig(compression=compression, normalisation="frequency")
        assert mel_input.least_band_spread(config) == pytest.approx(spread, abs=1e-4)
        tremble = spread * 1e-3 * np.random.default_rng(0).normal(0, 1, (1, 4, 500)).astype(np.float32)
        assert mel_input.normalise(tremble, config).std() == pytest.approx(1e-3, rel=0.1)

    def test_none_leaves_every_bit(self):
        values = decibels(2, 16, 20)
        assert np.array_equal(mel_input.normalise(values.copy(), MelConfig(normalisation="none")), values)

    @given(
        st.permutations(range(4)),
        st.sampled_from(["zscore", "minmax", "frequency"]),
        st.sampled_from(["log", "pcen", "log_pcen"]),
        st.sampled_from([(0, 0), (24, 16)]),
    )
    def test_pitfall_1_a_windows_input_does_not_depend_on_its_neighbours(self, order, kind, compression, resize):
        """A loud neighbour must not move a quiet window, as top_db over a batch does."""
        windows = decibels(4, 16, 20) + np.array([0, 15, 30, -30], np.float32)[:, None, None]
        config = small(normalisation=kind, compression=compression, resize=resize)
        alone = np.concatenate([mel_input.to_input(window[None].copy(), config) for window in windows])
        shuffled = mel_input.to_input(windows[list(order)], config)
        assert np.array_equal(shuffled, alone[list(order)])


class TestResize:
    @given(st.integers(8, 80), st.integers(10, 80), st.integers(16, 90), st.integers(16, 90))
    def test_equals_torchs_bilinear_interpolation(self, n_mels, n_frames, rows, columns):
        torch = pytest.importorskip("torch")
        values = np.random.default_rng(n_mels).normal(0, 1, (2, n_mels, n_frames)).astype(np.float32)
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(values)[:, None], size=(rows, columns), mode="bilinear", align_corners=False
        )[:, 0]
        found = mel_input.resize(values, small(n_mels, n_frames, resize=(rows, columns)))
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)

    def test_the_same_size_changes_nothing(self):
        values = decibels(2, 16, 20)
        np.testing.assert_array_equal(mel_input.resize(values, small(resize=(16, 20))), values)

    def test_no_size_returns_the_same_array(self):
        values = decibels(2, 16, 20)
        assert mel_input.resize(values, small()) is values

    def test_twice_the_size_lies_between_neighbours_and_repeats_the_edge(self):
        picture = np.tile(np.arange(16, dtype=np.float32)[:, None], (1, 20))
        doubled = mel_input.resize(picture[None], small(resize=(32, 20)))[0, :, 0]
        np.testing.assert_allclose(doubled[:5], [0, 0.25, 0.75, 1.25, 1.75], atol=1e-6)
        np.testing.assert_allclose(doubled[-2:], [14.75, 15], atol=1e-6)

    @given(st.integers(10, 200), st.integers(16, 200))
    def test_every_pixel_is_a_mean(self, n_frames, columns):
        """So no picture leaves the range that it had."""
        weights = mel_input.stretch(small(n_frames=n_frames, resize=(16, columns))).columns
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)

    def test_no_window_makes_no_picture(self):
        assert mel_input.resize(decibels(0, 16, 20), small(resize=(32, 48))).shape == (0, 32, 48)

    def test_the_shared_matrices_cannot_be_written_to(self):
        with pytest.raises(ValueError, match="read-only"):
            mel_input.stretch(small(resize=(32, 32))).rows[0, 0] = 1


@pytest.mark.parametrize("resize", [(0, 0), (32, 48)])
def test_normalisation_comes_before_the_stretch(resize):
    """And the result has one channel and the layout that engines need."""
    values, config = decibels(3, 16, 20), small(normalisation="minmax", resize=resize)
    found = mel_input.to_input(values.copy(), config)
    assert found.shape == (3, 1, *config.input_shape)
    assert found.flags.c_contiguous
    assert found.dtype == np.float32
    assert np.array_equal(found[:, 0], mel_input.resize(mel_input.normalise(values, config.mel), config))


class TestBothChannels:
    """``log_pcen``: decibels first, PCEN second, each what it is alone."""

    @pytest.mark.parametrize("normalisation", ["zscore", "minmax", "frequency", "none"])
    def test_are_those_of_the_front_ends_apart(self, normalisation):
        wave = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
        wave[:9_000] *= 3e-3  # about as loud as the floor
        made = {"normalisation": normalisation, "resize": (24, 40), "n_fft": 512, "n_mels": 16, "f_max_hz": 4_000.0}
        both, log, own = (
            mel.windows_to_input(wave, 2, input_of(compression=kind, **made), 8_000)
            for kind in ("log_pcen", "log", "pcen")
        )
        assert both.shape == (2, 2, 24, 40)
        assert np.array_equal(both[:, 1:], own)
        np.testing.assert_allclose(both[:, :1], log, atol=1e-4)

    def test_their_floors_are_their_own(self):
        silence = np.zeros(8_000 + 512, np.float32)
        config = input_of(compression="log_pcen", normalisation="none", n_fft=512, floor_db=-77.0, f_max_hz=4_000.0)
        log, own = mel.windows_to_input(silence, 1, config)[0]
        np.testing.assert_allclose(log, -77.0, atol=1e-4)
        np.testing.assert_allclose(own, 0.0, atol=1e-6)


def input_of(**made):
    return FrontEndConfig(AudioConfig(8_000), WindowConfig(1.0), MelConfig(**made))
