"""What ``train`` and ``tune`` share of ``--cluster slurm``: options -> settings of jobs, and what is in the queue."""

import shlex
from collections.abc import Sequence
from typing import Any

from birdinfer.cli.console import shown, stdout
from birdinfer.cli.options import SPELLINGS
from birdinfer.errors import ConfigError
from birdinfer.training.launch.slurm import ClusterSettings, Submitted


def cluster_settings(cluster: str | None, print_only: bool, **options: Any) -> ClusterSettings | None:
    """Return what the jobs of a cluster need; None where the command runs here. Options are of ClusterSettings."""
    given = [name for name, value in {**options, "print_only": print_only}.items() if value]
    if cluster is None:
        if given:
            hint = "add --cluster slurm, or leave it out"
            raise ConfigError(SPELLINGS.get(given[0], f"--{given[0]}"), "is for jobs of a cluster", hint)
        return None
    if cluster != "slurm":
        raise ConfigError("--cluster", f"is {cluster!r}, allowed is slurm")
    return ClusterSettings(**options)


def show_jobs(jobs: Sequence[Submitted]) -> None:
    """Print what is in the queue, and how to watch it."""
    console = stdout()
    for array, job in ((each.array, each.job) for each in jobs):
        numbers = ", ".join(map(str, array.tasks))
        console.print(f"{shown(str(array.folder))}: job {job}, {array.kind}{'s'[: len(array.tasks) > 1]} {numbers}")
        console.print(f"  logs   {shown(str(array.log('*', job)))}")
        console.print(f"  watch  {shown(shlex.join(['tail', '-F', str(array.log(str(array.tasks[0]), job))]))}")
    queued = [each.job for each in jobs]
    console.print(f"squeue -j {','.join(queued)} shows them, scancel {' '.join(queued)} ends them")
