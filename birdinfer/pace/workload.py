"""What a run has before it: files and their lengths in, windows that are still to be heard out.

Counted in windows, not in seconds: a file of one second costs a whole row, and where windows overlap, one of five
seconds costs less than a twelfth of a minute's.
"""

import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from birdinfer.windows import Placement

_USUAL_SECONDS = 60.0
"""Taken for a file's length where no file's is known: that of BirdCLEF's soundscapes since 2025."""


class Workload:
    """Files that nobody has begun with."""

    def __init__(self, seconds_of: Mapping[Path, float | None]) -> None:
        """Hold the files.

        Args:
            seconds_of: every file, and its length by its header; None where that is unknown. Such files are taken to
                last as long as the median of the others, until some of them are done: often they hold no sound. Those
                whose header says so (0) are no measure of the others.
        """
        known = [seconds for seconds in seconds_of.values() if seconds]
        self._usual_seconds = statistics.median(known) if known else _USUAL_SECONDS
        self._waiting = dict(seconds_of)
        self._n_unknown = sum(seconds is None for seconds in seconds_of.values())
        self._n_known: dict[Placement, int] = {}
        """Windows of the files that wait and whose length is known, for each placement that was asked for."""
        self._n_found, self._found_seconds = 1, self._usual_seconds
        """Of files of unknown length that are done, and one as it was expected."""

    @property
    def n_waiting(self) -> int:
        """Files."""
        return len(self._waiting)

    def n_windows(self, placement: Placement) -> float:
        """Windows of all files that wait; expected, where lengths are unknown."""
        if placement not in self._n_known:
            lengths = Counter(seconds for seconds in self._waiting.values() if seconds is not None)
            self._n_known[placement] = sum(n * windows_in(each, placement) for each, n in lengths.items())
        share = self._found_seconds / self._n_found / self._usual_seconds
        return self._n_known[placement] + self._n_unknown * share * windows_in(self._usual_seconds, placement)

    def begin(self, path: Path) -> float | None:
        """A file waits no more; its seconds by its header come back."""
        seconds = self._waiting.pop(path)
        if seconds is None:
            self._n_unknown -= 1
        else:
            for placement in self._n_known:
                self._n_known[placement] -= windows_in(seconds, placement)
        return seconds

    def expected_seconds(self, seconds: float | None) -> float:
        """Of a file that its header gives so many."""
        return self._found_seconds / self._n_found if seconds is None else seconds

    def find(self, sound_seconds: float) -> None:
        """A file of unknown length is done, and held this much."""
        self._n_found += 1
        self._found_seconds += sound_seconds


def windows_in(seconds: float, placement: Placement) -> int:
    """Windows of a file of this length; at least 1."""
    return placement.n_windows(placement.n_rows(round(seconds * placement.sample_rate)))
