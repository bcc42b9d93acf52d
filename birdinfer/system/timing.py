"""Time: shares of the parts of some work, durations as people write and read them, and time spent waiting."""

import math
import re
import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from birdinfer.errors import ConfigError


class Stopwatch:
    """Adds up seconds part by part; threads may share it. One measurement costs about a microsecond."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timing(self, *parts: Hashable) -> Iterator[None]:
        """Time the block, which its parts share equally. A block that raises is not counted."""
        began = perf_counter()
        yield
        seconds = perf_counter() - began
        with self._lock:
            for part in parts:
                self._seconds[part] = self._seconds.get(part, 0.0) + seconds / len(parts)

    def shares(self) -> dict[Hashable, float]:
        """Each part's share of all seconds; they sum to 1. Empty before anything was timed."""
        with self._lock:
            seconds = dict(self._seconds)
        total = sum(seconds.values())
        return {part: each / total for part, each in seconds.items()} if total else {}


_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_WRITTEN = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m(?:in)?)?(?:{_NUMBER}s)?")
_MOST_SECONDS = 366 * 86_400


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Read ``85m``, ``1h25m``, ``23 min 10 s``, ``1.5h`` as seconds, above 0, at most a year; else ConfigError."""
    written = text.replace(" ", "").lower()
    if re.fullmatch(_NUMBER, written) and 0 < 60 * float(written) <= _MOST_SECONDS:
        raise ConfigError(option, f"{text!r} has no unit", f"write {written}m or {written}s")
    found = _WRITTEN.fullmatch(written)
    hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else (0, 0, 0)))
    total = 3_600 * hours + 60 * minutes + seconds
    if not 0 < total <= _MOST_SECONDS:
        raise ConfigError(option, f"{text!r} is no length of time above 0", "write it as 85m, 1h25m or 90s")
    return total


def format_duration(seconds: float) -> str:
    """Write seconds as a person would; below 0 counts as 0.

    >>> [format_duration(each) for each in (4.21, 45, 1_390, 18_720)]
    ['4.2 s', '45 s', '23 min 10 s', '5 h 12 min']
    """
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 7_200:
        return _joined(whole // 60, "min", whole % 60, "s")
    minutes = math.floor(seconds / 60 + 0.5)
    return _joined(minutes // 60, "h", minutes % 60, "min")


def _joined(many: int, unit: str, rest: int, smaller: str) -> str:
    return f"{many} {unit} {rest} {smaller}" if rest else f"{many} {unit}"


T = TypeVar("T")


class Waiting:
    """Adds up the seconds that a loop waits for its next item."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def through(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the same batches, and measure how long each takes to come."""
        began = perf_counter()
        for batch in batches:
            self.seconds += perf_counter() - began
            yield batch
            began = perf_counter()
