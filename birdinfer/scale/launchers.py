"""What runs the units of a plan: a launcher. This one starts processes on this machine.

A launcher gives every unit to a process that calls :func:`birdinfer.scale.unit.run_unit`, or runs
``birdinfer scale work``, and runs again what was lost. It needs no state: what is done has a marker.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from birdinfer.errors import BirdinferError
from birdinfer.scale.places import StoreError
from birdinfer.scale.plan import OpenPlan
from birdinfer.scale.unit import SCRATCH, WorkSettings
from birdinfer.system.cpu import available_cores

MOST_LOSSES = 5
"""Processes that may be lost at a unit; a file that kills them is found before (:data:`.unit.MOST_STARTS`)."""
_AHEAD = 2
"""Units that a process has: the one that it predicts, and the next, whose sound it fetches."""


class Report(msgspec.Struct, omit_defaults=True):
    """What a process says of a unit, in a line of JSON."""

    unit: int = -1
    """-1: it is ready, or cannot be."""
    n_files: int = 0
    n_problems: int = 0
    sound_seconds: float = 0.0
    core_seconds: float = 0.0
    error: str = ""
    """Why the unit has no marker."""
    ends_run: bool = False
    """Whether all others would fail in the same way."""

    def as_error(self) -> BirdinferError:
        """Return why there is no marker as what a command raises."""
        where, _, rest = self.error.partition(": ")
        what, _, hint = rest.partition(" - ")
        return BirdinferError(where, what, hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class LauncherSettings:
    """What all launchers take."""

    workers: int | None = None
    """Processes; None: the launcher's own choice, here one for each core."""
    work: WorkSettings = field(default_factory=WorkSettings)
    address: str | None = None
    """Of a cluster."""
    options: tuple[str, ...] = ()
    """Further ones of the launcher, ``name=value``."""


class Launcher(Protocol):
    """Runs units anywhere."""

    def run(
        self, opened: OpenPlan, units: Sequence[int], report: Callable[[Report], None], warn: Callable[[str], None]
    ) -> None:
        """Run units, report each that has ended, also without a marker, and warn in a line of what was lost.

        BirdinferError if all of it has to end.
        """


def report_of(unit: int, outcome: Any) -> Report:
    """Say what came of a unit: its marker, or an error."""
    if isinstance(outcome, BirdinferError):
        ends_run = isinstance(outcome, StoreError) and outcome.ends_run
        return Report(unit, error=str(outcome), ends_run=ends_run)
    return Report(unit, len(outcome.files), outcome.n_problems, outcome.sound_seconds, outcome.core_seconds)


class LocalLauncher:
    """Processes on this machine, each on a core of its own."""

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings = settings

    def run(
        self, opened: OpenPlan, units: Sequence[int], report: Callable[[Report], None], warn: Callable[[str], None]
    ) -> None:
        """Run units; as of :class:`Launcher`."""
        work = self._settings.work
        n_workers = min(len(units), self._settings.workers or max(1, available_cores() // work.threads))
        waiting, losses, has_answered = deque(units), Counter[int](), False
        command = [sys.executable, "-m", "birdinfer", "scale", "work", opened.place.uri, "--threads", str(work.threads)]
        command += ["--stage-gb", f"{work.most_bytes / (1 << 30) / max(1, n_workers):g}"]
        scratch = {SCRATCH: str(work.scratch)} if work.scratch else {}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as ending:

            def start() -> None:
                process = _Process(command, {**os.environ, **scratch})
                ending.callback(process.end)
                selector.register(process.stdout, selectors.EVENT_READ, process)
                process.give(waiting)

            for _ in range(n_workers):
                start()
            while selector.get_map():
                for key, _ in selector.select():
                    process = key.data
                    for each in process.read():
                        has_answered = True
                        if each.error and (each.ends_run or each.unit < 0):
                            raise each.as_error()
                        if each.unit >= 0:
                            process.units.remove(each.unit)
                            report(each)
                    if process.is_over:
                        selector.unregister(process.stdout)
                        if not has_answered and not (how := process.ended()).startswith("SIG"):
                            raise BirdinferError("birdinfer scale work", f"cannot be started ({how})")
                        if self._take_back(process, waiting, losses, report, warn):
                            start()
                    else:
                        process.give(waiting)

    def _take_back(
        self, process: "_Process", waiting: deque[int], losses: Counter[int],
        report: Callable[[Report], None], warn: Callable[[str], None],
    ) -> bool:  # fmt: skip
        """Let others run what a process has left; whether one is to be started in its place."""
        how = process.ended()
        if not process.units:
            return bool(waiting)
        unit = process.units[0]  # at which it died; the others it has only begun to fetch
        losses[unit] += 1
        waiting.extendleft(reversed(process.units[1:]))
        if losses[unit] < MOST_LOSSES:
            warn(f"a process was lost at unit {unit} ({how}), which is run again")
            waiting.appendleft(unit)
        else:
            report(Report(unit, error=f"unit {unit}: {MOST_LOSSES} processes were lost at it, the last by {how}"))
        return bool(waiting)


class _Process:
    """A process that takes numbers of units and answers with reports."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self.stdout = self._process.stdin, self._process.stdout
        self.units: list[int] = []
        self._rest = b""
        self.is_over = False

    def give(self, waiting: deque[int]) -> None:
        """Hand out units, and say when there are no more."""
        with contextlib.suppress(OSError, ValueError):  # it has died, which the next read shows
            while waiting and len(self.units) < _AHEAD:
                unit = waiting.popleft()
                self.units.append(unit)
                self._stdin.write(b"%d\n" % unit)
            self._stdin.flush()
            if not waiting and not self.units:
                self._stdin.close()

    def read(self) -> list[Report]:
        """Take the reports that have come."""
        content = os.read(self.stdout.fileno(), 1 << 16)
        self.is_over = not content
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [msgspec.json.decode(line, type=Report) for line in lines if line.startswith(b"{")]

    def ended(self) -> str:
        """Wait for its end, and say how it came."""
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End it, if it is still there."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self.stdout.close()
