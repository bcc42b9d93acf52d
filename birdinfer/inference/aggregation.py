"""Aggregate one member's scores over a file: windows, in any order -> rows of the score table.

In: clip-wise scores [windows, labels] and, from sound event detectors, frame-wise scores [windows, frames, labels],
batch by batch as several threads deliver them. Out: float32 [rows, labels], each row once, as soon as no further
window can change it; only what is incomplete is kept. Positions are whole samples, as in
:class:`~birdinfer.audio.windows.WindowGrid`.

* Only the scored part of a window counts: the ``scored_seconds`` in its center, as far as they lie in the file.
* Clip-wise scores: a row combines the windows whose scored parts overlap it, by their mean weighted by the overlap, or
  by their maximum (over windows that overlap by at least half of what is possible; if none does, the one that overlaps
  most).
* Frame-wise scores: frame j of T is centered ``(j + 0.5) W / T`` after its window begins. All frames share one clock
  with the step ``W / T``; a window begins at the nearest tick, which is exact where ``T`` times stride and context are
  multiples of ``W``, and at most half a frame off otherwise. Frames of overlapping windows are combined tick by tick,
  by their unweighted mean or maximum. A row pools the ticks whose centers lie in it and in the file; where the clock is
  so coarse that there are none, it takes the tick nearest to its middle.
* Windows are added in their order, in float64: the bits of a row depend neither on the order of arrival nor on how
  windows were batched.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from birdinfer.audio.windows import WindowGrid
from birdinfer.config import AggregationConfig
from birdinfer.typing import Float32, Float64, Int64


class _Scores(NamedTuple):
    clip: Float32 | None
    frames: Float32 | None
    n_windows: int


class ScoreAggregator:
    """Turns the scores that one member gives to one file's windows into rows. Not thread-safe.

    >>> from birdinfer.audio.windows import make_grid
    >>> from birdinfer.config import FrontEndConfig, WindowConfig
    >>> config = AggregationConfig(stride_seconds=2.5)  # windows of 5 s every 2.5 s on rows of 5 s
    >>> aggregator = ScoreAggregator(make_grid(FrontEndConfig(), config, WindowConfig()), config, n_labels=1)
    >>> aggregator.add(0, np.array([[0.0], [0.375], [0.75]], np.float32))
    >>> aggregator.finish(n_rows=2)
    >>> aggregator.take().tolist()
    [[0.125], [0.625]]
    """

    def __init__(self, grid: WindowGrid, config: AggregationConfig, n_labels: int) -> None:
        """Start a file with windows on a ``grid`` of this ``config``; ConfigError if the scored part does not fit."""
        self._grid, self._frame_share, self._n_labels = grid, config.frame_share, n_labels
        self._early: dict[int, _Scores] = {}
        """Batches that arrived before one that precedes them, by first window."""
        self._next_window = 0
        self._n_done = 0
        self._n_rows: int | None = None
        self._ready: list[Float32] = []
        part = ScoredPart(grid, grid.scored_samples(config.scored_seconds))
        self._clips = ClipAggregation(part, config.overlap, n_labels)
        self._frames = FrameAggregation(part, config, n_labels)
        self._rows_are_windows = self._frame_share == 0 and part.is_within_its_row

    def add(self, first: int, clip: Float32 | None, frames: Float32 | None = None) -> None:
        """Add the scores of neighbouring windows.

        ``clip``: clip-wise scores [windows, labels]; not needed where ``frame_share`` is 1.
        ``frames``: frame-wise scores [windows, frames, labels]; not needed where ``frame_share`` is 0.
        """
        scores = self._checked(clip, frames)
        if first < self._next_window or first in self._early:
            raise ValueError(f"window {first} was added before")
        self._early[first] = scores
        while (scores_next := self._early.pop(self._next_window, None)) is not None:
            self._accumulate(scores_next)
        self._emit_complete_rows()

    def finish(self, n_rows: int) -> None:
        """End the file after ``n_rows`` rows; any beyond them never were its own. ValueError if windows are missing."""
        if self._early or self._next_window < self._grid.n_windows(n_rows):
            raise ValueError(f"window {self._next_window} is missing, {n_rows} rows were announced")
        self._n_rows = n_rows
        self._emit_complete_rows()

    def take(self) -> Float32:
        """Return the rows [m, labels] completed since the last call, in order; possibly none."""
        ready, self._ready = self._ready, []
        if len(ready) == 1:
            return ready[0]
        return np.concatenate(ready) if ready else np.zeros((0, self._n_labels), np.float32)

    def _checked(self, clip: Float32 | None, frames: Float32 | None) -> _Scores:
        clip = clip if self._frame_share < 1 else None
        frames = frames if self._frame_share > 0 else None
        if clip is None and self._frame_share < 1:
            raise ValueError(f"frame_share is {self._frame_share:g}, but there are no clip-wise scores")
        if frames is None and self._frame_share > 0:
            raise ValueError(f"frame_share is {self._frame_share:g}, but there are no frame-wise scores")
        if clip is not None and (clip.ndim != 2 or clip.shape[1] != self._n_labels):
            raise ValueError(f"clip-wise scores are {clip.shape}, needed is (windows, {self._n_labels})")
        if frames is not None and (frames.ndim != 3 or 0 in frames.shape[:2] or frames.shape[2] != self._n_labels):
            raise ValueError(f"frame-wise scores are {frames.shape}, needed is (windows, frames, {self._n_labels})")
        lengths = {len(scores) for scores in (clip, frames) if scores is not None}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"scores are of {sorted(lengths)} windows, needed is one number of at least 1")
        return _Scores(clip, frames, lengths.pop())

    def _accumulate(self, scores: _Scores) -> None:
        if self._rows_are_windows:
            assert scores.clip is not None  # see _checked
            self._ready.append(scores.clip)
            self._n_done += scores.n_windows
        else:
            if scores.clip is not None:
                self._clips.add(scores.clip)
            if scores.frames is not None:
                self._frames.add(self._next_window, scores.frames)
        self._next_window += scores.n_windows

    def _emit_complete_rows(self) -> None:
        begin, end = self._n_done, self._n_complete()
        if self._rows_are_windows or end <= begin:
            return
        rows = np.zeros((end - begin, self._n_labels))
        if self._frame_share < 1:
            rows += (1 - self._frame_share) * self._clips.rows(begin, end)
        if self._frame_share > 0:
            rows += self._frame_share * self._frames.rows(begin, end, self._n_known_rows())
        self._ready.append(rows.astype(np.float32))
        self._n_done = end

    def _n_known_rows(self) -> int:
        """Rows that exist for certain.

        The last window exists because the windows before it do not cover all rows. More cannot be concluded: the end of
        a window may lie far beyond the end of the file.
        """
        grid, known = self._grid, 1
        if self._next_window > 1:
            known += ((self._next_window - 2) * grid.stride_samples + grid.center_samples) // grid.row_samples
        return max(known, self._n_rows or 0)

    def _n_complete(self) -> int:
        if self._n_rows is not None:
            return self._n_rows
        n_complete = n_known_rows = self._n_known_rows()
        if self._frame_share < 1:
            n_complete = min(n_complete, self._clips.n_complete(self._next_window))
        if self._frame_share > 0:
            n_complete = min(n_complete, self._frames.n_complete(self._next_window, n_known_rows))
        return n_complete


class ScoredPart:
    """The part of a window whose scores count, in samples."""

    def __init__(self, grid: WindowGrid, samples: int) -> None:
        self.grid, self.samples = grid, samples
        self.offset = (grid.window_samples - samples) // 2
        """From the window's beginning."""

    @property
    def is_within_its_row(self) -> bool:
        """Whether the scored part of window k lies in row k, so that a window's scores are its row."""
        begin, row = self.begin(0), self.grid.row_samples
        return self.grid.stride_samples == row and begin >= 0 and begin + self.samples <= row

    def begin(self, window: int) -> int:
        """Sample of the file at which a window's scored part begins."""
        return self.grid.begin(window) + self.offset

    def overlap(self, windows: Int64, rows: Int64) -> Int64:
        """Samples that the windows' scored parts share with the rows, element by element; >= 0."""
        row, begin = self.grid.row_samples, self.begin(0) + windows * self.grid.stride_samples
        shared = np.minimum(begin + self.samples, (rows + 1) * row) - np.maximum(begin, rows * row)
        return np.asarray(np.maximum(shared, 0))

    def first_windows(self, rows: Int64) -> Int64:
        """For each row the first window whose scored part overlaps it."""
        past = rows * self.grid.row_samples - self.samples - self.begin(0)
        return np.asarray(np.maximum(past // self.grid.stride_samples + 1, 0))


class ClipAggregation:
    """Clip-wise scores [windows, labels] -> rows."""

    def __init__(self, part: ScoredPart, overlap: str, n_labels: int) -> None:
        self._part, self._merge = part, _weighted_mean if overlap == "mean" else _maximum
        self._held: list[Float32] = [np.zeros((0, n_labels), np.float32)]
        self._first = 0  # window that is held

    def add(self, clip: Float32) -> None:
        """Add the scores of the next windows."""
        self._held.append(clip)

    def n_complete(self, n_windows: int) -> int:
        """Rows before the scored part of the next window."""
        return self._part.begin(n_windows) // self._part.grid.row_samples

    def rows(self, begin: int, end: int) -> Float64:
        """Rows [end - begin, labels]; windows that no later row needs are dropped."""
        part, row = self._part, self._part.grid.row_samples
        held, rows = np.concatenate(self._held), np.arange(begin, end + 1)[:, None]
        most = -(-(row + part.samples) // part.grid.stride_samples)  # windows that may overlap one row
        firsts = part.first_windows(rows)
        windows = firsts[:-1] + np.arange(most)
        overlap = part.overlap(windows, rows[:-1])
        overlap[windows >= self._first + len(held)] = 0  # the file has no more
        merged = self._merge(held, windows - self._first, overlap, min(part.samples, row))
        keep = min(int(firsts[-1, 0]) - self._first, len(held))
        self._held, self._first = [held[keep:].copy()], self._first + keep
        return merged


def _weighted_mean(held: Float32, windows: Int64, overlap: Int64, most: int) -> Float64:
    """Mean of the windows [rows, k] of each row, weighted by the samples [rows, k] that they share with it, if any."""
    # Whole samples times float32 are exact in float64: the mean of equal scores is that score, and no mean leaves the
    # range of its scores.
    total = np.zeros((len(windows), held.shape[1]))
    for column, weight in zip(windows.T, overlap.T, strict=True):
        counts = weight > 0
        total[counts] += weight[counts, None] * held[column[counts]].astype(np.float64)
    total /= overlap.sum(axis=1, keepdims=True)
    return total


def _maximum(held: Float32, windows: Int64, overlap: Int64, most: int) -> Float64:
    """Maximum over the windows of each row that share at least half of ``most``; arguments as above."""
    counts = 2 * overlap >= most
    counts[np.arange(len(windows)), overlap.argmax(axis=1)] = True
    highest = np.full((len(windows), held.shape[1]), -np.inf)
    for column, rows in zip(windows.T, counts.T, strict=True):
        highest[rows] = np.maximum(highest[rows], held[column[rows]])
    return highest


class FrameAggregation:
    """Frame-wise scores [windows, frames, labels] on one clock -> rows."""

    def __init__(self, part: ScoredPart, config: AggregationConfig, n_labels: int) -> None:
        self._part = part
        self._combine: np.ufunc = np.add if config.overlap == "mean" else np.maximum
        self._empty = 0.0 if config.overlap == "mean" else -np.inf
        self._pool: Callable[..., Float64] = np.max if config.frame_pool == "max" else np.mean
        rate = part.grid.sample_rate
        weights = np.array(config.frame_shift_weights) / sum(config.frame_shift_weights)
        self._shifts = [
            (round(shift * rate), float(weight))
            for shift, weight in zip(config.frame_shifts_seconds, weights, strict=True)
        ]
        self._values = np.zeros((0, n_labels))
        self._counts = np.zeros(0, np.int64)
        self._first = 0  # tick that is held; the first window's may lie before the file
        self._n_frames, self._slack = 0, 0  # known from the first scores on
        self._begin, self._end = 0, 0  # frames of a window that lie in its scored part

    def add(self, first: int, frames: Float32) -> None:
        """Add frames [windows, frames, labels] to the clock."""
        if not self._n_frames:
            self._set_n_frames(frames.shape[1])
        if frames.shape[1] != self._n_frames:
            raise ValueError(f"a window has {frames.shape[1]} frames, those before had {self._n_frames}")
        self._extend(self._tick(first + len(frames) - 1) + self._end)
        for window, scores in enumerate(frames[:, self._begin : self._end], first):
            begin = self._tick(window) + self._begin - self._first
            at = slice(begin, begin + len(scores))
            self._combine(self._values[at], scores, out=self._values[at])
            self._counts[at] += 1

    def n_complete(self, n_windows: int, n_known_rows: int) -> int:
        """Rows that are known to exist and whose ticks all lie before the next window's scored part."""
        if not self._n_frames:
            return 0
        row, window = self._part.grid.row_samples, self._part.grid.window_samples
        final = self._tick(n_windows) + self._begin  # ticks before this one are final
        known = min(final, self._first_tick_at(n_known_rows * row))
        ahead = max([0, *(shift for shift, _ in self._shifts)])
        pooled = ((2 * known + 1) * window - 2 * self._n_frames * ahead) // (2 * self._n_frames * row)
        # The tick nearest to the row's middle may be needed instead.
        nearest = ((2 * window * (final - self._slack) - 1) // (self._n_frames * row) + 1) // 2
        return min(pooled, nearest)

    def rows(self, begin: int, end: int, n_known_rows: int) -> Float64:
        """Rows [end - begin, labels] of a file of at least ``n_known_rows`` rows."""
        held = np.flatnonzero(self._counts)
        values, ticks = self._values[held], held + self._first
        if self._combine is np.add:
            values /= self._counts[held, None]
        end_of_file = self._first_tick_at(n_known_rows * self._part.grid.row_samples)
        n_in_file = int(np.searchsorted(ticks, end_of_file))
        rows = np.zeros((end - begin, values.shape[1]))
        for shift, weight in self._shifts:
            ranges = self._ranges(ticks, n_in_file, begin, end, shift)
            for row, (low, high) in zip(rows, ranges, strict=True):
                row += weight * self._pool(values[low:high], axis=0)
        self._drop_before(end)
        return rows

    def _ranges(self, ticks: Int64, n_in_file: int, begin: int, end: int, shift: int) -> list[tuple[int, int]]:
        """For each row the range of indices into ``ticks`` that it pools, never empty."""
        row = self._part.grid.row_samples
        bounds = [self._first_tick_at(max(0, index * row + shift)) for index in range(begin, end + 1)]
        ranges = list(pairwise(np.searchsorted(ticks[:n_in_file], bounds).tolist()))
        for index, (low, high) in enumerate(ranges):
            if low == high and shift:
                (ranges[index],) = self._ranges(ticks, n_in_file, begin + index, begin + index + 1, 0)
            elif low == high:
                # Twice the distances of the ticks' centers from the row's middle, in whole numbers.
                middle = (2 * (begin + index) + 1) * row * self._n_frames
                away = np.abs((2 * ticks + 1) * self._part.grid.window_samples - middle)
                ranges[index] = (int(away.argmin()), int(away.argmin()) + 1)
        return ranges

    def _set_n_frames(self, n_frames: int) -> None:
        part, window = self._part, self._part.grid.window_samples
        self._n_frames = n_frames
        self._begin = self._first_tick_at(part.offset)
        self._end = self._first_tick_at(part.offset + part.samples)
        if self._begin >= self._end:
            seconds = window / n_frames / part.grid.sample_rate
            raise ValueError(f"none of {n_frames} frames of {seconds:g} s is centered in the window's scored part")
        self._first = self._tick(0) + self._begin
        # From anywhere in the file some tick with a frame is at most this far: there may be gaps between scored parts,
        # and the beginnings of windows are rounded to ticks.
        gap = max(0, part.grid.center_samples - part.samples)
        self._slack = -(-gap * n_frames // window) + 2

    def _first_tick_at(self, sample: int) -> int:
        """The first tick whose center is not before a sample of the file."""
        window: int = self._part.grid.window_samples
        return -((window - 2 * self._n_frames * sample) // (2 * window))

    def _tick(self, window: int) -> int:
        length = self._part.grid.window_samples
        return (2 * self._n_frames * self._part.grid.begin(window) + length) // (2 * length)

    def _extend(self, end: int) -> None:
        missing = end - self._first - len(self._counts)
        if missing > 0:
            self._values = np.concatenate([self._values, np.full((missing, self._values.shape[1]), self._empty)])
            self._counts = np.concatenate([self._counts, np.zeros(missing, np.int64)])

    def _drop_before(self, row: int) -> None:
        """Drop the ticks that no row from this one on can need."""
        behind = min([0, *(shift for shift, _ in self._shifts)])
        begin = row * self._part.grid.row_samples
        keep = min(self._first_tick_at(begin + behind), self._first_tick_at(begin) - self._slack) - self._first
        if keep > 0:
            self._values, self._counts = self._values[keep:].copy(), self._counts[keep:].copy()
            self._first += keep
