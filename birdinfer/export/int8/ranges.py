"""What calibration saw of one activation -> the range that its 256 steps are laid over: five ways to choose it.

In: values of some windows, in the activation's own unit. Out: :class:`Range`. ``window_error`` is the one that is
taken; the others are what tools for quantising offer, and are here to be compared.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

U8_STEPS = 255
"""Steps from the lowest to the highest of the 256 values."""

PERCENTILE = 99.99
"""Of an activation's values, how many ``percentile`` keeps in range; the others are clipped."""

MOVING_SHARE = 0.1
"""What the newest window's extremes count for in ``moving_average``: the last twenty or thirty windows decide."""

_PARTS = np.geomspace(0.01, 1.0, 24)
"""Of the extremes, what is tried as a range's ends: loud windows may reach a hundred times as far as the usual ones."""

_SILU_DEPTHS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""How far below 0 a range before a SiLU is tried to reach: SiLU(-12) is -7e-5, and all below it is 0 as well."""

_HARD_SWISH_DEPTH = 3.0
"""Below -3 a hard-swish is 0."""

_LEAST_OUTPUT = -0.38
"""Below what SiLU (-0.28) and hard-swish (-0.375) can answer."""


class Range(NamedTuple):
    """The values that an 8-bit activation can take, in the activation's own unit."""

    low: float
    high: float

    def scale(self) -> np.float32:
        """The size of one step; the range is widened to hold 0, which padding needs exactly."""
        return np.float32(max(max(self.high, 0.0) - min(self.low, 0.0), 1e-8) / U8_STEPS)

    def zero_point(self) -> np.uint8:
        """Which of the 256 values stands for 0."""
        return np.uint8(np.clip(np.rint(-min(self.low, 0.0) / self.scale()), 0, U8_STEPS))

    def restored(self, values: Float32) -> Float32:
        """Values after quantising and dequantising."""
        step, zero = self.scale(), np.float32(self.zero_point())
        return np.asarray((np.clip(np.rint(values / step) + zero, 0, U8_STEPS) - zero) * step, np.float32)


class Seen(NamedTuple):
    """What calibration saw of an activation."""

    lows: Float32
    """Least value of each window [windows]."""
    highs: Float32
    """Greatest value of each window [windows]."""
    samples: Float32
    """Values at the same random places of every window [windows, places]."""
    counts: Int64
    """Of all values, how many lie in each of equal bins between the least and the greatest [bins]."""

    @property
    def extremes(self) -> Range:
        """Least and greatest value of all windows."""
        return Range(float(self.lows.min()), float(self.highs.max()))


def minmax(seen: Seen) -> Range:
    """From the least to the greatest value: nothing is clipped, and one odd window decides."""
    return seen.extremes


def moving_average(seen: Seen) -> Range:
    """The windows' extremes, averaged as they come: (1 - a) old + a new (Jacob et al. 2018, section 3.1)."""
    low, high = float(seen.lows[0]), float(seen.highs[0])
    for window_low, window_high in zip(seen.lows[1:], seen.highs[1:], strict=True):
        low += MOVING_SHARE * (float(window_low) - low)
        high += MOVING_SHARE * (float(window_high) - high)
    return Range(low, high)


def percentile(seen: Seen, kept: float = PERCENTILE) -> Range:
    """The range that holds ``kept`` % of the values, with equal parts cut off on either side.

    Args:
        seen: of an activation.
        kept: in (50, 100].
    """
    low, high = seen.extremes
    cut = (100.0 - kept) / 200.0 * seen.counts.sum()
    first = int(np.searchsorted(np.cumsum(seen.counts), cut, side="right"))
    last = len(seen.counts) - int(np.searchsorted(np.cumsum(seen.counts[::-1]), cut, side="right"))
    width = (high - low) / len(seen.counts)
    return Range(low + first * width, low + last * width)


