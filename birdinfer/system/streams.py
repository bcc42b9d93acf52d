"""Standard output and error that last: no run is lost because a pager was closed or a log's disk is full.

Nor does one wait for a screen that takes nothing: a terminal that was stopped, a connection that hangs.
"""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

_PATIENCE_SECONDS = 1.0


class LastingStream:
    """A text stream that drops what its receiver does not take."""

    def __init__(self, stream: TextIO, patience_seconds: float | None = None) -> None:
        """Write to ``stream``; wait for a receiver only so long, or for ever if None."""
        self._stream, self._patience_seconds = stream, patience_seconds
        self.is_stuck = False
        """Whether the receiver took nothing in time."""
        self.problem: OSError | None = None
        """Why something was dropped."""

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._stream.write(text) if self._is_ready() else len(text)
        except OSError as error:
            self.problem = error
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what is not written."""
        try:
            if self._is_ready():
                self._stream.flush()
        except OSError as error:
            self.problem = error

    def _is_ready(self) -> bool:
        """Whether the receiver takes something; once it did not in time, it is asked but not waited for."""
        if self._patience_seconds is None or os.name != "posix":
            return True
        try:
            number = self._stream.fileno()
        except (OSError, ValueError):
            return True
        seconds = 0.0 if self.is_stuck else self._patience_seconds
        self.is_stuck = not select.select([], [number], [], seconds)[1]
        return not self.is_stuck

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Let nothing within the block fail because of where standard output and error go; yields standard output."""
    _open_closed_streams()
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):  # names of files hold what the screen's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr, _PATIENCE_SECONDS)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
        if err.is_stuck:  # Python would wait for it at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _open_closed_streams() -> None:
    """Fill the places of streams that were closed: the next file would take them, and be written to by libraries."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
