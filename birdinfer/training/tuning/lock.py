"""What one worker of a study does at a time, on whatever machine: claim a trial, tell how one went, write the tables.

A file that only one can create, which holds on network disks where locks of the kernel do not. It says who has it, and
is touched as long as they do: nobody is waited for whose process is gone from this machine, or who has been silent for
a minute elsewhere, and nobody loses it for being slow. Optuna's journal is guarded by one, too.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from birdinfer.errors import OutputError
from birdinfer.training.tuning.alive import Identity, identity, is_gone
from birdinfer.training.tuning.folder import LOCKED

SILENT_SECONDS = 60.0
"""A lock that nobody has touched for so long is nobody's."""
_TOUCH_SECONDS = 5.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.001, 0.2
"""Seconds between two looks at somebody else's lock."""


class _Held(msgspec.Struct, frozen=True):
    """What stands in the file."""

    by: Identity
    token: str
    """Of this very time."""


class FileLock:
    """A lock; :func:`locked` is the way to take the study's."""

    def __init__(self, path: Path) -> None:
        """It is ``path``, which is nobody's yet.

        Args:
            path: a file, in a folder that is there.
        """
        self._path, self._held = path, b""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Wait for it, and take it.

        Raises:
            OutputError: the folder cannot be written to.
        """
        self._held = msgspec.json.encode(_Held(identity(), uuid.uuid4().hex))
        seen, since, wait = (b"", 0.0), time.monotonic(), _SHORTEST_WAIT
        while not self._take():
            now = self._look()
            if now != seen:
                seen, since = now, time.monotonic()
            if _is_left(now[0], time.monotonic() - since):
                self._remove(now[0])
                continue
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        self._over.clear()
        self._thread = threading.Thread(target=self._touch, name="lock", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Give it back, if nobody took us for dead."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._remove(self._held)

    def _take(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise OutputError(self._path, f"cannot be written ({error.strerror})") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._held)
        return True

    def _look(self) -> tuple[bytes, float]:
        """What stands in it, and when it was touched; nothing where it is free by now."""
        with contextlib.suppress(OSError):
            return self._path.read_bytes(), self._path.stat().st_mtime
        return b"", 0.0

    def _remove(self, held: bytes) -> None:
        """Take it away from whoever holds it so; two may want to at once, and one of them already hold it anew."""
        if self._look()[0] != held:
            return
        aside = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            self._path.rename(aside)
            if aside.read_bytes() != held:
                os.link(aside, self._path)
            aside.unlink()

    def _touch(self) -> None:
        while not self._over.wait(_TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def locked(study_dir: Path) -> Iterator[None]:
    """While entered, no other worker is in here.

    Raises:
        OutputError: the study's folder cannot be written to.
    """
    lock = FileLock(study_dir / LOCKED)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_left(held: bytes, silent_seconds: float) -> bool:
    """Whether nobody will give a lock back; one that was killed as it took it has written nothing."""
    try:
        gone = is_gone(msgspec.json.decode(held, type=_Held).by)
    except msgspec.DecodeError:
        gone = None
    return silent_seconds > SILENT_SECONDS if gone is None else gone
