"""Waveform blocks -> batches of neighbouring windows with true sound at their margins; and where windows lie.

In: mono float32 blocks of any length. Out: :class:`WindowBatch` of up to ``n_windows`` windows, ready for
:func:`birdinfer.features.log_mel.windows_to_input`. At most one batch, its margins and its context are held, whatever
a file's length.

A file is divided into rows, the unit of a submission, and into windows, the input of a model. A :class:`WindowGrid`
gives in samples how the two lie to each other: window k has its center, the part that stands for it, at
``k * stride_samples``, and equal context on either side of it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from birdinfer.audio.stream import read_segment
from birdinfer.config import AggregationConfig, InputConfig, WindowConfig
from birdinfer.errors import AudioError, ConfigError
from birdinfer.typing import Float32, Int64


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Neighbouring windows of one file."""

    first: int
    """Index of the first window within its file, from 0."""
    n_windows: int
    samples: Float32
    """``margin_samples``, the windows, ``margin_samples``; window i begins ``i * stride_samples`` after the first."""
    member_group: int = 0
    """Index of the window grid that they are for."""

    def split(self, n_windows: int, grid: "WindowGrid") -> tuple["WindowBatch", "WindowBatch"]:
        """Return the first ``n_windows`` and the others, as views; the grid is that of the windows."""
        length = (n_windows - 1) * grid.stride_samples + grid.window_samples + 2 * grid.margin_samples
        first = WindowBatch(self.first, n_windows, self.samples[:length], self.member_group)
        begin, n_others = n_windows * grid.stride_samples, self.n_windows - n_windows
        return first, WindowBatch(self.first + n_windows, n_others, self.samples[begin:], self.member_group)


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """How windows lie on the rows of a file; made by :func:`make_grid`. All but the rate are samples."""

    window_samples: int
    stride_samples: int
    """From one window's beginning to the next one's; at most a window."""
    context_samples: int
    """Of a window, before its center and after it."""
    center_samples: int
    """The centre of a window: a row, or the stride if that is longer, or all of a shorter window."""
    margin_samples: int
    """How far a window's first and last frames reach beyond the window."""
    row_samples: int
    min_tail_samples: int
    """Least length of a file's rest that becomes a row."""
    sample_rate: int

    def n_rows(self, n_samples: int) -> int:
        """Count the rows of a file of ``n_samples``; at least 1."""
        return max(1, count_windows(n_samples, self.row_samples, self.min_tail_samples))

    def n_windows(self, n_rows: int) -> int:
        """Count the windows whose centers cover ``n_rows``; at least 1."""
        return max(0, -((self.center_samples - n_rows * self.row_samples) // self.stride_samples)) + 1

    def begin(self, window: int) -> int:
        """Return the sample at which a window begins; negative where its context lies before the file."""
        return window * self.stride_samples - self.context_samples

    def scored_samples(self, scored_seconds: float | None) -> int:
        """Return the samples of the centred part of a window whose scores count; the center if None."""
        if scored_seconds is None:
            return self.center_samples
        samples = round(scored_seconds * self.sample_rate)
        if samples > self.window_samples:
            raise ConfigError(
                "timeline.head_seconds",
                f"{scored_seconds:g} s, but a window lasts {self.window_samples / self.sample_rate:g} s",
            )
        if self.stride_samples - samples >= self.row_samples:
            shortest = (self.stride_samples - self.row_samples) / self.sample_rate
            raise ConfigError(
                "timeline.head_seconds",
                f"{scored_seconds:g} s every {self.stride_samples / self.sample_rate:g} s leaves rows without a score",
                f"take more than {shortest:g} s",
            )
        return samples


def make_grid(input_config: InputConfig, aggregation: AggregationConfig, rows: WindowConfig) -> WindowGrid:
    """Place a model's windows on the rows of a submission; ConfigError if they, or their scored parts, leave gaps."""
    rate, window, row = input_config.audio.sample_rate, input_config.window_samples, rows.window_seconds
    stride_seconds = aggregation.stride_seconds
    if stride_seconds is None:
        stride_seconds = row / math.ceil(row / input_config.window.window_seconds)
    stride, row_samples = round(stride_seconds * rate), round(row * rate)
    if stride > window:
        raise ConfigError(
            "timeline.stride_seconds",
            f"{stride_seconds:g} s leaves gaps between windows of {input_config.window.window_seconds:g} s",
            "take at most a window",
        )
    core = min(window, max(stride, row_samples))
    tail = max(1, round(rows.min_tail_seconds * rate))
    grid = WindowGrid(window, stride, (window - core) // 2, core, input_config.margin_samples, row_samples, tail, rate)
    grid.scored_samples(aggregation.scored_seconds)
    return grid


def count_windows(n_samples: int, window_samples: int, min_tail_samples: int) -> int:
    """Count the windows of a stretch of sound.

    A rest of at least ``min_tail_samples`` becomes a window of its own (padded with zeros), a shorter one makes none.

    >>> [count_windows(round(seconds * 1000), 5000, 500) for seconds in (59.999, 60.001, 60.5)]
    [12, 12, 13]
    """
    full, tail = divmod(n_samples, window_samples)
    return full + (tail >= min_tail_samples)


def end_seconds(n_windows: int, config: WindowConfig) -> list[int]:
    """Return the end of each window in whole seconds, as row ids count: 5, 10, 15 ..."""
    return [round((index + 1) * config.window_seconds) for index in range(n_windows)]


class Samples(Protocol):
    """A waveform that can be sliced: an array, or an object that decodes the slice."""

    def __getitem__(self, stretch: slice, /) -> Float32: ...


def window_of(samples: Samples, start_sample: int, input_config: InputConfig, name: str | Path = "waveform") -> Float32:
    """Cut one window with its margins out of a file's sound, as training takes it.

    Returns what :func:`cut_batches` gives without context; AudioError if the sound ends before the window begins.
    """
    margin, length = input_config.margin_samples, input_config.window_samples
    left = min(start_sample, margin)
    held = samples[start_sample - left : start_sample + length + margin]
    if len(held) <= left:
        raise AudioError(name, f"holds no sound at {start_sample / input_config.audio.sample_rate:.1f} s")
    held = np.pad(held, (0, left + length - len(held))) if len(held) < left + length else held
    missing = (margin - left, left + length + margin - len(held))
    return np.pad(held, missing, mode="reflect") if any(missing) else held


@dataclass(frozen=True, slots=True)
class _FileSamples:
    """A file as :class:`Samples`, from sample ``begin`` to sample ``end``; nothing before a stretch is decoded."""

    path: Path
    sample_rate: int
    begin: int
    end: float

    def __getitem__(self, stretch: slice, /) -> Float32:
        start = self.begin + stretch.start
        count = max(0, round(min(self.begin + stretch.stop, self.end) - start))
        return read_segment(self.path, start / self.sample_rate, count, self.sample_rate)


def read_window(
    path: Path,
    start_seconds: float,
    input_config: InputConfig,
    until_seconds: float = math.inf,
    from_seconds: float = 0.0,
) -> Float32:
    """Do as :func:`window_of` with a file, taken to end at ``until_seconds`` and to begin at ``from_seconds``.

    ``start_seconds`` counts from there. Raises InputNotFoundError, AudioError.
    """
    rate = input_config.audio.sample_rate
    sound = _FileSamples(path, rate, round(from_seconds * rate), until_seconds * rate)
    return window_of(sound, round(start_seconds * rate), input_config, path)


class WindowCutter:
    """Cuts a waveform that is pushed block by block; several cutters may be fed from one decoder.

    The file's sound is padded with zeros to whole rows. (A rest too short for a row is none, but it is context of the
    windows before it.) Beyond the two ends it is reflected, repeatedly where it is shorter than the context. Each
    window's samples are the same bits whatever the blocks and batches.
    """

    n_rows: int = 0
    """Rows of the file; known after :meth:`close`."""

    def __init__(self, grid: WindowGrid, n_windows: int, member_group: int = 0) -> None:
        """Start a file whose batches have ``n_windows``, the last perhaps fewer."""
        self._grid, self._most, self._member_group = grid, n_windows, member_group
        self._pieces: list[Float32] = []
        self._begin, self._end = 0, 0  # of the sound that is held, in samples of the file
        self._first = 0
        # How far the last window may reach beyond the end of the last row, to be filled with reflected sound. What is
        # reflected there may lie before that window's own beginning, by as much as this.
        stride, center = grid.stride_samples, grid.center_samples
        beyond = stride - math.gcd(stride, grid.row_samples, center)
        self._looks_back = max(0, 2 * beyond + 1 - center)

    def push(self, block: Float32) -> list[WindowBatch]:
        """Take the next block [samples] and return the batches that are now complete, as views where possible."""
        self._pieces.append(block)
        self._end += len(block)
        grid, batches = self._grid, []
        # A window is cut when there is sound all around it, and when it is certain that its row will exist.
        n_certain = grid.n_windows(grid.n_rows(self._end))
        while self._first + self._most <= n_certain and self._span(self._most)[1] <= self._end:
            batches.append(self._cut(self._most))
        if batches:
            keep = max(self._begin, self._span(1)[0] - self._looks_back)
            # A copy, so that the batches' sound is freed with them.
            self._hold(self._held()[keep - self._begin :].copy(), keep)
        return batches

    def close(self) -> list[WindowBatch]:
        """Return the batches at the end of the file; no more blocks come."""
        grid = self._grid
        self.n_rows = grid.n_rows(self._end)
        n_windows = grid.n_windows(self.n_rows)
        missing = self.n_rows * grid.row_samples - self._end
        if missing > 0:
            self._pieces.append(np.zeros(missing, np.float32))
            self._end += missing
        batches = []
        while self._first < n_windows:
            batches.append(self._cut(min(self._most, n_windows - self._first)))
        self._hold(np.zeros(0, np.float32), self._end)
        return batches

    def _span(self, n_windows: int) -> tuple[int, int]:
        grid = self._grid
        begin = grid.begin(self._first) - grid.margin_samples
        length = (n_windows - 1) * grid.stride_samples + grid.window_samples + 2 * grid.margin_samples
        return begin, begin + length

    def _held(self) -> Float32:
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate([np.zeros(0, np.float32), *self._pieces])]
        return self._pieces[0]

    def _hold(self, samples: Float32, begin: int) -> None:
        self._pieces, self._begin = [samples], begin

    def _cut(self, n_windows: int) -> WindowBatch:
        """The next batch; what lies beyond the ends of the sound is reflected."""
        (begin, end), held = self._span(n_windows), self._held()
        samples = held[max(begin, 0) - self._begin : end - self._begin]
        if begin < 0 or end > self._end:
            left = _reflected(np.arange(min(begin, 0), 0), self._end) - self._begin
            right = _reflected(np.arange(self._end, max(end, self._end)), self._end) - self._begin
            samples = np.concatenate([held[left], samples, held[right]])
        batch = WindowBatch(self._first, n_windows, samples, self._member_group)
        self._first += n_windows
        return batch


def cut_batches(blocks: Iterable[Float32], n_windows: int, grid: WindowGrid) -> Iterator[WindowBatch]:
    """Cut a waveform into batches of windows.

    A window's context and margins are the file's own neighbouring sound; only beyond the file's two ends are they
    reflected. A last row that the file does not fill is padded with zeros. A file, however short, has at least one
    window.
    """
    cutter = WindowCutter(grid, n_windows)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.close()


def _reflected(index: Int64, length: int) -> Int64:
    """Map samples beyond the ends of ``length`` >= 2 into them: -1 -> 1, length -> length - 2."""
    within = index % (2 * length - 2)
    return np.minimum(within, 2 * length - 2 - within)
