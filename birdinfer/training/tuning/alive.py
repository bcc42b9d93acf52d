"""Who of a study's workers still lives: each keeps a small file that it touches, and others look at it.

A worker of the same machine is dead when its process is gone, at once; one of another machine when it has not touched
its file for minutes. No clock is trusted: a file's age is held against our own, which the same disk has dated.
"""

import contextlib
import os
import platform
import re
import secrets
import threading
from pathlib import Path
from types import TracebackType

import msgspec

from birdinfer.errors import OutputError
from birdinfer.files import write_atomic
from birdinfer.training.tuning.folder import WORKERS_DIR

_TOUCH_SECONDS = 15.0
SILENT_SECONDS = 300.0
"""A worker of another machine that has been silent for so long is dead. Network disks show a new date late, by a minute
at most; so long a pause is none of theirs."""


class Identity(msgspec.Struct, frozen=True):
    """A process, told from all others."""

    machine: str
    """Its name, its boot and its container."""
    pid: int
    started: str
    """When, in ticks since the boot: a pid is given again. "" where the system does not say."""


class Alive:
    """A worker's sign of life. While entered, a thread touches it."""

    def __init__(self, study_dir: Path) -> None:
        """This process becomes a worker of the study; its name is fit for a table."""
        machine_name = re.sub(r"[^A-Za-z0-9_-]+", "-", platform.node()) or "machine"
        # A container that is started anew has its name and its process id again, and is another worker.
        self.name = f"{machine_name}-{os.getpid()}-{secrets.token_hex(2)}"
        self._folder = study_dir / WORKERS_DIR
        self._path = self._folder / f"{self.name}.json"
        self._over = threading.Event()

    def __enter__(self) -> "Alive":
        self._write()
        self._thread = threading.Thread(target=self._touch, name="alive", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def is_dead(self, name: str) -> bool:
        """Whether another worker is; one that has left its file behind in good order is, too."""
        path = self._folder / f"{name}.json"
        if name == self.name:
            return False
        try:
            its = msgspec.json.decode(path.read_bytes(), type=Identity)
            age_seconds = self._now_seconds() - path.stat().st_mtime
        except FileNotFoundError:
            return True
        except (OSError, msgspec.DecodeError):
            return False
        gone = is_gone(its)
        return age_seconds > SILENT_SECONDS if gone is None else gone

    def forget(self, name: str) -> None:
        """Take away what a dead worker has left."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)

    def _now_seconds(self) -> float:
        """What the disk's clock says."""
        self._sign()
        return self._path.stat().st_mtime

    def _touch(self) -> None:
        while not self._over.wait(_TOUCH_SECONDS):
            with contextlib.suppress(OSError, OutputError):  # a disk that is away for a moment
                self._sign()

    def _sign(self) -> None:
        try:
            os.utime(self._path)
        except FileNotFoundError:  # whoever took us for dead has taken it away
            self._write()

    def _write(self) -> None:
        write_atomic(self._path, msgspec.json.encode(identity()))


def identity() -> Identity:
    """Of this process."""
    return Identity(machine(), os.getpid(), started(os.getpid()) or "")


def machine() -> str:
    """What is equal for two processes just when one can see whether the other one runs."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When a process of this machine began, in ticks since the boot; None if there is none, or nobody says."""
    try:
        # Behind the name, which may hold brackets: state is the third field, the start the 22nd (man 5 proc).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie holds its place until its parent looks, and works no more.
    return None if fields[0] in {"Z", "X"} else fields[19]


def is_gone(its: Identity) -> bool | None:
    """Whether a process of this machine has ended; None for one of another machine, which nobody here can tell."""
    if its.machine != machine():
        return None
    return started(its.pid) != its.started if its.started else not _runs(its.pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
