"""Opinions on one file -> its finished rows, piece by piece, so that a day's scores are never held at once.

In: what members say of runs of windows, in any order (:class:`birdinfer.listener.Opinion`). Out: float32
[rows, species], blended and post-processed, in the order of the file, as soon as the rows are finished and enough of
them to be worth a piece. Where a step of the post-processing looks at the whole file, its rows wait for the file's end:
4 bytes a row and species, 14 MB for a day of 5 s rows and 206 species, and as much again while a step works on them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birdinfer.ensemble import Blender
from birdinfer.listener import Opinion
from birdinfer.postprocess.pipeline import Pipeline
from birdinfer.timeline import Timeline

Float32 = npt.NDArray[np.float32]

PIECE_ROWS = 1024
"""Rows in a piece at least, but for a file's last: 85 minutes, 0.8 MB for 206 species. Nearly all files are one."""


class FileScores:
    """Gathers the opinions on one file. Not for several threads at once."""

    def __init__(self, timelines: Sequence[Timeline], blend: Blender, finisher: "Finisher") -> None:
        """Begin a file.

        Args:
            timelines: one for each member.
            blend: of the members' rows.
            finisher: what is done to the blended rows; of this file alone.
        """
        self._timelines, self._blend, self._finisher = timelines, blend, finisher
        self._spoken: list[list[Float32]] = [[] for _ in timelines]
        """Rows of each member that wait for another member's."""
        self._blended = [np.zeros((0, finisher.n_labels), np.float32)]
        self._n_blended = 0
        self._n_handed_on = 0
        self._finished: list[Float32] = []

    def add(self, opinions: Sequence[Opinion]) -> None:
        """Take what members say of a run of windows."""
        for member, first, clip, frames in opinions:
            self._timelines[member].add(first, clip, frames)
        self._blend_complete_rows()
        if self._n_blended - self._n_handed_on > PIECE_ROWS:
            # All but one: where members hear at several rates, rounding may make a last row that is not the file's.
            self._hand_on(self._n_blended - 1)

    def close(self, n_rows: int) -> None:
        """No more opinions come; the rest of the file's ``n_rows`` rows can be taken."""
        for timeline in self._timelines:
            timeline.close(n_rows)
        self._blend_complete_rows()
        self._hand_on(min(n_rows, self._n_blended))
        self._finished.append(self._finisher.close())

    def cut(self) -> None:
        """No more opinions come though the file goes on: it ends with the last row on which all have spoken."""
        self._hand_on(self._n_blended)
        self._finished.append(self._finisher.close())

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

    def _hand_on(self, end: int) -> None:
        """Hand the rows up to this one on to be finished; those behind it stay."""
        rows = np.concatenate(self._blended)
        n_rows = end - self._n_handed_on
        self._blended = [rows[n_rows:].copy()]
        self._n_handed_on = end
        self._finished.append(self._finisher.push(rows[:n_rows]))


class Finisher:
    """Post-processes a file's rows as they come: to the bits of the pipeline on all of them at once."""

    def __init__(self, pipeline: Pipeline, stem: str, n_labels: int) -> None:
        """Begin a file.

        Args:
            pipeline: what is done to its rows.
            stem: the file's name without its ending.
            n_labels: species of the bundle.
        """
        self.n_labels = n_labels
        self._pipeline, self._stem = pipeline, stem
        self._held = [np.zeros((0, n_labels), np.float32)]
        """Rows that are not finished yet, and before them those that they need."""
        self._n_finished = 0
        """Of the rows that are held."""

    def push(self, rows: Float32) -> Float32:
        """Take the next rows [n, species]; those [m, species] come back all whose neighbours are known."""
        self._held.append(rows)
        reach = self._pipeline.reach
        if reach is None:
            return np.zeros((0, self.n_labels), np.float32)
        held = np.concatenate(self._held)
        end = max(self._n_finished, len(held) - reach)
        finished = self._pipeline(held, self._stem)[self._n_finished : end].copy()
        keep = max(0, end - reach)
        self._held, self._n_finished = [held[keep:].copy()], end - keep
        return finished

    def close(self) -> Float32:
        """The last rows [m, species]; no more come."""
        held = np.concatenate(self._held)
        self._held.clear()
        return self._pipeline(held, self._stem)[self._n_finished :]


def join_pieces(pieces: list[Float32], n_labels: int) -> Float32:
    """Pieces of :meth:`FileScores.take` -> all rows [rows, species]; the list is empty afterwards."""
    rows, begin = np.empty((sum(map(len, pieces)), n_labels), np.float32), 0
    while pieces:  # each let go at once: joined whole, a day's scores would be held twice
        piece = pieces.pop(0)
        rows[begin : begin + len(piece)] = piece
        begin += len(piece)
    return rows
