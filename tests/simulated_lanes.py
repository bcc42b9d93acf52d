"""Lanes that hear nothing, on a clock of their own: what a budget sees of a run of hours, in milliseconds.

Each lane does what those of ``birdinfer.soundscapes`` do, in order of time: it opens files, hears them run by run, and
helps with one that is still being read when none is left to open.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.bundle import Bundle
from birdinfer.listener import listening
from birdinfer.pace.budget import Budget, Forecast
from birdinfer.pace.ladder import ladder
from birdinfer.pace.workload import windows_in
from birdinfer.reader import HeardRun
from birdinfer.windows import WindowRun

RUN_ROWS = 6
NO_SOUND = np.zeros(0, np.float32)


class Costs(NamedTuple):
    """Seconds, on a lane at its usual speed."""

    members: dict[str, float]
    """For a window."""
    front_end: float = 0.0002
    """For a second between windows."""
    front_end_window: float = 0.0
    """For each window: of this the forecast of other levels knows nothing."""
    reading: float = 0.0005
    """For a second of sound."""
    opening: float = 0.002
    loading: float = 0.5
    finishing: float = 1.0
    first_run: float = 3.0
    """Times as long as any other."""


class _Watch:
    def __init__(self, parts: dict[object, float]) -> None:
        self._parts = parts

    def shares(self) -> dict[object, float]:
        return {part: seconds / sum(self._parts.values()) for part, seconds in self._parts.items()}


class SimulatedListener:
    """What hearing a window costs, part by part."""

    def __init__(self, hearing, placement, names: list[str], costs: Costs) -> None:
        self.placement = placement
        stride_seconds = placement.stride_samples / placement.sample_rate
        parts = {name: costs.members[name] for name in names}
        parts[hearing] = costs.front_end * stride_seconds + costs.front_end_window
        self.window_seconds = sum(parts.values())
        self.run_windows = max(1, RUN_ROWS * placement.row_samples // placement.stride_samples)
        self.watch = _Watch(parts)


class SimulatedPredictor:
    """A level that was loaded."""

    def __init__(self, bundle: Bundle, costs: Costs) -> None:
        self.bundle = bundle
        names = [member.name for member in bundle.manifest.members]
        self.listeners = [
            SimulatedListener(hearing, placement, [names[index] for index in indices], costs)
            for (hearing, placement), indices in listening(bundle).items()
        ]

    def runs(self, seconds: float) -> Iterator[HeardRun]:
        """The runs of a file."""
        left = [windows_in(seconds, listener.placement) for listener in self.listeners]
        while any(left):
            for index, listener in enumerate(self.listeners):
                n = min(left[index], listener.run_windows)
                left[index] -= n
                if n:
                    yield HeardRun(index, WindowRun(0, n, NO_SOUND))


@dataclass(eq=False)
class _File:
    path: Path
    predictor: SimulatedPredictor
    runs: deque[HeardRun]
    helpers: int = 1


@dataclass
class Outcome:
    """What became of a run."""

    end_seconds: float = 0.0
    """When the result was written."""
    opened: list[tuple[float, Path]] = field(default_factory=list)
    whole: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    loaded: list[tuple[float, Bundle]] = field(default_factory=list)
    first_forecast: Forecast | None = None
    longest_file_seconds: float = 0.0
    news: list[str] = field(default_factory=list)


class Simulation:
    """Files of these lengths, on lanes of a machine whose speed may change."""

    def __init__(
        self,
        bundle: Bundle,
        sound_seconds: list[float],
        costs: Costs,
        lanes: int = 2,
        slowness: Callable[[float], float] = lambda now: 1.0,
        headers: dict[Path, float | None] | None = None,
        refuse: Callable[[Bundle], None] = lambda bundle: None,
    ) -> None:
        """Files of 0 s cannot be read.

        ``slowness`` is asked at each run of windows; ``headers`` are what files claim, where that is not the truth;
        ``refuse`` is called before a bundle is loaded.
        """
        self.sound = {Path(f"{index:05d}.ogg"): seconds for index, seconds in enumerate(sound_seconds)}
        self.headers = {path: seconds or None for path, seconds in self.sound.items()} | (headers or {})
        self.levels = ladder(bundle)
        self._costs, self._lanes, self._slowness, self._refuse = costs, lanes, slowness, refuse

    def run(self, budget_seconds: float) -> Outcome:
        """Hear all files, or as many as there is time for."""
        self._now, self._lane = 0.0, 0
        self.outcome = Outcome()
        self.budget = Budget(
            self._load, self.levels, self.headers, budget_seconds, 0.0, lambda: self._costs.finishing,
            self._lanes, lambda: self._now, lambda: self._lane,
        )  # fmt: skip
        self._waiting, self._open = iter(self.sound), []
        lanes = [self._work() for _ in range(self._lanes)]
        due = [(0.0, number) for number in range(self._lanes)]
        while due:
            self._now, self._lane = heapq.heappop(due)
            self.outcome.end_seconds = max(self.outcome.end_seconds, self._now + self._costs.finishing)
            pause = next(lanes[self._lane], None)
            if pause is not None:
                heapq.heappush(due, (self._now + pause, self._lane))
            if self.outcome.first_forecast is None:
                self.outcome.first_forecast = self.budget.forecast()
            self.outcome.news += self.budget.news()
        return self.outcome

    def _load(self, bundle: Bundle) -> SimulatedPredictor:
        self._refuse(bundle)
        self._now += self._costs.loading
        self.outcome.loaded.append((self._now, bundle))
        return SimulatedPredictor(bundle, self._costs)

    def _work(self) -> Iterator[float]:
        """A lane; yields how long it is busy."""
        warm: set[int] = set()
        for path in self._waiting:
            began = self._now
            predictor = self.budget.predictor_for(path)
            if predictor is None:
                self.outcome.skipped.append(path)
                self.budget.note_done(path, 0.0)
                continue
            self.outcome.opened.append((began, path))
            yield self._costs.opening
            if not self.sound[path]:
                self.budget.note_done(path, 0.0)
                continue
            self.budget.note_opened(path, self._costs.opening)
            file = _File(path, predictor, deque(predictor.runs(self.sound[path])))
            self._open.append(file)
            yield from self._hear(file, warm)
            self.outcome.longest_file_seconds = max(self.outcome.longest_file_seconds, self._now - began)
        while self._open:
            file = min(self._open, key=lambda file: file.helpers)
            file.helpers += 1
            yield from self._hear(file, warm)

    def _hear(self, file: _File, warm: set[int]) -> Iterator[float]:
        while file.runs:
            if self.budget.is_over():
                file.runs.clear()
                self.outcome.skipped.append(file.path)
                break
            heard = file.runs.popleft()
            listener = file.predictor.listeners[heard.listener]
            slowness = self._slowness(self._now) * (1.0 if id(file.predictor) in warm else self._costs.first_run)
            warm.add(id(file.predictor))
            stride_seconds = listener.placement.stride_samples / listener.placement.sample_rate
            sound_seconds = heard.run.n_windows * stride_seconds / len(file.predictor.listeners)
            read = slowness * self._costs.reading * sound_seconds
            score = slowness * listener.window_seconds * heard.run.n_windows
            yield read + score
            self.budget.note_run(file.predictor, heard, read, score)
        file.helpers -= 1
        if file in self._open and not file.runs:
            self._open.remove(file)
        if not file.helpers:
            if file.path not in self.outcome.skipped:
                self.outcome.whole.append(file.path)
            self.budget.note_done(file.path, self.sound[file.path])
