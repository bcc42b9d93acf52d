"""The launcher for Ray: a few units a task, on a cluster by its address or on this machine.

Plain tasks, no actors: a worker process keeps the loaded plan between its tasks, and one that is lost takes nothing
along but what it was doing. Ray itself repeats nothing: this launcher hands out again what was lost, and says so.
"""

import atexit
import functools
import importlib
import math
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from birdinfer.errors import BirdinferError, ConfigError, MissingExtraError
from birdinfer.scale.launchers import MOST_LOSSES, LauncherSettings, Report, report_of
from birdinfer.scale.plan import OpenPlan
from birdinfer.scale.unit import Worker, WorkSettings

MOST_UNITS = 4
"""In a task: the sound of the next one is fetched while one is predicted."""
_WAIT_SECONDS = 5.0
"""After which it looks whether the cluster has grown."""
_CONNECT_SECONDS = 20.0
_OPTIONS = {"gpus": "num_gpus", "memory_gb": "memory"}


class RayLauncher:
    """Tasks of a Ray cluster: of ``settings.address``, of ``RAY_ADDRESS``, or one on this machine for this run."""

    def __init__(self, settings: LauncherSettings) -> None:
        """Take settings; ConfigError for an unknown option, MissingExtraError without Ray."""
        self._settings = settings
        self._needs: dict[str, float] = {"num_cpus": settings.work.threads, **_needs(settings.options)}
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error

    def run(
        self, opened: OpenPlan, units: Sequence[int], report: Callable[[Report], None], warn: Callable[[str], None]
    ) -> None:
        """Run units; as of :class:`~birdinfer.scale.launchers.Launcher`."""
        ray = self._ray
        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(ray, self._settings.address)
        try:
            self._run(opened.place.uri, deque(units), report, warn)
        finally:
            if is_ours:
                ray.shutdown()

    def _run(
        self, uri: str, waiting: deque[int], report: Callable[[Report], None], warn: Callable[[str], None]
    ) -> None:
        ray = self._ray
        task = ray.remote(max_retries=0, max_calls=0, **self._needs)(run_units)
        running, losses = dict[Any, list[int]](), Counter[int]()
        try:
            while waiting or running:
                slots = self._slots()
                # Twice what runs now: the rest waits in Ray, whose autoscaler goes by it.
                while waiting and len(running) < 2 * slots:
                    # Fewer at the end, so that no worker has much to do when all others have ended.
                    n_units = min(MOST_UNITS, max(1, len(waiting) // (4 * slots)))
                    some = [waiting.popleft() for _ in range(min(n_units, len(waiting)))]
                    running[task.remote(uri, some, self._settings.work)] = some
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_WAIT_SECONDS)
                for reference in ready:
                    some = running.pop(reference)
                    try:
                        reports = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        self._take_back(some, error, losses, waiting, report, warn)
                        continue
                    for each in reports:
                        if each.ends_run or each.unit < 0:
                            raise each.as_error()
                        report(each)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _take_back(
        self, units: list[int], error: Exception, losses: Counter[int], waiting: deque[int],
        report: Callable[[Report], None], warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        why = _text(error)
        if isinstance(error, self._ray.exceptions.RayTaskError):  # of birdinfer itself: it would come again
            raise BirdinferError("ray", why, "the log of Ray's worker says more") from error
        losses.update(units)
        again = [unit for unit in units if losses[unit] < MOST_LOSSES]
        for unit in units:
            if unit not in again:
                report(Report(unit, error=f"unit {unit}: {MOST_LOSSES} processes were lost at it, the last by {why}"))
        if again:
            warn(f"a process was lost at unit{'s'[: len(again) > 1]} {', '.join(map(str, again))} ({why}): run again")
        waiting.extendleft(reversed(again))

    def _slots(self) -> int:
        """Return how many tasks run at a time, by what the cluster has at this moment."""
        if self._settings.workers is not None:
            return self._settings.workers
        there: dict[str, float] = self._ray.cluster_resources()
        each = {"CPU": self._needs["num_cpus"], "GPU": self._needs.get("num_gpus", 0)}
        return max(1, min(math.floor(there.get(name, 0) / need) for name, need in each.items() if need))


def run_units(uri: str, units: Sequence[int], settings: WorkSettings) -> list[Report]:
    """Run units of a plan: the task, in a process of Ray; a report of each, or one of why there can be none."""
    try:
        worker = _worker(uri, settings)
    except BirdinferError as error:
        return [Report(error=str(error))]
    return [report_of(unit, outcome) for unit, outcome in worker.run(units)]


@functools.lru_cache(maxsize=1)
def _worker(uri: str, settings: WorkSettings) -> Worker:
    worker = Worker(uri, settings)
    atexit.register(worker.close)
    return worker


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start Ray on this machine: without dashboard, and without its workers' output."""
    asked = address or os.environ.get("RAY_ADDRESS")
    here = {} if asked else {"include_dashboard": False}
    try:
        host, _, port = (asked or "").rpartition(":")
        if host and port.isdecimal() and "://" not in host:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except Exception as error:  # a bare one, if a process of Ray has not come up in time
        where = f"Ray at {asked or 'this machine'}"
        raise ConfigError(where, f"cannot be joined ({_text(error)})", "name a cluster with --address") from error


def _needs(options: Sequence[str]) -> dict[str, float]:
    """Read what a task needs: ``gpus=0.5``, ``memory_gb=4``."""
    needs: dict[str, float] = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in _OPTIONS or not (0 < number < math.inf):
            raise ConfigError("--option", f"is {option!r}", "Ray takes gpus=0.5 and memory_gb=4, of each process")
        needs[_OPTIONS[name]] = number * (1 << 30) if name == "memory_gb" else number
    return needs


def _text(error: Exception) -> str:
    """Say in a line what Ray says in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1 if 'Traceback' in str(error) else 0][:200]}".removesuffix(": ")
