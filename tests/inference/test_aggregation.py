import itertools
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from birdinfer.audio.windows import WindowCutter, make_grid
from birdinfer.config import AggregationConfig, AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.errors import ConfigError
from birdinfer.inference.aggregation import ScoreAggregator

RATE = 1_000
ROW = 5.0


def placed(window_seconds, config, row_seconds=ROW):
    input_config = FrontEndConfig(
        AudioConfig(RATE), WindowConfig(window_seconds, 0.1), MelConfig(64, 50, 8, 50.0, 500.0)
    )
    return make_grid(input_config, config, WindowConfig(row_seconds, 0.1))


def column(*values):
    return np.array(values, np.float32)[:, None]


def rows_of(grid, config, n_rows, clip=None, frames=None, cuts=(), rng=None):
    """Rows of all windows, handed over in runs that end at the cuts, in order or shuffled by ``rng``."""
    scores = clip if clip is not None else frames
    aggregator = ScoreAggregator(grid, config, scores.shape[-1])
    ends = sorted({0, len(scores), *(cut for cut in cuts if cut < len(scores))})
    runs = list(itertools.pairwise(ends))
    if rng:
        rng.shuffle(runs)
    taken = []
    for begin, end in runs:
        aggregator.add(begin, None if clip is None else clip[begin:end], None if frames is None else frames[begin:end])
        taken.append(aggregator.take())
    aggregator.finish(n_rows)
    rows = np.concatenate([*taken, aggregator.take()])
    assert rows.shape == (n_rows, scores.shape[-1])
    assert rows.dtype == np.float32
    assert len(aggregator.take()) == 0
    return rows


# Golden values, by hand.


def test_windows_side_by_side_are_the_rows_bit_for_bit():
    config = AggregationConfig()
    clip = np.random.default_rng(0).random((12, 3), np.float32)
    assert rows_of(placed(5, config), config, 12, clip, cuts=(5, 7)).tobytes() == clip.tobytes()


def test_a_centred_context_changes_no_clock():
    config = AggregationConfig()
    clip = np.random.default_rng(0).random((12, 3), np.float32)
    assert rows_of(placed(20, config), config, 12, clip).tobytes() == clip.tobytes()


def test_half_overlap_weighs_by_the_seconds_in_the_row():
    config = AggregationConfig(stride_seconds=2.5)
    # Windows at 0, 2.5, 5: the middle one lies half in either row.
    rows = rows_of(placed(5, config), config, 2, column(0, 1, 0.5))
    assert np.allclose(rows, column(1 * 2.5 / 7.5, (1 * 2.5 + 0.5 * 5) / 7.5))
    highest = AggregationConfig(stride_seconds=2.5, overlap="max")
    assert np.array_equal(rows_of(placed(5, highest), highest, 2, column(0, 1, 0.5)), column(1, 1))


def test_the_largest_needs_half_a_row_or_is_the_nearest_there_is():
    config = AggregationConfig(stride_seconds=4, overlap="max")
    # Windows at 0, 4, 8: the first row overlaps [0, 5) and 1 s of [4, 9), the second 4 s of [4, 9) and 2 s of [8, 13).
    assert np.array_equal(rows_of(placed(5, config), config, 2, column(0.1, 0.2, 0.9)), column(0.1, 0.2))
    shared = AggregationConfig(stride_seconds=5, scored_seconds=10, overlap="max")
    # Heads [-2.5, 7.5), [2.5, 12.5) ...: each row is covered by its own and half covered by its neighbours.
    assert np.array_equal(rows_of(placed(20, shared), shared, 3, column(0.1, 0.2, 0.9)), column(0.2, 0.9, 0.9))
    wide = AggregationConfig(stride_seconds=20, scored_seconds=16, overlap="max")
    # Heads [2, 18) and [22, 38): the fourth row has 3 s of one, the fifth 3 s of the other.
    rows = rows_of(placed(20, wide), wide, 8, column(0.1, 0.2))
    assert np.array_equal(rows, np.repeat(column(0.1, 0.2), 4, axis=0))
    # Heads of 1 s that begin every 3 s, at 2, 5, 8 ...: no more than 1 s of each is needed.
    sparse = AggregationConfig(stride_seconds=3, scored_seconds=1, overlap="max")
    rows = rows_of(placed(5, sparse), sparse, 2, column(0.1, 0.2, 0.3, 0.4))
    assert np.array_equal(rows, column(0.1, 0.3))


