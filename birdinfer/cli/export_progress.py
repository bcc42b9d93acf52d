"""How far an export is: lines that stay, and below them a bar of what is going on; no bar without a terminal."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class ExportProgress:
    """A :class:`birdinfer.export.options.Reporter` that prints. Use as a context manager."""

    def __init__(self, console: "Console") -> None:
        """Prepare to show; nothing is printed yet."""
        from birdinfer.cli.console import bar

        self._console = console
        self._bar: Any = bar(console) if console.is_terminal else None
        self._task: Any = None
        self._what = ""

    def __enter__(self) -> "ExportProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Something is done, and this is what came of it."""
        from rich.markup import escape

        self._console.print(escape(text))

    def step(self, what: str, done: int, of: int) -> None:
        """How much is done of what is going on; in a log, what begins."""
        from rich.markup import escape

        if self._bar is None:
            if what != self._what:
                self._console.print(f"{escape(what)} ...")
            self._what = what
            return
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._what = self._bar.add_task("", total=of, state=escape(what)), what
        self._bar.update(self._task, completed=done, total=of)
