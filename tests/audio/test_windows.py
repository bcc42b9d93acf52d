import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio.windows import (
    WindowCutter,
    count_windows,
    cut_batches,
    end_seconds,
    make_grid,
    read_window,
    window_of,
)
from birdinfer.config import AggregationConfig, AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import AudioError, ConfigError

SMALL = FrontEndConfig(
    AudioConfig(1_000), WindowConfig(1.0, 0.1), MelConfig(n_fft=64, hop_length=50, n_mels=8, f_max_hz=500)
)
"""Windows of 1,000 samples, margins of 32."""
SIDE_BY_SIDE = make_grid(SMALL, AggregationConfig(), SMALL.window)


def placed(window_seconds, stride_seconds=None, row_seconds=5.0, min_tail_seconds=0.1, scored_seconds=None):
    """At 1,000 Hz with margins of 32 samples."""
    input_config = FrontEndConfig(SMALL.audio, WindowConfig(window_seconds, 0.1), SMALL.mel)
    aggregation = AggregationConfig(stride_seconds=stride_seconds, scored_seconds=scored_seconds)
    return make_grid(input_config, aggregation, WindowConfig(row_seconds, min_tail_seconds))


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


@given(
    n_samples=st.integers(1, 9_000),
    sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=4),
    in_run=st.integers(1, 5),
)
def test_every_sample_is_in_its_window_whatever_the_blocks(n_samples, sizes, in_run):
    wave = np.arange(1, n_samples + 1, dtype=np.float32)
    runs = list(cut_batches(split(wave, sizes), in_run, SIDE_BY_SIDE))
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
    (run,) = cut_batches([wave], 4, SIDE_BY_SIDE)
    assert np.array_equal(run.samples[:32], wave[32:0:-1])
    assert np.array_equal(run.samples[-32:], wave[-2:-34:-1])


@pytest.mark.parametrize("start_seconds", [0.0, 3.0, 7.5])
def test_training_takes_the_same_window_as_prediction(tmp_path, start_seconds):
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


HEARINGS = [SMALL, WaveformConfig(SMALL.audio, SMALL.window)]


@pytest.mark.parametrize("input_config", HEARINGS)
@given(n_samples=st.integers(1, 4_000), window=st.integers(0, 3))
def test_sound_in_memory_is_cut_as_prediction_cuts_it(input_config, n_samples, window):
    wave = np.arange(1, n_samples + 1, dtype=np.float32)
    runs = list(cut_batches([wave], 1, make_grid(input_config, AggregationConfig(), input_config.window)))
    window = min(window, len(runs) - 1)
    assert np.array_equal(window_of(wave, window * 1_000, input_config), runs[window].samples)


@pytest.mark.parametrize("input_config", HEARINGS)
def test_a_file_and_its_sound_in_memory_give_the_same_windows(tmp_path, input_config):
    wave = tone(2.51, 1_000)
    write_sound(tmp_path / "a.wav", wave, 1_000, subtype="FLOAT")
    for start in (0, 1, 31, 32, 33, 700, 1_500, 1_510, 1_511, 2_000, 2_509):
        read = read_window(tmp_path / "a.wav", start / 1_000, input_config)
        assert len(read) == 1_000 + 2 * input_config.margin_samples
        assert np.array_equal(read, window_of(wave, start, input_config)), start


@pytest.mark.parametrize("end", [1, 40, 900, 1_020, 1_700, 9_000])
def test_a_file_can_be_taken_to_end_early(tmp_path, end):
    wave = tone(2.5, 1_000)
    write_sound(tmp_path / "a.wav", wave, 1_000, subtype="FLOAT")
    for start in range(0, min(end, len(wave)), 317):
        read = read_window(tmp_path / "a.wav", start / 1_000, SMALL, until_seconds=end / 1_000)
        assert np.array_equal(read, window_of(wave[:end], start, SMALL))
    with pytest.raises(AudioError, match="holds no sound"):
        read_window(tmp_path / "a.wav", end / 1_000, SMALL, until_seconds=end / 1_000)


def test_sound_in_memory_that_ends_before_the_window_is_refused():
    with pytest.raises(AudioError, match=r"^XC1: holds no sound at 2\.0 s$"):
        window_of(np.ones(2_000, np.float32), 2_000, SMALL, "XC1")


@pytest.mark.parametrize(
    ("window_seconds", "stride_seconds", "stride", "core", "context", "windows_of_12_rows"),
    [
        (5, None, 5_000, 5_000, 0, 12),  # side by side
        (5, 2.5, 2_500, 5_000, 0, 23),  # half a window shared
        (3, None, 2_500, 3_000, 0, 24),  # shorter than a row: two in each
        (10, 10, 10_000, 10_000, 0, 6),
        (20, 20, 20_000, 20_000, 0, 3),
        (20, None, 5_000, 5_000, 7_500, 12),  # each centred on its row
        (20, 10, 10_000, 10_000, 5_000, 6),
        (10, 2.5, 2_500, 5_000, 2_500, 23),
    ],
)
def test_pitfall_5_windows_lie_symmetrically_on_their_rows(
    window_seconds, stride_seconds, stride, core, context, windows_of_12_rows
):
    grid = placed(window_seconds, stride_seconds)
    assert (grid.stride_samples, grid.center_samples, grid.context_samples) == (stride, core, context)
    assert grid.n_windows(12) == windows_of_12_rows
    assert [grid.begin(window) for window in (0, 3)] == [-context, 3 * stride - context]


