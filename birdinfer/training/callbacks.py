"""What training reports while it runs. Training itself never prints; `cli/progress.py` and the trackers extend this."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from birdinfer.callbacks import Callback

if TYPE_CHECKING:  # the command line extends the callback, and must not load torch for that
    from birdinfer.training.checkpoint import EpochRow


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldStart:
    """What is known of a fold when its training starts, or resumes."""

    fold: int
    n_training: int
    """Clips."""
    n_validation: int
    """Clips."""
    epochs: int
    steps_per_epoch: int
    first_step: int
    """Steps that an earlier, interrupted run has done; 0 for a new fold."""
    batch_size: int
    precision: str
    """``fp32``, ``bf16`` or ``fp16``."""
    n_parameters: int = 0
    """Numbers that the network learns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldResult:
    """What a fold has come to."""

    fold: int
    problem: str = ""
    """Why it failed, "" if it did not."""
    macro_auc: float = float("nan")
    """Of its best epoch; nan if it cannot be scored."""
    score: float = float("nan")
    """By which the best epoch was chosen (``loop.monitor``), higher is better: of a loss with a minus sign."""
    padded_cmap: float = float("nan")
    top1: float = float("nan")
    best_epoch: int = 0
    train_loss: float = float("nan")
    """Of its best epoch; so is ``val_loss``."""
    val_loss: float = float("nan")
    seconds: float = 0.0
    soup: tuple[int, ...] = ()
    """The epochs that were averaged into what is kept; empty where it is one epoch's."""
    test_macro_auc: float = float("nan")
    """On clips that no fold saw; nan without such clips."""
    test_padded_cmap: float = float("nan")


class TrainingCallback(Callback):
    """Receive what training reports; each method must return quickly.

    >>> class Losses(TrainingCallback):
    ...     def on_epoch_end(self, row, is_best):
    ...         print(row.epoch, row.train_loss)
    """

    def on_fold_start(self, start: FoldStart) -> None:
        """Report that a fold starts, or resumes."""

    def on_step(self, steps_done: int, loss: float) -> None:
        """Report how many steps of the fold are done; ``loss`` is the epoch's mean so far."""

    def on_epoch_end(self, row: "EpochRow", is_best: bool) -> None:
        """Report a validated epoch; ``is_best`` if its weights are kept."""

    def on_fold_end(self, result: FoldResult, run: str = "") -> None:
        """Report a fold's result.

        Args:
            result: the fold's.
            run: the run's name, where folds of several runs are trained at the same time.
        """

    def of_fold(self, name: str) -> "TrainingCallback":
        """Choose what receives the events of one of several folds that are trained at the same time.

        Args:
            name: of the fold, as ``fold0``.

        Returns:
            This callback itself, unless it is overridden.
        """
        return self


SILENT = TrainingCallback()
"""Shows nothing."""
