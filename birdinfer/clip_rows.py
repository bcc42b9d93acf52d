"""Clip-wise scores [windows, labels] -> rows: where a window's head lies, and how overlapping windows meet in a row.

Windows are added up in their order, in float64 and with whole samples as weights: a mean of equals is that number.
"""

import numpy as np
import numpy.typing as npt

from birdinfer.windows import Placement

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Head:
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


class ClipRows:
    """Clip-wise scores -> rows."""

    def __init__(self, head: Head, overlap: str, n_labels: int) -> None:
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