@given(
    window_seconds=st.floats(0.1, 60),
    row_seconds=st.floats(0.1, 60),
    share=st.none() | st.floats(0.1, 1),
    n_rows=st.integers(1, 50),
)
def test_the_cores_cover_all_rows_and_no_window_is_idle(window_seconds, row_seconds, share, n_rows):
    stride_seconds = None if share is None else max(0.1, share * window_seconds)
    grid = placed(window_seconds, stride_seconds, row_seconds)
    stride, core, end = grid.stride_samples, grid.center_samples, n_rows * grid.row_samples
    n_windows = grid.n_windows(n_rows)
    assert stride <= core <= grid.window_samples
    assert core + 2 * grid.context_samples - grid.window_samples in (0, -1)
    assert (n_windows - 1) * stride + core >= end
    assert n_windows == 1 or (n_windows - 2) * stride + core < end


def test_a_row_is_at_least_one_and_ends_like_a_window():
    grid = placed(20, 5, min_tail_seconds=0.5)
    assert [grid.n_rows(n) for n in (1, 5_499, 5_500, 59_999, 60_001)] == [1, 1, 2, 12, 12]


def test_a_waveform_member_is_placed_without_margins():
    grid = make_grid(WaveformConfig(window=WindowConfig(3.0)), AggregationConfig(), WindowConfig())
    assert (grid.window_samples, grid.stride_samples, grid.margin_samples) == (96_000, 80_000, 0)
    assert (grid.sample_rate, grid.row_samples, grid.min_tail_samples) == (32_000, 160_000, 16_000)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"window_seconds": 5, "stride_seconds": 6}, r"stride_seconds: 6 s leaves gaps between windows of 5 s"),
        ({"window_seconds": 5, "scored_seconds": 6}, r"head_seconds: 6 s, but a window lasts 5 s"),
        ({"window_seconds": 20, "stride_seconds": 20, "scored_seconds": 15}, r"without a score - take more than 15 s"),
    ],
)
def test_what_leaves_gaps_is_refused(asked, message):
    with pytest.raises(ConfigError, match=message):
        placed(**asked)


GRIDS = [
    placed(window, stride, row, tail)
    for window, stride in [(0.3, 0.2), (1, 0.5), (1, 1), (2, None), (2, 1.54), (3.001, 1), (3.001, None), (4, 4)]
    for row in (0.5, 1, 1.003)
    for tail in (0.1, 0.5)
]


@given(
    grid=st.sampled_from(GRIDS),
    n_samples=st.integers(1, 9_000) | st.integers(1, 300),
    sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=4),
    in_run=st.integers(1, 6),
)
def test_windows_are_those_of_the_whole_file_whatever_the_blocks(grid, n_samples, sizes, in_run):
    wave = np.random.default_rng(n_samples).normal(size=n_samples).astype(np.float32)
    cutter = WindowCutter(grid, in_run)
    runs = [run for block in split(wave, sizes) for run in cutter.push(block)] + cutter.close()
    assert cutter.n_rows == grid.n_rows(n_samples)
    n_windows = grid.n_windows(cutter.n_rows)
    assert [run.first for run in runs] == list(range(0, n_windows, in_run))
    assert sum(run.n_windows for run in runs) == n_windows
    reach = 3 * grid.window_samples
    padded = np.pad(wave, (0, max(0, cutter.n_rows * grid.row_samples - n_samples)))
    whole = np.pad(padded, reach, mode="reflect")
    for run in runs:
        begin = reach + grid.begin(run.first) - grid.margin_samples
        length = (run.n_windows - 1) * grid.stride_samples + grid.window_samples + 64
        assert np.array_equal(run.samples, whole[begin : begin + length])


def test_a_tail_too_short_for_a_row_is_context():
    wave = np.arange(5_050, dtype=np.float32)
    (run,) = cut_batches([wave], 4, placed(10, 5))
    assert run.n_windows == 1
    end = 32 + 2_500 + 5_000
    assert np.array_equal(run.samples[end : end + 50], wave[-50:])
    assert np.array_equal(run.samples[end + 50 : end + 100], wave[-2:-52:-1])


@pytest.mark.parametrize(("window_seconds", "stride_seconds"), [(5, 5), (5, 2.5), (20, 5), (20, 20)])
def test_pitfall_8_a_day_of_sound_is_let_go(window_seconds, stride_seconds):
    cutter = WindowCutter(placed(window_seconds, stride_seconds), 4)
    block = np.zeros(10_000, np.float32)
    tracemalloc.start()
    n_windows = sum(run.n_windows for _ in range(500) for run in cutter.push(block))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_windows > 240
    assert peak < 2.5 * 4 * (4 * stride_seconds + 2 * window_seconds + 10) * 1_000
