"""Kaggle's official client as a process: its commands, and what its answers mean.

Comes in: what is to be done. Goes out: what became of it, read from the client's text (version 2), for it ends with 0
after many a failure. The client finds its own token; birdinfer neither reads, passes on nor prints it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import ConfigError, MissingExtraError, OutputError

SUBMISSION = "submission.csv"
_UPLOAD_HOURS = 6
"""No upload or question takes longer: 20 GB at 1 MB/s."""
_NO_TOKEN = re.compile(r"authentication required|401 client error|unauthenticated|invalid credentials", re.IGNORECASE)
_ABSENT = re.compile(r"40[34] client error|not found|denied|don't have access", re.IGNORECASE)
"""What is said of a data set that is not there; Kaggle does not tell strangers whether a private one is."""
_UNREACHABLE = re.compile(r"max retries exceeded|failed to resolve|connection (?:refused|reset|aborted)", re.IGNORECASE)
_SECRETS = ("KAGGLE_KEY", "KAGGLE_API_TOKEN")
_JSON = re.compile(r"\{.*\}")
_KERNEL_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_KERNEL_FAILURE = re.compile(r'Failure message: "(.*)"')
_KERNEL_VERSION = re.compile(r"Kernel version (\d+) successfully pushed")
_NOT_MOUNTED = re.compile(r"not valid (dataset|competition|kernel) sources")


class DatasetState(NamedTuple):
    """A data set on Kaggle."""

    status: str
    """``ready`` at last; ``blobs_received`` and others on the way; ``failed``, ``deleted``."""
    version: int
    """The one that is current."""


class KernelState(NamedTuple):
    """A notebook's run on Kaggle."""

    status: str
    """``queued``, ``running``, ``complete``, ``error``, ``cancel_requested``, ``cancel_acknowledged``."""
    failure: str
    """What Kaggle says of an error; "" if nothing."""


class Answer(NamedTuple):
    """What the client said."""

    code: int
    text: str
    """Both streams, without secrets."""

    @property
    def last_words(self) -> str:
        """The line that says most: the first about an error, else the last."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "denied" in line.lower()]
        return (errors[:1] or lines[-1:] or [f"it ended with {self.code}"])[0]


def create_dataset_command(folder: Path) -> list[str]:
    """Makes a private data set of a folder; tables stay as they are."""
    return ["kaggle", "datasets", "create", "--path", str(folder), "--keep-tabular"]


def version_dataset_command(folder: Path, message: str) -> list[str]:
    """Makes a new version of a data set that is there."""
    return ["kaggle", "datasets", "version", "--path", str(folder), "--message", message, "--keep-tabular"]


def dataset_status_command(dataset: str) -> list[str]:
    """Asks how far a data set is."""
    return ["kaggle", "datasets", "status", dataset, "--format", "json"]


def push_kernel_command(folder: Path) -> list[str]:
    """Uploads a notebook and runs it."""
    return ["kaggle", "kernels", "push", "--path", str(folder)]


def kernel_status_command(kernel: str) -> list[str]:
    """Asks how far a run is; ``OWNER/SLUG/VERSION`` asks of one version's."""
    return ["kaggle", "kernels", "status", kernel]


def submit_command(competition: str, kernel: str, version: str, message: str) -> list[str]:
    """Hands in what a version of a notebook wrote."""
    of_kernel = ["--kernel", kernel, "--version", version]
    return ["kaggle", "competitions", "submit", competition, "--file", SUBMISSION, *of_kernel, "--message", message]


