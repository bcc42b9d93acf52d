"""Ctrl-C, SIGTERM and a closed terminal, handled between two steps: first the state is saved, then the run ends.

A second signal ends the run at once, unless it is an echo: SLURM and torchrun may send SIGTERM twice within
milliseconds.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
_ECHO_SECONDS = 1.0  # the same signal within this time is the same request


class StopRequest:
    """While entered, a signal sets ``requested`` instead of ending the process."""

    def __init__(self) -> None:
        self.received: int | None = None  # the signal's number
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread set handlers; the caller's own handle signals elsewhere.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether to save and leave."""
        return self.received is not None

    def leave(self, received: int | None = None) -> NoReturn:
        """End as the signal, or another process's, would: KeyboardInterrupt for Ctrl-C, exit code 143 for SIGTERM."""
        number = received or self.received
        if number is not None and number in (signal.SIGTERM, _HANGUP):
            raise SystemExit(128 + number)
        raise KeyboardInterrupt

    def check(self) -> None:
        """Leave if a stop was requested and nothing needs saving."""
        if self.requested:
            self.leave()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == self.received and now - self._received_at < _ECHO_SECONDS:
            return
        again = self.requested
        self.received, self._received_at = number, now
        if again:
            self.leave()


def _signals() -> set[int]:
    """What asks a run to stop; a terminal's end does not where it is to be survived (nohup)."""
    asking: set[int] = {signal.SIGINT, signal.SIGTERM}
    return asking if signal.getsignal(_HANGUP) is signal.SIG_IGN else {*asking, _HANGUP}


@contextlib.contextmanager
def leaving_at_sigterm() -> Iterator[None]:
    """Let SIGTERM, and a closed terminal, end the block as Ctrl-C does, at once and with its cleanup; exit code 143."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in _signals() - {signal.SIGINT}}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
