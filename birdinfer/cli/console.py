"""Where the commands print: results to standard output, progress, warnings and errors to standard error."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from birdinfer.errors import MissingExtraError, OutputError, printable
from birdinfer.system.outputs import STDOUT

if TYPE_CHECKING:
    from rich.table import Table


def stdout() -> Console:
    """For results: what a user may pipe into another program."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """For progress, warnings and errors: never mixed into a result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def summary(output: Path) -> Console:
    """For what is reported of a table that a command has written: standard error if the table goes to the other."""
    return stderr() if output == STDOUT else stdout()


@contextmanager
def table_file(output: Path) -> Iterator[Path]:
    """Yield the file to write a table to: the output or, for ``-``, one that is copied to standard output at the end.

    Nothing is copied if the block ends with an exception. OutputError if standard output has no space for the table.
    """
    if output != STDOUT:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="birdinfer-") as folder:
        path = Path(folder) / "submission.csv"
        yield path
        try:
            with path.open("rb") as table:
                copyfileobj(table, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            # What is left in the buffer would fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # whoever reads has enough
                raise OutputError("standard output", f"cannot be written ({error.strerror})") from error


def shown(text: str) -> str:
    """Make text from a file or a name fit for a line of a screen: no line end, no escape sequence, no markup."""
    return escape(printable(text))


def make_table(headings: Sequence[str], numbers: Sequence[str] = ()) -> "Table":
    """Make a table without lines whose cells are not wrapped; columns named in ``numbers`` are set right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="right" if heading in numbers else "left")
    return table


def widen(table: "Table") -> "Table":
    """Make a table as wide as its content: cut to the 80 characters of a pipe, figures would be lost."""
    table.width = Console(width=10_000).measure(table).maximum
    return table


@contextmanager
def needing(extra: str, module: str) -> Iterator[None]:
    """Turn an import that fails into the advice to install an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, extra) from error
