"""One process at a time in a folder: folds are laid once, no fold is trained twice, a summary knows all folds.

In: the folder. A lock in it, held while its owner writes; it ends with its process, however that ends. On a file system
without locks, as some clusters have, nobody waits: what is written in turns is written whole, and by all alike.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from birdinfer.errors import OutputError
from birdinfer.file_lock import is_free, is_in_place

_LOCK = ".lock"
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def one_at_a_time(
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    between: Callable[[], None] = lambda: None,
    patience_seconds: float = math.inf,
) -> Iterator[None]:
    """While entered, other processes wait that would enter, too, on this machine or another one.

    Args:
        folder: is made if need be, and goes again if nothing is written into it.
        say: takes a line if it has to wait.
        between: called now and then while it waits; may raise to stop.
        patience_seconds: how long it waits.

    Raises:
        OutputError: the folder cannot be made or written to, or another process does not leave it.
    """
    lock = _take(folder, say, between, time.monotonic() + patience_seconds)
    try:
        yield
    finally:
        # While it is still ours: who waits for it sees that it is gone, and takes the next one.
        with contextlib.suppress(OSError):
            (folder / _LOCK).unlink(missing_ok=True)
        lock.close()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _take(folder: Path, say: Callable[[str], None], between: Callable[[], None], deadline: float) -> BinaryIO:
    has_said = False
    while True:
        file = _opened(folder)
        if file is not None and is_free(file) and is_in_place(file, folder / _LOCK):
            return file
        if file is not None:
            file.close()
        if not has_said:
            say(f"another process is at work in {folder}, waiting for it")
            has_said = True
        if time.monotonic() >= deadline:
            raise OutputError(folder, "another process is at work there", "wait for its end, or end it")
        between()
        time.sleep(_POLL_SECONDS)


def _opened(folder: Path) -> BinaryIO | None:
    """The lock's file; None if the folder has just gone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / _LOCK).open("ab")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "choose another place for it") from error