def test_a_scored_part_wider_than_its_row_is_shared_with_the_neighbours():
    config = AggregationConfig(stride_seconds=5, scored_seconds=10)
    # Heads of 10 s around rows of 5 s: 2.5 s of either neighbour; what lies beyond the last row counts nowhere.
    rows = rows_of(placed(20, config), config, 3, column(0, 1, 0))
    assert np.allclose(rows, column(2.5 / 7.5, 5 / 10, 2.5 / 7.5))


def test_frames_meet_tick_by_tick_and_are_pooled_by_row():
    frames = np.array([[0, 0.2, 0.4, 0.6], [0.8, 0.2, 0, 0.1], [0.3, 0.3, 0.5, 0.7]], np.float32)[:, :, None]
    mean = AggregationConfig(stride_seconds=2.5, frame_share=1.0)
    # Ticks of 1.25 s: 0, .2, (.4+.8)/2, (.6+.2)/2 | (0+.3)/2, (.1+.3)/2, .5, .7
    assert np.allclose(rows_of(placed(5, mean), mean, 2, frames=frames), column(0.6, 0.7))
    pooled = AggregationConfig(stride_seconds=2.5, frame_share=1.0, frame_pool="mean")
    assert np.allclose(rows_of(placed(5, pooled), pooled, 2, frames=frames), column(1.2 / 4, 1.55 / 4))
    highest = AggregationConfig(stride_seconds=2.5, frame_share=1.0, overlap="max")
    assert np.allclose(rows_of(placed(5, highest), highest, 2, frames=frames), column(0.8, 0.7))


def test_shifted_rows_are_pooled_again_within_the_file():
    config = AggregationConfig(
        frame_share=1.0, frame_shifts_seconds=(0.0, 2.5, -2.5), frame_shift_weights=(0.5, 0.25, 0.25)
    )
    frames = np.array([[0, 0.2], [0.4, 1.0]], np.float32)[:, :, None]  # ticks of 2.5 s: 0, .2 | .4, 1
    wanted = column(0.5 * 0.2 + 0.25 * 0.4 + 0.25 * 0.0, 0.5 * 1.0 + 0.25 * 1.0 + 0.25 * 0.4)
    assert np.allclose(rows_of(placed(5, config), config, 2, frames=frames), wanted)


def test_a_shift_past_the_file_is_no_shift():
    config = AggregationConfig(frame_share=1.0, frame_shifts_seconds=(20.0,))
    frames = np.random.default_rng(0).random((3, 10, 2), np.float32)
    assert np.array_equal(rows_of(placed(5, config), config, 3, frames=frames), frames.max(axis=1))


def test_clip_and_frames_share_a_row():
    config = AggregationConfig(frame_share=0.25)
    frames = np.array([[0, 0.2], [0.4, 1.0]], np.float32)[:, :, None]
    rows = rows_of(placed(5, config), config, 2, column(0.4, 0.8), frames)
    assert np.allclose(rows, column(0.75 * 0.4 + 0.25 * 0.2, 0.75 * 0.8 + 0.25 * 1.0))


def test_coarse_frames_speak_for_the_rows_nearest_to_them():
    config = AggregationConfig(stride_seconds=20, frame_share=1.0)
    frames = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)[:, :, None]  # centred at 5, 15, 25, 35 s
    rows = rows_of(placed(20, config), config, 8, frames=frames)
    assert np.array_equal(rows, np.repeat(column(0.1, 0.2, 0.3, 0.4), 2, axis=0))


# Alignment: a model that returns where a click is, with windows of the real cutter.


def clicking(seconds):
    """Sound with a click in some of its rows, nowhere near a row's ends; and the rows that click."""
    wave = np.zeros(round(seconds * RATE), np.float32)
    middles = np.arange(0, seconds, ROW) + min(2.63, 0.9 * seconds)
    clicks = [at for index, at in enumerate(middles) if at < seconds and index % 4 in (0, 3)]
    wave[[int(at * RATE) for at in clicks]] = 1.0
    return wave, clicks


