"""Ranges of activations: what is kept, what is clipped, and that zero is exact."""

import numpy as np
import pytest

from birdinfer.export.calibration import Range, central_range, range_behind_silu


@pytest.mark.parametrize(("low", "high"), [(-0.278, 5.0), (0.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_range(low, high):
    span = Range(low, high)
    step, zero = float(span.scale()), int(span.zero_point())
    assert 0 <= zero <= 255
    assert (0 - zero) * step <= low + step
    assert (255 - zero) * step >= high - step


def test_central_range_cuts_both_ends_alike():
    counts = np.array([1, 0, 49, 49, 0, 1])
    assert central_range(0.0, 6.0, counts, 100.0) == Range(0.0, 6.0)
    assert central_range(0.0, 6.0, counts, 98.0) == Range(2.0, 4.0)
    assert central_range(0.0, 6.0, counts, 99.0) == Range(0.0, 6.0)


def test_before_a_silu_no_steps_are_spent_on_what_it_makes_zero():
    values = np.random.default_rng(0).normal(-8, 8, 100_000)
    counts, edges = np.histogram(values, 4096)
    low, high = float(edges[0]), float(edges[-1])
    span = range_behind_silu(low, high, counts)
    assert low < -35
    assert -14 < span.low < -5
    assert span.high > 0.6 * high
