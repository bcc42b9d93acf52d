"""Opinions on one file -> its finished rows, piece by piece, so that a day's scores are never held at once.

In: what members say of runs of windows, in any order (:class:`birdinfer.listener.Opinion`). Out: float32
[rows, species], blended and smoothed, in the order of the file, as soon as the rows are finished and enough of them to
be worth a piece.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birdinfer.ensemble import WeightedMean
from birdinfer.listener import Opinion
from birdinfer.postprocess import smoothing
from birdinfer.timeline import Timeline

Float32 = npt.NDArray[np.float32]

PIECE_ROWS = 1024
"""Rows in a piece at least, but for a file's last: 85 minutes, 0.8 MB for 206 species. Nearly all files are one."""


class FileScores:
    """Gathers the opinions on one file. Not for several threads at once."""

    def __init__(
        self, timelines: Sequence[Timeline], blend: WeightedMean, smoothing_kernel: Sequence[float], n_labels: int
    ) -> None:
        """Begin a file.

        Args:
            timelines: one for each member.
            blend: of the members' rows.
            smoothing_kernel: as :func:`birdinfer.postprocess.smoothing.smooth` takes it.
            n_labels: species of the bundle.
        """
        self._timelines, self._blend = timelines, blend
        self._spoken: list[list[Float32]] = [[] for _ in timelines]
        """Rows of each member that wait for another member's."""
        self._blended = [np.zeros((0, n_labels), np.float32)]
        self._n_blended = 0
        self._n_smoothed = 0
        self._smoother = Smoother(smoothing_kernel, n_labels)
        self._finished: list[Float32] = []

    def add(self, opinions: Sequence[Opinion]) -> None:
        """Take what members say of a run of windows."""
        for member, first, clip, frames in opinions:
            self._timelines[member].add(first, clip, frames)
        self._blend_complete_rows()
        if self._n_blended - self._n_smoothed > PIECE_ROWS:
            # All but one: where members hear at several rates, rounding may make a last row that is not the file's.
            self._smooth(self._n_blended - 1)

    def close(self, n_rows: int) -> None:
        """No more opinions come; the rest of the file's ``n_rows`` rows can be taken."""
        for timeline in self._timelines:
            timeline.close(n_rows)
        self._blend_complete_rows()
        self._smooth(min(n_rows, self._n_blended))
        self._finished.append(self._smoother.close())

    def take(self) -> list[Float32]:
        """The pieces [rows, species] that were finished since the last call, in the file's order."""
        taken = [piece for piece in self._finished if len(piece)]
        self._finished.clear()
        return taken

    def _blend_complete_rows(self) -> None:
        """Blend the rows on which all members have spoken."""
        for timeline, spoken in zip(self._timelines, self._spoken, strict=True):
            rows = timeline.take()
            if len(rows):
                spoken.append(rows)
        n_complete = min(sum(map(len, spoken)) for spoken in self._spoken)
        if not n_complete:
            return
        ready = []
        for spoken in self._spoken:
            rows = spoken[0] if len(spoken) == 1 else np.concatenate(spoken)
            ready.append(rows[:n_complete])
            spoken[:] = [rows[n_complete:]] if len(rows) > n_complete else []
        self._blended.append(self._blend(ready))
        self._n_blended += n_complete

    def _smooth(self, end: int) -> None:
        """Smooth the rows up to this one; those behind it stay."""
        rows = np.concatenate(self._blended)
        n_rows = end - self._n_smoothed
        self._blended = [rows[n_rows:].copy()]
        self._n_smoothed = end
        self._finished.append(self._smoother.push(rows[:n_rows]))


class Smoother:
    """Smooths a file's rows as they come: to the bits of :func:`birdinfer.postprocess.smoothing.smooth` on all."""

    def __init__(self, kernel: Sequence[float], n_labels: int) -> None:
        """Begin a file; arguments as of :class:`FileScores`."""
        self._kernel, self._reach = kernel, len(kernel) // 2
        self._held = np.zeros((0, n_labels), np.float32)
        """Rows that are not smoothed yet, and before them those that they need."""
        self._n_smoothed = 0
        """Of the rows that are held."""

    def push(self, rows: Float32) -> Float32:
        """Take the next rows [n, species]; those [m, species] come back all whose neighbours are known."""
        self._held = np.concatenate([self._held, rows])
        end = max(self._n_smoothed, len(self._held) - self._reach)
        smoothed = smoothing.smooth(self._held, self._kernel)[self._n_smoothed : end].copy()
        keep = max(0, end - self._reach)
        self._held, self._n_smoothed = self._held[keep:].copy(), end - keep
        return smoothed

    def close(self) -> Float32:
        """The last rows [m, species]; no more come."""
        return smoothing.smooth(self._held, self._kernel)[self._n_smoothed :]


def join_pieces(pieces: list[Float32], n_labels: int) -> Float32:
    """Pieces of :meth:`FileScores.take` -> all rows [rows, species]; the list is empty afterwards."""
    rows, begin = np.empty((sum(map(len, pieces)), n_labels), np.float32), 0
    while pieces:  # each let go at once: joined whole, a day's scores would be held twice
        piece = pieces.pop(0)
        rows[begin : begin + len(piece)] = piece
        begin += len(piece)
    return rows