def listen(wave, grid, config, n_frames, run_windows=4):
    """Clip score: is a click in the scored part? Frame scores: is it in this frame?"""
    cutter, aggregator, taken = WindowCutter(grid, run_windows), ScoreAggregator(grid, config, 1), []
    window, head = grid.window_samples, grid.scored_samples(config.scored_seconds)
    for run in [run for begin in range(0, len(wave), 7_000) for run in cutter.push(wave[begin : begin + 7_000])] + (
        cutter.close()
    ):
        begins = grid.margin_samples + grid.stride_samples * np.arange(run.n_windows)
        sound = np.stack([run.samples[begin : begin + window] for begin in begins])
        offset = (window - head) // 2
        clip = sound[:, offset : offset + head].max(axis=1, keepdims=True)
        frames = np.zeros((run.n_windows, n_frames, 1), np.float32)
        at_window, at_sample = np.nonzero(sound)
        frames[at_window, at_sample * n_frames // window] = 1.0
        aggregator.add(run.first, clip, frames)
        taken.append(aggregator.take())
    aggregator.finish(cutter.n_rows)
    return np.concatenate([*taken, aggregator.take()])[:, 0]


LAYOUTS = [(3, 2.5), (3, 1.5), (5, 5), (5, 2.5), (10, 5), (10, 2.5), (10, 10), (20, 5), (20, 2.5), (20, 10), (20, 20)]
FILE_SECONDS = [59.999, 60, 60.001, 1.2, 0.3, 7.6]


@pytest.mark.parametrize("n_frames", [10, 16, 50])
@pytest.mark.parametrize("seconds", FILE_SECONDS)
@pytest.mark.parametrize(("window_seconds", "stride_seconds"), LAYOUTS)
def test_pitfall_5_frames_find_the_row_that_clicks(window_seconds, stride_seconds, seconds, n_frames):
    config = AggregationConfig(stride_seconds=stride_seconds, overlap="max", frame_share=1.0)
    wave, clicks = clicking(seconds)
    rows = listen(wave, placed(window_seconds, config), config, n_frames)
    # Nearer to the file's beginning than a frame, the frame that holds the click may be centred before the file.
    if clicks[0] > window_seconds / n_frames:
        wanted = np.zeros(12 if seconds > 50 else 2 if seconds > 5 else 1)
        wanted[[int(at / ROW) for at in clicks]] = 1
        assert np.array_equal(rows, wanted)


@pytest.mark.parametrize("seconds", FILE_SECONDS)
@pytest.mark.parametrize(("window_seconds", "stride_seconds"), LAYOUTS)
def test_pitfall_5_clips_find_the_row_that_clicks(window_seconds, stride_seconds, seconds):
    config = AggregationConfig(stride_seconds=stride_seconds)
    wave, clicks = clicking(seconds)
    rows = listen(wave, placed(window_seconds, config), config, 1)
    core = min(window_seconds, max(stride_seconds, ROW))
    for row, score in enumerate(rows):
        hit = total = 0.0
        for begin in np.arange(0, 60, stride_seconds):
            if begin and begin - stride_seconds + core >= len(rows) * ROW:
                break  # the window before it reached the end
            shared = min(begin + core, (row + 1) * ROW) - max(begin, row * ROW)
            if shared > 0:
                total += shared
                hit += shared * any(begin <= at < begin + core for at in clicks)
        assert score == pytest.approx(hit / total, abs=1e-6)


def test_a_narrow_scored_part_excludes_the_rest():
    config = AggregationConfig(scored_seconds=5.0)
    wave, clicks = clicking(60)
    rows = listen(wave, placed(20, config), config, 1)
    assert [float(row) for row in np.flatnonzero(rows)] == [at // ROW for at in clicks]


# Properties.

TIMELINES = st.builds(
    AggregationConfig,
    stride_seconds=st.sampled_from([None, 0.5, 0.77, 1.0, 2.0]),
    overlap=st.sampled_from(["mean", "max"]),
    scored_seconds=st.sampled_from([None, 0.4, 1.0, 1.5, 3.0]),
    frame_share=st.sampled_from([0.0, 0.25, 1.0]),
    frame_pool=st.sampled_from(["max", "mean"]),
    frame_shifts_seconds=st.sampled_from([(0.0, 0.5, -0.5), (1.0, 0.0, -3.0)]),
    frame_shift_weights=st.sampled_from([(0.5, 0.25, 0.25), (0.1, 0.2, 0.7)]),
)


@st.composite
def scored_files(draw):
    """A window grid on rows of 1 s, its config, rows, and scores of all windows."""
    config = draw(TIMELINES)
    try:
        grid = placed(draw(st.sampled_from([0.5, 1.0, 1.5, 3.001, 4.0])), config, 1.0)
    except ConfigError:
        assume(False)
    n_rows, n_frames = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 10, 16]))
    head, window = grid.scored_samples(config.scored_seconds), grid.window_samples
    centres = (np.arange(n_frames) + 0.5) * window / n_frames
    assume(config.frame_share == 0 or (abs(centres - window / 2) < head / 2 - 1).any())
    n_windows, rng = grid.n_windows(n_rows), np.random.default_rng(draw(st.integers(0, 99)))
    clip = rng.random((n_windows, 2), np.float32) if config.frame_share < 1 else None
    frames = rng.random((n_windows, n_frames, 2), np.float32) if config.frame_share > 0 else None
    return grid, config, n_rows, clip, frames


