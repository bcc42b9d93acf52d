"""Push a packed submission to Kaggle: its data set, its notebook, and on request what the notebook wrote.

Each step waits for the one before: a notebook that is pushed while Kaggle unpacks its data set runs with the older
version, or with none. Everything is checked here first, because an upload takes long and Kaggle's error messages are
short.
"""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.inference.bundle import Bundle
from birdinfer.kaggle import client as commands
from birdinfer.kaggle.client import Client, DatasetState
from birdinfer.kaggle.competitions import COMPETITIONS, kaggle_image
from birdinfer.kaggle.pack import Pages, not_uploaded, read_pages
from birdinfer.kaggle.scores import origin_of, with_origin
from birdinfer.kaggle.wheels import unusable_wheels

_SILENT = Callback()
_QUEUE_MINUTES = 60  # longest time that a run waits for a machine, in addition to the competition's limit
_LONGEST_RUN_MINUTES = 720  # Kaggle's own limit, for an unknown competition
_LOST = ("failed", "deleted")
_ENDED_BADLY = ("error", "cancel_requested", "cancel_acknowledged")
_REPACK = "pack again"


@dataclass(frozen=True, kw_only=True, slots=True)
class PushSettings:
    """What :func:`push` does."""

    packed: Path  # the packed submission, ``submission/NAME``
    message: str = "birdinfer"  # of the data set's version and of the submission, which also says where it comes from
    wait: bool = False  # wait for the notebook's run as well
    submit: bool = False  # wait for the run and submit what it wrote
    poll_seconds: float = 15.0  # time between two requests to Kaggle
    ready_minutes: float = 60.0  # longest time that the data set may take to become ready


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What is on Kaggle now."""

    pages: Pages
    kernel_version: int
    kernel_status: str  # ``complete``, or "" if its run was not waited for
    submitted: str  # Kaggle's answer to the submission; "" if none was made


def check_packed(folder: Path) -> Pages:
    """Refuse what would not run on Kaggle before it is uploaded; return its addresses.

    Raises InputNotFoundError, BundleError or ConfigError, which name the part that is missing or wrong.
    """
    dataset, kernel = folder / "dataset", folder / "kernel"
    pages = read_pages(dataset, kernel)
    Bundle.load(dataset)
    for name, why in not_uploaded(dataset):
        raise ConfigError(dataset / name, why, _REPACK)
    for path, why in unusable_wheels(dataset, kaggle_image()):
        raise ConfigError(path, why, f"{_REPACK} with --download")
    if not any(dataset.glob("birdinfer-*.whl")):
        raise InputNotFoundError(dataset, "holds no wheel of birdinfer", _REPACK)
    return pages


def push_commands(settings: PushSettings) -> list[tuple[str, str]]:
    """Return what :func:`push` does as shell commands, each with its purpose; raises as :func:`check_packed`."""
    folder, message = settings.packed, settings.message
    pages, dataset = check_packed(folder), folder / "dataset"
    handed_in = with_origin(message, origin_of(folder))
    listed = [
        (commands.create_dataset_command(dataset), "the first time"),
        (commands.version_dataset_command(dataset, message), "every other time"),
        (commands.dataset_status_command(pages.dataset), "until it says ready"),
        (commands.push_kernel_command(folder / "kernel"), "says the version"),
        (commands.kernel_status_command(pages.kernel), "until it says COMPLETE"),
        (commands.submit_command(pages.competition, pages.kernel, "VERSION", handed_in), "with that version"),
    ]
    return [(shlex.join(command), purpose) for command, purpose in listed]


def push(settings: PushSettings, callback: Callback = _SILENT) -> Pushed:
    """Push a packed submission to Kaggle; ``callback`` gets a message about every step.

    ::

        push(PushSettings(packed=Path("submission/x"), submit=True))

    Raises:
        BirdinferError: as :func:`check_packed`.
        MissingExtraError: Kaggle's client is not installed.
        ConfigError: there is no token.
        OutputError: Kaggle refuses a step, or does not come to an end with it in time.
    """
    pages, message = check_packed(settings.packed), with_origin(settings.message, origin_of(settings.packed))
    client = Client()
    _push_dataset(client, pages.dataset, settings, callback)
    version = client.push_kernel(settings.packed / "kernel")
    callback.on_message(f"notebook {pages.kernel}: version {version} runs")
    status = answer = ""
    if settings.wait or settings.submit:
        status = _wait_for_run(client, pages, version, settings, callback)
    if settings.submit:
        answer = client.submit(pages.competition, pages.kernel, version, message)
    return Pushed(pages=pages, kernel_version=version, kernel_status=status, submitted=answer)


def _push_dataset(client: Client, dataset: str, settings: PushSettings, callback: Callback) -> None:
    folder, before = settings.packed / "dataset", client.dataset_state(dataset)
    if before is None:
        callback.on_message(f"data set {dataset}: uploaded for the first time")
        client.create_dataset(folder)
    else:
        callback.on_message(f"data set {dataset}: version {before.version} is there, uploading the next")
        client.version_dataset(folder, settings.message)
    state = _wait_until_ready(client, dataset, before.version if before else 0, settings)
    callback.on_message(f"data set {dataset}: version {state.version} is ready")


def _wait_until_ready(client: Client, dataset: str, version_before: int, settings: PushSettings) -> DatasetState:
    """Wait for a version after ``version_before``: at first Kaggle may still report that the older one is ready."""
    ends = time.monotonic() + 60 * settings.ready_minutes
    while True:
        state = client.dataset_state(dataset)
        if state is not None and state.version > version_before:
            if state.status == "ready":
                return state
            if state.status in _LOST:
                raise OutputError(f"data set {dataset}", f"is {state.status}", "look at its page on Kaggle, push again")
        if time.monotonic() >= ends:
            seen = state.status if state else "not there"
            what = f"is still not ready after {settings.ready_minutes:g} minutes ({seen})"
            raise OutputError(f"data set {dataset}", what, "wait until its page says so, then push again")
        time.sleep(settings.poll_seconds)


def _wait_for_run(client: Client, pages: Pages, version: int, settings: PushSettings, callback: Callback) -> str:
    known = COMPETITIONS.get(pages.competition)
    minutes = _QUEUE_MINUTES + (known.minutes_limit if known else _LONGEST_RUN_MINUTES)
    ends, status = time.monotonic() + 60 * minutes, ""
    while True:
        state = client.kernel_state(f"{pages.kernel}/{version}")
        if state.status != status:
            status = state.status
            callback.on_message(f"notebook {pages.kernel}: version {version} is {status}")
        if state.status == "complete":
            return state.status
        if state.status in _ENDED_BADLY:
            what = f"version {version} ended with {state.status}" + (f" ({state.failure})" if state.failure else "")
            raise OutputError(f"notebook {pages.kernel}", what, f"see: kaggle kernels logs {pages.kernel}/{version}")
        if time.monotonic() >= ends:
            raise OutputError(f"notebook {pages.kernel}", f"is {status} after {minutes} minutes", "look at its page")
        time.sleep(settings.poll_seconds)
