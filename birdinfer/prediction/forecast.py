"""Estimate the work that is left of a run, in worker-seconds, at any fallback level.

Costs are measured at the levels that run; those of levels below are estimated from the parts (front end, members) that
both have in common. Not for several threads at once.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from birdinfer.audio.windows import WindowGrid
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.member_group import members_by_input
from birdinfer.system.timing import Stopwatch

_MEMORY = 200  # measurements after which one counts a third of a new one: speeds drift
_ESTIMATE_WEIGHT = 5  # an estimate weighs as much as so many measurements
_LEAST_MEASUREMENTS = 2  # of each member group, before its costs count as measured
_USUAL_SECONDS = 60.0  # length of a file where no file's is known: that of BirdCLEF's soundscapes since 2025


class Rate:
    """Seconds that a unit of work takes: a ratio of sums in which old measurements fade.

    >>> rate = Rate()
    >>> rate.add(units=12, seconds=6.0)
    >>> rate.per_unit()
    0.5
    """

    def __init__(self) -> None:
        self.n = 0
        self.units = self.seconds = 0.0

    def add(self, units: float, seconds: float) -> None:
        """Add a measurement."""
        fade = 1 - 1 / _MEMORY
        self.n += 1
        self.units, self.seconds = fade * self.units + units, fade * self.seconds + seconds

    def per_unit(self, estimate: float | None = None) -> float:
        """Return the seconds of a unit; an estimate made before counts as a few measurements."""
        if estimate is None:
            return self.seconds / self.units if self.units else 0.0
        if not self.units:
            return estimate
        weight = _ESTIMATE_WEIGHT * self.units / self.n
        return (self.seconds + weight * estimate) / (self.units + weight)


class Costs(NamedTuple):
    """Worker-seconds at a level: of a second of sound with all that is done around it, and of each group's window."""

    reading: float
    windows: list[float]


class LevelCosts:
    """What a level was measured to cost, or is estimated to."""

    def __init__(self, bundle: Bundle, n_windows_of: Callable[[WindowGrid], float]) -> None:
        """Start without measurements; ``n_windows_of`` counts the windows of all files in a grid."""
        groups = members_by_input(bundle)
        self._inputs = [input_config for input_config, _ in groups]
        self.grids: list[WindowGrid] = [grid for _, grid in groups]
        self._members = [[bundle.manifest.members[index].name for index in group] for group in groups.values()]
        self.watches: Sequence[Stopwatch] = ()  # of the member groups, once they are loaded
        self._reading = Rate()
        self._windows = [Rate() for _ in groups]
        self._all_seconds = sum(self.sound_seconds(group, n_windows_of(grid)) for group, grid in enumerate(self.grids))

    @property
    def is_measured(self) -> bool:
        """Whether each member group was measured often enough."""
        return all(rate.n >= _LEAST_MEASUREMENTS for rate in self._windows)

    def add(self, group: int, n_windows: int, score_seconds: float, other_seconds: float) -> None:
        """Add what a worker took to score a window batch, and for everything else around it."""
        self._windows[group].add(n_windows, score_seconds)
        self._reading.add(self.sound_seconds(group, n_windows), other_seconds)

    def sound_seconds(self, group: int, n_windows: float) -> float:
        """Return the share of a file's length that a group's windows stand for; all groups add up to the length."""
        grid = self.grids[group]
        return n_windows * grid.stride_samples / grid.sample_rate / len(self.grids)

    def costs(self, estimate: Costs | None = None) -> Costs:
        """Return the measured costs; where little was measured, the estimate counts, too."""
        if estimate is None:
            return Costs(self._reading.per_unit(), [rate.per_unit() for rate in self._windows])
        pairs = zip(self._windows, estimate.windows, strict=True)
        return Costs(self._reading.per_unit(estimate.reading), [rate.per_unit(cost) for rate, cost in pairs])

    def estimate(self, measured: "LevelCosts", costs: Costs) -> Costs:
        """Estimate this level's costs from those of a level that has all of its members and front ends.

        A second of log-mel is taken to cost the same at any stride: windows that overlap share their frames.
        """
        parts = measured._parts(costs)
        windows = []
        for input_config, grid, members in zip(self._inputs, self.grids, self._members, strict=True):
            front_end = parts.get(input_config, 0.0) * grid.stride_samples / grid.sample_rate
            windows.append(front_end + sum(parts.get(name, 0.0) for name in members))
        # All files are read at either level, though the windows of short ones may stand for less than their sound.
        return Costs(costs.reading * measured._all_seconds / self._all_seconds, windows)

    def _parts(self, costs: Costs) -> dict[Hashable, float]:
        """Worker-seconds of each front end for a second of stride, and of each member for a window."""
        parts: dict[Hashable, float] = {}
        groups = zip(self._inputs, self.grids, self.watches, costs.windows, strict=True)
        for input_config, grid, watch, cost in groups:
            for part, share in watch.shares().items():
                units = grid.stride_samples / grid.sample_rate if part == input_config else 1.0
                parts[part] = max(parts.get(part, 0.0), cost * share / units)
        return parts

    def worker_seconds(self, costs: Costs, n_windows: Sequence[float]) -> float:
        """Return what ``n_windows`` [groups] cost."""
        reading = sum(self.sound_seconds(group, n) for group, n in enumerate(n_windows))
        return reading * costs.reading + sum(n * cost for n, cost in zip(n_windows, costs.windows, strict=True))


