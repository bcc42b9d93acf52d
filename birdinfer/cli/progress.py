"""How far a prediction is: a bar with files, x real time and time left; plain lines where there is no terminal."""

import threading
from time import perf_counter
from types import TracebackType
from typing import Any

_PLAIN_LINE_SECONDS = 10.0


class Progress:
    """Counts files and seconds of sound; lanes may call it from their threads. Use as a context manager."""

    def __init__(self, n_files: int, quiet: bool) -> None:
        """Prepare to show ``n_files``; nothing is shown if ``quiet``."""
        from birdinfer.cli.console import stderr

        self._n_files = n_files
        self._quiet = quiet
        self._console = stderr()
        self._lock = threading.Lock()
        self._began = self._last_line = perf_counter()
        self._share = self._seconds = 0.0
        self._done = self._failed = 0
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal and not self._quiet:
            from birdinfer.cli.console import bar

            self._bar = bar(self._console)
            self._task = self._bar.add_task("", total=self._n_files, state=self._state())
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, files: float, seconds: float) -> None:
        """A lane has scored this share of a file, this many seconds of sound."""
        with self._lock:
            self._share += files
            self._seconds += seconds
            self._show()

    def file_done(self, failed: bool) -> None:
        """A file is finished."""
        with self._lock:
            self._done += 1
            self._failed += failed
            self._show()

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        from birdinfer.cli.console import shown

        if not self._quiet:
            self._console.print(shown(line))

    def _state(self) -> str:
        speed = self._seconds / max(1e-9, perf_counter() - self._began)
        failures = f", {self._failed} failed" if self._failed else ""
        return f"{self._done}/{self._n_files} files, {speed:.0f} x real time{failures}"

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=min(self._share, self._n_files), state=self._state())
        elif not self._quiet and perf_counter() - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = perf_counter()
            share = max(1e-9, min(1.0, self._share / self._n_files))
            left_seconds = (self._last_line - self._began) * (1 - share) / share
            self._console.print(f"{self._state()}, {left_seconds:.0f} s left")
