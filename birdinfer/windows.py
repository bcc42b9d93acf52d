"""Waveform blocks -> runs of neighbouring windows with true sound at their margins; and where windows lie.

In: mono float32 blocks of any length. Out: :class:`WindowRun` of up to ``n_windows`` windows, ready for
:func:`birdinfer.mel.windows_to_input`. At most one run, its margins and its context are held, whatever a file's length.

A file is divided into rows, which is what a submission counts, and heard in windows, which is what a model takes. A
:class:`Placement` says in samples how the two lie to each other: window k has its core, the part that stands for it,
at ``k * stride_samples``, and equal context on either side of it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.audio import read_segment
from birdinfer.config import Hearing, TimelineConfig, WindowConfig
from birdinfer.errors import AudioError, ConfigError

Float32 = npt.NDArray[np.float32]


class WindowRun(NamedTuple):
    """Neighbouring windows of one file."""

    first: int
    """Index of the first window within its file, from 0."""
    n_windows: int
    samples: Float32
    """``margin_samples``, the windows, ``margin_samples``; window i begins ``i * stride_samples`` after the first."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How windows lie on the rows of a file; made by :func:`place`. All but the rate are samples."""

    window_samples: int
    stride_samples: int
    """From one window's beginning to the next one's; at most a window."""
    context_samples: int
    """What a window hears before its core, and after it."""
    core_samples: int
    """The centre of a window: a row, or the stride if that is longer, or all of a shorter window."""
    margin_samples: int
    """What a window's first and last frames reach into beyond the window."""
    row_samples: int
    min_tail_samples: int
    """What a file's rest needs to become a row."""
    sample_rate: int
    """Hz."""

    def n_rows(self, n_samples: int) -> int:
        """Rows of a file of ``n_samples``; at least 1."""
        return max(1, count_windows(n_samples, self.row_samples, self.min_tail_samples))

    def n_windows(self, n_rows: int) -> int:
        """Windows whose cores cover ``n_rows``; at least 1."""
        return max(0, -((self.core_samples - n_rows * self.row_samples) // self.stride_samples)) + 1

    def begin(self, window: int) -> int:
        """Sample of the file at which a window begins; negative where its context lies before the file."""
        return window * self.stride_samples - self.context_samples

    def head_samples(self, head_seconds: float | None) -> int:
        """Samples of the centred part of a window whose opinion counts; the core if None.

        Raises:
            ConfigError: the head is longer than the window, or so short that there are rows without any.
        """
        if head_seconds is None:
            return self.core_samples
        head = round(head_seconds * self.sample_rate)
        if head > self.window_samples:
            raise ConfigError(
                "timeline.head_seconds",
                f"{head_seconds:g} s, but a window lasts {self.window_samples / self.sample_rate:g} s",
            )
        if self.stride_samples - head >= self.row_samples:
            shortest = (self.stride_samples - self.row_samples) / self.sample_rate
            raise ConfigError(
                "timeline.head_seconds",
                f"{head_seconds:g} s every {self.stride_samples / self.sample_rate:g} s leaves rows without an opinion",
                f"take more than {shortest:g} s",
            )
        return head


def place(hearing: Hearing, timeline: TimelineConfig, rows: WindowConfig) -> Placement:
    """Lay a model's windows on the rows of a submission.

    Args:
        hearing: window length, margins and rate.
        timeline: stride and head.
        rows: length of a row, and the shortest rest that is one.

    Raises:
        ConfigError: windows would leave gaps, or heads would.
    """
    rate, window, row = hearing.audio.sample_rate, hearing.window_samples, rows.window_seconds
    stride_seconds = timeline.stride_seconds
    if stride_seconds is None:
        stride_seconds = row / math.ceil(row / hearing.window.window_seconds)
    stride, row_samples = round(stride_seconds * rate), round(row * rate)
    if stride > window:
        raise ConfigError(
            "timeline.stride_seconds",
            f"{stride_seconds:g} s leaves gaps between windows of {hearing.window.window_seconds:g} s",
            "take at most a window",
        )
    core = min(window, max(stride, row_samples))
    tail = max(1, round(rows.min_tail_seconds * rate))
    placement = Placement(window, stride, (window - core) // 2, core, hearing.margin_samples, row_samples, tail, rate)
    placement.head_samples(timeline.head_seconds)
    return placement


def count_windows(n_samples: int, window_samples: int, min_tail_samples: int) -> int:
    """How many windows a stretch of sound makes.

    A rest of at least ``min_tail_samples`` becomes a window of its own (padded with zeros), a shorter one makes none:
    59.999 s and 60.001 s both give 12 windows of 5 s.
    """
    full, tail = divmod(n_samples, window_samples)
    return full + (tail >= min_tail_samples)


def end_seconds(n_windows: int, config: WindowConfig) -> list[int]:
    """The end of each window in whole seconds, as row ids count: 5, 10, 15 ..."""
    return [round((index + 1) * config.window_seconds) for index in range(n_windows)]


class Samples(Protocol):
    """A waveform that can be cut: an array, or what decodes a stretch when it is asked for."""

    def __getitem__(self, stretch: slice, /) -> Float32: ...


def window_of(samples: Samples, start_sample: int, hearing: Hearing, name: str | Path = "waveform") -> Float32:
    """One window of a file's sound with its margins, cut out as one stretch: what training hears.

    Args:
        samples: all of the sound, at the rate of ``hearing``; a slice of it may be shorter where it ends.
        start_sample: the window's first sample, >= 0.
        hearing: window length and margins.
        name: what an error calls the sound.

    Returns:
        ``margin_samples``, one window, ``margin_samples``, as :func:`cut_runs` gives them to windows without context.

    Raises:
        AudioError: the sound ends before the window begins.
    """
    margin, length = hearing.margin_samples, hearing.window_samples
    left = min(start_sample, margin)
    held = samples[start_sample - left : start_sample + length + margin]
    if len(held) <= left:
        raise AudioError(name, f"holds no sound at {start_sample / hearing.audio.sample_rate:.1f} s")
    held = np.pad(held, (0, left + length - len(held))) if len(held) < left + length else held
    missing = (margin - left, left + length + margin - len(held))
    return np.pad(held, missing, mode="reflect") if any(missing) else held


@dataclass(frozen=True, slots=True)
class _FileSamples:
    """A file as :class:`Samples`, taken to end at sample ``end``; nothing before a stretch is decoded."""

    path: Path
    sample_rate: int
    end: float

    def __getitem__(self, stretch: slice, /) -> Float32:
        count = max(0, round(min(stretch.stop, self.end) - stretch.start))
        return read_segment(self.path, stretch.start / self.sample_rate, count, self.sample_rate)


def read_window(path: Path, start_seconds: float, hearing: Hearing, until_seconds: float = math.inf) -> Float32:
    """As :func:`window_of`, out of a sound file that is taken to end at ``until_seconds``.

    Raises:
        InputNotFoundError: there is no such file.
        AudioError: the file cannot be decoded, or holds no sound there.
    """
    rate = hearing.audio.sample_rate
    return window_of(_FileSamples(path, rate, until_seconds * rate), round(start_seconds * rate), hearing, path)


class RunCutter:
    """Cuts a waveform that is pushed block by block; several cutters may be fed from one decoder.

    The sound that is cut is the file's, padded with zeros to whole rows. (A rest too short for a row is none, but the
    windows before it hear it.) Beyond the two ends it is reflected, again and again where it is shorter than the
    context. Each window's samples are the same bits whatever the blocks and runs.
    """

    n_rows: int = 0
    """Rows of the file; known after :meth:`close`."""

    def __init__(self, placement: Placement, n_windows: int) -> None:
        """Begin a file.

        Args:
            placement: where the windows lie.
            n_windows: the most windows in a run, and the number in all but the last.
        """
        self._placement, self._most = placement, n_windows
        self._pieces: list[Float32] = []
        self._begin, self._end = 0, 0  # of the sound that is held, in samples of the file
        self._first = 0
        # How far the last window may reach beyond the end of the last row, to be filled with reflected sound. What is
        # reflected there may lie before that window's own beginning, by as much as this.
        stride, core = placement.stride_samples, placement.core_samples
        beyond = stride - math.gcd(stride, placement.row_samples, core)
        self._looks_back = max(0, 2 * beyond + 1 - core)

    def push(self, block: Float32) -> list[WindowRun]:
        """Take the next block [samples].

        Returns:
            The runs that are now complete; views where possible.
        """
        self._pieces.append(block)
        self._end += len(block)
        place, runs = self._placement, []
        # A window is cut when there is sound all around it, and when it is certain that its row will exist.
        n_certain = place.n_windows(place.n_rows(self._end))
        while self._first + self._most <= n_certain and self._span(self._most)[1] <= self._end:
            runs.append(self._cut(self._most))
        if runs:
            keep = max(self._begin, self._span(1)[0] - self._looks_back)
            # A copy, so that the runs' sound is let go with them.
            self._hold(self._held()[keep - self._begin :].copy(), keep)
        return runs

    def close(self) -> list[WindowRun]:
        """The runs at the end of the file; no more blocks come."""
        place = self._placement
        self.n_rows = place.n_rows(self._end)
        n_windows = place.n_windows(self.n_rows)
        missing = self.n_rows * place.row_samples - self._end
        if missing > 0:
            self._pieces.append(np.zeros(missing, np.float32))
            self._end += missing
        runs = []
        while self._first < n_windows:
            runs.append(self._cut(min(self._most, n_windows - self._first)))
        self._hold(np.zeros(0, np.float32), self._end)
        return runs

    def _span(self, n_windows: int) -> tuple[int, int]:
        """Begin and end of the next ``n_windows`` with their margins, in samples of the file."""
        place = self._placement
        begin = place.begin(self._first) - place.margin_samples
        length = (n_windows - 1) * place.stride_samples + place.window_samples + 2 * place.margin_samples
        return begin, begin + length

    def _held(self) -> Float32:
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate([np.zeros(0, np.float32), *self._pieces])]
        return self._pieces[0]

    def _hold(self, samples: Float32, begin: int) -> None:
        self._pieces, self._begin = [samples], begin

    def _cut(self, n_windows: int) -> WindowRun:
        """The next run; what lies beyond the ends of the sound is reflected."""
        (begin, end), held = self._span(n_windows), self._held()
        samples = held[max(begin, 0) - self._begin : end - self._begin]
        if begin < 0 or end > self._end:
            left = _reflected(np.arange(min(begin, 0), 0), self._end) - self._begin
            right = _reflected(np.arange(self._end, max(end, self._end)), self._end) - self._begin
            samples = np.concatenate([held[left], samples, held[right]])
        run = WindowRun(self._first, n_windows, samples)
        self._first += n_windows
        return run


def cut_runs(blocks: Iterable[Float32], n_windows: int, placement: Placement) -> Iterator[WindowRun]:
    """Cut a waveform into runs of windows.

    A window's context and margins are the file's own neighbouring sound; only beyond the file's two ends are they
    reflected. A last row that the file does not fill is padded with zeros. A file, however short, has at least one
    window.

    Args:
        blocks: the waveform [samples], block by block.
        n_windows: the most windows in a run.
        placement: where the windows lie.

    Yields:
        Runs in order; every window of the file is in exactly one.
    """
    cutter = RunCutter(placement, n_windows)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.close()


def _reflected(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Where sound beyond the ends of ``length`` >= 2 samples is found within them: -1 -> 1, length -> length - 2."""
    within = index % (2 * length - 2)
    return np.minimum(within, 2 * length - 2 - within)
