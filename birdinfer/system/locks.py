"""One process at a time: in a folder, or at a piece of work that processes of several machines share.

:func:`locked` is the kernel's lock, which ends with its process, however that ends. A :class:`Lease` is a file that its
holder touches again and again; it works on network disks, too, where locks of the kernel often do not.
"""

import contextlib
import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from birdinfer.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LEASE_SECONDS = 300.0
"""After this time without a touch the holder of a lease counts as dead, if it cannot be seen: network disks show a new
date up to a minute late. A process of this machine that has ended is seen at once."""
_POLL_SECONDS = 0.05
_NO_KERNEL_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(
    folder: Path,
    on_wait: Callable[[str], None] = lambda line: None,
    check_stop: Callable[[], None] = lambda: None,
    patience_seconds: float = math.inf,
) -> Iterator[None]:
    """Work in a folder, which need not exist, while no other process does that holds the same lock.

    The lock is a file beside the folder, ``.NAME.lock``, so that the folder itself may be made, renamed or removed.
    While it waits it calls ``on_wait`` once, with a line of text, and ``check_stop`` again and again, which may raise;
    after ``patience_seconds`` it is an OutputError.
    """
    target = Path(os.path.realpath(folder))
    path = target.with_name(f".{target.name}.lock")
    deadline, has_waited = time.monotonic() + patience_seconds, False
    while True:
        with try_lock(path) as is_ours:
            if is_ours:
                yield
                return
        if not has_waited:
            on_wait(f"another process is at work in {folder}, waiting for it")
            has_waited = True
        if time.monotonic() >= deadline:
            raise OutputError(folder, "another process is at work there", "wait for its end, or end it")
        check_stop()
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file, if no other process does: yields whether it is ours. The file is removed afterwards."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path)
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place for it") from error
    try:
        yield lock is not None
    finally:
        if lock is not None:
            # While it is still ours: a process that waits for the removed file notices, and makes a new one.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()


def _acquired(path: Path) -> "BaseFileLock | None":
    """The kernel's lock, or a soft one where the disk has none; None if another process holds it."""
    from filelock import FileLock, SoftFileLock, Timeout

    try:
        lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_KERNEL_LOCKS:
            raise
        # Under another name: the file that has just been made would look like another process's.
        lock = SoftFileLock(path.with_suffix(".softlock"))
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
    return lock if lock.is_locked else None


class Lease:
    """A claim of this process that others can see, and take over once this process has ended or fallen silent.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "trial.lease"
    >>> mine, other = Lease(path), Lease(path)
    >>> mine.take(), other.take()
    (True, False)
    >>> mine.release()
    >>> other.take()
    True
    >>> other.release()
    """

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        """Untouched for ``seconds``, equal for all who claim the file, the holder is dead; None: LEASE_SECONDS."""
        from filelock import SoftFileLease

        self._path = path
        self._lock = SoftFileLease(path, lease_duration=seconds or LEASE_SECONDS, thread_local=False)

    def take(self, wait: bool = False) -> bool:
        """Claim it, at once or when it is free; whether it is ours now. OutputError if the file cannot be written."""
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=wait, poll_interval=_POLL_SECONDS)
        except Timeout:
            return False
        except OSError as error:
            raise OutputError(self._path, f"cannot be written ({error.strerror})") from error
        return True

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken it from this one."""
        return self._lock.compromise is not None

    def release(self) -> None:
        """Let others claim it; harmless when repeated."""
        self._lock.release()

    def __enter__(self) -> "Lease":
        self.take(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
