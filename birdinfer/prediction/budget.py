"""Schedule files so that a run ends in time: measure, forecast, take a lower fallback level, or leave files out.

Whenever a file is opened, the first level downwards whose forecast fits, with :data:`MARGIN` of the work left to spare,
is taken, and never left upwards. If none fits, the last one continues until only the time is left that finishing takes,
and the longest of the latest window batches. A worker's seconds are all that pass between two of its calls here, so
that nothing is left out.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from birdinfer.audio.windows import WindowBatch
from birdinfer.errors import BirdinferError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.results import Scheduler
from birdinfer.prediction.fallback_levels import Level
from birdinfer.prediction.forecast import Forecaster
from birdinfer.system.timing import format_duration

MARGIN = 0.03  # share of the work left by which a forecast must stay below the budget
_FORECAST_AFTER_FILES = 10
_FORECAST_AFTER_SHARE = 0.1  # of all files
_FORECAST_AFTER_BUDGET = 0.05  # share of the budget
_LATEST_BATCHES = 20  # the next batch may take as long as the longest of so many
_REST = "files not reached by then get the prior"


class StepTimer:
    """Measure the seconds between a worker's calls, and those of its window batches."""

    def __init__(self, now: Callable[[], float], worker: Callable[[], int]) -> None:
        self._now, self._worker = now, worker
        self._marks: dict[int, float] = {}  # the last call of each worker that is at work
        self._warm: set[tuple[int, int]] = set()  # workers that have scored a batch at a level
        self._latest: deque[tuple[float, int]] = deque(maxlen=_LATEST_BATCHES)
        self._has_warm_batches = False

    def step(self, first_seconds: float = 0.0) -> float:
        """Return the seconds since this worker's last call; ``first_seconds`` if there was none."""
        now, worker = self._now(), self._worker()
        before = self._marks.get(worker)
        self._marks[worker] = now
        return first_seconds if before is None else now - before

    def pause(self) -> None:
        """Do not measure until this worker's next call."""
        self._marks.pop(self._worker(), None)

    def note_batch(self, seconds: float, n_windows: int, level: int) -> bool:
        """Add a batch; return whether it is not this worker's first at this level, which is slow: engines allocate."""
        is_first = (self._worker(), level) not in self._warm
        self._warm.add((self._worker(), level))
        if not is_first and not self._has_warm_batches:
            self._has_warm_batches = True
            self._latest.clear()
        if not is_first or not self._has_warm_batches:  # first ones count only until there are others
            self._latest.append((seconds, n_windows))
        return not is_first

    def next_batch_seconds(self, windows_left: float) -> float:
        """Return what the next batch may take: as long as the longest of the latest, or less if less is left."""
        seconds, n_windows = max(self._latest, default=(0.0, 1))
        return seconds * min(1.0, windows_left / n_windows)

    def open_seconds(self) -> float:
        """Return what workers have spent by now on batches that are not finished."""
        (longest, _), now = max(self._latest, default=(0.0, 1)), self._now()
        return sum(min(now - mark, longest) for mark in self._marks.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """When a run will end; ``level`` is the fallback level's name, "" if files are predicted as requested."""

    seconds: float  # from the start to the finished result
    left_seconds: float
    level: str
    n_files: int  # files that were finished when it was made


class _Descent(NamedTuple):
    """A lower level to take, with the forecasts at the present one and at the lower one."""

    level: int
    present: Forecast
    lower: Forecast


class Budget(Scheduler):
    """Decide which predictor takes the next file, so that the run ends in time. All workers share it."""

    def __init__(
        self,
        levels: Sequence[Level],
        seconds_of: Mapping[Path, float | None],
        *,
        budget_seconds: float,
        started: float,
        workers: int,
        make_predictor: Callable[[Bundle], Predictor],
        finish_seconds: Callable[[], float],
        now: Callable[[], float] = time.perf_counter,
        worker: Callable[[], int] = threading.get_ident,
    ) -> None:
        """Load nothing yet; ``started`` is by the clock ``now``, ``seconds_of`` holds all files' lengths by headers.

        ``make_predictor`` loads the bundle of a level, called by a worker while the others continue. ``finish_seconds``
        returns what writing the result takes once all files are done, and is called often.
        """
        self.workers, self.budget_seconds = workers, budget_seconds
        self._levels, self._seconds_of, self._make_predictor = levels, seconds_of, make_predictor
        self._started, self._finish_seconds, self._now = started, finish_seconds, now
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._forecaster = Forecaster([level.bundle for level in levels], seconds_of)
        self._timer = StepTimer(now, worker)
        self._predictor: Predictor | None = None
        self._level = self._n_done = 0
        self._unusable: set[int] = set()
        self._load_seconds = 0.0
        self._level_of: dict[Path, int] = {}
        self._level_by_predictor: WeakKeyDictionary[Predictor, int] = WeakKeyDictionary()
        self._is_over = False
        self._news: list[str] = []
        self._reported: set[str] = set()

    def predictor_for(self, path: Path) -> Predictor | None:
        """Return the predictor for a file; None if there is no time for it, nor for any file opened later."""
        with self._lock:
            self._forecaster.measure_around_files(self._timer.step())
            self._timer.pause()  # loading is no work on files
            if self._is_time_over():
                return None
            descent = self._plan_descent()
        self._take(descent)
        with self._lock:
            if self._is_time_over():  # loading took what was left
                return None
            self._timer.step()
            self._forecaster.begin(path, self._level)
            self._level_of[path] = self._level
            return self._predictor

    def is_over(self) -> bool:
        """Return whether files are to be cut off where they are."""
        with self._lock:
            return self._is_time_over()

    def seconds_left(self) -> float:
        """Return the seconds until only finishing the result is left to do; negative from then on."""
        return self.budget_seconds - self._elapsed() - self._finish_seconds()

    def level_of(self, path: Path) -> str:
        """Return the fallback level of a file; "" if it is predicted as requested, or not at all."""
        return self._levels[self._level_of.get(path, 0)].name

    def expected_seconds(self, path: Path) -> float | None:
        """Return a file's length by its header; None if it is unknown."""
        return self._seconds_of.get(path)

    def note_opened(self, path: Path, seconds: float) -> None:
        """Note that a file is open."""
        with self._lock:
            self._forecaster.measure_around_files(self._timer.step())

    def note_batch(self, predictor: Predictor, batch: WindowBatch, read_seconds: float, score_seconds: float) -> None:
        """Measure a window batch; everything besides ``score_seconds`` counts as reading."""
        with self._lock:
            seconds, n_windows = self._timer.step(read_seconds + score_seconds), batch.n_windows
            level = self._level_by_predictor[predictor]
            self._forecaster.score(level, batch.member_group, n_windows)
            if self._timer.note_batch(seconds, n_windows, level):
                other_seconds = max(0.0, seconds - score_seconds)
                self._forecaster.measure(level, batch.member_group, n_windows, score_seconds, other_seconds)

    def note_done(self, path: Path, sound_seconds: float) -> None:
        """Note that a file is finished; one that was never opened is not counted."""
        with self._lock:
            if path not in self._level_of:
                return
            self._forecaster.measure_around_files(self._timer.step())
            self._forecaster.end(path, sound_seconds)
            self._n_done += 1

    def forecast(self) -> Forecast | None:
        """Return when the run will end at the present level; None as long as too little is measured."""
        with self._lock:
            return self._forecast_at(self._level) if self._may_forecast() else None

    def news(self) -> list[str]:
        """Return what is to be reported since the last call, a line each."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def _elapsed(self) -> float:
        return self._now() - self._started

    def _is_time_over(self) -> bool:
        """Whether only finishing is left to do; it stays so."""
        if not self._is_over:
            self._is_over = self.seconds_left() <= self._timer.next_batch_seconds(self._forecaster.windows_left())
            if self._is_over and self._n_done < len(self._seconds_of):
                n_files = len(self._seconds_of)
                self._news.append(f"time is up after {self._n_done} of {n_files} files; the rest gets the prior")
        return self._is_over

    def _may_forecast(self) -> bool:
        few = math.ceil(_FORECAST_AFTER_SHARE * len(self._seconds_of))
        is_enough = self._n_done >= min(_FORECAST_AFTER_FILES, max(2, few))
        return is_enough or self._elapsed() >= _FORECAST_AFTER_BUDGET * self.budget_seconds

    def _forecast_at(self, level: int) -> Forecast | None:
        work_seconds = self._forecaster.work_left(level)
        if work_seconds is None:
            return None
        left = max(0.0, work_seconds - self._timer.open_seconds()) / self.workers
        left += self._load_seconds * (level != self._level) + self._finish_seconds()
        name, seconds = self._levels[level].name, self._elapsed() + left
        return Forecast(seconds=seconds, left_seconds=left, level=name, n_files=self._n_done)

    def _plan_descent(self) -> _Descent | None:
        """The first lower level that fits, or the lowest one; None if the present one fits."""
        present = self._forecast_at(self._level) if self._may_forecast() else None
        if present is None:
            return None
        after = f"after {self._n_done} file" + "s" * (self._n_done != 1)
        self._report_once("forecast", f"{self._text(present)} {after}")
        level, chosen = self._level, present
        for lower in range(self._level + 1, len(self._levels)):
            if self._fits(chosen):
                break
            forecast = self._forecast_at(lower) if lower not in self._unusable else None
            if forecast is not None:
                level, chosen = lower, forecast
        if level != self._level:
            return _Descent(level, present, chosen)
        if not self._fits(chosen):
            self._report_once("too much", f"{self._text(chosen)}: {_REST}")
        return None

    def _fits(self, forecast: Forecast) -> bool:
        return forecast.seconds + MARGIN * forecast.left_seconds <= self.budget_seconds

    def _take(self, descent: _Descent | None) -> None:
        """Load a level in this worker; the others continue, unless no level is loaded yet."""
        if descent is None and self._predictor is not None:
            return
        if not self._loading.acquire(blocking=self._predictor is None):
            return
        try:
            if self._predictor is None:
                self._load(0)
            elif descent is not None and descent.level > self._level:
                self._descend(descent)
        finally:
            self._loading.release()

    def _load(self, level: int) -> None:
        began = self._now()
        predictor = self._make_predictor(self._levels[level].bundle)
        with self._lock:
            self._load_seconds = self._now() - began
            self._level_by_predictor[predictor] = level
            self._predictor, self._level = predictor, level
            self._forecaster.load(level, [member_group.watch for member_group in predictor.member_groups])

    def _descend(self, descent: _Descent) -> None:
        """Load a lower level and report why; a level that cannot be loaded is not tried again."""
        name = self._levels[descent.level].name
        try:
            self._load(descent.level)
        except BirdinferError as error:
            with self._lock:
                self._unusable.add(descent.level)
                self._news.append(f"cannot continue {name}: {error}")
            return
        with self._lock:
            rest = "" if self._fits(descent.lower) else f"; {_REST}"
            self._reported |= {"too much"} if rest else set()
            estimate = format_duration(descent.lower.seconds)
            self._news.append(f"{self._text(descent.present)}: from now on {name} (est. {estimate}){rest}")

    def _text(self, forecast: Forecast) -> str:
        return f"forecast {format_duration(forecast.seconds)} of {format_duration(self.budget_seconds)}"

    def _report_once(self, kind: str, line: str) -> None:
        if kind not in self._reported:
            self._reported.add(kind)
            self._news.append(line)
