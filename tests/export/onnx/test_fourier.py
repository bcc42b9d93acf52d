import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.config import MelConfig
from birdinfer.export.onnx.fourier import fourier_tables, strided_length
from birdinfer.features import log_mel as mel


def power(frames, tables):
    """What a graph makes of frames [frames, n] with the tables: power in bands [frames, bands]."""
    n_steps, n_strided, width = tables.strided.shape
    columns = frames.reshape(len(frames), n_strided, n_steps).transpose(2, 0, 1)
    parts = (columns @ tables.strided).transpose(1, 2, 0).reshape(len(frames), width // 2, 2 * n_steps)
    squares = (parts @ tables.real) ** 2 + (parts @ tables.imaginary) ** 2
    return squares.reshape(len(frames), -1) @ tables.bank


@given(st.integers(32, 600), st.integers(0, 1_000))
def test_equals_the_fast_fourier_transform_at_any_even_length(half, seed):
    random = np.random.default_rng(seed)
    frames, window = random.normal(0, 0.3, (3, 2 * half)), random.uniform(0, 1 / half, 2 * half)
    bank = random.uniform(0, 1, (half + 1, 5)).astype(np.float32)
    wanted = np.abs(np.fft.rfft(frames * window)) ** 2 @ bank
    found = power(frames.astype(np.float32), fourier_tables(window.astype(np.float32), bank))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_full_scale_sine_on_a_bin_has_power_1_there_and_a_quarter_beside_it():
    config = MelConfig(n_fft=2_048)
    tables = fourier_tables(mel.hann_window(config), np.eye(1_025, dtype=np.float32))
    (found,) = power(np.sin(2 * np.pi * 100 * np.arange(2_048) / 2_048)[None].astype(np.float32), tables)
    np.testing.assert_allclose(found[98:103], [0, 0.25, 1, 0.25, 0], atol=1e-6)
    assert np.delete(found, range(98, 103)).max() < 1e-12


@pytest.mark.parametrize(("n_samples", "wanted"), [(2_048, 64), (1_024, 64), (62, 31), (90, 15)])
def test_the_transform_is_split_where_products_are_fewest(n_samples, wanted):
    assert strided_length(n_samples) == wanted


def test_the_tables_stay_small():
    config = MelConfig()
    tables = fourier_tables(mel.hann_window(config), mel.filterbank(config, 32_000))
    whole = 2 * 1_025 * 2_048
    assert sum(getattr(tables, name).size for name in ("strided", "real", "imaginary", "bank")) < whole / 10
