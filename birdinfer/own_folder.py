"""A folder that one process at a time works in, and that goes in one step when it is done with.

In: where it is to stand. Out: the folder, ours alone until it is let go or removed, or the process is gone.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from birdinfer.errors import OutputError
from birdinfer.file_lock import is_free, is_in_place

_LOCK = "lock"


class OwnFolder:
    """A folder with a lock in it."""

    def __init__(self, path: Path, result: Path) -> None:
        """Make the folder if need be, and take it.

        Args:
            path: of the folder.
            result: what it serves; named where another process has the folder.

        Raises:
            OutputError: the folder cannot be made, or another process is at work there.
        """
        self.path = path
        self._trash = path.with_name(f".{path.name}.old")
        shutil.rmtree(self._trash, ignore_errors=True)  # of a process that was killed on its way out
        with self.named_errors():
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / _LOCK).open("ab")
        # A folder that is on its way out is not where the next process will look.
        if not (is_free(self._lock) and is_in_place(self._lock, path / _LOCK)):
            self._lock.close()
            raise OutputError(
                result, f"another process is writing it (see {path})", "wait for it, or name another result"
            )

    @property
    def is_ours(self) -> bool:
        """Whether it was neither let go nor removed."""
        return not self._lock.closed

    def let_go(self) -> None:
        """Leave it to the next process as it is; harmless when repeated."""
        self._lock.close()

    def remove(self) -> None:
        """Have it gone in one step, so that no half of it is ever found; files in it are closed."""
        is_away = self._move_away()
        self._lock.close()  # only now: who waited for it finds no folder of ours
        if not is_away:
            self._move_away()  # Windows moves no folder with a file that is open
        shutil.rmtree(self._trash, ignore_errors=True)

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """While entered, what the disk complains of becomes an OutputError about the folder."""
        try:
            yield
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            problem = f"cannot be written ({error.strerror})"
            raise OutputError(self.path, problem, "choose another place for the result") from error

    def _move_away(self) -> bool:
        with contextlib.suppress(OSError):
            self.path.rename(self._trash)
            return True
        return False
