"""Frame-wise scores [windows, frames, labels] of a detector, laid on one clock -> rows, pooled from the ticks in each.

The clock's step is a frame; its ticks are numbered from the beginning of the file. Only ticks that a row to come may
need are held. The conventions are those of :mod:`birdinfer.timeline`.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from birdinfer.clip_rows import Head
from birdinfer.config import TimelineConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class FrameRows:
    """Frame-wise scores on one clock -> rows."""

    def __init__(self, head: Head, config: TimelineConfig, n_labels: int) -> None:
        self._head = head
        self._meet: np.ufunc = np.add if config.overlap == "mean" else np.maximum
        self._empty = 0.0 if config.overlap == "mean" else -np.inf
        self._pool: Callable[[Float64], Float64] = _highest if config.frame_pool == "max" else _average
        rate = head.placement.sample_rate
        weights = np.array(config.frame_shift_weights) / sum(config.frame_shift_weights)
        self._shifts = [
            (round(shift * rate), float(weight))
            for shift, weight in zip(config.frame_shifts_seconds, weights, strict=True)
        ]
        self._values = np.zeros((0, n_labels))
        self._counts = np.zeros(0, np.int64)
        self._first = 0  # tick that is held; the first window's may lie before the file
        self._n_frames, self._slack = 0, 0  # learnt from the first scores
        self._head_begin, self._head_end = 0, 0  # frames of a window

    def lay(self, first: int, frames: Float32) -> None:
        """Put frames [windows, frames, labels] on the clock.

        Raises:
            ValueError: their number in a window has changed, or is so small that none is in the head.
        """
        if not self._n_frames:
            self._learn(frames.shape[1])
        if frames.shape[1] != self._n_frames:
            raise ValueError(f"a window has {frames.shape[1]} frames, those before had {self._n_frames}")
        self._make_room(self._tick(first + len(frames) - 1) + self._head_end)
        for window, scores in enumerate(frames[:, self._head_begin : self._head_end], first):
            begin = self._tick(window) + self._head_begin - self._first
            at = slice(begin, begin + len(scores))
            self._meet(self._values[at], scores, out=self._values[at])
            self._counts[at] += 1

    def n_complete(self, n_windows: int, n_exist: int) -> int:
        """Rows whose ticks all lie before the next window's head, and in rows that exist."""
        if not self._n_frames:
            return 0
        row, window = self._head.placement.row_samples, self._head.placement.window_samples
        final = self._tick(n_windows) + self._head_begin  # ticks before this one are
        known = min(final, self._first_tick_at(n_exist * row))
        ahead = max([0, *(shift for shift, _ in self._shifts)])
        pooled = ((2 * known + 1) * window - 2 * self._n_frames * ahead) // (2 * self._n_frames * row)
        # The tick nearest to the row's middle may be needed instead.
        nearest = ((2 * window * (final - self._slack) - 1) // (self._n_frames * row) + 1) // 2
        return min(pooled, nearest)

    def rows(self, begin: int, end: int, n_exist: int) -> Float64:
        """Rows [end - begin, labels] of a file of at least ``n_exist`` rows."""
        held = np.flatnonzero(self._counts)
        values, ticks = self._values[held], held + self._first
        if self._meet is np.add:
            values /= self._counts[held, None]
        end_of_file = self._first_tick_at(n_exist * self._head.placement.row_samples)
        n_in_file = int(np.searchsorted(ticks, end_of_file))
        rows = np.zeros((end - begin, values.shape[1]))
        for shift, weight in self._shifts:
            chosen = self._chosen(ticks, n_in_file, begin, end, shift)
            for row, (low, high) in zip(rows, chosen, strict=True):
                row += weight * self._pool(values[low:high])
        self._let_go(end)
        return rows

    def _chosen(self, ticks: Int64, n_in_file: int, begin: int, end: int, shift: int) -> list[tuple[int, int]]:
        """For each row the range of indices into ``ticks`` that it pools, never empty."""
        row = self._head.placement.row_samples
        bounds = [self._first_tick_at(max(0, index * row + shift)) for index in range(begin, end + 1)]
        chosen = list(pairwise(np.searchsorted(ticks[:n_in_file], bounds).tolist()))
        for index, (low, high) in enumerate(chosen):
            if low == high and shift:
                (chosen[index],) = self._chosen(ticks, n_in_file, begin + index, begin + index + 1, 0)
            elif low == high:
                # Twice the distances of the ticks' centres from the row's middle, in whole numbers.
                middle = (2 * (begin + index) + 1) * row * self._n_frames
                away = np.abs((2 * ticks + 1) * self._head.placement.window_samples - middle)
                chosen[index] = (int(away.argmin()), int(away.argmin()) + 1)
        return chosen

    def _learn(self, n_frames: int) -> None:
        """Which frames of a window are in its head, now that their number is known."""
        head, window = self._head, self._head.placement.window_samples
        self._n_frames = n_frames
        self._head_begin = self._first_tick_at(head.offset)
        self._head_end = self._first_tick_at(head.offset + head.samples)
        if self._head_begin >= self._head_end:
            seconds = window / n_frames / head.placement.sample_rate
            raise ValueError(f"none of {n_frames} frames of {seconds:g} s is centred in the window's head")
        self._first = self._tick(0) + self._head_begin
        # From anywhere in the file there is a tick with a frame as near as this: heads may leave gaps, and the windows'
        # beginnings are rounded to ticks.
        gap = max(0, head.placement.core_samples - head.samples)
        self._slack = -(-gap * n_frames // window) + 2

    def _first_tick_at(self, sample: int) -> int:
        """The first tick whose centre is not before a sample of the file."""
        window: int = self._head.placement.window_samples
        return -((window - 2 * self._n_frames * sample) // (2 * window))

    def _tick(self, window: int) -> int:
        """The tick that is nearest to a window's beginning."""
        length = self._head.placement.window_samples
        return (2 * self._n_frames * self._head.placement.begin(window) + length) // (2 * length)

    def _make_room(self, end: int) -> None:
        """Hold ticks up to ``end``."""
        missing = end - self._first - len(self._counts)
        if missing > 0:
            self._values = np.concatenate([self._values, np.full((missing, self._values.shape[1]), self._empty)])
            self._counts = np.concatenate([self._counts, np.zeros(missing, np.int64)])

    def _let_go(self, row: int) -> None:
        """Let go what no row from this one on can need."""
        behind = min([0, *(shift for shift, _ in self._shifts)])
        begin = row * self._head.placement.row_samples
        keep = min(self._first_tick_at(begin + behind), self._first_tick_at(begin) - self._slack) - self._first
        if keep > 0:
            self._values, self._counts = self._values[keep:].copy(), self._counts[keep:].copy()
            self._first += keep


def _highest(values: Float64) -> Float64:
    return np.asarray(values.max(axis=0))


def _average(values: Float64) -> Float64:
    return np.asarray(values.mean(axis=0))