@given(file=scored_files(), cuts=st.sets(st.integers(1, 30)), seed=st.integers(0, 99))
def test_rows_are_the_same_bits_in_whatever_order_and_runs_they_come(file, cuts, seed):
    whole = rows_of(*file)
    assert rows_of(*file, cuts=cuts).tobytes() == whole.tobytes()
    assert rows_of(*file, cuts=cuts, rng=random.Random(seed)).tobytes() == whole.tobytes()


@given(file=scored_files(), constant=st.floats(0, 1, width=32))
def test_rows_stay_within_what_was_said_and_constants_stay(file, constant):
    said = np.concatenate([scores.ravel() for scores in file[3:] if scores is not None])
    rows = rows_of(*file)
    assert said.min() <= rows.min()
    assert rows.max() <= said.max()
    same = [None if scores is None else np.full_like(scores, constant) for scores in file[3:]]
    assert (rows_of(*file[:3], *same) == np.float32(constant)).all()


@given(
    overlap=st.sampled_from(["mean", "max"]),
    stride=st.sampled_from([1.25, 2.5, 5.0]),
    window=st.sampled_from([5, 10, 20]),
    n_rows=st.integers(3, 8),
)
def test_a_shift_of_one_row_moves_the_answer_by_one_row(overlap, stride, window, n_rows):
    plain = AggregationConfig(stride_seconds=stride, overlap=overlap, frame_share=1.0)
    shifted = AggregationConfig(stride, overlap, frame_share=1.0, frame_shifts_seconds=(ROW,))
    grid = placed(window, plain)
    frames = np.random.default_rng(n_rows).random((grid.n_windows(n_rows), 16, 2), np.float32)
    rows = rows_of(grid, plain, n_rows, frames=frames)
    moved = rows_of(grid, shifted, n_rows, frames=frames)
    assert np.array_equal(moved[:-1], rows[1:])
    assert np.array_equal(moved[-1], rows[-1])  # nothing lies behind the last row


def test_rows_that_may_not_exist_are_held_back():
    config = AggregationConfig(stride_seconds=20)
    aggregator = ScoreAggregator(placed(20, config), config, 1)
    aggregator.add(0, column(0.5))
    assert len(aggregator.take()) == 1  # the file may be one row long
    aggregator.add(1, column(0.7))
    assert np.array_equal(aggregator.take(), column(0.5, 0.5, 0.5, 0.7))
    aggregator.finish(6)
    assert np.array_equal(aggregator.take(), column(0.7))


