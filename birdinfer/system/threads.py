"""Calls that may never return, in threads of their own: the main thread keeps the deadline and the signals.

A graph may hold an endless loop, and a read from a network disk that is gone may wait for ever. Python can end neither.
So the main thread, which alone receives signals, waits for such calls only as long as it wants to, and a process that
leaves one behind ends without waiting for it.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

Result = TypeVar("Result")
_NAME = "birdinfer worker"
_POLL_SECONDS = 0.1


def worker_thread(work: Callable[[], None]) -> threading.Thread:
    """Make a thread that may be left behind; not started yet."""
    return threading.Thread(target=work, name=_NAME, daemon=True)


def attended(work: Callable[[], Result], check: Callable[[], None] = lambda: None) -> Result:
    """Return what ``work`` returns, or raise what it raises; ``check`` is called again and again, and may raise.

    >>> attended(lambda: 2 + 2)
    4
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = worker_thread(run)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        if thread.is_alive():
            check()
    if errors:
        raise errors[0]
    return results[0]


def left_behind() -> set[threading.Thread]:
    """Threads whose call has not returned."""
    return {thread for thread in threading.enumerate() if thread.name == _NAME}


def leave(code: int) -> NoReturn:
    """End the process with an exit code, at once if a thread is left behind.

    Output is flushed, and what its receiver does not take any more is dropped.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None: it was closed before the start
            try:
                stream.flush()
            except OSError:  # else Python would try it again at its end, and take exit code 120
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if left_behind():  # freeing what the call uses would end it with a crash, or wait for it
        os._exit(code)
    sys.exit(code)
