"""Where the commands print: results to standard output, progress and complaints to standard error."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def stdout() -> "Console":
    """For results: what a user may pipe into another program."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def stderr() -> "Console":
    """For progress, warnings and errors: never mixed into a result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def shown(text: str) -> str:
    """What a file or a name says of itself, fit for a line of a screen: no line end, no escape sequence."""
    from rich.markup import escape

    from birdinfer.errors import printable

    return escape(printable(text))


def bar(console: "Console") -> "Progress":
    """A progress bar with the task's field ``state``, the time it took and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
