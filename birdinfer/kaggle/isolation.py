"""A program run as if on another machine: without network, on a few cores, within memory and time, watched.

Comes in: a command. Goes out: how it ended, how long it took (seconds), the most memory that it and all it started held
(MB, 10^6 bytes), and what it said.

The network is taken away by a network namespace (``unshare -rn``), which no program gets around; where the system
allows none, by a ``sitecustomize`` that lets Python's sockets refuse. Memory is looked at twenty times a second and not
limited by address space: engines reserve much more than they use.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from birdinfer.errors import ConfigError
from birdinfer.files import write_atomic

_LOOK_SECONDS = 0.05
_PROC = Path("/proc")
_REFUSAL = '''\
"""Python imports this at its start: no socket leaves this machine, as on Kaggle with the internet off."""

import socket


def _refuse(*arguments, **options):
    raise OSError(101, "Network is unreachable")


def _only_local(call):
    def connect(self, address):
        return call(self, address) if self.family == socket.AF_UNIX else _refuse()

    return connect


socket.socket.connect = _only_local(socket.socket.connect)
socket.socket.connect_ex = _only_local(socket.socket.connect_ex)
socket.getaddrinfo = socket.gethostbyname = _refuse
'''


class Limits(NamedTuple):
    """What a run may use."""

    seconds: float
    memory_gb: float
    """10^9 bytes, of all its processes together."""
    cores: int


class NoNetwork(NamedTuple):
    """How the network is taken away."""

    prefix: tuple[str, ...]
    """Goes before the command."""
    python_path: tuple[str, ...]
    """Folders for PYTHONPATH."""
    told: str
    """In words, for a report."""


class Ran(NamedTuple):
    """How a program ended."""

    exit_code: int
    """Below 0: the signal that ended it."""
    seconds: float
    peak_mb: float | None
    """None where the system does not tell (no /proc)."""
    stopped_for: Literal["", "time", "memory"]
    """The limit for which it was stopped."""
    output: str
    """Standard output and standard error, as they came."""


def no_network(scratch: Path) -> NoNetwork:
    """The surest way that this system allows.

    Args:
        scratch: a folder for what the second best way needs.
    """
    for prefix in (("unshare", "-rn"), ("unshare", "-n")):
        if shutil.which(prefix[0]) and _succeeds([*prefix, "true"]):
            return NoNetwork(prefix, (), f"a network namespace of its own ({' '.join(prefix)})")
    return refusing_sockets(scratch)


def refusing_sockets(scratch: Path) -> NoNetwork:
    """Python's sockets refuse; a program that is not Python would get through."""
    folder = scratch / "no_network"
    write_atomic(folder / "sitecustomize.py", _REFUSAL)
    return NoNetwork((), (str(folder),), "Python's sockets refuse (no network namespace is allowed here)")


def run_isolated(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], limits: Limits, network: NoNetwork
) -> Ran:
    """Run a program to its end, or to a limit; all that it has started ends with it.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        environment: all of it; nothing of this process's own is handed on.
        limits: what it may use.
        network: from :func:`no_network`.

    Raises:
        ConfigError: the program cannot be started.
    """
    paths = [*network.python_path, environment.get("PYTHONPATH", "")]
    variables = {**environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    log = cwd.with_name(f"{cwd.name}.log")
    began = time.monotonic()
    with log.open("wb") as output:
        process = _start([*network.prefix, *map(str, command)], cwd, variables, output.fileno(), limits.cores)
        peak_bytes, stopped_for = _watch(process, began, limits)
    seconds = time.monotonic() - began
    told = log.read_text(encoding="utf-8", errors="replace")
    peak_mb = peak_bytes / 1e6 if _PROC.is_dir() else None
    return Ran(process.returncode, seconds, peak_mb, stopped_for, told)


def _start(
    command: list[str], cwd: Path, variables: dict[str, str], output: int, cores: int
) -> "subprocess.Popen[bytes]":
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])  # of this thread, and inherited by all that it starts
    try:
        return subprocess.Popen(
            command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(command[0], f"cannot be started ({error.strerror})", "name another --python") from error
    finally:
        os.sched_setaffinity(0, before)


def _watch(
    process: "subprocess.Popen[bytes]", began: float, limits: Limits
) -> tuple[int, Literal["", "time", "memory"]]:
    """Wait for the end -> the most bytes held, and for which limit it was stopped."""
    peak_bytes = 0
    try:
        while True:
            peak_bytes = max(peak_bytes, session_bytes(process.pid))
            if peak_bytes > limits.memory_gb * 1e9:
                return peak_bytes, "memory"
            if time.monotonic() - began > limits.seconds:
                return peak_bytes, "time"
            try:
                process.wait(_LOOK_SECONDS)
                return peak_bytes, ""
            except subprocess.TimeoutExpired:
                continue
    finally:
        _end(process)


def session_bytes(session: int) -> int:
    """Memory held by all processes of a session, in bytes; 0 where the system does not tell."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(page * pages for found, pages in map(_session_and_pages, _PROC.glob("[0-9]*/stat")) if found == session)


def _session_and_pages(stat: Path) -> tuple[int, int]:
    """Of one process, from ``/proc/<pid>/stat``: fields 6 and 24, counted behind the name, which may hold blanks."""
    try:
        fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[3]), int(fields[21])
    except (OSError, IndexError):  # it has just ended
        return -1, 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing that was started stays behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
