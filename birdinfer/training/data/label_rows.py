"""Labels of a source's windows, row by row: float32 [labels], 0 to 1, made when they are needed.

A clip of a source that names no labels of its own has a row here (``Clip.row``). Rows are small enough to be sent to
each worker: a table's are kept sparse, pseudo-labels stay on the disk, memory-mapped.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from birdinfer.tables.pseudo_labels import SCORES, Scores16
from birdinfer.typing import Bool, Float32, Float64, Index

_BLOCK_ROWS = 4096


class LabelRows(Protocol):
    """The labels of a source."""

    known: Bool | None
    """[labels], whether the source can say anything about a label; None: about all."""
    weights: Float32
    """[rows], of windows in the loss."""

    def __call__(self, row: int) -> Float32:
        """Labels of a clip, [labels]."""
        ...

    def sums(self) -> Float64:
        """Sum of each row's labels, [rows]."""
        ...


class Soft(NamedTuple):
    """What is done to soft labels."""

    power: float = 1.0
    zero: float = 0.0
    """Below this a label is 0, before the power."""

    def __call__(self, values: Float32) -> Float32:
        """Apply both to values 0 to 1 of any shape."""
        kept = np.where(values < self.zero, np.float32(0), values) if self.zero else values
        return kept ** np.float32(self.power) if self.power != 1 else kept


class TableRows:
    """Labels of a table in memory; cells that are 0 take no space."""

    known: Bool | None = None

    def __init__(self, values: Sequence[Mapping[int, float]], n_labels: int, weights: Float32) -> None:
        """Keep labels.

        Args:
            values: of each row, column -> value above 0.
            n_labels: columns.
            weights: [rows].
        """
        self._ends = np.cumsum([0, *map(len, values)])
        self._columns = np.array([column for row in values for column in row], np.int32)
        self._values = np.array([value for row in values for value in row.values()], np.float32)
        self._n_labels, self.weights = n_labels, weights

    def __call__(self, row: int) -> Float32:
        """See :class:`LabelRows`."""
        labels = np.zeros(self._n_labels, np.float32)
        own = slice(self._ends[row], self._ends[row + 1])
        labels[self._columns[own]] = self._values[own]
        return labels

    def sums(self) -> Float64:
        """See :class:`LabelRows`."""
        return np.diff(np.cumsum([0.0, *self._values.tolist()])[self._ends])


class UnknownRows:
    """Windows of which no label is known."""

    def __init__(self, n_labels: int, n_rows: int) -> None:
        """Make ``n_rows`` rows."""
        self.known: Bool | None = np.zeros(n_labels, np.bool_)
        self.weights: Float32 = np.ones(n_rows, np.float32)

    def __call__(self, row: int) -> Float32:
        """As certain as a label can be: mixed with a window that has it, that window's target counts."""
        return np.ones(len(self.known if self.known is not None else ()), np.float32)

    def sums(self) -> Float64:
        """See :class:`LabelRows`."""
        return np.ones(len(self.weights))


class PseudoRows:
    """A teacher's scores on the disk, for those of its labels that have a column."""

    def __init__(self, folder: Path, pairs: Sequence[tuple[int, int]], n_labels: int, soft: Soft) -> None:
        """Open a folder of pseudo-labels.

        Args:
            folder: the folder; it has been read, and is as it should be.
            pairs: (the teacher's column, the own one) of each label that both have.
            n_labels: own columns.
            soft: thresholds and power.
        """
        self._path, self._soft, self._n_labels = folder / SCORES, soft, n_labels
        self._theirs: Index = np.array([theirs for theirs, _ in pairs], np.intp)
        self._own: Index = np.array([own for _, own in pairs], np.intp)
        self.known: Bool | None = None
        if len(pairs) < n_labels:
            self.known = np.zeros(n_labels, np.bool_)
            self.known[self._own] = True
        self.rows_of: list[tuple[int, ...]] = []
        """Rows of the scores behind each row here: a window longer than theirs touches several."""
        self.sites: Index = np.zeros(0, np.intp)
        self.observed: Bool | None = None
        """[sites, labels], species that a site is known to have; and the site of each row, -1 for an unknown one."""
        self.weights: Float32 = np.zeros(0, np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """Without the map, which each process opens for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_scores"}

    @cached_property
    def _scores(self) -> Scores16:
        scores: Scores16 = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return scores

    def __call__(self, row: int) -> Float32:
        """See :class:`LabelRows`."""
        labels = np.zeros(self._n_labels, np.float32)
        rows = self.rows_of[row]
        raw = self._scores[rows[0]] if len(rows) == 1 else self._scores[list(rows)].max(axis=0)
        labels[self._own] = self._soft(raw[self._theirs].astype(np.float32))
        if self.observed is not None and self.sites[row] >= 0:
            labels *= self.observed[self.sites[row]]
        return labels

    def sums(self) -> Float64:
        """See :class:`LabelRows`."""
        return np.array([float(self(row).sum()) for row in range(len(self.rows_of))])

    def largest(self) -> Float32:
        """The largest raw score of each row of the scores among the labels that have a column, [rows]."""
        blocks = [
            self._scores[first : first + _BLOCK_ROWS][:, self._theirs].max(axis=1, initial=0)
            for first in range(0, len(self._scores), _BLOCK_ROWS)
        ]
        return np.concatenate([np.zeros(0, np.float32), *blocks]).astype(np.float32)

    def best(self) -> Index:
        """Own column of the largest raw score of each row of the scores, [rows]."""
        blocks = [
            self._scores[first : first + _BLOCK_ROWS][:, self._theirs].argmax(axis=1)
            for first in range(0, len(self._scores), _BLOCK_ROWS)
        ]
        return self._own[np.concatenate([np.zeros(0, np.intp), *blocks]).astype(np.intp)]
