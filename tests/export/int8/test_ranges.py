"""Ranges of activations: what is kept, what is clipped, that zero is exact, and whose error counts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import hardswish

from birdinfer.export.int8.calibration import (
    HARD_SWISH,
    SILU,
    Range,
    Seen,
    entropy,
    hard_swish_range,
    minmax,
    moving_average,
    percentile,
    window_error,
)


def seen_of(windows):
    """What calibration sees of windows [windows, values]."""
    windows = np.asarray(windows, np.float32)
    counts = np.histogram(windows, 4096)[0].astype(np.int64)
    return Seen(lows=windows.min(axis=1), highs=windows.max(axis=1), samples=windows, counts=counts)


def normal_windows(n_windows=20, mean=0.0, deviation=1.0):
    return np.random.default_rng(0).normal(mean, deviation, (n_windows, 2000)).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(-0.278, 5.0), (0.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_range(low, high):
    span = Range(low, high)
    step, zero = float(span.scale()), int(span.zero_point())
    assert 0 <= zero <= 255
    assert (0 - zero) * step <= low + step
    assert (255 - zero) * step >= high - step
    assert span.restored(np.zeros(1, np.float32)) == 0


@given(st.floats(-100, 0), st.floats(0.01, 100), st.floats(-200, 200))
def test_a_value_within_the_range_is_restored_to_half_a_step_and_others_to_its_ends(low, high, value):
    span = Range(low, high)
    step = float(span.scale())
    restored = float(span.restored(np.array([value], np.float32))[0])
    assert abs(restored - min(max(value, low), high)) <= 1.01 * step
    if low + step < value < high - step:
        assert abs(restored - value) <= 0.501 * step


def test_minmax_clips_nothing():
    windows = normal_windows()
    assert minmax(seen_of(windows)) == Range(float(windows.min()), float(windows.max()))


def test_moving_average_weighs_the_newest_window_by_a_tenth():
    seen = seen_of([[-1.0, 1.0], [-2.0, 11.0], [-2.0, 2.0]])
    span = moving_average(seen)
    assert span.low == pytest.approx(-1.0 * 0.81 - 2.0 * 0.19)
    assert span.high == pytest.approx((1.0 * 0.9 + 1.1) * 0.9 + 0.2)


@pytest.mark.parametrize(("kept", "span"), [(100.0, (0.0, 6.0)), (99.0, (0.0, 6.0)), (98.0, (2.0, 4.0))])
def test_percentile_cuts_both_ends_alike(kept, span):
    ends = np.array([0.0], np.float32), np.array([6.0], np.float32)
    seen = Seen(
        lows=ends[0], highs=ends[1], samples=np.zeros((1, 1), np.float32), counts=np.array([1, 0, 49, 49, 0, 1])
    )
    assert percentile(seen, kept) == Range(*span)


def test_entropy_clips_a_far_tail_and_keeps_a_full_range():
    even = np.linspace(0, 1, 4096, dtype=np.float32)[None]
    assert entropy(seen_of(even)).high > 0.9
    tailed = normal_windows()
    tailed[0, 0] = 100
    assert 2 < entropy(seen_of(tailed)).high < 80


def test_window_error_lets_one_odd_window_of_many_be_clipped():
    windows = normal_windows()
    windows[7] *= 100
    span = window_error(seen_of(windows))
    assert span.high < 60
    assert percentile(seen_of(windows)).high > 200
    usual = np.delete(windows, 7, axis=0)
    errors = [float(np.square(one.restored(usual) - usual).mean()) for one in (span, percentile(seen_of(windows)))]
    assert errors[0] < 0.05 * errors[1]


def test_window_error_clips_nothing_of_values_that_are_spread_evenly():
    windows = np.random.default_rng(0).uniform(-1, 1, (20, 2000)).astype(np.float32)
    span = window_error(seen_of(windows))
    assert span.low < -0.8
    assert span.high > 0.8


def test_before_a_silu_no_steps_are_spent_on_what_it_makes_zero():
    windows = normal_windows(mean=-8, deviation=8)
    span = window_error(seen_of(windows), SILU)
    assert windows.min() < -30
    assert -12 <= span.low <= -2
    assert window_error(seen_of(windows)).low < -15
    assert span.high > 0.5 * windows.max()


@given(st.floats(-100, 100), st.floats(-5, 762))
def test_a_hard_swish_reads_whole_steps_from_minus_three(low, high):
    span = hard_swish_range(Range(low, high))
    step, zero = float(span.scale()), int(span.zero_point())
    assert zero * step == pytest.approx(3, rel=1e-6)
    assert (255 - zero) * step >= high - 1e-4
    # One step more below 0 would not reach: no coarser than it needs to be.
    assert zero == 255 or 3 / (zero + 1) * (255 - zero - 1) < max(high, 0)


def test_before_a_hard_swish_the_range_begins_at_minus_three_and_clips_what_is_rare():
    windows = normal_windows(n_windows=200, mean=-4, deviation=4)
    windows[3] *= 100
    span = window_error(seen_of(windows), HARD_SWISH)
    assert span.low == -3
    assert 5 < span.high < 100
    assert span == hard_swish_range(span)


@pytest.mark.parametrize(("follower", "function"), [(SILU, torch.nn.functional.silu), (HARD_SWISH, hardswish)])
def test_followers_are_torchs_own(follower, function):
    values = np.linspace(-100, 100, 1001, dtype=np.float32)
    np.testing.assert_allclose(follower.output(values), function(torch.from_numpy(values)).numpy(), atol=1e-5)


def test_a_silus_own_output_keeps_its_least_value():
    values = normal_windows(deviation=3)
    silu = values / (1 + np.exp(-values))
    assert window_error(seen_of(silu)).low == pytest.approx(silu.min())


def test_windows_without_any_variance_have_a_range():
    span = window_error(seen_of(np.zeros((3, 10))))
    assert span.scale() > 0
    np.testing.assert_array_equal(span.restored(np.zeros(4, np.float32)), np.zeros(4))