def entropy(seen: Seen) -> Range:
    """The range after which the distribution of values tells most of what it told before.

    Of the ranges tried that one whose 256 levels, spread evenly over the bins that each stands for, have the least
    Kullback-Leibler divergence from the clipped distribution (Migacz 2017, "8-bit inference with TensorRT").
    """
    low, high = seen.extremes
    edges = np.linspace(low, high, len(seen.counts) + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    spans = [Range(min(low, 0.0) * part, max(high, 0.0) * part) for part in _PARTS]
    return min(spans, key=lambda span: _divergence(span, centres, seen.counts))


def _divergence(span: Range, centres: Float64, counts: Int64) -> float:
    """KL(clipped || quantised) in nats; what is clipped stands in the bins at the range's ends."""
    inside = (centres >= span.low) & (centres <= span.high)
    if inside.sum() < 2:
        return float("inf")
    clipped = counts[inside].astype(np.float64)
    clipped[0] += counts[centres < span.low].sum()
    clipped[-1] += counts[centres > span.high].sum()
    levels = np.rint(centres[inside] / float(span.scale())).astype(np.int64)
    levels -= levels.min()
    full = counts[inside] > 0
    in_level = np.bincount(levels, weights=counts[inside])
    bins_of_level = np.maximum(np.bincount(levels, weights=full), 1)
    spread = np.where(full, (in_level / bins_of_level)[levels], 0.0) + 1e-9
    share, found = clipped / clipped.sum(), spread / spread.sum()
    return float(np.sum(share[share > 0] * np.log(share[share > 0] / found[share > 0])))


def hard_swish_range(span: Range) -> Range:
    """What a hard-swish reads: from -3 on, in steps of which a whole number makes 3.

    Then its gate (x + 3) / 6 is these very steps, counted from the first.

    Args:
        span: its upper end is kept in range, up to 762; its lower end does not count, for below -3 a hard-swish is 0.
    """
    below = float(np.clip(np.floor(_HARD_SWISH_DEPTH * U8_STEPS / (_HARD_SWISH_DEPTH + max(span.high, 0.0))), 1, 255))
    return Range(-_HARD_SWISH_DEPTH, _HARD_SWISH_DEPTH * (U8_STEPS - below) / below)


class Follower(NamedTuple):
    """What alone reads an activation: then what it makes of the values counts, not the values."""

    answers: Callable[[Float32], Float32]
    spans: Callable[[Range], list[Range]]
    """Extremes -> ranges to try."""


def window_error(seen: Seen, follower: Follower | None = None) -> Range:
    """The range that changes the windows least, each window's error being taken relative to its own variance.

    A window of digital silence with one click may have activations a hundred times those of all others. A range wide
    enough for it leaves the others two of 256 steps; in a mean over values it would weigh as much as a hundred of
    them. Taken relative it is one window of many. (A trained efficientnet_b0: rank correlation of the logits 0.97
    instead of 0.74 by percentile 99.99.)

    Args:
        seen: of an activation.
        follower: ``SILU`` or ``HARD_SWISH`` where that alone reads the values: no steps are spent far below 0, where
            they answer 0; None where others read them, or any others.
    """
    answers, spans = follower or _PLAIN
    wanted = answers(seen.samples)
    variances = wanted.var(axis=1, dtype=np.float64) + 1e-12

    def error(span: Range) -> float:
        found = answers(span.restored(seen.samples))
        return float((np.square(found - wanted).mean(axis=1, dtype=np.float64) / variances).clip(max=1.0).mean())

    return min(spans(seen.extremes), key=error)


def _spans(extremes: Range) -> list[Range]:
    """Both ends alike; but what a SiLU or hard-swish answers keeps its least value, most values lie near it."""
    low, high = min(extremes.low, 0.0), max(extremes.high, 0.0)
    if low > _LEAST_OUTPUT:
        return [Range(low, high * part) for part in _PARTS]
    return [Range(low * part, high * part) for part in _PARTS]


def _silu(values: Float32) -> Float32:
    """SiLU: x / (1 + exp(-x))."""
    return np.asarray(values / (1.0 + np.exp(-values.clip(-80.0))), np.float32)  # exp(89) is no float32


def _silu_spans(extremes: Range) -> list[Range]:
    low, high = min(extremes.low, 0.0), max(extremes.high, 0.0)
    lows = sorted({max(low, -depth) for depth in _SILU_DEPTHS}, reverse=True)
    return [Range(start, high * part) for start in lows for part in _PARTS]


def _hard_swish(values: Float32) -> Float32:
    """Hard-swish: x clip((x + 3) / 6, 0, 1) (Howard et al. 2019, "Searching for MobileNetV3", section 5.2)."""
    return np.asarray(values * ((values + 3.0) / 6.0).clip(0.0, 1.0), np.float32)


def _hard_swish_spans(extremes: Range) -> list[Range]:
    return [hard_swish_range(Range(extremes.low, max(extremes.high, 0.0) * part)) for part in _PARTS]


_PLAIN = Follower(lambda values: values, _spans)
SILU = Follower(_silu, _silu_spans)
HARD_SWISH = Follower(_hard_swish, _hard_swish_spans)
