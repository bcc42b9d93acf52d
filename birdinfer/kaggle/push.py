"""A packed submission -> Kaggle: its data set, then its notebook, and on demand what the notebook wrote.

Comes in: the folder that ``pack`` made. Each step waits for the one before: a notebook that is pushed while its data
set is being unpacked there runs with the older version, or with none. All is checked here first, for an upload takes
long and Kaggle's answer to a mistake is short.
"""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from birdinfer.bundle import Bundle
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.kaggle import client as commands
from birdinfer.kaggle.client import Client, DatasetState
from birdinfer.kaggle.competitions import COMPETITIONS
from birdinfer.kaggle.flat_bundle import not_uploaded
from birdinfer.kaggle.image import kaggle_image
from birdinfer.kaggle.metadata import Pages, read_pages
from birdinfer.kaggle.wheels import foreign_wheels

Tell = Callable[[str], None]

_QUEUE_MINUTES = 60
"""That a run may wait for a machine, beside what the competition allows it."""
_LONGEST_RUN_MINUTES = 720
"""Kaggle's own limit, for a competition that is not known here."""
_LOST = ("failed", "deleted")
_ENDED_BADLY = ("error", "cancel_requested", "cancel_acknowledged")
_REPACK = "pack again"


class PushSettings(NamedTuple):
    """What is to be done, and how patiently."""

    message: str = "birdinfer"
    """Of the data set's version and of the submission."""
    wait: bool = False
    """Wait for the notebook's run, too."""
    submit: bool = False
    """Hand in what the run wrote, once it is complete."""
    poll_seconds: float = 15.0
    """Between two questions."""
    ready_minutes: float = 60.0
    """That the data set may take to become ready."""


class Pushed(NamedTuple):
    """What is on Kaggle now."""

    pages: Pages
    kernel_version: int
    kernel_status: str
    """``complete``, or "" where nobody waited."""
    submitted: str
    """What Kaggle said to the submission; "" where none was made."""


def check_packed(folder: Path) -> Pages:
    """Refuse what would not run on Kaggle, before it is uploaded.

    Returns:
        Where it goes.

    Raises:
        InputNotFoundError: a part of it is missing.
        BundleError: the bundle is damaged.
        ConfigError: it has no account, is not flat, or holds a wheel that Kaggle does not take.
    """
    dataset, kernel = folder / "dataset", folder / "kernel"
    pages = read_pages(dataset, kernel)
    Bundle.load(dataset)
    for name, why in not_uploaded(dataset):
        raise ConfigError(dataset / name, why, _REPACK)
    for path, why in foreign_wheels(dataset, kaggle_image()):
        raise ConfigError(path, why, f"{_REPACK} with --download")
    if not any(dataset.glob("birdinfer-*.whl")):
        raise InputNotFoundError(dataset, "holds no wheel of birdinfer", _REPACK)
    return pages


def push_commands(folder: Path, message: str) -> list[tuple[str, str]]:
    """What :func:`push` does, as commands for a shell, each with what it is for.

    Raises:
        BirdinferError: as :func:`check_packed`.
    """
    pages = check_packed(folder)
    dataset = folder / "dataset"
    listed = [
        (commands.create_dataset_command(dataset), "the first time"),
        (commands.version_dataset_command(dataset, message), "every other time"),
        (commands.dataset_status_command(pages.dataset), "until it says ready"),
        (commands.push_kernel_command(folder / "kernel"), "says the version"),
        (commands.kernel_status_command(pages.kernel), "until it says COMPLETE"),
        (commands.submit_command(pages.competition, pages.kernel, "VERSION", message), "with that version"),
    ]
    return [(shlex.join(command), purpose) for command, purpose in listed]


def push(folder: Path, settings: PushSettings, tell: Tell) -> Pushed:
    """Bring a packed submission to Kaggle.

    Args:
        folder: ``submission/NAME``.
        settings: how far to go.
        tell: gets a line about every step.

    Raises:
        BirdinferError: as :func:`check_packed`.
        MissingExtraError: Kaggle's client is not installed.
        ConfigError: there is no token.
        OutputError: Kaggle refuses a step, or does not come to an end with it in time.
    """
    pages = check_packed(folder)
    client = Client()
    _push_dataset(client, folder / "dataset", pages.dataset, settings, tell)
    version = client.push_kernel(folder / "kernel")
    tell(f"notebook {pages.kernel}: version {version} runs")
    if not (settings.wait or settings.submit):
        return Pushed(pages, version, "", "")
    status = _wait_for_run(client, pages, version, settings, tell)
    said = client.submit(pages.competition, pages.kernel, version, settings.message) if settings.submit else ""
    return Pushed(pages, version, status, said)


def _push_dataset(client: Client, folder: Path, dataset: str, settings: PushSettings, tell: Tell) -> None:
    before = client.dataset_state(dataset)
    if before is None:
        tell(f"data set {dataset}: uploaded for the first time")
        client.create_dataset(folder)
    else:
        tell(f"data set {dataset}: version {before.version} is there, uploading the next")
        client.version_dataset(folder, settings.message)
    state = _wait_until_ready(client, dataset, before.version if before else 0, settings)
    tell(f"data set {dataset}: version {state.version} is ready")


def _wait_until_ready(client: Client, dataset: str, version_before: int, settings: PushSettings) -> DatasetState:
    """Wait for a version after ``version_before``: at first Kaggle may still say that the older one is ready."""
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


def _wait_for_run(client: Client, pages: Pages, version: int, settings: PushSettings, tell: Tell) -> str:
    """Wait until a version's run is complete."""
    known = COMPETITIONS.get(pages.competition)
    minutes = _QUEUE_MINUTES + (known.minutes_limit if known else _LONGEST_RUN_MINUTES)
    ends, told = time.monotonic() + 60 * minutes, ""
    while True:
        state = client.kernel_state(f"{pages.kernel}/{version}")
        if state.status != told:
            told = state.status
            tell(f"notebook {pages.kernel}: version {version} is {told}")
        if state.status == "complete":
            return state.status
        if state.status in _ENDED_BADLY:
            what = f"version {version} ended with {state.status}" + (f" ({state.failure})" if state.failure else "")
            raise OutputError(f"notebook {pages.kernel}", what, f"see: kaggle kernels logs {pages.kernel}/{version}")
        if time.monotonic() >= ends:
            raise OutputError(f"notebook {pages.kernel}", f"is {told} after {minutes} minutes", "look at its page")
        time.sleep(settings.poll_seconds)
