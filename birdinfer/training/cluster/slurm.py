"""SLURM, asked and told by its own programs: sinfo, squeue, sbatch, scancel; what it refuses becomes one line."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from birdinfer.errors import ConfigError
from birdinfer.files import write_atomic
from birdinfer.training.cluster.arrays import JobArray, sbatch_words

_SECONDS = 120
"""A controller under load may take its time; one that is gone is told by its programs themselves."""
_SAYS = re.compile(r"^(?:sbatch|sinfo|squeue|scancel): (?:(?:error|fatal): )?")


def check_there() -> None:
    """Refuse to go on without SLURM.

    Raises:
        ConfigError: a program is missing.
    """
    missing = [name for name in ("sbatch", "sinfo", "squeue") if shutil.which(name) is None]
    if missing:
        what = f"is slurm, there is no {missing[0]} here"
        raise ConfigError("--cluster", what, "run it on a login node of the cluster, or look at it with --print")


def check_partition(asked: str) -> None:
    """Refuse a partition that the cluster does not have.

    Args:
        asked: one, or several with commas between them.

    Raises:
        ConfigError: it is unknown, or SLURM does not answer.
    """
    there = list(dict.fromkeys(_ask("sinfo", "--all", "--noheader", "--format=%R").split()))
    unknown = [name for name in asked.split(",") if name not in there]
    if unknown:
        raise ConfigError("--partition", f"{unknown[0]!r} is unknown, this cluster has {', '.join(there)}")


def check_not_queued(array: JobArray) -> None:
    """Refuse to have two jobs write to one folder.

    Raises:
        ConfigError: one of these tasks is in the queue already, or SLURM does not answer.
    """
    for line in _ask("squeue", "--me", "--array", "--noheader", "--format=%F|%K|%j|%k").splitlines():
        job, task, *_ = line.split("|")
        if line.endswith(f"|{array.name}|{array.mark}") and task in map(str, array.tasks):
            what = f"{array.kind} {task} is in the queue already, as {job}_{task}"
            raise ConfigError(array.folder, what, f"scancel {job}, or give this one another name")


def submit(array: JobArray, after: str | None = None) -> str:
    """Write an array's script and hand it to SLURM.

    Args:
        array: what to submit.
        after: the number of a job that has to end well before.

    Returns:
        The number of the job.

    Raises:
        ConfigError: SLURM refuses it.
        OutputError: the script cannot be written.
    """
    write_atomic(array.script_path, array.script)
    # On a federation the cluster's name follows.
    return _ask(*sbatch_words(array, after)).strip().partition(";")[0]


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs back."""
    if jobs:
        _ask("scancel", *jobs)


def _ask(*words: str) -> str:
    """What a program of SLURM prints.

    Raises:
        ConfigError: it fails; its own words say why.
    """
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(words[0], f"has not answered for {_SECONDS} s", "is the cluster up? try again") from error
    except OSError as error:
        raise ConfigError(words[0], f"cannot be run ({error.strerror})") from error
    if done.returncode:
        said = [_SAYS.sub("", line) for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(words[0], "; ".join(dict.fromkeys(said)) or f"fails with exit code {done.returncode}")
    return done.stdout
