import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import SAMPLE_RATE, tone, write_sound

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.errors import AudioError
from birdinfer.windows import count_windows, cut_runs, end_seconds, read_window

SMALL = FrontEndConfig(
    AudioConfig(1_000), WindowConfig(1.0, 0.1), MelConfig(n_fft=64, hop_length=50, n_mels=8, f_max_hz=500)
)
"""Windows of 1,000 samples, margins of 32."""


@pytest.mark.parametrize(
    ("seconds", "n_windows"),
    [(59.999, 12), (60.0, 12), (60.001, 12), (60.49, 12), (60.5, 13), (4.99, 1), (5.4, 1), (0.2, 0)],
)
def test_pitfall_5_a_millisecond_more_or_less_gives_the_same_rows(seconds, n_windows):
    config = FrontEndConfig()
    assert count_windows(round(seconds * 32_000), config.window_samples, config.min_tail_samples) == n_windows


def test_ends_are_whole_seconds():
    assert end_seconds(3, WindowConfig()) == [5, 10, 15]


def split(wave, sizes):
    """The wave in blocks of the given sizes, again and again."""
    begin, index = 0, 0
    while begin < len(wave):
        yield wave[begin : begin + sizes[index % len(sizes)]]
        begin, index = begin + sizes[index % len(sizes)], index + 1


@settings(deadline=None)
@given(
    n_samples=st.integers(1, 9_000),
    sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=4),
    in_run=st.integers(1, 5),
)
def test_every_sample_is_in_its_window_whatever_the_blocks(n_samples, sizes, in_run):
    wave = np.arange(1, n_samples + 1, dtype=np.float32)
    runs = list(cut_runs(split(wave, sizes), in_run, SMALL))
    n_windows = max(1, count_windows(n_samples, 1_000, 100))
    assert [run.first for run in runs] == list(range(0, n_windows, in_run))
    assert sum(run.n_windows for run in runs) == n_windows
    margin = SMALL.margin_samples
    whole = np.concatenate([run.samples[margin:-margin] for run in runs])
    kept = min(n_samples, n_windows * 1_000)
    assert np.array_equal(whole[:kept], wave[:kept])
    assert not whole[kept:].any()
    for run in runs:
        assert len(run.samples) == run.n_windows * 1_000 + 2 * margin
        begin, end = run.first * 1_000, (run.first + run.n_windows) * 1_000
        if begin:
            assert np.array_equal(run.samples[:margin], wave[begin - margin : begin])
        right = wave[end : end + margin]
        assert np.array_equal(run.samples[len(run.samples) - margin :][: len(right)], right)


def test_a_files_ends_are_reflected():
    wave = np.arange(2_000, dtype=np.float32)
    (run,) = cut_runs([wave], 4, SMALL)
    assert np.array_equal(run.samples[:32], wave[32:0:-1])
    assert np.array_equal(run.samples[-32:], wave[-2:-34:-1])


@pytest.mark.parametrize("start_seconds", [0.0, 3.0, 7.5])
def test_training_hears_the_window_that_prediction_hears(tmp_path, start_seconds):
    config = FrontEndConfig()
    wave = tone(20.0)
    write_sound(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    begin = round(start_seconds * SAMPLE_RATE)
    read = read_window(tmp_path / "a.wav", start_seconds, config)
    shifted = np.concatenate([wave[max(0, begin - 1024) : begin], wave[begin : begin + 161_024]])
    np.testing.assert_allclose(read[1024 if begin == 0 else 0 :], shifted, atol=1e-6)


def test_a_short_clip_is_padded_with_zeros(tmp_path):
    write_sound(tmp_path / "a.wav", tone(0.2), SAMPLE_RATE)
    window = read_window(tmp_path / "a.wav", 0.0, FrontEndConfig())
    assert len(window) == 160_000 + 2_048
    assert not window[1024 + 6_400 :].any()


def test_a_window_past_the_end_is_refused(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1.0), SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"holds no sound at 3\.0 s"):
        read_window(tmp_path / "a.wav", 3.0, FrontEndConfig())
