"""Processes side by side, each with a device of its own: jobs and devices in, problems out.

One job a device at a time; the next job starts on the device that is free first; one that fails stops no other. A job
reports calls of a callback as lines of JSON, ``["on_step", 12, 0.51]``; what it prints on standard error is its log. No
torch here: a process that only starts trainings holds no GPU.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError, ConfigError, OutputError
from birdinfer.system.cpu import available_cores
from birdinfer.system.signals import StopRequest, leaving_at_sigterm

CPU = "cpu"
_POLL_SECONDS = 0.1
_END_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes a job's command, which the kernel asks to end when the process with the given number has ended."""
OnEvent = Callable[[str, str, list[Any]], None]  # receives a job's name, an event and its arguments


@dataclass(frozen=True, slots=True)
class Job:
    """A command to run; its name is unique among the jobs that run together.

    ``log`` receives what it prints on standard error; its folder is made if need be.
    """

    name: str
    command: tuple[str, ...]
    log: Path


def parse_devices(text: str) -> tuple[str, ...]:
    """``"0,1"`` -> two GPUs, ``"cpu,cpu"`` -> two shares of the cores; a device named twice takes two jobs at once.

    GPUs and CPU together are a ConfigError: a GPU would wait for the CPU.
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

    A GPU is counted among those of our own CUDA_VISIBLE_DEVICES; a number of threads that ``environment`` asks for
    stays.
    """
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpu = visible[int(device)] if device != CPU and visible else device
    threads = environment.get("OMP_NUM_THREADS") or str(max(1, available_cores() // n_devices))
    return {**environment, "CUDA_VISIBLE_DEVICES": "" if device == CPU else gpu, "OMP_NUM_THREADS": threads}


def run_side_by_side(
    jobs: Sequence[Job], devices: Sequence[str], callback: Callback, on_event: OnEvent
) -> dict[str, str]:
    """Run all jobs in order, one at a time on each device: why each failed, by its name; "" for one that ended well.

    Ctrl-C and SIGTERM reach the jobs as one SIGTERM each: they save what they do and end, and no further one starts;
    then it is KeyboardInterrupt or SystemExit. A second signal ends them at once. On Linux they are asked to end, too,
    when this process is killed.
    """
    waiting, free, running = deque(jobs), deque(devices), dict[str, _Child]()
    problems: dict[str, str] = {}
    n_shares = max(1, min(len(devices), len(jobs)))
    with StopRequest() as stop:
        try:
            while running or (waiting and not stop.requested):
                while waiting and free and not stop.requested:
                    job, device = waiting.popleft(), free.popleft()
                    running[job.name] = _Child(job, device, device_environment(device, n_shares, os.environ))
                    where = "a share of the cores" if device == CPU else f"GPU {device}"
                    callback.on_message(f"{job.name}: on {where}, log in {job.log}")
                time.sleep(_POLL_SECONDS)
                for child in list(running.values()):
                    if stop.requested:
                        child.ask_to_end()
                    problem = child.poll(on_event)
                    if problem is not None:
                        problems[child.job.name] = problem
                        free.append(running.pop(child.job.name).device)
                        if problem and not stop.requested:
                            callback.on_message(f"{child.job.name}: failed, see {child.job.log}")
        finally:
            for child in running.values():
                child.kill()
        if stop.requested:
            stop.leave()
    return problems


class _Child:
    def __init__(self, job: Job, device: str, environment: Mapping[str, str]) -> None:
        self.job, self.device, self._was_asked, self._problem, self._unfinished = job, device, False, "", b""
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                log.write(f"$ {shlex.join(job.command)}\n".encode(errors="surrogateescape"))
                log.flush()
                # A group of its own: a terminal's Ctrl-C reaches us alone, and we pass it on once. Two would not wait.
                self._process = subprocess.Popen(
                    _ending_with_parent(job.command),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, process_group=0,
                )  # fmt: skip
        except OSError as error:
            raise OutputError(job.log, f"cannot be written ({error.strerror})") from error
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)

    def poll(self, on_event: OnEvent) -> str | None:
        """Pass on new events; why it failed, once it has ended."""
        code = self._process.poll()
        *lines, self._unfinished = (self._unfinished + (self._pipe.read() or b"")).split(b"\n")
        for line in lines:
            try:
                event, *arguments = json.loads(line)
            except ValueError:  # printed before the job's own code began
                continue
            if event == FAILED:
                self._problem = arguments[0]
            else:
                on_event(self.job.name, event, arguments)
        if code is None:
            return None
        if code < 0:
            self._kill_group()
        self._pipe.close()
        if code == 0:
            return ""
        ending = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        return self._problem or f"ended with {ending}, see {self.job.log}"

    def ask_to_end(self) -> None:
        """Once only: a second request would not let it save."""
        if not self._was_asked:
            self._was_asked = True
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._kill_group()
        self._process.wait()
        self._pipe.close()

    def _kill_group(self) -> None:
        """It, and what it has started: a data loader's workers might decode for ever."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _ending_with_parent(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command, which ends when we end, even by kill -9: a fold is never trained twice at the same time."""
    if sys.platform != "linux":
        return command
    return (sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command)


# ---- Events: calls of a callback -> lines of JSON on a pipe -> calls again

FAILED = "failed"  # the event that says, in one line, why a process gives up
_OFTEN = {"on_step", "on_progress"}
_SECONDS = 0.5  # of events that come often, one is sent in this time
C = TypeVar("C", bound=Callback)
Send = Callable[..., None]
"""Sends a method's name and its arguments to the process that has started this one."""


def sending(kind: type[C], send: Send) -> C:
    """A callback that sends each call."""
    callback, last = kind(), dict.fromkeys(_OFTEN, 0.0)

    def method(name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            now = time.monotonic()
            if name in _OFTEN and now - last[name] < _SECONDS:
                return
            last[name] = now
            send(name, *arguments)

        return call

    for name in dir(kind):
        if name.startswith("on_"):
            setattr(callback, name, method(name))
    return callback


def receive(callback: Callback, event: str, arguments: list[Any], types: Mapping[str, tuple[Any, ...]]) -> None:
    """Call a callback's method as the other process did; methods that ``types`` does not have are not called."""
    if event in types:
        kinds = types[event]
        converted = [msgspec.convert(value, kind) for value, kind in zip(arguments, kinds, strict=True)]
        getattr(callback, event)(*converted)


def run_child(work: Callable[[Send], None]) -> int:
    """Do a child process's work, which receives what sends events; the exit code."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print

    def send(event: str, *arguments: Any) -> None:
        line = json.dumps([event, *map(msgspec.to_builtins, arguments)])
        with suppress(OSError):  # the other process has ended, or the log's disk is full: the training goes first
            if event not in _OFTEN:
                text = arguments[0] if arguments and isinstance(arguments[0], str) else line
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
            pipe.write(f"{line}\n")
            pipe.flush()

    try:
        with leaving_at_sigterm():
            work(send)
    except BirdinferError as error:
        send(FAILED, str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        send(FAILED, " ".join(str(error).split()) or type(error).__name__)
        return 1
    return 0
