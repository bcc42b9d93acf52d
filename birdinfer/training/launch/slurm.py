"""SLURM: what jobs need, a script and task numbers -> arrays of jobs, submitted through SLURM's own programs. No torch.

What sinfo, squeue, sbatch and scancel refuse becomes one line. An array can also become a shell script that submits it.
"""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError
from birdinfer.system.files import write_atomic
from birdinfer.system.locks import locked


@dataclass(frozen=True, kw_only=True, slots=True)
class JobArray:
    """One command that several tasks run; script and logs lie in ``logs/`` of its folder, the run's or study's.

    A task is a ``fold`` or a ``worker`` (``kind``); ``script`` is a text, ``options`` are those of sbatch.
    """

    name: str
    folder: Path
    kind: str
    tasks: tuple[int, ...]
    script: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def script_path(self) -> Path:
        """Where the script is kept, to be looked at and submitted again."""
        return self.folder / "logs" / f"{self.kind}.sbatch"

    @property
    def mark(self) -> str:
        """The comment by which the jobs are found in the queue."""
        return str(self.folder.absolute())

    def log(self, task: str, job: str) -> Path:
        """A task's log; SLURM fills in ``%a`` and ``%A``."""
        return self.folder / "logs" / f"{self.kind}{task}-{job}.out"


