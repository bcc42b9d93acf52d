"""What ``train`` and ``tune`` share of handing work to a cluster: options -> arrays of jobs -> SLURM, or a script.

In: what was asked on the command line. Out: jobs in the queue and a few lines that say how to watch them, or, with
``--print``, a script that would submit them. Whatever can be refused is refused here, not by a job after a night in
the queue.
"""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birdinfer.cli.cluster_options import CLUSTER_OPTIONS, ClusterOptions

if TYPE_CHECKING:
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.cluster.resources import Resources


def check_options(context: typer.Context, options: ClusterOptions) -> None:
    """Which options go together.

    Raises:
        ConfigError: these do not.
    """
    from birdinfer.errors import ConfigError
    from birdinfer.training.processes import from_environment

    asked = [name for name, value in options._asdict().items() if value != ClusterOptions._field_defaults[name]]
    if options.cluster is None:
        raise ConfigError(CLUSTER_OPTIONS[asked[0]], "is for jobs of a cluster", "add --cluster slurm, or leave it out")
    if options.cluster != "slurm":
        raise ConfigError("--cluster", f"is {options.cluster!r}, allowed is slurm")
    if context.params.get("devices") is not None:
        raise ConfigError("--devices", "is for this machine, --cluster for another", "leave one of them out")
    if from_environment().n > 1:
        raise ConfigError("--cluster", "was given to torchrun, each process would submit", "use --processes instead")


def resources_of(options: ClusterOptions) -> "Resources":
    """What a job needs, without what is of its script."""
    from birdinfer.training.cluster.resources import Resources

    return Resources(
        options.partition, options.gres, options.time_limit, options.memory, options.cpus, options.nodes,
        options.processes, options.sbatch,
    )  # fmt: skip


def job_array(
    folder: Path, kind: str, tasks: Sequence[int], options: ClusterOptions, template: str, command: list[str],
    asked: tuple[str, ...],
) -> "JobArray":  # fmt: skip
    """One command, several tasks.

    Args:
        folder: of the run or study.
        kind: what a task is, ``fold`` or ``worker``.
        tasks: their numbers.
        options: what is asked of the cluster.
        template: the script, unless the user has one of their own.
        command: what each task runs.
        asked: options of sbatch.

    Raises:
        BirdinferError: the user's template cannot be used.
    """
    from birdinfer.training.cluster.arrays import JobArray
    from birdinfer.training.cluster.templates import script, shipped

    text = script(options.template or shipped(template), options.setup)
    return JobArray(folder.name, folder, kind, tuple(tasks), text, tuple(command), asked)


def check_cluster(arrays: "Sequence[JobArray]", options: ClusterOptions) -> None:
    """Whether there is SLURM, with such a partition, and none of the jobs is in its queue already.

    Raises:
        ConfigError: it is not so.
    """
    from birdinfer.training.cluster.slurm import check_not_queued, check_partition, check_there

    check_there()
    if options.partition is not None:
        check_partition(options.partition)
    for array in arrays:
        check_not_queued(array)


def submit_all(arrays: "Sequence[JobArray]", chained: bool = False) -> list[str]:
    """All arrays, or none of them.

    Returns:
        The number of each one's job.

    Raises:
        ConfigError: SLURM refuses one, or somebody has just been quicker; those before it are taken back.
    """
    from birdinfer.errors import BirdinferError
    from birdinfer.training.cluster.slurm import cancel, check_not_queued, submit
    from birdinfer.training.turns import one_at_a_time

    jobs: list[str] = []
    with contextlib.ExitStack() as ours:
        for folder in sorted(array.folder for array in arrays):  # in one order, or two would wait for each other
            ours.enter_context(one_at_a_time(folder))
        try:
            for array in arrays:
                check_not_queued(array)
                jobs.append(submit(array, jobs[-1] if chained and jobs else None))
        except BirdinferError:
            cancel(jobs)
            raise
    return jobs


def print_all(arrays: "Sequence[JobArray]", files: Sequence[tuple[Path, str]] = (), chained: bool = False) -> None:
    """A shell script that does what :func:`submit_all` would; ``files`` are written, too."""
    from birdinfer.training.cluster.arrays import as_shell

    typer.echo(as_shell(arrays, files, chained), nl=False)


def say(arrays: "Sequence[JobArray]", jobs: list[str]) -> None:
    """What is in the queue, and how to watch it."""
    from birdinfer.cli.console import shown, stdout

    console = stdout()
    for array, job in zip(arrays, jobs, strict=True):
        numbers = ", ".join(map(str, array.tasks))
        console.print(f"{shown(str(array.folder))}: job {job}, {array.kind}{'s'[: len(array.tasks) > 1]} {numbers}")
        console.print(f"  logs   {shown(str(array.log('*', job)))}")
        console.print(f"  watch  {shown(shlex.join(['tail', '-F', str(array.log(str(array.tasks[0]), job))]))}")
    console.print(f"squeue -j {','.join(jobs)} shows them, scancel {' '.join(jobs)} ends them")
