"""How far a search is: a bar of epochs in a terminal, plain lines elsewhere; a line for each trial."""

import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinfer.training.tuning.records import TrialRecord
    from birdinfer.training.tuning.values import Values

_PLAIN_LINE_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_ALL = "trials"
"""The bar of a search by several workers."""


class TuningProgress:
    """Shows a search on standard error. Use as a context manager."""

    def __init__(self, n_trials: int, quiet: bool) -> None:
        """Prepare; nothing is shown if ``quiet``."""
        from birdinfer.cli.console import stderr

        self._console, self._n_trials, self._quiet = stderr(), n_trials, quiet
        self._told: set[str] = set()
        self._bar: Any = None
        self._what = ""
        self._last_line = 0.0

    def __enter__(self) -> "TuningProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def preparing(self, what: str, done: int, total: int) -> None:
        """A bar of its own for each thing that is done before the first trial."""
        self._move(what, f"{what} {done}/{total}", done, total)
        if done >= total:
            self._stop_bar()

    def message(self, line: str) -> None:
        """A line, once: each trial tells the same of its clips again."""
        if line not in self._told:
            self._told.add(line)
            self._print(line)

    def began(self, record: "TrialRecord") -> None:
        """A trial begins: with which values."""
        goes_on = "" if record.continues is None else f", goes on with trial {record.continues}"
        default = " (the recipe itself)" if record.is_default else ""
        self._print(f"trial {record.number}{default}{goes_on}: {values_text(record.values)}")

    def moved(self, number: int, step: int, n_steps: int, score: float | None) -> None:
        """Move the bar; without a terminal, a line now and then."""
        known = "" if score is None else f", score so far {score:.4f}"
        self._move(f"trial {number}", f"trial {number}, epoch {step} of {n_steps}{known}", step, n_steps)

    def ended(self, record: "TrialRecord", records: "Sequence[TrialRecord]") -> None:
        """A line for a trial that is over."""
        if self._what != _ALL:
            self._stop_bar()
        self._print(ended_line(record, records, self._n_trials))

    def counted(self, n_finished: int) -> None:
        """Of a search by several workers: so many trials are finished. Without a bar, each trial's line says so."""
        if self._console.is_terminal:
            self._move(_ALL, f"{n_finished} of {self._n_trials} trials", n_finished, self._n_trials)

    def _print(self, line: str) -> None:
        from birdinfer.cli.console import shown

        if not self._quiet:
            self._console.print(shown(line))

    def _move(self, what: str, state: str, done: int, total: int) -> None:
        if what != self._what:
            self._stop_bar()
            self._what = what
            self._open_bar(total, state)
        now = perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, state=state)
        elif not self._quiet and now - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._print(state)

    def _open_bar(self, total: int, state: str) -> None:
        if self._console.is_terminal and not self._quiet:
            from birdinfer.cli.console import bar

            self._bar = bar(self._console)
            self._task = self._bar.add_task("", total=total, state=state)
            self._bar.start()

    def _stop_bar(self) -> None:
        self._what = ""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lookout:
    """Watches a study that other processes work on: a thread that shows each trial of theirs as it ends."""

    def __init__(self, records: "Callable[[], Sequence[TrialRecord]]", progress: TuningProgress) -> None:
        """Trials that are over by now are not told again."""
        self._records, self._progress = records, progress
        self._known = {record.number for record in records() if _is_told(record)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)

    def __enter__(self) -> "Lookout":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        records = self._records()
        for record in records:
            if record.number not in self._known and _is_told(record):
                self._known.add(record.number)
                self._progress.ended(record, records)
        self._progress.counted(sum(record.is_finished for record in records))


def ended_line(record: "TrialRecord", records: "Sequence[TrialRecord]", n_trials: int) -> str:
    """What became of a trial, and how far the study is then."""
    from birdinfer.training.tuning.records import best_of

    best, n_finished = best_of(records), sum(each.is_finished for each in records)
    seconds = "" if record.seconds is None else f", {record.seconds:.0f} s"
    if record.state == "interrupted":
        return f"trial {record.number}: interrupted{seconds}; it is gone on with as another one"
    if record.state == "failed":
        return f"trial {record.number}: failed, {record.problem}"
    if record.score is None:
        step, score = list(record.curve.items())[-1] if record.curve else (0, float("nan"))
        how = f"given up at epoch {step} with {score:.4f}"
    else:
        how = f"score {record.score:.4f}"
    crown = "" if best is None else ", the best so far" if best.number == record.number else (
        f", best so far {best.score:.4f} of trial {best.number}"
    )  # fmt: skip
    return f"trial {record.number}: {how}{crown}{seconds}; {n_finished} of {n_trials}"


def values_text(values: "Values") -> str:
    """``optim.lr=0.00213 loop.batch_size=16``."""
    return " ".join(f"{key}={value_text(value)}" for key, value in values.items())


def value_text(value: object) -> str:
    """A value for the screen: four digits of a number, all else as a table has it."""
    from birdinfer.training.tuning.values import cell

    return f"{value:.4g}" if isinstance(value, float) else cell(value)


def _is_told(record: "TrialRecord") -> bool:
    return record.state not in {"running", "waiting"}