def sbatch_words(array: JobArray, after: str | None = None) -> list[str]:
    """The command that submits an array, after job ``after`` has succeeded; its tasks work in the current folder."""
    logs = str((array.folder / "logs").absolute()).replace("%", "%%")
    return [
        *("sbatch", "--parsable", f"--job-name={array.name}", f"--array={_spans(array.tasks)}"),
        *(f"--output={logs}/{array.log('%a', '%A').name}", f"--chdir={Path.cwd()}", f"--comment={array.mark}"),
        *((f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes") if after else ()),
        *(*array.options, str(array.script_path), *array.command),
    ]


def as_shell(arrays: Sequence[JobArray], files: Sequence[tuple[Path, str]] = (), chained: bool = False) -> str:
    """A shell script that does what submitting does: writes ``files`` and scripts, submits the arrays in order.

    ``chained``: each array waits for the one before it.
    """
    written = [*files, *((array.script_path, array.script) for array in arrays)]
    folders = shlex.join(["mkdir", "-p", *dict.fromkeys(str(path.parent) for path, _ in written)])
    lines = [folders, *(_here(path, text) for path, text in written)]
    for index, array in enumerate(arrays):
        words = shlex.join(sbatch_words(array, "$job" if chained and index else None))
        # The shell fills in one word: the number of the job before, which is known only then.
        words = words.replace("'--dependency=afterok:$job'", '"--dependency=afterok:$job"')
        lines.append(f'job=$({words})\necho "$job"')
    return "\n".join(lines) + "\n"


def _here(path: Path, text: str) -> str:
    """A file as a here-document, with an end that does not occur in it."""
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"cat > {shlex.quote(str(path))} <<'{end}'\n{text.rstrip(chr(10))}\n{end}"


def _spans(tasks: Sequence[int]) -> str:
    """``(0, 1, 2, 5)`` -> ``0-2,5``."""
    spans: list[list[int]] = []
    for task in sorted(tasks):
        if spans and task == spans[-1][-1] + 1:
            spans[-1][1:] = [task]
        else:
            spans.append([task])
    return ",".join("-".join(map(str, span)) for span in spans)


# ---- Scripts: a template of ``train/slurm/`` -> the text for sbatch

ARRAY, SEARCH, SEVERAL_PROCESSES = "array.sbatch", "search.sbatch", "several_processes.sbatch"
SHARES = "shares.sbatch"


class _Gaps(Template):
    """Gaps are ``@@{name}``: a shell script is full of ``$``, and ``"$@"`` has one ``@``."""

    delimiter = "@@"


def shipped(name: str) -> Path:
    """Find a template that comes with birdinfer, in the installed package or in ``train/slurm`` of the checkout."""
    package = Path(__file__).parents[2]
    for folder in (package / "slurm_templates", package.parent / "train" / "slurm"):
        if (folder / name).is_file():
            return folder / name
    raise InputNotFoundError(package / "slurm_templates", f"this installation has no {name}", "install it again")


def script(template: Path, setup: Sequence[str] = ()) -> str:
    """Fill in a template, birdinfer's or the user's own, with lines of shell that run before the work."""
    gaps = _Gaps(_read(template))
    names = set(gaps.get_identifiers()) if gaps.is_valid() else {"@@ and no name"}
    if unknown := sorted(names - {"setup", "guard"}):
        raise ConfigError(template, f"has a gap @@{{{unknown[0]}}}, known are @@{{setup}} and @@{{guard}}")
    if setup and "setup" not in names:
        raise ConfigError(template, "has no line @@{setup}, where --setup would go", "add it, or leave --setup out")
    guard = _read(shipped("guard.sh")).rstrip("\n")
    return gaps.substitute(setup="\n".join(setup) or "# (what --setup asks for)", guard=guard)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputNotFoundError(path, "no such template", "copy one of train/slurm/ and change it") from error
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(path, "cannot be read as a template", "copy one of train/slurm/ and change it") from error


# ---- SLURM's own programs

_SECONDS = 120  # a controller under load may take its time; if there is none, the programs say so themselves
_SAYS = re.compile(r"^(?:sbatch|sinfo|squeue|scancel): (?:(?:error|fatal): )?")


def check_there(option: str = "--cluster") -> None:
    """Check that there is SLURM, which ``option`` asks for; ConfigError names the program that is missing."""
    if missing := [name for name in ("sbatch", "sinfo", "squeue") if shutil.which(name) is None]:
        what = f"is slurm, there is no {missing[0]} here"
        hint = ", or look at it with --print" if option == "--cluster" else ""
        raise ConfigError(option, what, f"run it on a login node of the cluster{hint}")


def check_partition(asked: str) -> None:
    """Check that the cluster has these partitions, with commas between them; ConfigError if not."""
    there = list(dict.fromkeys(_ask("sinfo", "--all", "--noheader", "--format=%R").split()))
    if unknown := [name for name in asked.split(",") if name not in there]:
        raise ConfigError("--partition", f"{unknown[0]!r} is unknown, this cluster has {', '.join(there)}")


def check_not_queued(array: JobArray) -> None:
    """Check that no job in the queue writes to the same folder; ConfigError names the task that does."""
    for line in _ask("squeue", "--me", "--array", "--noheader", "--format=%F|%K|%j|%k").splitlines():
        job, task, *_ = line.split("|")
        if line.endswith(f"|{array.name}|{array.mark}") and task in map(str, array.tasks):
            what = f"{array.kind} {task} is in the queue already, as {job}_{task}"
            raise ConfigError(array.folder, what, f"scancel {job}, or give this one another name")


def submit(array: JobArray, after: str | None = None) -> str:
    """Write an array's script and submit it, to run after job ``after`` has succeeded; the number of the job.

    ConfigError if SLURM refuses it.
    """
    write_atomic(array.script_path, array.script)
    # On a federation the cluster's name follows.
    return _ask(*sbatch_words(array, after)).strip().partition(";")[0]


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs."""
    if jobs:
        _ask("scancel", *jobs)


def _ask(*words: str) -> str:
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


# ---- What a job needs -> options of sbatch

SHORTEST_SECONDS = 300  # a job is asked to save two minutes before its limit, and SLURM counts in whole minutes
_OURS = frozenset({"array", "chdir", "comment", "dependency", "job-name", "output", "parsable", "signal", "wrap"})
"""Options of sbatch that birdinfer sets itself: a job's folds, its folder, how it is found and stopped."""
_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?")
_CLOCK = re.compile(r"(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSettings:
    """What jobs need, as options of ``--cluster slurm``; None where the cluster's own default is meant."""

    partition: str | None = None
    gres: str | None = None  # as ``gpu:1``
    time_limit: str | None = None  # as SLURM spells it
    memory: str | None = None  # of a node, as ``32G``
    cpus: int | None = None  # of a process
    nodes: int | None = None  # that train one fold together
    processes: int | None = None  # of a node, a GPU each, for one fold
    sbatch: tuple[str, ...] = ()  # any other option of sbatch, as ``account=birds``
    setup: tuple[str, ...] = ()  # lines of shell before the work, as ``module load cuda``
    template: Path | None = None  # the user's own script, a changed copy of one of train/slurm/

    @property
    def n_processes(self) -> int:
        """How many processes train one fold."""
        return (self.nodes or 1) * (self.processes or 1)


def sbatch_options(cluster: ClusterSettings) -> tuple[str, ...]:
    """What jobs need, as options of sbatch.

    ConfigError for a time too short to train in, or an option that would take the jobs apart.
    """
    asked = {
        "partition": cluster.partition, "gres": cluster.gres, "time": cluster.time_limit, "mem": cluster.memory,
        "cpus-per-task": cluster.cpus, "nodes": cluster.nodes, "ntasks-per-node": cluster.processes,
    }  # fmt: skip
    if cluster.time_limit is not None:
        _check_time(cluster.time_limit)
    return (
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        *(_other_option(text) for text in cluster.sbatch),
    )


def seconds_of(time_limit: str) -> int | None:
    """A time as sbatch reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    None for anything else, which sbatch may refuse itself; 0 means no limit, as for sbatch.
    """
    if found := _DAYS.fullmatch(time_limit):
        units: tuple[int, ...] = (86_400, 3_600, 60, 1)
    elif found := _CLOCK.fullmatch(time_limit):
        units = (60, 1, 0) if found.group(3) is None else (3_600, 60, 1)
    else:
        return None
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), units, strict=True))


