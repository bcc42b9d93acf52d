"""What a tracker is: a Protocol, what it is told of a fold, and how its client is imported."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from birdinfer.errors import MissingExtraError

Parameter = bool | int | float | str
Ended = Literal["finished", "stopped", "failed", "interrupted"]
"""``stopped``: whoever watches the fold gave it up early, as a search does with trials that lag behind."""

TRIALS_DIR = "trials"
"""Runs in a folder of this name are a search's trials, which share a record's group and folder."""


class FoldRecord(NamedTuple):
    """A fold as its trackers know it."""

    fold: int
    labels: tuple[str, ...]
    """Name of the run; of a search's trial, name of the search and of the trial. The first one groups."""
    parameters: Mapping[str, Parameter]
    """The recipe, flattened, and what else decided: fold, data, versions."""
    folder: Path
    """Where this tracker writes, an absolute path; it may not exist yet."""
    project: str
    is_online: bool
    wait_seconds: float
    """After this time nobody waits for the tracker any more."""

    @property
    def title(self) -> str:
        """What a person calls it."""
        return " ".join((*self.labels, f"fold {self.fold}"))


class Outcome(NamedTuple):
    """What a finished fold leaves."""

    figures: Mapping[str, float]
    """What its kept weights are worth: ``final_macro_auc`` ..."""
    pictures: Sequence[Path]
    """PNG files that are gone afterwards."""
    checkpoint: Path | None
    """None where the recipe asks for no copy."""


class Tracker(Protocol):
    """A record of one fold. A method may raise anything; what it was given is safe from a kill once it returns."""

    def start(self, record: FoldRecord, run_id: str, epochs_told: int) -> str:
        """Open a record, or an earlier one again.

        Args:
            record: what to record.
            run_id: of the record to go on with, "" for a new one.
            epochs_told: epochs that the earlier one has been told; later ones are told again.

        Returns:
            The id of the record; another than ``run_id`` where that is not to be found, and all epochs are told anew.
        """

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch, from 1, was validated."""

    def finish(self, outcome: Outcome) -> None:
        """The fold is trained."""

    def close(self, ended: Ended) -> None:
        """Nothing more will come for now."""


def client(module: str, extra: str, silenced: str = "") -> Any:
    """Import a client's module.

    Args:
        module: its full name.
        extra: birdinfer's extra that brings it.
        silenced: start of a deprecation warning that importing it gives, about others' code.

    Raises:
        MissingExtraError: it is not installed.
    """
    with warnings.catch_warnings():
        if silenced:
            warnings.filterwarnings("ignore", silenced, DeprecationWarning)
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or module, extra) from error