class Workload:
    """Files that wait, and their windows.

    A file of unknown length is taken to last as long as the median of the others, until some such files are finished:
    often they hold no sound. Headers that claim 0 s are no measure of other files.
    """

    def __init__(self, seconds_of: Mapping[Path, float | None]) -> None:
        known = [seconds for seconds in seconds_of.values() if seconds]
        self._usual_seconds = statistics.median(known) if known else _USUAL_SECONDS
        self._waiting = dict(seconds_of)
        self._n_unknown = sum(seconds is None for seconds in seconds_of.values())
        self._n_known: dict[WindowGrid, int] = {}
        """Windows of the waiting files of known length, for each grid that was asked for."""
        self._n_found, self._found_seconds = 1, self._usual_seconds
        """Finished files of unknown length, and one as it was expected."""

    @property
    def n_waiting(self) -> int:
        """Number of files that wait."""
        return len(self._waiting)

    def n_windows(self, grid: WindowGrid) -> float:
        """Return the windows of all waiting files; an expectation where lengths are unknown."""
        if grid not in self._n_known:
            lengths = Counter(seconds for seconds in self._waiting.values() if seconds is not None)
            self._n_known[grid] = sum(n * windows_in(each, grid) for each, n in lengths.items())
        share = self._found_seconds / self._n_found / self._usual_seconds
        return self._n_known[grid] + self._n_unknown * share * windows_in(self._usual_seconds, grid)

    def begin(self, path: Path) -> float | None:
        """Remove a file that is opened; its length by its header is returned."""
        seconds = self._waiting.pop(path)
        if seconds is None:
            self._n_unknown -= 1
        else:
            for grid in self._n_known:
                self._n_known[grid] -= windows_in(seconds, grid)
        return seconds

    def expected_seconds(self, seconds: float | None) -> float:
        """Return the expected length of a file with this length by its header."""
        return self._found_seconds / self._n_found if seconds is None else seconds

    def find(self, sound_seconds: float) -> None:
        """Add the true length of a finished file of unknown length."""
        self._n_found += 1
        self._found_seconds += sound_seconds


def windows_in(seconds: float, grid: WindowGrid) -> int:
    """Return the number of windows of a file of this length; at least 1."""
    return grid.n_windows(grid.n_rows(round(seconds * grid.sample_rate)))


class _OpenFile(NamedTuple):
    level: int
    expected_seconds: float
    is_unknown: bool


@dataclass(slots=True)
class _OpenWindows:
    """Windows of the files that are open at a level; below 0 where files are longer than their headers say."""

    n_windows: list[int]  # for each group
    n_files: int = 0

    def left(self) -> list[int]:
        return [max(0, n) if self.n_files else 0 for n in self.n_windows]


