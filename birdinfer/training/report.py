"""What a run tells while it works: the Protocol between training, which never prints, and whoever shows it."""

from typing import NamedTuple, Protocol

from birdinfer.training.checkpoint import EpochRow


class FoldStart(NamedTuple):
    """A fold begins, or goes on."""

    fold: int
    n_training: int
    """Clips."""
    n_validation: int
    """Clips."""
    epochs: int
    steps_per_epoch: int
    first_step: int
    """Steps that an earlier, interrupted run has done; 0 for a fresh one."""
    batch_size: int


class FoldResult(NamedTuple):
    """A fold is over."""

    fold: int
    problem: str = ""
    """Why it failed, "" if it did not."""
    macro_auc: float = float("nan")
    """Of its best epoch; nan if it cannot be scored."""
    top1: float = float("nan")
    best_epoch: int = 0
    seconds: float = 0.0


class Reporter(Protocol):
    """Shows a run; every method returns quickly."""

    def start(self, start: FoldStart) -> None:
        """A fold begins."""

    def step(self, steps_done: int, loss: float) -> None:
        """So many steps of the fold are done; ``loss`` is the epoch's mean so far."""

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """An epoch was validated."""

    def message(self, line: str) -> None:
        """Something worth knowing: what was left out, what runs where."""

    def finish(self, result: FoldResult) -> None:
        """A fold is over."""


class Silent:
    """A reporter that shows nothing."""

    def start(self, start: FoldStart) -> None:
        """Nothing."""

    def step(self, steps_done: int, loss: float) -> None:
        """Nothing."""

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """Nothing."""

    def message(self, line: str) -> None:
        """Nothing."""

    def finish(self, result: FoldResult) -> None:
        """Nothing."""
