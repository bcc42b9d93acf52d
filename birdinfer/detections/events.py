"""Scores of windows -> detections: neighbouring windows in which a species is present are one event.

In: rows float32 [rows, species] of one recording, in order. Out: :class:`Detection`, by start, then by species column.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from birdinfer.detections.recordings import Recording
from birdinfer.species import Species
from birdinfer.typing import Float32


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Detection:
    """A species that is present in a stretch of a recording."""

    recording: Recording
    species: Species
    start_seconds: float
    """From the recording's first sample."""
    end_seconds: float
    """At most the recording's end."""
    confidence: float
    """Highest probability of its windows, 0 to 1."""
    peak_seconds: float
    """Start of the window with that probability; the first of several."""
    n_windows: int = 1
    """Windows in which the species is present; those that ``merge_gap`` has bridged do not count."""

    def __repr__(self) -> str:
        span = f"{self.start_seconds:g}-{self.end_seconds:g} s"
        return f"<Detection {span}: {self.species.name} {self.confidence:.3f}, {self.recording.file}>"


def find_events(
    recording: Recording,
    chunks: Iterable[tuple[int, Float32]],
    species: Sequence[Species],
    thresholds: Float32,
    *,
    row_seconds: float,
    merge_gap: float = 0.0,
    top_k: int | None = None,
    left_out: Sequence[tuple[float, float]] = (),
) -> list[Detection]:
    """Join the windows of a recording in which a species is present into events.

    Args:
        recording: what was recorded where and when; events end where it ends.
        chunks: index of the first row and scores [rows, species], in the recording's order.
        species: of the columns.
        thresholds: per species: present from this probability on [species].
        row_seconds: length of a window; row k begins at ``k * row_seconds``.
        merge_gap: windows that are at most so many seconds apart are one event; 0: only those that follow each other.
        top_k: keep the species with the highest scores of each window only; of equal ones the first columns.
        left_out: stretches in seconds whose windows count as without any species, as those of human speech.

    Returns:
        Detections by start, then by column.
    """
    most_rows = 1 + int(merge_gap / row_seconds + 1e-9)
    open_events: dict[int, _Open] = {}
    closed: list[tuple[int, int, _Open]] = []
    for row, columns, scores in _present(chunks, thresholds, row_seconds, top_k, left_out):
        for column, score in zip(columns, scores, strict=True):
            event = open_events.get(column)
            if event is None or row - event.last > most_rows:
                event = open_events[column] = _Open(row, row, row, score, 0)
                closed.append((row, column, event))
            event.last, event.n_windows = row, event.n_windows + 1
            if score > event.confidence:
                event.peak, event.confidence = row, score
    length = recording.seconds
    detections = []
    for row, column, event in sorted(closed, key=lambda each: each[:2]):
        end = (event.last + 1) * row_seconds
        detections.append(
            Detection(
                recording=recording,
                species=species[column],
                start_seconds=row * row_seconds,
                end_seconds=min(end, length) if length > row * row_seconds else end,
                confidence=event.confidence,
                peak_seconds=event.peak * row_seconds,
                n_windows=event.n_windows,
            )
        )
    return detections


@dataclass(slots=True)
class _Open:
    first: int
    last: int
    peak: int
    confidence: float
    n_windows: int


def _present(
    chunks: Iterable[tuple[int, Float32]],
    thresholds: Float32,
    row_seconds: float,
    top_k: int | None,
    left_out: Sequence[tuple[float, float]],
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Yield for each row the columns of the species that are present, and their scores."""
    for first, rows in chunks:
        present = rows >= thresholds
        for begin, end in left_out:
            from_row, to_row = int(begin // row_seconds) - first, int(-(-end // row_seconds)) - first
            present[max(0, from_row) : max(0, to_row)] = False
        for index in np.flatnonzero(present.any(axis=1)):
            columns, scores = np.flatnonzero(present[index]), rows[index]
            if top_k is not None and len(columns) > top_k:
                order = np.argsort(-scores[columns], kind="stable")[:top_k]
                columns = np.sort(columns[order])
            yield first + int(index), columns.tolist(), scores[columns].tolist()
