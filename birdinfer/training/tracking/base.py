"""What a tracker is, what it logs of a fold, and how its client is imported."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from birdinfer.errors import MissingExtraError

Parameter = bool | int | float | str
Ended = Literal["finished", "stopped", "failed", "interrupted"]  # ``stopped``: a search has ended the trial early


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldRecord:
    """What a tracker knows of a fold."""

    fold: int
    labels: tuple[str, ...]
    """Name of the run; of a search's trial, name of the search and of the trial. The first one groups."""
    parameters: Mapping[str, Parameter]  # the recipe, flattened, and what else decided: fold, data, versions
    folder: Path  # where this tracker writes, an absolute path; it may not exist yet
    project: str
    is_online: bool
    wait_seconds: float  # the longest wait for a call of the tracker

    @property
    def title(self) -> str:
        return " ".join((*self.labels, f"fold {self.fold}"))


class Outcome(NamedTuple):
    """A finished fold: the scores of its kept weights, PNG files that are gone afterwards, the checkpoint."""

    figures: Mapping[str, float]
    pictures: Sequence[Path]
    checkpoint: Path | None


class Tracker(Protocol):
    """A record of one fold. A method may raise anything; what it was given is safe from a kill once it returns."""

    def start(self, record: FoldRecord, run_id: str, epochs_logged: int) -> str:
        """Open a new record, or that of ``run_id``, which has ``epochs_logged``; later ones are logged again.

        Returns the id of the record; if it is not ``run_id``, which could not be found, all epochs are logged again.
        """

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch, from 1."""

    def finish(self, outcome: Outcome) -> None:
        """Log a finished fold's result."""

    def close(self, ended: Ended) -> None:
        """Close the record, for now or for ever."""


def client(module: str, extra: str, silenced: str = "") -> Any:
    """Import a client's module, without the deprecation warning, about others' code, that begins like ``silenced``.

    MissingExtraError names birdinfer's extra that brings it.
    """
    with warnings.catch_warnings():
        if silenced:
            warnings.filterwarnings("ignore", silenced, DeprecationWarning)
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or module, extra) from error
