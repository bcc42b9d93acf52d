"""How the time of a work divides among its parts, added up over threads: seconds in, shares out."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Adds up seconds part by part; threads may share it. Taking a time costs about a microsecond."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self._seconds: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timing(self, *parts: Hashable) -> Iterator[None]:
        """Time what is done while entered; parts that are done in one share it equally. What fails is not counted."""
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
