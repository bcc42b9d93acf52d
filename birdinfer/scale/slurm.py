"""The launcher for SLURM: an array of jobs, each with a share of the units, submitted once.

A task runs ``birdinfer scale run PLAN --share I --shares N`` on its node, which skips what has a marker and starts its
processes again if they are lost. One that is preempted, killed or out of time is requeued as a job of ``train`` is
(``train/slurm/guard.sh``), and continues with what is left of its share.
"""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from birdinfer.errors import ConfigError
from birdinfer.scale.launchers import LauncherSettings, Report
from birdinfer.scale.plan import OpenPlan
from birdinfer.training.launch.slurm import (
    SHARES,
    ClusterSettings,
    JobArray,
    check_cluster,
    job_array,
    submit_all,
)

TASK_SECONDS = 3_600.0
"""Core time of a task's share, about, if no number of tasks is asked for."""
MOST_TASKS = 1_000
"""Of an array: SLURM's own limit, if a cluster's is not another."""
_NAMED = {"partition": "partition", "gres": "gres", "time": "time_limit", "mem": "memory"}


class SlurmLauncher:
    """Submits the units as an array; ``settings.workers`` is the number of processes of each of its tasks."""

    def __init__(self, settings: LauncherSettings) -> None:
        """Take settings; options are ``tasks=40``, ``setup=module load python``, and those of sbatch."""
        self._settings, self._tasks = settings, 0
        asked: dict[str, Any] = {"cpus": (settings.workers or 1) * settings.work.threads}
        others, setup = list[str](), list[str]()
        for option in settings.options:
            name, _, value = option.removeprefix("--").partition("=")
            if name == "tasks":
                self._tasks = _number(value)
            elif name == "setup":
                setup.append(value)
            elif name in _NAMED:
                asked[_NAMED[name]] = value
            else:
                others.append(option)
        self._cluster = ClusterSettings(**asked, sbatch=tuple(others), setup=tuple(setup))

    def run(
        self, opened: OpenPlan, units: Sequence[int], report: Callable[[Report], None], warn: Callable[[str], None]
    ) -> None:
        """Submit, and return: no unit has ended then. ConfigError if SLURM refuses it, or it is queued already."""
        array = self.array(opened, units)
        check_cluster([array], self._cluster, "--on")
        (submitted,) = submit_all([array])
        job, plan = submitted.job, shlex.quote(opened.place.uri)
        warn(f"job {job}: {len(units):,} units in {len(array.tasks):,} tasks, logs in {array.log('*', job)}")
        warn(f"squeue -j {job} shows it, scancel {job} ends it, birdinfer scale status {plan} says how far it is")

    def array(self, opened: OpenPlan, units: Sequence[int]) -> JobArray:
        """Return the array: a task for each share that has units left."""
        work, place = self._settings.work, opened.place
        seconds = opened.plan.calibration.core_seconds_of(sum(opened.units[unit].sound_seconds for unit in units))
        n_shares = min(self._tasks or round(seconds / TASK_SECONDS), MOST_TASKS, len(units))
        n_shares = max(1, n_shares)
        scratch = ("--scratch", str(work.scratch)) if work.scratch else ()
        command = (
            "scale", "run", place.uri, "--shares", str(n_shares), "--workers", str(self._settings.workers or 1),
            "--threads", str(work.threads), "--stage-gb", f"{work.most_bytes / (1 << 30):g}", "--quiet", *scratch,
        )  # fmt: skip
        # A plan elsewhere has its logs here.
        name = f"scale-{hashlib.sha256(place.uri.encode()).hexdigest()[:8]}"
        folder = Path(place.uri) if place.is_local else Path(name)
        shares = sorted({unit % n_shares for unit in units})
        return job_array(folder, "share", tasks=shares, cluster=self._cluster, template=SHARES, command=command)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= MOST_TASKS):
        raise ConfigError("--option", f"is tasks={text}", f"give a number from 1 to {MOST_TASKS:,}")
    return int(text)
