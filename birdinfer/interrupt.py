"""Ctrl-C and SIGTERM, answered between two steps: first the state is saved, then the run ends.

A second signal does not wait, but for an echo: SLURM may send SIGTERM twice within milliseconds, and so may torchrun.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO_SECONDS = 1.0
"""The same signal within this time is the same request."""


class StopRequest:
    """While it is entered, a signal sets ``requested`` instead of ending the process."""

    def __init__(self) -> None:
        """Nothing is requested yet."""
        self._received: int | None = None
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread set handlers; elsewhere signals are somebody else's business.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether to save and leave."""
        return self._received is not None

    @property
    def received(self) -> int | None:
        """The signal, None if there was none."""
        return self._received

    def leave(self, received: int | None = None) -> NoReturn:
        """End as the signal would have: KeyboardInterrupt for Ctrl-C, exit code 143 for SIGTERM.

        Args:
            received: the signal, where another process has received it.
        """
        if (received or self._received) == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def check(self) -> None:
        """Leave if it was requested: for places where nothing needs saving."""
        if self.requested:
            self.leave()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == self._received and now - self._received_at < _ECHO_SECONDS:
            return
        again = self.requested
        self._received, self._received_at = number, now
        if again:
            self.leave()


@contextlib.contextmanager
def leaving_at_sigterm() -> Iterator[None]:
    """While entered, SIGTERM ends the process as Ctrl-C does: what is open is closed; exit code 143, at once."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
