"""A wall between a tracker and the training: what a client raises, prints or hangs at ends at it.

In: a call into somebody else's client. Out: its answer within a time, or one exception, of which :func:`told` makes a
line.
"""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from threading import Thread
from typing import Generic, TypeVar

from birdinfer.errors import BirdinferError, ConfigError, printable

T = TypeVar("T")

_LONGEST = 200
_ORNAMENTS = re.compile(r"\x1b\[[0-9;]*m|-{4,}|={4,}")
"""Colours and rules, which some clients put into their exceptions."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Make a call in a thread of its own, and wait for it no longer than this.

    The screen belongs to the command: what a client prints meanwhile is dropped, as are the tracebacks of its threads.

    Raises:
        ConfigError: no answer came in time. The thread is left alone; it keeps no process from ending.
        Exception: what the call raised; SystemExit and its like as RuntimeError, for a client may not end a training.
    """
    answer = _Answer(call)
    thread = Thread(target=answer.find, daemon=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        thread.start()
        thread.join(seconds)
    if thread.is_alive():
        raise ConfigError("tracking.wait_seconds", f"no answer within {seconds:g} s", "raise it, or track offline")
    return answer.given()


def told(tracker: str, error: Exception) -> str:
    """The line about a tracker that failed: which one, why, and what to do."""
    if isinstance(error, BirdinferError):
        why = str(error)
    else:
        text = " ".join(printable(_ORNAMENTS.sub(" ", str(error))).split())
        short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        why = f"{type(error).__name__}: {short} - mend it and --resume, or take it out of tracking.trackers"
    return f"tracker {tracker} is given up, the training goes on: {why}"


class _Answer(Generic[T]):
    """What a call in another thread comes to."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._values = call, list[T]()
        self._error: Exception = RuntimeError("it ended without an answer")

    def find(self) -> None:
        try:
            self._values.append(self._call())
        except Exception as error:  # a client's own: they have no common type
            self._error = error
        except BaseException as error:
            self._error = RuntimeError(f"{type(error).__name__} {error}")

    def given(self) -> T:
        if not self._values:
            raise self._error
        return self._values[0]
