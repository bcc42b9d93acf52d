"""What is known of each trial of a study, as plain values: what tables are made of, and who decides what comes next."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

State = Literal["complete", "pruned", "failed", "interrupted", "running", "waiting"]
"""Failed: it cannot be trained. Interrupted: another trial goes on with it."""


class TrialRecord(NamedTuple):
    """A trial."""

    number: int
    """From 0."""
    state: State
    score: float | None
    """Mean over the folds of each fold's best epoch, 0 to 1; None unless complete."""
    seconds: float | None
    """From its beginning to its end; None while it has none."""
    worker: str
    started: str
    """Local time, to the second; "" before."""
    continues: int | None
    """The trial whose checkpoints it goes on from."""
    values: Mapping[str, Any]
    """Of each searched key; empty before it begins."""
    curve: Mapping[int, float]
    """By step, from 1: the score as far as it was known then."""
    is_default: bool = False
    """Whether it is the base recipe itself."""
    problem: str = ""
    """Why it failed, if it was its own fault."""
    deaths: int = 0
    """Of workers who had these very values before."""

    @property
    def is_finished(self) -> bool:
        """Whether it counts among those that were asked for."""
        return self.state in {"complete", "pruned"}

    @property
    def is_over(self) -> bool:
        """Whether nobody will go on with its run."""
        return self.state not in {"running", "waiting", "interrupted"}


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial of the highest score; of equal ones the recipe itself, else the earliest."""
    complete = [record for record in records if record.score is not None]
    return max(complete, key=lambda record: (record.score or 0.0, record.is_default, -record.number), default=None)


def default_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial of the base recipe, if there is one."""
    return next((record for record in records if record.is_default and record.score is not None), None)
