"""A file that one process at a time holds, by the kernel's lock: let go when it is closed, also by kill -9.

Whoever takes one looks twice: whether nobody holds it, and whether it is still the file that others will find.
"""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO


def is_free(file: BinaryIO) -> bool:
    """Take the file's lock; whether it is ours now, or there are no locks here: on Windows, on some clusters' disks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def is_in_place(file: BinaryIO, path: Path) -> bool:
    """Whether others will find at ``path`` the file that we hold, and not a newer one, or none."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
