"""What a job needs, as a user asks for it -> options of sbatch, in sbatch's own spelling."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from birdinfer.errors import ConfigError

SHORTEST_SECONDS = 300
"""A job learns two minutes before its limit that it has to save, and SLURM counts in whole minutes."""
_OURS = frozenset({"array", "chdir", "comment", "dependency", "job-name", "output", "parsable", "signal", "wrap"})
"""Options of sbatch that hold a job together: its folds, where it works, how it is found and stopped."""
_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?")
_CLOCK = re.compile(r"(\d+)(?::(\d+))?(?::(\d+))?")


class Resources(NamedTuple):
    """What was asked for; None where the cluster's own default is meant."""

    partition: str | None = None
    gres: str | None = None
    """As ``gpu:1``."""
    time_limit: str | None = None
    """As SLURM spells it."""
    memory: str | None = None
    """Of a node, as ``32G``."""
    cpus: int | None = None
    """Of a process."""
    nodes: int | None = None
    processes: int | None = None
    """Of a node."""
    further: tuple[str, ...] = ()
    """Any other option of sbatch, as ``account=birds``."""

    @property
    def n_processes(self) -> int:
        """How many train one fold."""
        return (self.nodes or 1) * (self.processes or 1)


def sbatch_options(resources: Resources) -> tuple[str, ...]:
    """The same for sbatch.

    Raises:
        ConfigError: the time is too short to train in, or an option would take the jobs apart.
    """
    asked = {
        "partition": resources.partition,
        "gres": resources.gres,
        "time": resources.time_limit,
        "mem": resources.memory,
        "cpus-per-task": resources.cpus,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.processes,
    }
    if resources.time_limit is not None:
        _check_time(resources.time_limit)
    return (
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        *(_further(text) for text in resources.further),
    )


def seconds_of(time_limit: str) -> int | None:
    """A time as sbatch reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    Returns:
        Seconds; None for what is none of these, which sbatch is left to judge. 0 means no limit, as sbatch has it.
    """
    found = _DAYS.fullmatch(time_limit)
    if found:
        return _in_seconds(found.groups(), (86_400, 3_600, 60, 1))
    found = _CLOCK.fullmatch(time_limit)
    if not found:
        return None
    return _in_seconds(found.groups(), (60, 1, 0) if found.group(3) is None else (3_600, 60, 1))


def _in_seconds(parts: Sequence[str | None], weights: Sequence[int]) -> int:
    return sum(int(part or 0) * weight for part, weight in zip(parts, weights, strict=True))


def _check_time(time_limit: str) -> None:
    """Refuse what would be requeued for ever without coming forward."""
    seconds = seconds_of(time_limit)
    if seconds is not None and 0 < seconds < SHORTEST_SECONDS:
        what = f"is {time_limit}, {seconds} s; two minutes of it go to saving"
        raise ConfigError("--time", what, f"ask for {SHORTEST_SECONDS // 60} minutes at least")


def _further(text: str) -> str:
    """``account=birds`` -> ``--account=birds``."""
    option = text.strip().removeprefix("--")
    name, _, value = option.partition("=")
    if name == "time":
        _check_time(value)
    if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
        raise ConfigError("--sbatch", f"is {text!r}", "write an option of sbatch in full, as account=birds")
    ours = next((each for each in sorted(_OURS) if each.startswith(name)), None)  # sbatch takes beginnings, too
    if ours is not None:
        raise ConfigError("--sbatch", f"is {text!r}; birdinfer itself sets {ours}", "leave it out")
    return f"--{option}"