class Client:
    """The installed client."""

    def __init__(self) -> None:
        """Find it: on the PATH, or beside this Python.

        Raises:
            MissingExtraError: it is not installed.
        """
        beside = Path(sys.executable).with_name("kaggle")
        program = shutil.which("kaggle") or (str(beside) if beside.is_file() else None)
        if program is None:
            raise MissingExtraError("kaggle", "kaggle")
        self._program = program

    def dataset_state(self, dataset: str) -> DatasetState | None:
        """How far a data set is; None if there is none, or none that this account may see.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle cannot be asked.
        """
        answer = self._ask(dataset_status_command(dataset))
        if answer.code:
            if _ABSENT.search(answer.text):
                return None
            raise _failed(f"data set {dataset}", answer)
        try:
            facts = json.loads(_JSON.findall(answer.text)[-1])
            return DatasetState(str(facts["status"]).lower(), int(facts["current_version_number"] or 0))
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise _failed(f"data set {dataset}", answer) from error

    def create_dataset(self, folder: Path) -> None:
        """Upload a folder as a new private data set.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle does not take it, or not all of it.
        """
        self._upload(create_dataset_command(folder), "Dataset is being created", folder)

    def version_dataset(self, folder: Path, message: str) -> None:
        """Upload a folder as the next version of its data set.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle does not take it, or not all of it.
        """
        self._upload(version_dataset_command(folder, message), "Dataset version is being created", folder)

    def push_kernel(self, folder: Path) -> int:
        """Upload a notebook, which begins to run.

        Returns:
            Its version.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle does not take it, or does not mount what it needs.
        """
        answer = self._ask(push_kernel_command(folder))
        found = _KERNEL_VERSION.search(answer.text)
        unmounted = _NOT_MOUNTED.search(answer.text)
        if unmounted:
            what = {"dataset": "the data set", "competition": "the competition"}.get(unmounted[1], "another notebook")
            remedy = "join the competition on its page, see that the data set is yours, push again"
            raise OutputError(folder, f"Kaggle does not mount {what}", remedy)
        if answer.code or found is None:
            raise _failed(str(folder), answer)
        return int(found[1])

    def kernel_state(self, kernel: str) -> KernelState:
        """How far a notebook's run is.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle cannot be asked.
        """
        answer = self._ask(kernel_status_command(kernel))
        found = _KERNEL_STATUS.search(answer.text)
        if answer.code or found is None:
            raise _failed(f"notebook {kernel}", answer)
        failure = _KERNEL_FAILURE.search(answer.text)
        return KernelState(found[1].lower(), failure[1] if failure else "")

    def submit(self, competition: str, kernel: str, version: int, message: str) -> str:
        """Hand in what a run wrote.

        Returns:
            What Kaggle says of it.

        Raises:
            ConfigError: there is no token.
            OutputError: Kaggle does not take it.
        """
        answer = self._ask(submit_command(competition, kernel, str(version), message))
        if answer.code:
            raise _failed(f"submission to {competition}", answer)
        return " ".join(answer.text.split())

    def _upload(self, command: list[str], sign: str, folder: Path) -> None:
        answer = self._ask(command)
        skipped = next((line.strip() for line in answer.text.splitlines() if line.startswith("Skipping")), None)
        if skipped:
            raise OutputError(folder, f"Kaggle's client left something out ({skipped})", "pack again: it must be flat")
        # The client ends with 0 even where Kaggle refused.
        if answer.code or sign not in answer.text:
            raise _failed(str(folder), answer)

    def _ask(self, command: list[str]) -> Answer:
        """Run a command; what concerns every command alike is an error."""
        try:
            answer = _run([self._program, *command[1:]])
        except OSError as error:
            raise OutputError(self._program, f"cannot be run ({error.strerror})", "install it again") from error
        except subprocess.TimeoutExpired as error:
            raise OutputError(
                " ".join(command[:3]), f"was not done after {_UPLOAD_HOURS} hours", "try again"
            ) from error
        if answer.code and _NO_TOKEN.search(answer.text):
            raise ConfigError("kaggle", "knows no valid token for your account", "run: kaggle auth login")
        if answer.code and _UNREACHABLE.search(answer.text):
            raise OutputError("kaggle", "cannot reach Kaggle", "see to the network, then push again")
        return answer


def _run(command: list[str]) -> Answer:
    """The client's code and text; it never waits for somebody to type."""
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=3_600 * _UPLOAD_HOURS,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    return Answer(done.returncode, _without_secrets(f"{done.stdout}\n{done.stderr}"))


def _failed(where: str, answer: Answer) -> OutputError:
    return OutputError(where, f"Kaggle's client says: {answer.last_words}", "mend that and push again")


def _without_secrets(text: str) -> str:
    """Text without the values of variables that hold a token, should the client ever say one."""
    for name in _SECRETS:
        value = os.environ.get(name, "")
        if len(value) >= 8:
            text = text.replace(value, "***")
    return text
