"""Waveform blocks -> runs of neighbouring windows with true sound at their margins; and the clock of windows.

In: mono float32 blocks of any length. Out: :class:`WindowRun` of up to ``n_windows`` windows, ready for
:func:`birdinfer.mel.windows_to_input`. At most one run and its margins are held, whatever a file's length.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio import read_segment
from birdinfer.config import FrontEndConfig, WindowConfig
from birdinfer.errors import AudioError

Float32 = npt.NDArray[np.float32]


class WindowRun(NamedTuple):
    """Neighbouring windows of one file."""

    first: int
    """Index of the first window within its file, from 0."""
    n_windows: int
    samples: Float32
    """``margin_samples``, the windows, ``margin_samples``."""


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


def read_window(path: Path, start_seconds: float, config: FrontEndConfig) -> Float32:
    """One window of a file with its margins, without decoding what lies before: what training hears.

    Args:
        path: the sound file.
        start_seconds: the window's beginning, >= 0; taken as 0 where it is less than a margin away from it.
        config: window length and margins.

    Returns:
        ``margin_samples``, one window, ``margin_samples``; the same samples that :func:`cut_runs` would give there.

    Raises:
        AudioError: the file cannot be decoded, or holds no sound there.
    """
    margin, rate = config.margin_samples, config.audio.sample_rate
    begin = round(start_seconds * rate)
    left = margin if begin >= margin else 0
    samples = read_segment(path, (begin - left) / rate if left else 0.0, left + config.window_samples + margin, rate)
    if len(samples) <= left:
        raise AudioError(path, f"holds no sound at {start_seconds:.1f} s")
    return _with_margins(samples, left, config.window_samples, margin)


def cut_runs(blocks: Iterable[Float32], n_windows: int, config: FrontEndConfig) -> Iterator[WindowRun]:
    """Cut a waveform into runs of windows.

    A window's margins are the file's own neighbouring sound; only at the file's two ends are they reflected. A last
    window that the file does not fill is padded with zeros. A file, however short, has at least one window.

    Args:
        blocks: the waveform [samples], block by block.
        n_windows: the most windows in a run.
        config: window length and margins.

    Yields:
        Runs in order; every window of the file is in exactly one.
    """
    window, margin = config.window_samples, config.margin_samples
    source, ended = iter(blocks), False
    rest, left, first = np.zeros(0, np.float32), 0, 0  # `rest` begins with `left` samples of margin
    while True:
        pieces = [rest]
        while not ended and sum(map(len, pieces)) < left + n_windows * window + margin:
            block = next(source, None)
            ended = block is None
            if block is not None:
                pieces.append(block)
        held = np.concatenate(pieces)
        in_run = n_windows
        if ended:
            ahead = max(0, len(held) - left)
            at_least = 1 if first == 0 else 0
            in_run = min(n_windows, max(at_least, count_windows(ahead, window, config.min_tail_samples)))
            if in_run == 0:
                return
        yield WindowRun(first, in_run, _with_margins(held, left, in_run * window, margin))
        first += in_run
        # A copy, so that the run's sound is let go with the run.
        rest, left = held[left + in_run * window - margin :].copy(), margin


def _with_margins(held: Float32, left: int, length: int, margin: int) -> Float32:
    """``margin``, ``length``, ``margin`` samples; a view where all of it is true sound, else padded as cut_runs says.

    Args:
        held: ``left`` samples of margin, then the windows and what follows them, as far as there is sound.
        left: ``margin``, or 0 at a file's beginning.
        length: samples of the windows.
        margin: samples wanted on either side.
    """
    known = held[: left + length + margin]
    if len(known) < left + length:
        known = np.pad(known, (0, left + length - len(known)))
    missing = (margin - left, left + length + margin - len(known))
    return np.pad(known, missing, mode="reflect") if any(missing) else known
