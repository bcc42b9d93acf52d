import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from birdinfer.detections.spectrogram import draw_spectrogram, khz_marks


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()  # checks the chunks' sums
        return np.asarray(image.convert("L"))


def tone(hz, seconds=3.0, rate=32_000):
    clock = np.arange(round(seconds * rate)) / rate
    return (0.1 * np.sin(2 * np.pi * hz * clock) + np.random.default_rng(0).normal(0, 1e-3, len(clock))).astype(
        np.float32
    )


def test_draw_spectrogram_is_black_where_the_tone_is():
    picture = pixels(draw_spectrogram(tone(4_000), 32_000))
    assert picture.shape == (112, 192)
    heights = dict(khz_marks(32_000))
    darkest = np.argmin(picture.mean(axis=1))
    assert 1 - darkest / 112 == pytest.approx(heights[4], abs=0.02)
    assert picture[darkest].mean() < 30
    assert np.median(picture) > 220


def test_draw_spectrogram_shows_when_the_tone_is():
    samples = tone(4_000, seconds=4.0)
    samples[: 3 * 32_000] *= 0
    picture = pixels(draw_spectrogram(samples, 32_000))
    columns = picture.min(axis=0)
    assert columns[:180].min() > 128
    assert columns[200:].max() < 60


@given(st.integers(1, 9_000), st.sampled_from([8_000, 22_050, 32_000, 48_000]))
def test_draw_spectrogram_takes_any_length(n_samples, rate):
    picture = pixels(draw_spectrogram(np.zeros(n_samples, np.float32), rate))
    assert picture.shape == (112, max(1, n_samples // (rate // 64)))
    assert (picture == 255).all()  # silence is no noise to be stretched


def test_khz_marks_rise_within_the_picture():
    for rate in (8_000, 32_000, 48_000):
        heights = [height for _, height in khz_marks(rate)]
        assert heights == sorted(heights)
        assert 0 < min(heights) < max(heights) < 1
    assert [khz for khz, _ in khz_marks(8_000)] == [1, 2]
