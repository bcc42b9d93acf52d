"""Jobs as they are handed to sbatch: a script, a command and task numbers -> words for sbatch, or lines of shell."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class JobArray(NamedTuple):
    """One command, several tasks that run it; all of it lies in one folder."""

    name: str
    """As ``squeue`` shows it."""
    folder: Path
    """Of the run or study; script and logs lie in its ``logs/``."""
    kind: str
    """What a task is: ``fold`` or ``worker``; logs and script are called after it."""
    tasks: tuple[int, ...]
    script: str
    """The text of the script."""
    command: tuple[str, ...]
    """What the script is to run."""
    options: tuple[str, ...] = ()
    """Of sbatch."""

    @property
    def script_path(self) -> Path:
        """Where the script is kept, to be looked at and submitted again."""
        return self.folder / "logs" / f"{self.kind}.sbatch"

    @property
    def mark(self) -> str:
        """What the jobs are found by in the queue: whose they are."""
        return str(self.folder.absolute())

    def log(self, task: str, job: str) -> Path:
        """Where a task of a job writes; ``%a`` and ``%A`` stand for what SLURM fills in."""
        return self.folder / "logs" / f"{self.kind}{task}-{job}.out"


def sbatch_words(array: JobArray, after: str | None = None) -> list[str]:
    """The command that submits an array from where we are, which is where its tasks will work.

    Args:
        array: what to submit.
        after: the number of a job that has to end well before.
    """
    logs = str((array.folder / "logs").absolute()).replace("%", "%%")
    return [
        *("sbatch", "--parsable", f"--job-name={array.name}", f"--array={_spans(array.tasks)}"),
        *(f"--output={logs}/{array.log('%a', '%A').name}", f"--chdir={Path.cwd()}", f"--comment={array.mark}"),
        *((f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes") if after else ()),
        *(*array.options, str(array.script_path), *array.command),
    ]


def as_shell(arrays: Sequence[JobArray], files: Sequence[tuple[Path, str]] = (), chained: bool = False) -> str:
    """What submitting does, as a shell script that does the same.

    Args:
        arrays: what would be submitted, in this order.
        files: what would be written for it besides the scripts.
        chained: whether each array waits for the one before it.
    """
    written = [*files, *((array.script_path, array.script) for array in arrays)]
    folders = shlex.join(["mkdir", "-p", *dict.fromkeys(str(path.parent) for path, _ in written)])
    lines = [folders, *(_here(path, text) for path, text in written)]
    for index, array in enumerate(arrays):
        words = shlex.join(sbatch_words(array, "$job" if chained and index else None))
        # The one word that the shell is to fill in: its own number is known to the job before alone.
        words = words.replace("'--dependency=afterok:$job'", '"--dependency=afterok:$job"')
        lines.append(f'job=$({words})\necho "$job"')
    return "\n".join(lines) + "\n"


def _here(path: Path, text: str) -> str:
    """A file as a here-document whose end cannot stand in it."""
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
