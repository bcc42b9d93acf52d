"""Commands side by side, each a process with a device of its own: jobs and devices in, exit codes out.

One job a device at a time; the next job goes to the device that is free first. What a job tells on standard error lies
in its log, line by line, and is passed on with the job's name in front; what it prints on standard output follows in
the log once it has ended well. One that fails stops no other. No torch here: whoever starts training holds no GPU.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from birdinfer.cores import available_cores
from birdinfer.errors import ConfigError, OutputError
from birdinfer.interrupt import StopRequest

CPU = "cpu"
_POLL_SECONDS = 0.1
_HEADING = "$ "
"""Before a job's command, the first line of its log; a job that is run again writes behind what is there."""
_COMPLAINT = "birdinfer: "
"""What the command line puts before the one line that says why it gives up."""
_BOUND = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes a job's command, which the kernel then asks to end when the process with the given number has ended."""

Say = Callable[[str], None]


class Job(NamedTuple):
    """A command to run."""

    name: str
    """What it is called on the screen; unique among those run together."""
    command: tuple[str, ...]
    """The program and its arguments, a word each."""
    log: Path
    """Where what it says is kept; its folder is made if need be."""


def parse_devices(text: str) -> tuple[str, ...]:
    """``"0,1"`` -> two GPUs, ``"cpu,cpu"`` -> two shares of the cores; a device named twice takes two jobs at once.

    Raises:
        ConfigError: it is neither, or mixes the two: a GPU would wait for the CPU.
    """
    names = tuple(part.strip() for part in text.split(","))
    gpus = [name.isascii() and name.isdecimal() for name in names]
    if not all(gpu or name == CPU for gpu, name in zip(gpus, names, strict=True)):
        raise ConfigError("--devices", f"is {text!r}, allowed are GPUs as 0,1 and shares of the cores as cpu,cpu")
    if any(gpus) and not all(gpus):
        raise ConfigError("--devices", f"is {text!r}, GPUs and the CPU together", "name one kind")
    return tuple(str(int(name)) if name != CPU else CPU for name in names)


def device_environment(device: str, n_devices: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that give a process one device and its share of the cores.

    Args:
        device: as :func:`parse_devices` gives it. A GPU is counted among those that we see ourselves.
        n_devices: how many processes share the machine's cores.
        environment: ours. A number of threads that it asks for stays.

    Returns:
        All of ``environment``, CUDA_VISIBLE_DEVICES and OMP_NUM_THREADS.
    """
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpu = visible[int(device)] if device != CPU and visible else device
    threads = environment.get("OMP_NUM_THREADS") or str(max(1, available_cores() // n_devices))
    return {**environment, "CUDA_VISIBLE_DEVICES": "" if device == CPU else gpu, "OMP_NUM_THREADS": threads}


def run_side_by_side(jobs: Sequence[Job], devices: Sequence[str], say: Say) -> dict[str, int]:
    """Run all jobs, as many at once as there are devices.

    Ctrl-C and SIGTERM reach the jobs as one SIGTERM each: they save what they are at and end, and no further one
    begins. A second signal ends them at once. On Linux they are asked to end, too, where we are killed.

    Args:
        jobs: in the order in which they begin.
        devices: where they run, see :func:`parse_devices`.
        say: takes a line: the jobs' own, with their names, and which begins or fails.

    Returns:
        Exit code of each job by its name; negative: the signal that ended it.

    Raises:
        OutputError: a log cannot be written.
        KeyboardInterrupt, SystemExit: a signal came; every job has ended.
    """
    waiting, free, running = deque(jobs), deque(devices), dict[str, _Child]()
    codes: dict[str, int] = {}
    n_shares = max(1, min(len(devices), len(jobs)))
    with StopRequest() as stop:
        try:
            while running or (waiting and not stop.requested):
                while waiting and free and not stop.requested:
                    job, device = waiting.popleft(), free.popleft()
                    running[job.name] = _Child(job, device, device_environment(device, n_shares, os.environ))
                    say(f"{job.name}: on {_spoken(device)}, log in {job.log}")
                time.sleep(_POLL_SECONDS)
                for child in list(running.values()):
                    if stop.requested:
                        child.ask_to_end()
                    code = child.look(say)
                    if code is not None:
                        codes[child.job.name] = code
                        free.append(running.pop(child.job.name).device)
                        if code and not stop.requested:
                            say(f"{child.job.name}: failed ({_spoken_code(code)})")
        finally:
            for child in running.values():
                child.kill()
        if stop.requested:
            stop.leave()
    return codes


def why_failed(job: Job, code: int) -> str:
    """Why a job ended as it did, in one line: its last line, or the signal that ended it; "" for exit code 0."""
    if code == 0:
        return ""
    try:
        lines = [line.strip() for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    last = next((line for line in reversed(lines) if line), _HEADING)
    if code < 0 or last.startswith(_HEADING):
        return f"ended with {_spoken_code(code)}, see {job.log}"
    return last.removeprefix(_COMPLAINT)


class _Child:
    """A job that runs."""

    def __init__(self, job: Job, device: str, environment: Mapping[str, str]) -> None:
        self.job, self.device, self._was_asked = job, device, False
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                log.write(f"{_HEADING}{shlex.join(job.command)}\n".encode(errors="surrogateescape"))
            self._log, self._tail = job.log.open("ab", buffering=0), job.log.open("rb")
        except OSError as error:
            raise OutputError(job.log, f"cannot be written ({error.strerror})") from error
        self._tail.seek(0, os.SEEK_END)
        self._results, self._begun_line = tempfile.TemporaryFile(), b""  # noqa: SIM115 - closed when it has ended
        # A group of its own: a terminal's Ctrl-C reaches us alone, and we pass it on once. Two would not wait.
        self._process = subprocess.Popen(
            _bound(job.command), stdin=subprocess.DEVNULL, stdout=self._results, stderr=self._log, env=environment,
            process_group=0,
        )  # fmt: skip

    def look(self, say: Say) -> int | None:
        """Pass on the lines that are new; the exit code once it has ended."""
        code = self._process.poll()
        *lines, self._begun_line = (self._begun_line + self._tail.read()).split(b"\n")
        if code is not None:
            lines.append(self._begun_line)
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text:
                say(f"{self.job.name}: {text}")
        if code == 0:
            self._results.seek(0)
            with suppress(OSError):  # a full disk: what was trained is worth more than what was said of it
                self._log.write(self._results.read())
        if code is not None:
            if code < 0:
                self._kill_group()
            self._close()
        return code

    def ask_to_end(self) -> None:
        """Once only: a second request would not let it save."""
        if not self._was_asked:
            self._was_asked = True
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._kill_group()
        self._process.wait()
        self._close()

    def _kill_group(self) -> None:
        """It, and what it has started: workers of a fold that is killed may decode on for ever, and for nobody."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _close(self) -> None:
        for file in (self._results, self._log, self._tail):
            file.close()


def _bound(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command, which ends when we end, even by kill -9: a fold that is resumed must not meet one that goes on."""
    if sys.platform != "linux":
        return command
    return (sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command)


def _spoken(device: str) -> str:
    return "a share of the cores" if device == CPU else f"GPU {device}"


def _spoken_code(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
