"""What is left to do, in lane-seconds: files that wait, at any level of a ladder, and files that are being heard.

In: which file is begun at which level, what each run of windows took, which file is done. Out: the work left. Not for
several threads at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from birdinfer.bundle import Bundle
from birdinfer.pace.costs import LevelCosts, Prices, Rate
from birdinfer.pace.workload import Workload, windows_in
from birdinfer.stopwatch import Stopwatch


class WorkLeft(NamedTuple):
    """What is still to be done, on one lane."""

    seconds: float
    relative_error: float
    """Standard error of it, as a share of it."""


class _Begun(NamedTuple):
    """A file that is being heard."""

    level: int
    expected_seconds: float
    is_unknown: bool
    """Whether its header says nothing of its length."""


class _Heard:
    """What is being heard at one level."""

    def __init__(self, n_listeners: int) -> None:
        self.n_files = 0
        self.n_windows = [0] * n_listeners

    def left(self) -> list[int]:
        """Windows still to come, for each listener."""
        # Below 0 where files are longer than their headers say.
        return [max(0, n) for n in self.n_windows] if self.n_files else [0] * len(self.n_windows)


class Forecaster:
    """Keeps account of the work left at each level."""

    def __init__(self, bundles: Sequence[Bundle], seconds_of: Mapping[Path, float | None]) -> None:
        """Nothing is measured yet.

        Args:
            bundles: one for each level, each cheaper than the one before it.
            seconds_of: all files and their lengths by their headers; None where unknown.
        """
        self._workload = Workload(seconds_of)
        self._costs = [LevelCosts(bundle, self._workload.n_windows) for bundle in bundles]
        self._heard = [_Heard(len(costs.placements)) for costs in self._costs]
        self._begun: dict[Path, _Begun] = {}
        self._taken: list[int] = []
        self._around_files = Rate()
        self._around_seconds = 0.0
        """Not yet put down to a file that is done."""

    def take(self, level: int, watches: Sequence[Stopwatch]) -> None:
        """A level is loaded, and its listeners' watches run."""
        self._taken.append(level)
        self._costs[level].watches = watches

    def begin(self, path: Path, level: int) -> None:
        """A file is opened to be heard at a level."""
        claimed_seconds = self._workload.begin(path)
        expected_seconds = self._workload.expected_seconds(claimed_seconds)
        self._begun[path] = _Begun(level, expected_seconds, claimed_seconds is None)
        self._expect(level, expected_seconds, 1)
        self._heard[level].n_files += 1

    def hear(self, level: int, listener: int, n_windows: int) -> None:
        """Windows of a file are scored."""
        self._heard[level].n_windows[listener] -= n_windows

    def measure(self, level: int, listener: int, n_windows: int, score_seconds: float, other_seconds: float) -> None:
        """Scoring windows took a lane so long, and all else around them."""
        self._costs[level].add(listener, n_windows, score_seconds, other_seconds)

    def measure_around_files(self, seconds: float) -> None:
        """A lane spent this on opening or closing a file."""
        self._around_seconds += seconds

    def end(self, path: Path, sound_seconds: float) -> None:
        """A file is done; it held this much sound, whatever its header says."""
        level, expected_seconds, is_unknown = self._begun.pop(path)
        if is_unknown:
            self._workload.find(sound_seconds)
        self._expect(level, expected_seconds, -1)
        if sound_seconds > 0:
            self._expect(level, sound_seconds, 1)
        self._heard[level].n_files -= 1
        self._around_files.add(1, self._around_seconds)
        self._around_seconds = 0.0

    def _expect(self, level: int, seconds: float, times: int) -> None:
        heard = self._heard[level].n_windows
        for listener, placement in enumerate(self._costs[level].placements):
            heard[listener] += times * windows_in(seconds, placement)

    def windows_left(self) -> float:
        """Windows to come of all files that were begun, and those of files that wait, if all are heard as asked."""
        waiting = sum(self._workload.n_windows(placement) for placement in self._costs[0].placements)
        return waiting + sum(sum(heard.left()) for heard in self._heard)

    def work_left(self, level: int) -> WorkLeft | None:
        """What is left if all files that wait are heard at this level; None before anything can be said."""
        prices = self._prices(level)
        if prices is None:
            return None
        costs = self._costs[level]
        waiting = [self._workload.n_windows(placement) for placement in costs.placements]
        seconds = costs.lane_seconds(prices, waiting) + self._around_files.per_unit() * self._workload.n_waiting
        seconds += sum(self._lane_seconds_heard(taken) for taken in self._taken)
        measured = next(each for each in reversed(self._taken) if self._costs[each].is_measured)
        whole = [self._workload.n_windows(placement) for placement in self._costs[measured].placements]
        return WorkLeft(seconds, self._costs[measured].relative_error(whole))

    def _lane_seconds_heard(self, level: int) -> float:
        """What files take that were begun at a level and go on there."""
        prices = self._prices(level)
        assert prices is not None  # of the first level they are known, and so all others are foretold
        return self._costs[level].lane_seconds(prices, self._heard[level].left())

    def _prices(self, level: int) -> Prices | None:
        """As measured at this level or foretold from the last one before it that was."""
        costs = self._costs[level]
        measured = [taken for taken in self._taken if taken < level and self._costs[taken].is_measured]
        if not measured:
            return costs.prices() if costs.is_measured else None
        before = self._prices(measured[-1])
        assert before is not None  # it was measured
        return costs.prices(costs.foretell(self._costs[measured[-1]], before))