def _check_time(time_limit: str) -> None:
    """Refuse a time in which a job would be requeued for ever without progress."""
    seconds = seconds_of(time_limit)
    if seconds is not None and 0 < seconds < SHORTEST_SECONDS:
        what = f"is {time_limit}, {seconds} s; two minutes of it go to saving"
        raise ConfigError("--time", what, f"ask for {SHORTEST_SECONDS // 60} minutes at least")


def _other_option(text: str) -> str:
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


# ---- Arrays of commands of birdinfer


@dataclass(frozen=True, slots=True)
class Submitted:
    """An array of jobs in the queue, and its number there."""

    array: JobArray
    job: str


def job_array(
    folder: Path, kind: str, *, tasks: Sequence[int], cluster: ClusterSettings, template: str, command: Sequence[str]
) -> JobArray:
    """One command of birdinfer, given without the program, as several tasks.

    ``template`` names the script that comes with birdinfer, if the user has none.
    """
    return JobArray(
        name=folder.name, folder=folder, kind=kind, tasks=tuple(tasks),
        script=script(cluster.template or shipped(template), cluster.setup),
        command=(sys.executable, "-m", "birdinfer", *command), options=sbatch_options(cluster),
    )  # fmt: skip


def check_cluster(arrays: Sequence[JobArray], cluster: ClusterSettings, option: str = "--cluster") -> None:
    """Check that there is SLURM, with such a partition, and that none of the jobs is in its queue."""
    check_there(option)
    if cluster.partition is not None:
        check_partition(cluster.partition)
    for array in arrays:
        check_not_queued(array)


def submit_all(arrays: Sequence[JobArray], chained: bool = False) -> list[Submitted]:
    """Submit all arrays in this order, or none of them; ``chained`` ones wait for the one before.

    ConfigError if SLURM refuses one, or another process was quicker; those before it are cancelled.
    """
    jobs: list[str] = []
    with contextlib.ExitStack() as held:
        for folder in sorted(array.folder for array in arrays):  # in one order, or two would wait for each other
            held.enter_context(locked(folder))
        try:
            for array in arrays:
                check_not_queued(array)
                jobs.append(submit(array, jobs[-1] if chained and jobs else None))
        except BirdinferError:
            cancel(jobs)
            raise
    return [Submitted(array, job) for array, job in zip(arrays, jobs, strict=True)]
