"""What one worker of a study does at a time, on whatever machine: claim a trial, tell how one went, write the tables.

A file that only one can create, which holds on network disks where locks of the kernel do not; Optuna's own, with which
it guards its journal. A worker that was killed while it held it is not waited for longer than half a minute.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from optuna.storages.journal import JournalFileOpenLock

from birdinfer.training.tuning.folder import LOCKED


@contextlib.contextmanager
def locked(study_dir: Path) -> Iterator[None]:
    """While entered, no other worker is in here; what is done must take seconds at most."""
    lock = JournalFileOpenLock(str(study_dir / LOCKED))
    lock.acquire()
    try:
        yield
    finally:
        # Where it took half a minute, another one has broken it.
        with contextlib.suppress(RuntimeError):
            lock.release()