def test_one_nan_window_spoils_only_the_rows_it_overlaps():
    config = AggregationConfig(stride_seconds=2.5)
    grid = placed(5, config)
    clip = np.zeros((grid.n_windows(6), 1), np.float32)
    clip[3] = np.nan  # 7.5 to 12.5 s
    assert np.flatnonzero(np.isnan(rows_of(grid, config, 6, clip))).tolist() == [1, 2]


# Bounds.


def test_pitfall_8_frames_of_a_long_file_are_let_go():
    config = AggregationConfig(
        stride_seconds=2.5, frame_share=0.5, frame_shifts_seconds=(0.0, 5.0), frame_shift_weights=(0.5, 0.5)
    )
    aggregator = ScoreAggregator(placed(5, config), config, 50)
    clip, frames = np.zeros((12, 50), np.float32), np.zeros((12, 100, 50), np.float32)
    tracemalloc.start()
    n_rows = 0
    for first in range(0, 6_000, 12):
        aggregator.add(first, clip, frames)
        n_rows += len(aggregator.take())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_rows > 2_990
    assert peak < 4e6  # 1 MB on the clock for each run; all frames together are 60 MB


# Refusals.


def test_missing_scores_are_named():
    config = AggregationConfig(frame_share=0.5)
    aggregator = ScoreAggregator(placed(5, config), config, 1)
    with pytest.raises(ValueError, match=r"frame_share is 0\.5, but there are no frame-wise scores"):
        aggregator.add(0, column(1))
    with pytest.raises(ValueError, match=r"frame_share is 0\.5, but there are no clip-wise scores"):
        aggregator.add(0, None, np.zeros((1, 4, 1), np.float32))


def test_scores_of_another_shape_are_refused():
    config = AggregationConfig(frame_share=0.5)
    aggregator = ScoreAggregator(placed(5, config), config, 1)
    with pytest.raises(ValueError, match=r"\(1, 2\), needed is \(windows, 1\)"):
        aggregator.add(0, np.zeros((1, 2), np.float32), np.zeros((1, 4, 1), np.float32))
    with pytest.raises(ValueError, match=r"\(1, 4, 2\), needed is \(windows, frames, 1\)"):
        aggregator.add(0, column(1), np.zeros((1, 4, 2), np.float32))
    with pytest.raises(ValueError, match=r"of \[1, 2\] windows"):
        aggregator.add(0, column(1), np.zeros((2, 4, 1), np.float32))
    aggregator.add(0, column(1), np.zeros((1, 4, 1), np.float32))
    with pytest.raises(ValueError, match="a window has 5 frames, those before had 4"):
        aggregator.add(1, column(1), np.zeros((1, 5, 1), np.float32))


def test_windows_come_once_and_all():
    config = AggregationConfig()
    aggregator = ScoreAggregator(placed(5, config), config, 1)
    aggregator.add(0, column(1, 2))
    aggregator.add(3, column(4))
    for first in (0, 1, 3):
        with pytest.raises(ValueError, match=f"window {first} was added before"):
            aggregator.add(first, column(1))
    with pytest.raises(ValueError, match="window 2 is missing, 4 rows were announced"):
        aggregator.finish(4)


def test_frames_too_coarse_for_the_scored_part_are_refused():
    config = AggregationConfig(frame_share=1.0)
    aggregator = ScoreAggregator(placed(20, config), config, 1)
    with pytest.raises(ValueError, match="none of 2 frames of 10 s is centered in the window's scored part"):
        aggregator.add(0, None, np.zeros((1, 2, 1), np.float32))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"stride_seconds": 0}, "stride_seconds is 0, allowed are 0.1 to 60"),
        ({"scored_seconds": 61}, "head_seconds is 61, allowed are 0.1 to 60"),
        ({"frame_share": 1.5}, "frame_share is 1.5, allowed are 0 to 1"),
        ({"frame_shifts_seconds": (float("nan"),)}, "allowed are -60 to 60"),
        ({"frame_shifts_seconds": (0.0, 1.0)}, "frame_shift_weights has 1 values, frame_shifts_seconds 2"),
        ({"frame_shift_weights": (0.9,)}, "must be >= 0 and sum to 1"),
    ],
)
def test_config_refuses_wrong_values(wrong, problem):
    with pytest.raises(ValueError, match=problem):
        AggregationConfig(**wrong)
