"""How long lanes take from one call to the next, and for a run of windows; in: calls, out: seconds.

All of a lane's time between two calls is a lap, so that nothing it does in between is forgotten. Not for several
threads at once.
"""

from collections import deque
from collections.abc import Callable

_LATEST_RUNS = 20
"""The longest of so many is what the next one may take."""


class Laps:
    """The lanes' clock."""

    def __init__(self, now: Callable[[], float], lane: Callable[[], int]) -> None:
        """Begin before any lane has called.

        Args:
            now: a clock in seconds.
            lane: who is calling.
        """
        self._now, self._lane = now, lane
        self._marks: dict[int, float] = {}
        """When each lane that is at work last called."""
        self._warm: set[tuple[int, int]] = set()
        """Lanes that have heard a run at a level."""
        self._latest: deque[tuple[float, int]] = deque(maxlen=_LATEST_RUNS)
        self._only_first = True

    def lap(self, at_least: float = 0.0) -> float:
        """Seconds since this lane's last call; ``at_least`` where this is its first."""
        now, lane = self._now(), self._lane()
        before = self._marks.get(lane)
        self._marks[lane] = now
        return at_least if before is None else now - before

    def pause(self) -> None:
        """What this lane does up to its next call is no lap."""
        self._marks.pop(self._lane(), None)

    def note_run(self, seconds: float, n_windows: int, level: int) -> bool:
        """Whether this lane has heard a run at this level before: first ones are slow, for engines allocate."""
        is_first = (self._lane(), level) not in self._warm
        self._warm.add((self._lane(), level))
        if self._only_first and not is_first:
            self._only_first = False
            self._latest.clear()
        if not is_first or self._only_first:  # first ones count only until there are others
            self._latest.append((seconds, n_windows))
        return not is_first

    def next_run_seconds(self, windows_left: float) -> float:
        """What the next run may take: as long as the longest of the latest, or less where less is left."""
        seconds, n_windows = max(self._latest, default=(0.0, 1))
        return seconds * min(1.0, windows_left / n_windows)

    def under_way_seconds(self) -> float:
        """What lanes have done by now of the runs that they are at."""
        (longest, _), now = max(self._latest, default=(0.0, 1)), self._now()
        return sum(min(now - mark, longest) for mark in self._marks.values())
