"""The status bar of the long commands; the callback that fills it lives beside each command."""

import threading
from time import perf_counter
from typing import TYPE_CHECKING, Self

from rich.markup import escape

from birdinfer.cli import console as console_module

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PLAIN_LINE_SECONDS = 10.0


class StatusBar:
    """Show how far a task is: a bar in a terminal, a line every ten seconds elsewhere, nothing if quiet.

    Threads may share it. Use as a context manager.
    """

    def __init__(self, quiet: bool = False, console: "Console | None" = None) -> None:
        """Prepare to show on standard error, or on another console."""
        self.console = console or console_module.stderr()
        self.quiet = quiet
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task = ""
        self._task_id: TaskID
        self._first = self._began = self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def show(self, task: str, state: str, done: float, total: float) -> None:
        """Move a task's bar to ``done`` of ``total``, with a line ``state`` beside it; another task gets a new bar."""
        if self.quiet:
            return
        with self._lock:
            if task != self._task:
                self._open(task, state, done, total)
            if self._bar is not None:
                self._bar.update(self._task_id, completed=min(done, total), state=escape(state))
            elif (now := perf_counter()) - self._last_line > _PLAIN_LINE_SECONDS:
                self._last_line = now
                left_seconds = (now - self._began) * max(0.0, total - done) / max(1e-9, done - self._first)
                self.console.print(f"{escape(state)}, {left_seconds:.0f} s left")

    def stop(self) -> None:
        with self._lock:
            self._close()

    def line(self, text: str, style: str = "") -> None:
        """Print a line above the bar, unless quiet."""
        if not self.quiet:
            self.warn(text, style)

    def warn(self, text: str, style: str = "") -> None:
        """Print a line above the bar, also if quiet."""
        self.console.print(console_module.shown(text), style=style or None)

    def _open(self, task: str, state: str, done: float, total: float) -> None:
        self._close()
        self._task, self._first = task, done
        self._began = self._last_line = perf_counter()
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # 10 ms

            time = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
            self._bar = Progress(BarColumn(), TextColumn("{task.fields[state]}"), *time, console=self.console)
            self._task_id = self._bar.add_task("", total=total, completed=int(done), state=escape(state))
            self._bar.start()

    def _close(self) -> None:
        self._task = ""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
