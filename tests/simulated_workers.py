"""Workers without sound, on a clock of their own: what a budget sees of a run of hours, in milliseconds.

Each worker does what those of ``birdinfer.inference.workers`` do, in order of time: it opens files, scores their window
batches, and helps with a file that is still being read when none is left to open.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.audio.windows import WindowBatch
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.member_group import members_by_input
from birdinfer.prediction.budget import Budget, Forecast
from birdinfer.prediction.fallback_levels import fallback_levels
from birdinfer.prediction.forecast import windows_in

READ_AHEAD_ROWS = 6
NO_SOUND = np.zeros(0, np.float32)


class Costs(NamedTuple):
    """Seconds of a worker at its usual speed."""

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


class SimulatedMemberGroup:
    """What a window costs, part by part."""

    def __init__(self, input_config, grid, names: list[str], costs: Costs) -> None:
        self.grid = grid
        stride_seconds = grid.stride_samples / grid.sample_rate
        parts = {name: costs.members[name] for name in names}
        parts[input_config] = costs.front_end * stride_seconds + costs.front_end_window
        self.window_seconds = sum(parts.values())
        self.run_windows = max(1, READ_AHEAD_ROWS * grid.row_samples // grid.stride_samples)
        self.watch = _Watch(parts)


class SimulatedPredictor:
    """A level that was loaded."""

    def __init__(self, bundle: Bundle, costs: Costs) -> None:
        self.bundle = bundle
        names = [member.name for member in bundle.manifest.members]
        self.member_groups = [
            SimulatedMemberGroup(input_config, grid, [names[index] for index in indices], costs)
            for (input_config, grid), indices in members_by_input(bundle).items()
        ]

    def runs(self, seconds: float) -> Iterator[WindowBatch]:
        """The runs of a file."""
        left = [windows_in(seconds, member_group.grid) for member_group in self.member_groups]
        while any(left):
            for index, member_group in enumerate(self.member_groups):
                n = min(left[index], member_group.run_windows)
                left[index] -= n
                if n:
                    yield WindowBatch(0, n, NO_SOUND, index)


@dataclass(eq=False)
class _File:
    path: Path
    predictor: SimulatedPredictor
    runs: deque[WindowBatch]
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
    """Files of these lengths, and workers of a machine whose speed may change."""

    def __init__(
        self,
        bundle: Bundle,
        sound_seconds: list[float],
        costs: Costs,
        workers: int = 2,
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
        self.levels = fallback_levels(bundle)
        self._costs, self._workers, self._slowness, self._refuse = costs, workers, slowness, refuse

    def run(self, budget_seconds: float) -> Outcome:
        """Process all files, or those that there is time for."""
        self._now, self._worker = 0.0, 0
        self.outcome = Outcome()
        self.budget = Budget(
            self.levels,
            self.headers,
            budget_seconds=budget_seconds,
            started=0.0,
            workers=self._workers,
            make_predictor=self._load,
            finish_seconds=lambda: self._costs.finishing,
            now=lambda: self._now,
            worker=lambda: self._worker,
        )
        self._waiting, self._open = iter(self.sound), []
        workers = [self._work() for _ in range(self._workers)]
        due = [(0.0, number) for number in range(self._workers)]
        while due:
            self._now, self._worker = heapq.heappop(due)
            self.outcome.end_seconds = max(self.outcome.end_seconds, self._now + self._costs.finishing)
            pause = next(workers[self._worker], None)
            if pause is not None:
                heapq.heappush(due, (self._now + pause, self._worker))
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
        """One worker; yields how long it is busy."""
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
                self.outcome.longest_file_seconds = max(self.outcome.longest_file_seconds, self._now - began)
                continue
            self.budget.note_opened(path, self._costs.opening)
            file = _File(path, predictor, deque(predictor.runs(self.sound[path])))
            self._open.append(file)
            yield from self._score(file, warm)
            self.outcome.longest_file_seconds = max(self.outcome.longest_file_seconds, self._now - began)
        while self._open:
            file = min(self._open, key=lambda file: file.helpers)
            file.helpers += 1
            yield from self._score(file, warm)

    def _score(self, file: _File, warm: set[int]) -> Iterator[float]:
        while file.runs:
            if self.budget.is_over():
                file.runs.clear()
                self.outcome.skipped.append(file.path)
                break
            batch = file.runs.popleft()
            member_group = file.predictor.member_groups[batch.member_group]
            slowness = self._slowness(self._now) * (1.0 if id(file.predictor) in warm else self._costs.first_run)
            warm.add(id(file.predictor))
            stride_seconds = member_group.grid.stride_samples / member_group.grid.sample_rate
            sound_seconds = batch.n_windows * stride_seconds / len(file.predictor.member_groups)
            read = slowness * self._costs.reading * sound_seconds
            score = slowness * member_group.window_seconds * batch.n_windows
            yield read + score
            self.budget.note_batch(file.predictor, batch, read, score)
        file.helpers -= 1
        if file in self._open and not file.runs:
            self._open.remove(file)
        if not file.helpers:
            if file.path not in self.outcome.skipped:
                self.outcome.whole.append(file.path)
            self.budget.note_done(file.path, self.sound[file.path])
