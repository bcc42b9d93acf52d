"""logs/fold0.log of a run: what is reported of a fold, line by line with its time, whether or not a screen shows it.

The lines of one epoch, of a start and of a result are made here, for the screen as well.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from birdinfer.runs.layout import LOGS_DIR
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback

if TYPE_CHECKING:  # the command line makes lines, and must not load torch for that
    from birdinfer.training.checkpoint import EpochRow


def start_line(start: FoldStart) -> str:
    """What a fold starts with."""
    resumed = f", resumed at step {start.first_step}" if start.first_step else ""
    size = f", {start.n_parameters / 1e6:.2f} M parameters" if start.n_parameters else ""
    return (
        f"fold {start.fold}: {start.n_training} clips to train, {start.n_validation} to validate, "
        f"{start.epochs} epochs of {start.steps_per_epoch} steps in {start.precision}{size}{resumed}"
    )


def epoch_line(row: "EpochRow", epochs: int, is_best: bool) -> str:
    """An epoch: losses, scores, learning rate, time and memory; a star if its weights are kept."""
    memory = "" if row.rss_mb is None else f", {row.rss_mb / 1000:.1f} GB"
    memory += "" if row.peak_gpu_mb is None else f", GPU {row.peak_gpu_mb / 1000:.1f} GB"
    f1 = "" if row.val_f1 is None else f", F1 {row.val_f1:.4f}"
    return (
        f"epoch {row.epoch:>3}/{epochs}: loss {row.train_loss:.4f}, validation "
        f"{score_text(row.val_loss)}, macro AUC {score_text(row.val_macro_auc)}, cmAP "
        f"{score_text(row.val_padded_cmap)}, top-1 {score_text(row.val_top1)}{f1}, lr {row.lr:.2g}, "
        f"{row.seconds:.1f} s ({row.wait_share:.0%} waiting for data{memory}){' *' if is_best else ''}"
    )


def result_line(result: FoldResult) -> str:
    """What the weights that were kept are worth."""
    kept = f"a soup of epochs {', '.join(map(str, result.soup))}" if result.soup else f"best epoch {result.best_epoch}"
    test = "" if math.isnan(result.test_macro_auc) else f", on test clips macro AUC {result.test_macro_auc:.4f}"
    auc, cmap, top1 = map(score_text, (result.macro_auc, result.padded_cmap, result.top1))
    return f"macro AUC {auc}, cmAP {cmap}, top-1 {top1}, {kept}{test}, {result.seconds:.0f} s"


def score_text(value: float | None) -> str:
    """Four digits, or a dash for what cannot be computed."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


@contextmanager
def logged(run_dir: Path, callback: TrainingCallback) -> Iterator[TrainingCallback]:
    """Write what a callback receives into the run's logs, too; a log that cannot be written stops no training."""
    log = _LogCallback(run_dir, callback)
    try:
        yield log
    except BaseException as error:
        log.end(f"ended with {type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))
        raise
    log.end("")


class _LogCallback(TrainingCallback):
    """Writes lines into the log of the fold that is trained, and passes everything on.

    What is reported between two folds, as of the data, stands at the beginning of the next one's log.
    """

    def __init__(self, run_dir: Path, callback: TrainingCallback) -> None:
        self._folder, self._callback = run_dir / LOGS_DIR, callback
        self._file: TextIO | None = None
        self._waiting: list[str] = []
        self._epochs = 0
        for name in ("on_progress", "on_step"):
            setattr(self, name, getattr(callback, name))

    def on_message(self, line: str) -> None:
        self._write(line)
        self._callback.on_message(line)

    def on_warning(self, line: str) -> None:
        self._write(f"warning: {line}")
        self._callback.on_warning(line)

    def on_fold_start(self, start: FoldStart) -> None:
        self._open(start.fold)
        self._epochs = start.epochs
        self._write(start_line(start))
        self._callback.on_fold_start(start)

    def on_epoch_end(self, row: "EpochRow", is_best: bool) -> None:
        self._write(epoch_line(row, self._epochs, is_best))
        self._callback.on_epoch_end(row, is_best)

    def on_fold_end(self, result: FoldResult, run: str = "") -> None:
        if self._file is None and result.problem:
            self._open(result.fold)
        self._write(f"failed: {result.problem}" if result.problem else result_line(result))
        self.end("")
        self._callback.on_fold_end(result, run)

    def end(self, line: str) -> None:
        """Write a last line, if there is one, and close the fold's log."""
        if self._file is not None:
            if line:
                self._write(line)
            with suppress(OSError):
                self._file.close()
        self._file, self._waiting = None, []

    def _open(self, fold: int) -> None:
        waiting = self._waiting
        self.end("")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"fold{fold}.log"
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        for line in waiting:
            self._write_stamped(line)

    def _write(self, line: str) -> None:
        stamped = f"{datetime.now().isoformat(' ', 'seconds')} {line}"
        if self._file is None:
            self._waiting.append(stamped)
        else:
            self._write_stamped(stamped)

    def _write_stamped(self, line: str) -> None:
        with suppress(OSError, ValueError):
            if self._file is not None:
                self._file.write(f"{line}\n")
                self._file.flush()
