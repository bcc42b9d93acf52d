"""Run a program as on another machine: no network, few cores, limited memory and time, and Kaggle's packages.

A network namespace (``unshare -rn``), which no program can leave, removes the network; where the system allows none, a
``sitecustomize`` makes Python's sockets refuse. Memory is read twenty times a second and not limited by address space,
because engines reserve much more than they use. Kaggle's Python is an environment with the packages of its image and no
others.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from birdinfer.errors import ConfigError, OutputError
from birdinfer.kaggle.competitions import Image
from birdinfer.system.files import write_atomic

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
    memory_gb: float  # 10^9 bytes, of all its processes together
    cores: int


class NoNetwork(NamedTuple):
    """How the network is removed."""

    prefix: tuple[str, ...]  # goes before the command
    python_path: tuple[str, ...]  # folders for PYTHONPATH
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """How a program ended."""

    exit_code: int  # below 0: the signal that ended it
    seconds: float
    peak_mb: float | None  # None if the system does not report it (no /proc)
    stopped_for: Literal["", "time", "memory"]  # the limit for which it was stopped
    output: str  # standard output and standard error, as they came


def no_network(scratch: Path) -> NoNetwork:
    """Choose the safest way to remove the network that this system allows; ``scratch`` is for its files."""
    for prefix in (("unshare", "-rn"), ("unshare", "-n")):
        if shutil.which(prefix[0]) and _output([*prefix, "true"]) is not None:
            return NoNetwork(prefix, (), f"a network namespace of its own ({' '.join(prefix)})")
    return refusing_sockets(scratch)


def refusing_sockets(scratch: Path) -> NoNetwork:
    """Make Python's sockets refuse; other programs still reach the network."""
    folder = scratch / "no_network"
    write_atomic(folder / "sitecustomize.py", _REFUSAL)
    return NoNetwork((), (str(folder),), "Python's sockets refuse (no network namespace is allowed here)")


def run_isolated(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], limits: Limits, network: NoNetwork
) -> Ran:
    """Run a program to its end or to a limit; its child processes end with it, and it inherits no variables."""
    paths = [*network.python_path, environment.get("PYTHONPATH", "")]
    variables = {**environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    log = cwd.with_name(f"{cwd.name}.log")
    began = time.monotonic()
    with log.open("wb") as output:
        process = _start([*network.prefix, *map(str, command)], cwd, variables, output.fileno(), limits.cores)
        peak_bytes, stopped_for = _watch(process, began, limits)
    return Ran(
        exit_code=process.returncode,
        seconds=time.monotonic() - began,
        peak_mb=peak_bytes / 1e6 if _PROC.is_dir() else None,
        stopped_for=stopped_for,
        output=log.read_text(encoding="utf-8", errors="replace"),
    )


def _start(
    command: list[str], cwd: Path, variables: dict[str, str], output: int, cores: int
) -> "subprocess.Popen[bytes]":
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])  # child processes inherit it
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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and all that it has started
        process.wait()


def session_bytes(session: int) -> int:
    """Sum the memory of all processes of a session in bytes; 0 if the system does not report it."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(page * pages for found, pages in map(_session_and_pages, _PROC.glob("[0-9]*/stat")) if found == session)


def _session_and_pages(stat: Path) -> tuple[int, int]:
    """Fields 6 and 24 of ``/proc/<pid>/stat``, counted from behind the name, which may hold blanks."""
    try:
        fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[3]), int(fields[21])
    except (OSError, IndexError):  # it has just ended
        return -1, 0


# ---- Kaggle's Python

FOR_NOTEBOOKS = ("matplotlib",)  # a notebook's packages beyond the image's list, which has only birdinfer's
_PYENV = Path.home() / ".pyenv" / "versions"
_LAYER = "import site; site.addsitedir({!r})\n"
_PURELIB = ("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
_MAKE_SECONDS = 900


def find_python(minor: str) -> Path | None:
    """Find an interpreter of a minor version (``3.12``) on the PATH, or of pyenv or uv; None if there is none."""
    candidates = [shutil.which(f"python{minor}"), *sorted(map(str, _PYENV.glob(f"{minor}.*/bin/python")), reverse=True)]
    if uv := shutil.which("uv"):
        candidates.append(_output([uv, "python", "find", minor]))
    return next((Path(one) for one in candidates if one and version_of(Path(one)).startswith(f"{minor}.")), None)


def version_of(python: Path) -> str:
    """Return an interpreter's version, ``3.12.1``; "" if it does not run."""
    return _output([str(python), "-c", "import platform; print(platform.python_version())"]) or ""


def clean_python(image: Image, cache: Path | None = None) -> Path:
    """Return the interpreter of an environment with the image's packages, made if it is not in the cache yet."""
    wanted = sorted(f"{name}=={version}" for name, version in image.distributions.items()) + list(FOR_NOTEBOOKS)
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    folder = (cache or cache_folder()) / f"kaggle-python{image.python_minor}-{digest}"
    if not (folder / "bin" / "python").exists():
        _make(folder, image.python_minor, wanted)
    return folder / "bin" / "python"


def layer(folder: Path, python: Path) -> Path:
    """Make an environment in the new ``folder`` that sees the packages of ``python``'s; return its interpreter."""
    below = _output([str(python), *_PURELIB])
    if not below or _output([str(python), "-m", "venv", "--without-pip", str(folder)], _MAKE_SECONDS) is None:
        raise ConfigError("--python", f"{python} makes no environment", "name a Python with its venv module")
    above = folder / "bin" / "python"
    write_atomic(Path(_output([str(above), *_PURELIB]) or "") / "below.pth", _LAYER.format(below))
    return above


def _make(folder: Path, minor: str, requirements: Sequence[str]) -> None:
    base = find_python(minor)
    if base is None:
        raise ConfigError("--python", f"there is no Python {minor}, which Kaggle runs", f"uv python install {minor}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "set XDG_CACHE_HOME") from error
    try:
        if _output([str(base), "-m", "venv", str(staging)], _MAKE_SECONDS) is None:
            raise ConfigError("--python", f"{base} makes no environment", "install its venv module")
        _install(staging / "bin" / "python", requirements)
        if not folder.exists():  # another run may have been faster
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _install(python: Path, requirements: Sequence[str]) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        what = f"Kaggle's packages cannot be installed ({last})"
        raise ConfigError("--python", what, "go online once, or name a Python")


def cache_folder() -> Path:
    """Return the folder of cached environments: ``$XDG_CACHE_HOME/birdinfer``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdinfer"


def _output(command: Sequence[str], timeout_seconds: float = 30.0) -> str | None:
    """What a program prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
