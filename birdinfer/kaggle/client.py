"""Kaggle's official client as a child process: its commands, and what its output means.

What happened is read from the text of the client (version 2), because its exit code is 0 after many failures. The
client finds its own token; birdinfer neither reads, passes on nor prints it.
"""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import ConfigError, MissingExtraError, OutputError

SUBMISSION = "submission.csv"
_MOST_HOURS = 6  # longest transfer: 20 GB at 1 MB/s
_NO_TOKEN = re.compile(r"authentication required|401 client error|unauthenticated|invalid credentials", re.IGNORECASE)
_ABSENT = re.compile(r"40[34] client error|not found|denied|don't have access", re.IGNORECASE)
"""The message about a data set that does not exist, or is someone else's private one: Kaggle does not distinguish."""
_UNREACHABLE = re.compile(r"max retries exceeded|failed to resolve|connection (?:refused|reset|aborted)", re.IGNORECASE)
_SECRETS = ("KAGGLE_KEY", "KAGGLE_API_TOKEN")
_JSON = re.compile(r"\{.*\}")
_KERNEL_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_KERNEL_FAILURE = re.compile(r'Failure message: "(.*)"')
_KERNEL_VERSION = re.compile(r"Kernel version (\d+) successfully pushed")
_SUBMISSIONS = re.compile(r"^ref,.*\bdescription\b.*\bpublicScore\b.*$", re.MULTILINE)
_NO_SUBMISSIONS = "No submissions found"
_NOT_MOUNTED = re.compile(r"not valid (dataset|competition|kernel) sources")


class DatasetState(NamedTuple):
    """A data set on Kaggle."""

    status: str  # ``ready`` in the end, ``blobs_received`` and others before; ``failed``, ``deleted``
    version: int  # the current one


class KernelState(NamedTuple):
    """A notebook's run on Kaggle."""

    status: str  # ``queued``, ``running``, ``complete``, ``error``, ``cancel_requested``, ``cancel_acknowledged``
    failure: str  # what Kaggle says of an error; "" if nothing


class Submission(NamedTuple):
    """A submission as Kaggle lists it."""

    ref: str  # its number
    submitted: str  # UTC, ``2026-05-01 10:00:00``
    description: str  # the message it was handed in with
    status: str  # ``pending``, ``complete``, ``error``
    public: float  # nan until Kaggle has scored it
    private: float  # nan until the competition has ended


class Answer(NamedTuple):
    """Exit code and output of the client."""

    code: int
    text: str  # both streams, without secrets

    @property
    def summary(self) -> str:
        """The most useful line: the first about an error, else the last."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "denied" in line.lower()]
        return (errors[:1] or lines[-1:] or [f"it ended with {self.code}"])[0]


def create_dataset_command(folder: Path) -> list[str]:
    """Create a private data set from a folder; tables stay as they are."""
    return ["kaggle", "datasets", "create", "--path", str(folder), "--keep-tabular"]


def version_dataset_command(folder: Path, message: str) -> list[str]:
    """Create a new version of an existing data set."""
    return ["kaggle", "datasets", "version", "--path", str(folder), "--message", message, "--keep-tabular"]


def dataset_status_command(dataset: str) -> list[str]:
    """Ask for the status of a data set."""
    return ["kaggle", "datasets", "status", dataset, "--format", "json"]


def push_kernel_command(folder: Path) -> list[str]:
    """Upload a notebook and run it."""
    return ["kaggle", "kernels", "push", "--path", str(folder)]


def kernel_status_command(kernel: str) -> list[str]:
    """Ask for the status of a notebook's run; ``OWNER/SLUG/VERSION`` for that of one version."""
    return ["kaggle", "kernels", "status", kernel]


def submit_command(competition: str, kernel: str, version: str, message: str) -> list[str]:
    """Submit what a version of a notebook wrote."""
    of_kernel = ["--kernel", kernel, "--version", version]
    return ["kaggle", "competitions", "submit", competition, "--file", SUBMISSION, *of_kernel, "--message", message]


def submissions_command(competition: str) -> list[str]:
    """List this account's latest submissions, 200 at most, as a table."""
    return ["kaggle", "competitions", "submissions", competition, "--csv", "--page-size", "200"]


def download_command(competition: str, folder: Path) -> list[str]:
    """Download a competition's data as one archive; the client continues one that broke off."""
    return ["kaggle", "competitions", "download", competition, "--path", str(folder), "--quiet"]


