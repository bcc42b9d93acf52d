"""How far a training is: a bar in a terminal, plain lines elsewhere; a line for each epoch and each complaint."""

from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinfer.training.checkpoint import EpochRow
    from birdinfer.training.report import FoldResult, FoldStart

_PLAIN_LINE_SECONDS = 10.0


class TrainingProgress:
    """Shows a run on standard error. Use as a context manager."""

    def __init__(self, quiet: bool) -> None:
        """Prepare; nothing but failures and complaints is shown if ``quiet``."""
        from birdinfer.cli.console import stderr

        self._console = stderr()
        self._quiet = quiet
        self._bar: Any = None
        self._preparing = self._auc = ""
        self._last_line = 0.0
        self.run = ""
        """Whose folds are told of, where there are several runs."""

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def preparing(self, what: str, done: int, total: int) -> None:
        """A bar of its own for each thing that is done before the first fold."""
        if what != self._preparing:
            self._preparing = what
            self._open_bar(total, 0, what)
        state = f"{what} {done}/{total}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, state=state)
        else:
            self._now_and_then(lambda: state)
        if done >= total:
            self._stop_bar()

    def start(self, start: "FoldStart") -> None:
        """Open a bar for a fold."""
        self._stop_bar()
        self._start, self._began, self._auc = start, perf_counter(), ""
        resumed = f", resumed at step {start.first_step}" if start.first_step else ""
        self.message(
            f"fold {start.fold}: {start.n_training} clips to train, {start.n_validation} to validate, "
            f"{start.epochs} epochs of {start.steps_per_epoch} steps in {start.precision}{resumed}"
        )
        self._open_bar(start.epochs * start.steps_per_epoch, start.first_step, f"fold {start.fold}")

    def step(self, steps_done: int, loss: float) -> None:
        """Move the bar; without a terminal, a line now and then."""
        done, left = steps_done - self._start.first_step, self._start.epochs * self._start.steps_per_epoch - steps_done
        seconds = max(1e-9, perf_counter() - self._began)
        samples_per_second = done * self._start.batch_size / seconds
        state = f"fold {self._start.fold}, loss {loss:.4f}{self._auc}, {samples_per_second:.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=steps_done, state=state)
        else:
            self._now_and_then(lambda: f"{state}, {left * seconds / max(1, done):.0f} s left")

    def epoch(self, row: "EpochRow", is_best: bool) -> None:
        """A line per epoch."""
        self._auc = f", macro AUC {score_text(row.val_macro_auc)}"
        memory = "" if row.peak_gpu_mb is None else f", {row.peak_gpu_mb / 1000:.1f} GB"
        best = " *" if is_best else ""
        self._print(
            f"epoch {row.epoch:>3}/{self._start.epochs}: loss {row.train_loss:.4f}, validation "
            f"{score_text(row.val_loss)}, macro AUC {score_text(row.val_macro_auc)}, cmAP "
            f"{score_text(row.val_padded_cmap)}, top-1 {score_text(row.val_top1)}, {row.seconds:.1f} s "
            f"({row.wait_share:.0%} waiting for data{memory}){best}"
        )

    def message(self, line: str) -> None:
        """A line."""
        from rich.markup import escape

        self._print(escape(line))

    def complaint(self, line: str) -> None:
        """A line, also where all else is quiet."""
        from rich.markup import escape

        self._console.print(escape(line))

    def finish(self, result: "FoldResult", run: str = "") -> None:
        """Close the fold's bar; a failure is a line of its own, also where all else is quiet.

        Args:
            result: of the fold.
            run: whose fold it is, where it is one of several runs' that are trained at the same time.
        """
        from rich.markup import escape

        self._stop_bar()
        if result.problem:
            whose = f"{escape(run or self.run)}, " if run or self.run else ""
            self._console.print(f"[red]{whose}fold {result.fold} failed:[/] {escape(result.problem)}")

    def _print(self, markup: str) -> None:
        if not self._quiet:
            self._console.print(markup)

    def _now_and_then(self, line: Any) -> None:
        now = perf_counter()
        if not self._quiet and now - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._console.print(line())

    def _open_bar(self, total: int, completed: int, state: str) -> None:
        self._stop_bar()
        if self._console.is_terminal and not self._quiet:
            from birdinfer.cli.console import bar

            self._bar = bar(self._console)
            self._task = self._bar.add_task("", total=total, completed=completed, state=state)
            self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def score_text(value: float | None) -> str:
    """Four digits, or a dash for what cannot be computed."""
    return "-" if value is None else f"{value:.4f}"
