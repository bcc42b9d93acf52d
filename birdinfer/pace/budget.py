"""A run that ends in time: measures, foretells, gives up what the ladder names, and fills the rest with the prior.

In: what lanes tell of files and runs of windows (:class:`birdinfer.soundscape_result.Pace`). Out: who hears the next
file, and whether there is time for it. At every file that is opened,

    forecast = elapsed + (windows left x lane-seconds each + files left x lane-seconds each) / lanes + finishing,

the first time after ten files (a tenth of all files if they are fewer than a hundred; two at least), or once a
twentieth of the budget is gone. A lane's seconds are all that pass between two of its calls here, so that nothing it
does is forgotten; its first run at each level is left out, for engines allocate then. The first level downwards whose
forecast fits, with :data:`MARGIN` of the work left to spare, is taken, and never left upwards. Where none fits, the
last one works on until only the time is left that finishing takes, and the longest of the latest runs of windows.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from birdinfer.bundle import Bundle
from birdinfer.errors import BirdinferError
from birdinfer.pace.durations import in_words
from birdinfer.pace.forecast import Forecaster
from birdinfer.pace.ladder import Level
from birdinfer.pace.laps import Laps
from birdinfer.predictor import Predictor
from birdinfer.reader import HeardRun

MARGIN = 0.03
"""Share of the work left by which a forecast must stay below the budget."""
_JUDGED_AFTER_FILES = 10
_JUDGED_AFTER_SHARE = 0.1
"""Of all files."""
_JUDGED_AFTER_BUDGET = 0.05
"""Share of the budget."""
_STANDARD_ERRORS = 2.0
"""Half the width of a forecast's spread."""
_REST = "what is not reached by then gets the prior"


class Forecast(NamedTuple):
    """When a run will end."""

    seconds: float
    """In all, from the beginning to the finished result."""
    left_seconds: float
    spread_seconds: float
    """Two standard errors of the speeds that were measured."""
    level: str
    """At which it will, "" as asked."""
    n_files: int
    """That were finished when it was made."""


class _Verdict(NamedTuple):
    """A level to go on at, and why."""

    level: int
    forecast: Forecast
    """At the level so far."""
    foretold: Forecast
    """At the new one."""


