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

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.clip_rows import ClipRows, Head
from birdinfer.config import TimelineConfig
from birdinfer.frame_rows import FrameRows
from birdinfer.windows import Placement

Float32 = npt.NDArray[np.float32]


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
        head = Head(placement, placement.head_samples(config.head_seconds))
        self._clips = ClipRows(head, config.overlap, n_labels)
        self._frames = FrameRows(head, config, n_labels)
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
