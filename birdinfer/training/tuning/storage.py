"""Where Optuna keeps a study: a journal that is only ever added to, or an SQLite file.

The journal is safe on network disks and takes a power cut: a line that was not written to its end is cut off before the
next one is added, where Optuna alone would refuse the whole file ever after. Nothing in either is pickled.
"""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from birdinfer.errors import ConfigError, OutputError
from birdinfer.training.tuning.lock import FileLock

STORAGES = ("journal", "sqlite")
_FILES = {"journal": "study.journal", "sqlite": "study.db"}
_NAME = "search"
_BUSY_SECONDS = 60
"""How long SQLite waits for another worker."""


def storage_kind(study_dir: Path) -> str | None:
    """How the study that is there is kept; None if there is none, or nothing in it."""
    for kind, name in _FILES.items():
        with contextlib.suppress(OSError):
            if (study_dir / name).stat().st_size:
                return kind
    return None


def open_study(study_dir: Path, kind: str) -> optuna.Study:
    """The study in a folder, an empty one if there is none yet; the higher a score, the better.

    Args:
        study_dir: the folder.
        kind: one of ``STORAGES``.

    Raises:
        ConfigError: what is there cannot be read.
        OutputError: the folder cannot be written to.
    """
    optuna.logging.disable_default_handler()
    path = (study_dir / _FILES[kind]).resolve()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = _journal(path) if kind == "journal" else _sqlite(path)
            return optuna.create_study(
                storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(), pruner=optuna.pruners.NopPruner(),
            )  # fmt: skip
    except OutputError:
        raise
    except Exception as error:  # a damaged file makes SQLAlchemy and Optuna raise whatever they stumble over
        what = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        raise ConfigError(path, what, "it is damaged: search anew with another --study") from error


class _MendingLock(FileLock):
    """Whoever is about to add lines first takes away what was not written to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.with_name(f"{path.name}.lock"))
        self._journal = path

    def acquire(self) -> bool:
        taken = super().acquire()
        _cut_torn_line(self._journal)
        return taken


class _Journal(JournalFileBackend):
    """A disk that is full is no fault of the trial that is told of."""

    def __init__(self, path: Path) -> None:
        # All that Optuna asks of a lock is that it can be acquired and released.
        super().__init__(str(path), _MendingLock(path))  # type: ignore[arg-type]
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(self._path, f"cannot be written ({error.strerror})") from error


def _journal(path: Path) -> BaseStorage:
    return JournalStorage(_Journal(path))


def _cut_torn_line(path: Path) -> None:
    """Take away what stands behind the last line end: nobody has read it."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _sqlite(path: Path) -> BaseStorage:
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}})