class Budget:
    """Says who hears the next file, so that the run ends in time. All lanes share it."""

    def __init__(
        self,
        make_predictor: Callable[[Bundle], Predictor],
        levels: Sequence[Level],
        seconds_of: Mapping[Path, float | None],
        budget_seconds: float,
        began: float,
        finish_seconds: Callable[[], float],
        lanes: int,
        now: Callable[[], float] = time.perf_counter,
        lane: Callable[[], int] = threading.get_ident,
    ) -> None:
        """Load nothing yet: where there is no time at all, nothing will be.

        Args:
            make_predictor: loads a level's bundle when it is taken; called by a lane while the others work on.
            levels: from :func:`birdinfer.pace.ladder.ladder`.
            seconds_of: all files and their lengths by their headers; None where unknown.
            budget_seconds: from ``began`` to the finished result.
            began: when the run did, by ``now``.
            finish_seconds: what writing the result takes once all files are heard; asked often.
            lanes: how many call.
            now: a clock in seconds.
            lane: who is calling.
        """
        self.lanes, self.budget_seconds = lanes, budget_seconds
        self._make_predictor, self._levels, self._seconds_of = make_predictor, levels, seconds_of
        self._began, self._finish_seconds, self._now = began, finish_seconds, now
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._forecaster = Forecaster([level.bundle for level in levels], seconds_of)
        self._predictor: Predictor | None = None
        self._level = 0
        self._unusable: set[int] = set()
        self._load_seconds = 0.0
        self._level_of: dict[Path, int] = {}
        self._level_by_predictor: WeakKeyDictionary[Predictor, int] = WeakKeyDictionary()
        self._n_done = 0
        self._laps = Laps(now, lane)
        self._over = False
        self._news: list[str] = []
        self._said: set[str] = set()

    def predictor_for(self, path: Path) -> Predictor | None:
        """Who hears this file; None: there is no time for it, nor for any that would be opened after it.

        Raises:
            BirdinferError: not even the first level can be loaded.
        """
        with self._lock:
            self._forecaster.measure_around_files(self._laps.lap())
            self._laps.pause()  # loading is no work on files
            if self._is_time_up():
                return None
            verdict = self._judge()
        self._take(verdict)
        with self._lock:
            if self._is_time_up():  # loading took what was left
                return None
            self._laps.lap()
            self._forecaster.begin(path, self._level)
            self._level_of[path] = self._level
            return self._predictor

    def is_over(self) -> bool:
        """Whether files are to be cut off where they are."""
        with self._lock:
            return self._is_time_up()

    def level_of(self, path: Path) -> str:
        """How a file is heard: ``without overlap`` ...; "" where it is as asked, or not at all."""
        return self._levels[self._level_of.get(path, 0)].name

    def expected_seconds(self, path: Path) -> float | None:
        """How long a file is by its header; None where that is unknown."""
        return self._seconds_of.get(path)

    def note_opened(self, path: Path, seconds: float) -> None:
        """A file is open."""
        with self._lock:
            self._forecaster.measure_around_files(self._laps.lap())

    def note_run(self, predictor: Predictor, heard: HeardRun, read_seconds: float, score_seconds: float) -> None:
        """A run was read and scored.

        Args:
            predictor: that scored it.
            heard: the run.
            read_seconds: not asked for: all that is not scoring counts as reading.
            score_seconds: what a lane spent on scoring.
        """
        with self._lock:
            lap, n_windows = self._laps.lap(read_seconds + score_seconds), heard.run.n_windows
            level = self._level_by_predictor[predictor]
            self._forecaster.hear(level, heard.listener, n_windows)
            if self._laps.note_run(lap, n_windows, level):
                other_seconds = max(0.0, lap - score_seconds)
                self._forecaster.measure(level, heard.listener, n_windows, score_seconds, other_seconds)

    def note_done(self, path: Path, sound_seconds: float) -> None:
        """A file is finished; one that was never begun is not counted."""
        with self._lock:
            if path not in self._level_of:
                return
            self._forecaster.measure_around_files(self._laps.lap())
            self._forecaster.end(path, sound_seconds)
            self._n_done += 1

    def forecast(self) -> Forecast | None:
        """When the run will end if all goes on as it does; None before that can be said."""
        with self._lock:
            return self._forecast_at(self._level) if self._may_judge() else None

    def news(self) -> list[str]:
        """What there is to tell since the last call, a line each."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def _elapsed(self) -> float:
        return self._now() - self._began

    def _is_time_up(self) -> bool:
        """Whether only finishing is left to do; once said, it stays so."""
        if not self._over:
            left_seconds = self.budget_seconds - self._elapsed() - self._finish_seconds()
            self._over = left_seconds <= self._laps.next_run_seconds(self._forecaster.windows_left())
            if self._over and self._n_done < len(self._seconds_of):
                self._say(f"time is up after {self._n_done} of {len(self._seconds_of)} files; the rest gets the prior")
        return self._over

    def _may_judge(self) -> bool:
        """Whether enough was heard, or enough time is gone."""
        few = math.ceil(_JUDGED_AFTER_SHARE * len(self._seconds_of))
        is_enough = self._n_done >= min(_JUDGED_AFTER_FILES, max(2, few))
        return is_enough or self._elapsed() >= _JUDGED_AFTER_BUDGET * self.budget_seconds

    def _forecast_at(self, level: int) -> Forecast | None:
        """If all files that wait are heard at this level."""
        work = self._forecaster.work_left(level)
        if work is None:
            return None
        left = max(0.0, work.seconds - self._laps.under_way_seconds()) / self.lanes
        spread = _STANDARD_ERRORS * work.relative_error * left
        left += self._load_seconds * (level != self._level) + self._finish_seconds()
        return Forecast(self._elapsed() + left, left, spread, self._levels[level].name, self._n_done)

    def _judge(self) -> _Verdict | None:
        """The level to go on at, if it is another one."""
        forecast = self._forecast_at(self._level) if self._may_judge() else None
        if forecast is None:
            return None
        after = f"after {self._n_done} file" + "s" * (self._n_done != 1)
        self._say_once("forecast", f"forecast {in_words(forecast.seconds)} of {self._in_all()} {after}")
        level, chosen = self._level, forecast
        for lower in range(self._level + 1, len(self._levels)):
            if self._fits(chosen):
                break
            foretold = self._forecast_at(lower) if lower not in self._unusable else None
            if foretold is not None:
                level, chosen = lower, foretold
        if level == self._level:
            if not self._fits(chosen):
                self._say_once("too much", f"forecast {in_words(chosen.seconds)} of {self._in_all()}: {_REST}")
            return None
        return _Verdict(level, forecast, chosen)

    def _fits(self, forecast: Forecast) -> bool:
        return forecast.seconds + MARGIN * forecast.left_seconds <= self.budget_seconds

    def _take(self, verdict: _Verdict | None) -> None:
        """Load a level, on this lane alone: the others go on as they did, unless there is nobody yet to hear them."""
        if verdict is None and self._predictor is not None:
            return
        if not self._loading.acquire(blocking=self._predictor is None):
            return
        try:
            if self._predictor is None:
                self._load(0)
            elif verdict is not None and verdict.level > self._level:
                self._descend(verdict)
        finally:
            self._loading.release()

    def _load(self, level: int) -> None:
        began = self._now()
        predictor = self._make_predictor(self._levels[level].bundle)
        with self._lock:
            self._load_seconds = self._now() - began
            self._level_by_predictor[predictor] = level
            self._predictor, self._level = predictor, level
            self._forecaster.take(level, [listener.watch for listener in predictor.listeners])

    def _descend(self, verdict: _Verdict) -> None:
        """Load a lower level and tell why; one that cannot be loaded is passed over from then on."""
        name = self._levels[verdict.level].name
        try:
            self._load(verdict.level)
        except BirdinferError as error:
            with self._lock:
                self._unusable.add(verdict.level)
                self._say(f"cannot go on {name}: {error}")
            return
        with self._lock:
            reason = f"forecast {in_words(verdict.forecast.seconds)} of {self._in_all()}"
            rest = "" if self._fits(verdict.foretold) else f"; {_REST}"
            self._said |= {"too much"} if rest else set()
            self._say(f"{reason}: from now on {name} (est. {in_words(verdict.foretold.seconds)}){rest}")

    def _in_all(self) -> str:
        return in_words(self.budget_seconds)

    def _say(self, line: str) -> None:
        self._news.append(line)

    def _say_once(self, kind: str, line: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._say(line)
