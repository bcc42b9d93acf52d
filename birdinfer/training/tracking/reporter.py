"""Between a training and whoever shows it: passes on what is told, and lets trackers keep a record of it.

Trackers are subordinate. Whatever one of them does, the run goes on and ends with the same bits; it is told about in
one line, and called no more in this run.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from birdinfer.errors import BirdinferError, MetadataError
from birdinfer.training.checkpoint import EpochRow, load_header
from birdinfer.training.fold_job import BEST, LAST, fold_dir
from birdinfer.training.recipe import Recipe
from birdinfer.training.report import FoldResult, FoldStart, Reporter
from birdinfer.training.tracking.contents import final_figures, parameters
from birdinfer.training.tracking.fold_records import FoldRecords
from birdinfer.training.tracking.mlflow import MLflow
from birdinfer.training.tracking.neptune import Neptune
from birdinfer.training.tracking.notes import NOTES, Note, read_notes
from birdinfer.training.tracking.pictures import pictures_of
from birdinfer.training.tracking.tensorboard import TensorBoard
from birdinfer.training.tracking.tracker import TRIALS_DIR, Ended, FoldRecord, Outcome, Tracker
from birdinfer.training.tracking.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "neptune": Neptune
}  # fmt: skip
TRACKING_DIR = "tracking"


@contextmanager
def tracked(recipe: Recipe, data_dir: Path, run_dir: Path, reporter: Reporter) -> Iterator[Reporter]:
    """While entered, what the yielded reporter is told is recorded by the recipe's trackers, too.

    Args:
        recipe: the run's.
        data_dir: where its clips are.
        run_dir: where it is written.
        reporter: who shows it; is told of trackers that fail.
    """
    if not recipe.tracking.trackers:
        yield reporter
        return
    tracking = TrackedReporter(recipe, data_dir, run_dir, reporter)
    try:
        yield tracking
    except Exception:
        tracking.close("failed")
        raise
    except BaseException:
        tracking.close("interrupted")
        raise
    tracking.close("finished")


class TrackedReporter:
    """A reporter that has trackers listen."""

    def __init__(self, recipe: Recipe, data_dir: Path, run_dir: Path, reporter: Reporter) -> None:
        """Nothing is recorded yet; arguments of :func:`tracked`."""
        self._recipe, self._data_dir, self._run_dir, self._reporter = recipe, data_dir, run_dir, reporter
        self._given_up: set[str] = set()
        self._records: FoldRecords | None = None

    def preparing(self, what: str, done: int, total: int) -> None:
        """Pass on."""
        self._reporter.preparing(what, done, total)

    def start(self, start: FoldStart) -> None:
        """Open the fold's records, and tell them what an interrupted run did not."""
        self._reporter.start(start)
        self._records = self._opened(start.fold, start, self._notes(start.fold))

    def step(self, steps_done: int, loss: float) -> None:
        """Pass on."""
        self._reporter.step(steps_done, loss)

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """Record first: whoever shows it may end the training here."""
        if self._records is not None:
            self._records.epochs([row])
        try:
            self._reporter.epoch(row, is_best)
        except Exception:  # a search's: the trial is not worth its end
            self.close("stopped")
            raise

    def message(self, line: str) -> None:
        """Pass on."""
        self._reporter.message(line)

    def complaint(self, line: str) -> None:
        """Pass on."""
        self._reporter.complaint(line)

    def finish(self, result: FoldResult) -> None:
        """Record what the fold is worth, also of a fold that was finished before anybody recorded that."""
        if result.problem:
            self.close("failed")
        else:
            self._finish(result)
        self._records = None
        self._reporter.finish(result)

    def close(self, ended: Ended) -> None:
        """Close the records of a fold that is broken off."""
        if self._records is not None:
            self._records.close(ended)

    def _finish(self, result: FoldResult) -> None:
        if self._records is None:
            notes = self._notes(result.fold)
            done = {name for name, note in notes.items() if note.is_finished}
            self._records = self._opened(result.fold, None, notes, done)
        if not self._records.is_open:
            return
        config, folder = self._recipe.tracking, fold_dir(self._run_dir, result.fold)
        checkpoint = folder / BEST if config.checkpoint and (folder / BEST).is_file() else None
        title = f"{self._labels[-1]} fold {result.fold}"
        drawn: AbstractContextManager[list[Path]] = pictures_of(folder, title) if config.pictures else nullcontext([])
        with drawn as pictures:
            self._records.finish(Outcome(final_figures(result), pictures, checkpoint))

    def _opened(
        self,
        fold: int,
        start: FoldStart | None,
        notes: dict[str, Note],
        without: frozenset[str] | set[str] = frozenset(),
    ) -> FoldRecords:
        history = self._history(fold)
        records = FoldRecords(fold_dir(self._run_dir, fold) / NOTES, notes, self._give_up)
        for name in self._recipe.tracking.trackers:
            if name not in self._given_up | without:
                records.start(name, TRACKERS[name](), self._record(name, fold, start), len(history))
        records.epochs(history)
        return records

    def _record(self, name: str, fold: int, start: FoldStart | None) -> FoldRecord:
        config = self._recipe.tracking
        return FoldRecord(
            fold,
            self._labels,
            parameters(self._recipe, self._data_dir, fold, start),
            (self._folder / name).resolve(),
            config.project,
            config.mode == "online",
            config.wait_seconds,
        )

    @property
    def _is_trial(self) -> bool:
        return self._run_dir.resolve().parent.name == TRIALS_DIR

    @property
    def _labels(self) -> tuple[str, ...]:
        run_dir = self._run_dir.resolve()
        return (run_dir.parents[1].name, run_dir.name) if self._is_trial else (run_dir.name,)

    @property
    def _folder(self) -> Path:
        if self._recipe.tracking.folder:
            return Path(self._recipe.tracking.folder)
        run_dir = self._run_dir.resolve()
        return (run_dir.parents[1] if self._is_trial else run_dir) / TRACKING_DIR

    def _history(self, fold: int) -> list[EpochRow]:
        """The epochs that the fold has behind it. Not of history.csv, which may be an epoch ahead of the state."""
        path = fold_dir(self._run_dir, fold) / LAST
        try:
            return load_header(path).progress.history if path.is_file() else []
        except BirdinferError:  # the training, which needs it, says so
            return []

    def _notes(self, fold: int) -> dict[str, Note]:
        try:
            return read_notes(fold_dir(self._run_dir, fold) / NOTES)
        except MetadataError as error:
            self._reporter.complaint(str(error))
            return {}

    def _give_up(self, name: str, line: str) -> None:
        self._given_up.add(name)
        self._reporter.complaint(line)