class Client:
    """The installed client; its methods raise ConfigError without a token, OutputError if Kaggle refuses or is away."""

    def __init__(self) -> None:
        """Find it on the PATH, or beside this Python; raise MissingExtraError if it is not installed."""
        beside = Path(sys.executable).with_name("kaggle")
        program = shutil.which("kaggle") or (str(beside) if beside.is_file() else None)
        if program is None:
            raise MissingExtraError("kaggle", "kaggle")
        self._program = program

    def dataset_state(self, dataset: str) -> DatasetState | None:
        """Return the state of a data set; None if there is none that this account may see."""
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
        """Upload a folder as a new private data set."""
        self._upload(create_dataset_command(folder), "Dataset is being created", folder)

    def version_dataset(self, folder: Path, message: str) -> None:
        """Upload a folder as the next version of its data set."""
        self._upload(version_dataset_command(folder, message), "Dataset version is being created", folder)

    def push_kernel(self, folder: Path) -> int:
        """Upload a notebook, which starts to run; return its version."""
        answer = self._ask(push_kernel_command(folder))
        found = _KERNEL_VERSION.search(answer.text)
        unmounted = _NOT_MOUNTED.search(answer.text)
        if unmounted:
            what = {"dataset": "the data set", "competition": "the competition"}.get(unmounted[1], "another notebook")
            hint = "join the competition on its page, see that the data set is yours, push again"
            raise OutputError(folder, f"Kaggle does not mount {what}", hint)
        if answer.code or found is None:
            raise _failed(str(folder), answer)
        return int(found[1])

    def kernel_state(self, kernel: str) -> KernelState:
        """Return the state of a notebook's run."""
        answer = self._ask(kernel_status_command(kernel))
        found = _KERNEL_STATUS.search(answer.text)
        if answer.code or found is None:
            raise _failed(f"notebook {kernel}", answer)
        failure = _KERNEL_FAILURE.search(answer.text)
        return KernelState(found[1].lower(), failure[1] if failure else "")

    def submit(self, competition: str, kernel: str, version: int, message: str) -> str:
        """Submit what a run wrote; return Kaggle's answer."""
        answer = self._ask(submit_command(competition, kernel, str(version), message))
        if answer.code:
            raise _failed(f"submission to {competition}", answer)
        return " ".join(answer.text.split())

    def submissions(self, competition: str) -> list[Submission]:
        """Return the latest submissions of this account, 200 at most; none if there are none."""
        answer = self._ask(submissions_command(competition))
        if answer.code and _ABSENT.search(answer.text):
            page = f"https://www.kaggle.com/competitions/{competition}"
            raise OutputError(competition, "Kaggle shows this account no submissions", f"join it: {page}")
        if answer.code:
            raise OutputError(competition, f"Kaggle's client says: {answer.summary}", "try again")
        begin = _SUBMISSIONS.search(answer.text)  # the client may warn of its own age before
        if begin is None and _NO_SUBMISSIONS not in answer.text:
            raise OutputError(competition, f"Kaggle's client says: {answer.summary}", "is it version 2?")
        rows = csv.DictReader(io.StringIO(answer.text[begin.start() :])) if begin else ()
        return [_submission(row) for row in rows if None not in row.values()]

    def download(self, competition: str, folder: Path, watch: Callable[[], None]) -> None:
        """Download ``folder/COMPETITION.zip``; ``watch`` is called every second, and what it raises ends the client."""
        answer = self._ask(download_command(competition, folder), watch)
        if answer.code and _ABSENT.search(answer.text):
            page = f"https://www.kaggle.com/competitions/{competition}/rules"
            raise OutputError(competition, "Kaggle does not give this account its data", f"accept its rules: {page}")
        if answer.code:
            raise OutputError(
                competition, f"Kaggle's client says: {answer.summary}", "the same command again continues"
            )

    def _upload(self, command: list[str], sign: str, folder: Path) -> None:
        answer = self._ask(command)
        skipped = next((line.strip() for line in answer.text.splitlines() if line.startswith("Skipping")), None)
        if skipped:
            raise OutputError(folder, f"Kaggle's client left something out ({skipped})", "pack again: it must be flat")
        # The exit code is 0 even if Kaggle refused.
        if answer.code or sign not in answer.text:
            raise _failed(str(folder), answer)

    def _ask(self, command: list[str], watch: Callable[[], None] | None = None) -> Answer:
        try:
            client = subprocess.Popen(
                [self._program, *command[1:]],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,  # it must not wait for an answer
                env=os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8"},
            )
        except OSError as error:
            raise OutputError(self._program, f"cannot be run ({error.strerror})", "install it again") from error
        with client:
            try:
                out, err = _watched(client, watch)
            except subprocess.TimeoutExpired as error:
                what = f"was not done after {_MOST_HOURS} hours"
                raise OutputError(" ".join(command[:3]), what, "try again") from error
            finally:
                client.kill()
        text = f"{out}\n{err}"
        for secret in filter(None, map(os.environ.get, _SECRETS)):
            text = text.replace(secret, "***") if len(secret) >= 8 else text  # in case the client prints a token
        answer = Answer(client.returncode, text)
        if answer.code and _NO_TOKEN.search(answer.text):
            raise ConfigError("kaggle", "knows no valid token for your account", "run: kaggle auth login")
        if answer.code and _UNREACHABLE.search(answer.text):
            raise OutputError("kaggle", "cannot reach Kaggle", "see to the network, then the same command again")
        return answer


def _watched(client: "subprocess.Popen[str]", watch: Callable[[], None] | None) -> tuple[str, str]:
    """Both streams of a client that has ended; TimeoutExpired after too many hours."""
    until = time.monotonic() + 3_600 * _MOST_HOURS
    while True:
        try:
            return client.communicate(timeout=_MOST_HOURS * 3_600 if watch is None else 1.0)
        except subprocess.TimeoutExpired:
            if watch is None or time.monotonic() > until:
                raise
            watch()


def _submission(row: dict[str, str]) -> Submission:
    """A row of the client's table; what it lacks is empty or ``None`` there."""
    return Submission(
        ref=row["ref"],
        submitted=row["date"][:19].replace("T", " "),
        description=row["description"],
        status=row["status"].rpartition(".")[2].lower(),
        public=_number(row["publicScore"]),
        private=_number(row["privateScore"]),
    )


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def _failed(where: str, answer: Answer) -> OutputError:
    return OutputError(where, f"Kaggle's client says: {answer.summary}", "correct that and push again")
