"""One clock for what a model says: scores of its windows, in any order -> scores of the rows of a file.

In: clip-wise scores [windows, labels] and, of sound event detectors, frame-wise scores [windows, frames, labels], run
by run as they come from several threads. Out: float32 [rows, labels], each row once and as soon as nothing more can be
said about it; only what is not yet complete is held. All positions are whole samples, as a
:class:`~birdinfer.windows.Placement` counts them.

Conventions
-----------
* Only a window's head counts, the ``head_seconds`` in its centre. What of it lies outside the file counts nowhere.
* Clip-wise, the windows whose heads overlap a row meet there: their mean weighted by the overlap, or their maximum (of
  those that overlap at least half of what they could; of none, the one that overlaps most).
* Frame j of T is centred ``(j + 0.5) W / T`` after its window's beginning. Frames lie on one clock of step ``W / T``;
  a window begins there at the nearest tick, which is exact where ``T`` times stride and context are multiples of ``W``,
  and at most half a frame off otherwise. Frames of overlapping windows meet tick by tick: unweighted mean or maximum. A
  row pools the ticks whose centres lie in it and in the file; where a coarse clock leaves it without any, it takes the
  one nearest to its middle.
* Windows are added up in their order, in float64: a row's bits depend neither on the order of arrival nor on the runs.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.config import TimelineConfig
from birdinfer.windows import Placement

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class _Scores(NamedTuple):
    """What came in for a run of windows."""

    clip: Float32 | None
    frames: Float32 | None
    n_windows: int


class Timeline:
    """Gathers what one model says of one file. Not for several threads at once."""

    def __init__(self, placement: Placement, config: TimelineConfig, n_labels: int) -> None:
        """Begin a file.

        Args:
            placement: where the windows lie; made by :func:`birdinfer.windows.place` with the same ``config``.
            config: how windows become rows.
            n_labels: columns of the scores.

        Raises:
            ConfigError: the head does not fit the placement.
        """
        self._placement, self._share, self._n_labels = placement, config.frame_share, n_labels
        self._early: dict[int, _Scores] = {}
        """Runs that came before one that lies before them, by first window."""
        self._next = 0
        """Windows up to here have come."""
        self._n_done = 0
        """Rows that are complete."""
        self._n_rows: int | None = None
        self._ready: list[Float32] = []
        head = _Head(placement, placement.head_samples(config.head_seconds))
        self._clips = _ClipRows(head, config.overlap, n_labels)
        self._frames = _FrameRows(head, config, n_labels)
        self._rows_are_windows = self._share == 0 and head.is_within_its_row

    def add(self, first: int, clip: Float32 | None, frames: Float32 | None = None) -> None:
        """Take the scores of a run of windows.

        Args:
            first: index of the run's first window.
            clip: clip-wise scores [windows, labels]; not needed where ``frame_share`` is 1.
            frames: frame-wise scores [windows, frames, labels]; not needed where ``frame_share`` is 0.

        Raises:
            ValueError: scores are missing, of another shape, or of windows that have come before.
        """
        scores = self._checked(clip, frames)
        if first < self._next or first in self._early:
            raise ValueError(f"window {first} has come before")
        self._early[first] = scores
        while (scores_next := self._early.pop(self._next, None)) is not None:
            self._lay(scores_next)
        self._complete()

    def close(self, n_rows: int) -> None:
        """No more windows come.

        Args:
            n_rows: rows of the file. Rows beyond them that were taken before are not the file's.

        Raises:
            ValueError: windows are missing.
        """
        if self._early or self._next < self._placement.n_windows(n_rows):
            raise ValueError(f"window {self._next} is missing, {n_rows} rows were announced")
        self._n_rows = n_rows
        self._complete()

    def take(self) -> Float32:
        """The rows [m, labels] that have become complete since the last call, in order; possibly none."""
        ready, self._ready = self._ready, []
        if len(ready) == 1:
            return ready[0]
        return np.concatenate(ready) if ready else np.zeros((0, self._n_labels), np.float32)

    def _checked(self, clip: Float32 | None, frames: Float32 | None) -> _Scores:
        clip = clip if self._share < 1 else None
        frames = frames if self._share > 0 else None
        if clip is None and self._share < 1:
            raise ValueError(f"frame_share is {self._share:g}, but there are no clip-wise scores")
        if frames is None and self._share > 0:
            raise ValueError(f"frame_share is {self._share:g}, but there are no frame-wise scores")
        if clip is not None and (clip.ndim != 2 or clip.shape[1] != self._n_labels):
            raise ValueError(f"clip-wise scores are {clip.shape}, needed is (windows, {self._n_labels})")
        if frames is not None and (frames.ndim != 3 or 0 in frames.shape[:2] or frames.shape[2] != self._n_labels):
            raise ValueError(f"frame-wise scores are {frames.shape}, needed is (windows, frames, {self._n_labels})")
        lengths = {len(scores) for scores in (clip, frames) if scores is not None}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"scores are of {sorted(lengths)} windows, needed is one number of at least 1")
        return _Scores(clip, frames, lengths.pop())

    def _lay(self, scores: _Scores) -> None:
        """Take the scores of the windows from ``_next`` on."""
        if self._rows_are_windows:
            assert scores.clip is not None  # _checked saw to it
            self._ready.append(scores.clip)
            self._n_done += scores.n_windows
        else:
            if scores.clip is not None:
                self._clips.lay(scores.clip)
            if scores.frames is not None:
                self._frames.lay(self._next, scores.frames)
        self._next += scores.n_windows

    def _complete(self) -> None:
        """Make rows of which everything is known, and let go what they were made of."""
        begin, end = self._n_done, self._n_complete()
        if self._rows_are_windows or end <= begin:
            return
        rows = np.zeros((end - begin, self._n_labels))
        if self._share < 1:
            rows += (1 - self._share) * self._clips.rows(begin, end)
        if self._share > 0:
            rows += self._share * self._frames.rows(begin, end, self._n_exist())
        self._ready.append(rows.astype(np.float32))
        self._n_done = end

    def _n_exist(self) -> int:
        """Rows that exist for certain: the last window is there because the windows before it do not cover them all.

        A window's coming shows no more: its end may reach far beyond the end of the file.
        """
        place = self._placement
        known = 1
        if self._next > 1:
            known += ((self._next - 2) * place.stride_samples + place.core_samples) // place.row_samples
        return max(known, self._n_rows or 0)

    def _n_complete(self) -> int:
        """Rows to which nothing can be added any more."""
        if self._n_rows is not None:
            return self._n_rows
        n_complete = n_exist = self._n_exist()
        if self._share < 1:
            n_complete = min(n_complete, self._clips.n_complete(self._next))
        if self._share > 0:
            n_complete = min(n_complete, self._frames.n_complete(self._next, n_exist))
        return n_complete


class _Head:
    """The part of a window that counts: where it lies, in samples."""

    def __init__(self, placement: Placement, samples: int) -> None:
        self.placement, self.samples = placement, samples
        self.offset = (placement.window_samples - samples) // 2
        """From the window's beginning."""

    @property
    def is_within_its_row(self) -> bool:
        """Whether window k's head lies in row k: then a row is what its window says."""
        begin, row = self.begin(0), self.placement.row_samples
        return self.placement.stride_samples == row and begin >= 0 and begin + self.samples <= row

    def begin(self, window: int) -> int:
        """Sample of the file at which a window's head begins."""
        return self.placement.begin(window) + self.offset

    def overlap(self, windows: Int64, rows: Int64) -> Int64:
        """Samples of the windows' heads in the rows, element by element; >= 0."""
        row, begin = self.placement.row_samples, self.begin(0) + windows * self.placement.stride_samples
        shared = np.minimum(begin + self.samples, (rows + 1) * row) - np.maximum(begin, rows * row)
        return np.asarray(np.maximum(shared, 0))

    def first_windows(self, rows: Int64) -> Int64:
        """For each row the first window whose head overlaps it."""
        past = rows * self.placement.row_samples - self.samples - self.begin(0)
        return np.asarray(np.maximum(past // self.placement.stride_samples + 1, 0))


class _ClipRows:
    """Clip-wise scores -> rows."""

    def __init__(self, head: _Head, overlap: str, n_labels: int) -> None:
        self._head, self._merge = head, _weighted_mean if overlap == "mean" else _maximum
        self._held: list[Float32] = [np.zeros((0, n_labels), np.float32)]
        self._first = 0  # window that is held

    def lay(self, clip: Float32) -> None:
        """Take the scores of the next windows."""
        self._held.append(clip)

    def n_complete(self, n_windows: int) -> int:
        """Rows before the next window's head."""
        return self._head.begin(n_windows) // self._head.placement.row_samples

    def rows(self, begin: int, end: int) -> Float64:
        """Rows [end - begin, labels]."""
        head, row = self._head, self._head.placement.row_samples
        held, rows = np.concatenate(self._held), np.arange(begin, end + 1)[:, None]
        most = -(-(row + head.samples) // head.placement.stride_samples)  # windows that may overlap one row
        firsts = head.first_windows(rows)
        windows = firsts[:-1] + np.arange(most)
        overlap = head.overlap(windows, rows[:-1])
        overlap[windows >= self._first + len(held)] = 0  # the file has no more
        merged = self._merge(held, windows - self._first, overlap, min(head.samples, row))
        keep = min(int(firsts[-1, 0]) - self._first, len(held))
        self._held, self._first = [held[keep:].copy()], self._first + keep
        return merged


def _weighted_mean(held: Float32, windows: Int64, overlap: Int64, most: int) -> Float64:
    """Mean of the windows of each row, weighted by their overlap.

    Args:
        held: scores [windows, labels].
        windows: indices into them [rows, k].
        overlap: samples that the window's head shares with the row [rows, k]; where it is 0 the window is not heard.
        most: samples that they could share.
    """
    # Whole samples times float32 are exact in float64, so that a mean of equals is that number and none leaves the
    # range of what it is made of.
    total = np.zeros((len(windows), held.shape[1]))
    for column, weight in zip(windows.T, overlap.T, strict=True):
        is_heard = weight > 0
        total[is_heard] += weight[is_heard, None] * held[column[is_heard]].astype(np.float64)
    total /= overlap.sum(axis=1, keepdims=True)
    return total


def _maximum(held: Float32, windows: Int64, overlap: Int64, most: int) -> Float64:
    """Maximum over the windows of each row that share at least half of what they could; arguments as above."""
    is_heard = 2 * overlap >= most
    is_heard[np.arange(len(windows)), overlap.argmax(axis=1)] = True
    highest = np.full((len(windows), held.shape[1]), -np.inf)
    for column, heard in zip(windows.T, is_heard.T, strict=True):
        highest[heard] = np.maximum(highest[heard], held[column[heard]])
    return highest


class _FrameRows:
    """Frame-wise scores on one clock -> rows."""

    def __init__(self, head: _Head, config: TimelineConfig, n_labels: int) -> None:
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
