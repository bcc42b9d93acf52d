"""What a run tells while it works: the Protocol between training, which never prints, and whoever shows it."""

from collections.abc import Iterable
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
    precision: str
    """``fp32``, ``bf16`` or ``fp16``."""


class FoldResult(NamedTuple):
    """A fold is over."""

    fold: int
    problem: str = ""
    """Why it failed, "" if it did not."""
    macro_auc: float = float("nan")
    """Of its best epoch; nan if it cannot be scored."""
    padded_cmap: float = float("nan")
    top1: float = float("nan")
    best_epoch: int = 0
    seconds: float = 0.0
    soup: tuple[int, ...] = ()
    """The epochs that were averaged into what is kept; empty where it is one epoch's."""
    test_macro_auc: float = float("nan")
    """On clips that no fold saw; nan without such clips."""
    test_padded_cmap: float = float("nan")


class Reporter(Protocol):
    """Shows a run; every method returns quickly."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before the first fold: so many of ``total`` clips are searched, decoded or the like."""

    def start(self, start: FoldStart) -> None:
        """A fold begins."""

    def step(self, steps_done: int, loss: float) -> None:
        """So many steps of the fold are done; ``loss`` is the epoch's mean so far."""

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """An epoch was validated."""

    def message(self, line: str) -> None:
        """Something worth knowing: what was left out, what runs where."""

    def complaint(self, line: str) -> None:
        """Something that somebody has to mend; it is shown also where all else is quiet."""

    def finish(self, result: FoldResult) -> None:
        """A fold is over."""


class Silent:
    """A reporter that shows nothing."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def start(self, start: FoldStart) -> None:
        """Nothing."""

    def step(self, steps_done: int, loss: float) -> None:
        """Nothing."""

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """Nothing."""

    def message(self, line: str) -> None:
        """Nothing."""

    def complaint(self, line: str) -> None:
        """Nothing."""

    def finish(self, result: FoldResult) -> None:
        """Nothing."""


class Complaints:
    """Clips that cannot be decoded, each told once."""

    def __init__(self, reporter: Reporter) -> None:
        """Nothing has been told yet."""
        self._reporter = reporter
        self.told: list[str] = []

    def __call__(self, lines: Iterable[str]) -> None:
        """Tell what is new."""
        for line in lines:
            if line not in self.told:
                self.told.append(line)
                self._reporter.message(f"left out, cannot be decoded: {line}")