class Forecaster:
    """Estimate the work left at each level."""

    def __init__(self, bundles: Sequence[Bundle], seconds_of: Mapping[Path, float | None]) -> None:
        """Take a bundle for each level, each cheaper than the one before, and all files' lengths by their headers."""
        self._workload = Workload(seconds_of)
        self._costs = [LevelCosts(bundle, self._workload.n_windows) for bundle in bundles]
        self._open_windows = [_OpenWindows([0] * len(costs.grids)) for costs in self._costs]
        self._open: dict[Path, _OpenFile] = {}
        self._loaded: list[int] = []
        self._around_files = Rate()
        self._around_seconds = 0.0  # around files, not yet assigned to a finished file

    def load(self, level: int, watches: Sequence[Stopwatch]) -> None:
        """Note that a level is loaded, with the stopwatches of its member groups."""
        self._loaded.append(level)
        self._costs[level].watches = watches

    def begin(self, path: Path, level: int) -> None:
        """Note that a file is opened at a level."""
        header_seconds = self._workload.begin(path)
        expected_seconds = self._workload.expected_seconds(header_seconds)
        self._open[path] = _OpenFile(level, expected_seconds, header_seconds is None)
        self._add_windows(level, expected_seconds, 1)
        self._open_windows[level].n_files += 1

    def score(self, level: int, group: int, n_windows: int) -> None:
        """Note that windows of an open file are scored."""
        self._open_windows[level].n_windows[group] -= n_windows

    def measure(self, level: int, group: int, n_windows: int, score_seconds: float, other_seconds: float) -> None:
        """Add what a worker took to score a window batch, and for everything else around it."""
        self._costs[level].add(group, n_windows, score_seconds, other_seconds)

    def measure_around_files(self, seconds: float) -> None:
        """Add what a worker took to open or close a file."""
        self._around_seconds += seconds

    def end(self, path: Path, sound_seconds: float) -> None:
        """Note that a file is finished, and its true length."""
        level, expected_seconds, is_unknown = self._open.pop(path)
        if is_unknown:
            self._workload.find(sound_seconds)
        self._add_windows(level, expected_seconds, -1)
        if sound_seconds > 0:
            self._add_windows(level, sound_seconds, 1)
        self._open_windows[level].n_files -= 1
        self._around_files.add(1, self._around_seconds)
        self._around_seconds = 0.0

    def windows_left(self) -> float:
        """Return the windows left of all open files, and of all waiting ones at the first level."""
        waiting = sum(self._workload.n_windows(grid) for grid in self._costs[0].grids)
        return waiting + sum(sum(windows.left()) for windows in self._open_windows)

    def work_left(self, level: int) -> float | None:
        """Estimate the worker-seconds left with all waiting files at a level; None before anything is measured."""
        unit_costs = self._unit_costs(level)
        if unit_costs is None:
            return None
        waiting = [self._workload.n_windows(grid) for grid in self._costs[level].grids]
        seconds = self._costs[level].worker_seconds(unit_costs, waiting)
        seconds += self._around_files.per_unit() * self._workload.n_waiting
        for loaded in self._loaded:  # open files stay at their level
            costs = self._unit_costs(loaded)
            assert costs is not None  # those of the first level are known, so that all others can be estimated
            seconds += self._costs[loaded].worker_seconds(costs, self._open_windows[loaded].left())
        return seconds

    def _add_windows(self, level: int, seconds: float, times: int) -> None:
        for group, grid in enumerate(self._costs[level].grids):
            self._open_windows[level].n_windows[group] += times * windows_in(seconds, grid)

    def _unit_costs(self, level: int) -> Costs | None:
        """The costs of a level as measured, and as estimated from the last measured level before it."""
        costs = self._costs[level]
        measured = [each for each in self._loaded if each < level and self._costs[each].is_measured]
        if not measured:
            return costs.costs() if costs.is_measured else None
        before = self._unit_costs(measured[-1])
        assert before is not None  # it was measured
        return costs.costs(costs.estimate(self._costs[measured[-1]], before))
