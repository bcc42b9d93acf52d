"""Records a training in TensorBoard, W&B, MLflow or Neptune: a callback in front of the one that shows the training.

Trackers are subordinate: whatever one of them does, the training continues and ends with the same bits; the failure is
one warning, and that tracker is not called again in this run.
"""

import contextlib
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, TypeVar, cast

import msgspec

from birdinfer.errors import BirdinferError, ConfigError, MetadataError, printable
from birdinfer.runs.layout import BEST, LAST, TRIALS_DIR, fold_dir
from birdinfer.system.files import write_atomic
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EMA, MODEL, EpochRow, load_checkpoint, load_header, versions
from birdinfer.training.fold import CLASSES, HISTORY
from birdinfer.training.recipe.schema import Recipe, flatten
from birdinfer.training.tracking.base import Ended, FoldRecord, Outcome, Parameter, Tracker
from birdinfer.training.tracking.mlflow import MLflow
from birdinfer.training.tracking.neptune import Neptune
from birdinfer.training.tracking.tensorboard import TensorBoard
from birdinfer.training.tracking.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "neptune": Neptune
}  # fmt: skip
TRACKING_DIR = "tracking"
_FAREWELL_SECONDS = 20.0
"""Four trackers that hang leave a job on a cluster time to be requeued, of the two minutes that it has."""
T = TypeVar("T")


@contextmanager
def tracked(recipe: Recipe, data_dir: Path, run_dir: Path, callback: TrainingCallback) -> Iterator[TrainingCallback]:
    """Put the recipe's trackers in front of a callback, which receives everything, and a warning for one that fails."""
    if not recipe.tracking.trackers:
        yield callback
        return
    tracking = TrackingCallback(recipe, data_dir, run_dir, callback)
    try:
        yield tracking
    except Exception:
        tracking.close("failed")
        raise
    except BaseException:
        tracking.close("interrupted")
        raise
    tracking.close("finished")


class TrackingCallback(TrainingCallback):
    """Records each fold with the recipe's trackers, and passes everything on."""

    def __init__(self, recipe: Recipe, data_dir: Path, run_dir: Path, callback: TrainingCallback) -> None:
        self._recipe, self._data_dir, self._run_dir, self._callback = recipe, data_dir, run_dir, callback
        own = run_dir.resolve()
        study_dir = own.parents[1] if own.parent.name == TRIALS_DIR else None
        self._labels = (study_dir.name, own.name) if study_dir else (own.name,)
        self._folder = Path(recipe.tracking.folder) if recipe.tracking.folder else (study_dir or own) / TRACKING_DIR
        self._given_up: set[str] = set()
        self._records: FoldRecords | None = None
        self._fold = 0
        for name in ("on_message", "on_warning", "on_progress", "on_step"):
            setattr(self, name, getattr(callback, name))

    def on_fold_start(self, start: FoldStart) -> None:
        self._callback.on_fold_start(start)
        self._fold = start.fold
        self._records = self._opened(start.fold, start, self._states(start.fold))

    def on_epoch_end(self, row: EpochRow, is_best: bool) -> None:
        if self._records is not None:
            self._records.epochs([row])
            if self._recipe.tracking.histograms:
                self._records.histograms(row.epoch, partial(self._weights, fold_dir(self._run_dir, self._fold)))
        try:
            self._callback.on_epoch_end(row, is_best)
        except Exception:  # a search's: the trial is pruned
            self.close("stopped")
            raise

    def on_fold_end(self, result: FoldResult, run: str = "") -> None:
        if result.problem:
            self.close("failed")
        else:
            self._finish(result)
        self._records = None
        self._callback.on_fold_end(result, run)

    def close(self, ended: Ended) -> None:
        if self._records is not None:
            self._records.close(ended)

    def _finish(self, result: FoldResult) -> None:
        if self._records is None:
            states = self._states(result.fold)
            done = {name for name, state in states.items() if state.is_finished}
            self._records = self._opened(result.fold, None, states, done)
        if not self._records.is_open:
            return
        config, folder = self._recipe.tracking, fold_dir(self._run_dir, result.fold)
        checkpoint = folder / BEST if config.checkpoint and (folder / BEST).is_file() else None
        title = f"{self._labels[-1]} fold {result.fold}" if config.pictures else ""
        figures = _numbers(asdict(result), without="fold", prefix="final_")
        with pictures_of(folder, title) as pictures:
            self._records.finish(Outcome(figures, pictures, checkpoint))

    def _opened(
        self, fold: int, start: FoldStart | None, states: Mapping[str, "TrackerState"], done: Collection[str] = ()
    ) -> "FoldRecords":
        config, history = self._recipe.tracking, self._history(fold)
        records = FoldRecords(fold_dir(self._run_dir, fold) / STATES_FILE, states, self._give_up)
        for name in config.trackers:
            if name not in self._given_up and name not in done:
                record = FoldRecord(
                    fold=fold, labels=self._labels, folder=(self._folder / name).resolve(), project=config.project,
                    parameters=parameters(self._recipe, self._data_dir, fold, start),
                    is_online=config.mode == "online", wait_seconds=config.wait_seconds,
                )  # fmt: skip
                records.start(name, TRACKERS[name](), record, len(history))
        records.epochs(history)
        return records

    @staticmethod
    def _weights(fold_dir: Path) -> dict[str, Any]:
        """What the fold has saved of the layers that multiply, as arrays, by their names."""
        checkpoint = load_checkpoint(fold_dir / LAST)
        weights = checkpoint.weights(EMA) or checkpoint.weights(MODEL)
        return {name: each.float().numpy() for name, each in weights.items() if each.ndim > 1}

    def _history(self, fold: int) -> list[EpochRow]:
        """The epochs that the fold has done, by its checkpoint: history.csv may be an epoch ahead."""
        path = fold_dir(self._run_dir, fold) / LAST
        try:
            return load_header(path).progress.history if path.is_file() else []
        except BirdinferError:  # the training, which needs it, reports that
            return []

    def _states(self, fold: int) -> dict[str, "TrackerState"]:
        try:
            return read_states(fold_dir(self._run_dir, fold) / STATES_FILE)
        except MetadataError as error:
            self._callback.on_warning(str(error))
            return {}

    def _give_up(self, name: str, line: str) -> None:
        self._given_up.add(name)
        self._callback.on_warning(line)


# ---- What trackers log: names and numbers, flat. A value that could not be computed is left out


def parameters(recipe: Recipe, data_dir: Path, fold: int, start: FoldStart | None) -> dict[str, Parameter]:
    """The recipe, flattened, and what else explains a fold; a list is JSON, which every tracker can store.

    ``start`` is None for a fold that is finished already.
    """
    facts: dict[str, object] = {"fold": fold, "data_dir": str(data_dir.resolve())}
    facts |= {f"versions.{name}": version for name, version in versions().items()}
    if start is not None:
        sizes = {"n_training_clips": start.n_training, "n_validation_clips": start.n_validation}
        facts |= sizes | {"steps_per_epoch": start.steps_per_epoch, "precision": start.precision}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in (flatten(recipe) | facts).items()
    }


def _numbers(values: Mapping[str, object], without: str, prefix: str = "") -> dict[str, float]:
    return {
        prefix + name: float(value)
        for name, value in values.items()
        if name != without and isinstance(value, int | float) and math.isfinite(value)
    }


@contextmanager
def pictures_of(fold_dir: Path, title: str) -> Iterator[list[Path]]:
    """Draw a fold's history and the species that it recognises, in a folder that is removed afterwards.

    Without a title there are no pictures; fewer or none, too, without matplotlib or where they cannot be drawn: a
    picture is never worth a failure.
    """
    with contextlib.ExitStack() as open_folders:
        pictures: list[Path] = []
        with contextlib.suppress(Exception):
            if title:
                folder = open_folders.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
                pictures = _drawn(fold_dir, Path(folder) / title)
        yield pictures


def _drawn(fold_dir: Path, alone: Path) -> list[Path]:
    """A run's pictures show all of its folds: this one becomes a run of one fold."""
    from birdinfer.plots.training import draw_run

    (alone / fold_dir.name).mkdir(parents=True)
    for name in (HISTORY, CLASSES):
        if (fold_dir / name).is_file():
            shutil.copy(fold_dir / name, alone / fold_dir.name)
    return draw_run(alone)


# ---- The records of one fold. Its tracking.json says which record of a tracker it is, and what was logged in it

STATES_FILE = "tracking.json"
RunId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]


class TrackerState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tracker's record of the fold, and whether the fold's result was logged."""

    run_id: RunId
    epochs_logged: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    is_finished: bool = False


def read_states(path: Path) -> dict[str, TrackerState]:
    """States by tracker; empty if there are none yet; MetadataError for a damaged file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, TrackerState])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError, RecursionError) as error:
        what = f"cannot be used ({error}), trackers begin new records"
        raise MetadataError(path, what, "delete the earlier records") from error


def write_states(path: Path, states: Mapping[str, TrackerState]) -> None:
    """Replace the states."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(states)) + b"\n")


class FoldRecords:
    """The open records of one fold."""

    def __init__(self, path: Path, states: Mapping[str, TrackerState], give_up: Callable[[str, str], None]) -> None:
        """``path`` is that of tracking.json; ``give_up`` receives a tracker that failed, and the line about it."""
        self._path, self._states, self._give_up = path, dict(states), give_up
        self._open: dict[str, tuple[Tracker, FoldRecord]] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def start(self, name: str, tracker: Tracker, record: FoldRecord, n_validated: int) -> None:
        """Open a tracker's record, the earlier one if there is one; the fold has done ``n_validated`` epochs."""
        state = self._states.get(name)
        # A fold with fewer epochs than were logged was started again from nothing.
        known = state if state is not None and state.epochs_logged <= n_validated else None

        def start(name: str) -> None:
            run_id, n_logged = (known.run_id, known.epochs_logged) if known else ("", 0)
            opened = tracker.start(record, run_id, n_logged)
            self._save(name, known if known is not None and opened == run_id else TrackerState(opened))

        self._open[name] = tracker, record
        self._call([name], start)

    def epochs(self, rows: Sequence[EpochRow]) -> None:
        """Log epochs, in each tracker those that it does not have."""

        def log(name: str) -> None:
            for row in rows:
                if row.epoch > self._states[name].epochs_logged:
                    metrics = _numbers(msgspec.structs.asdict(row), without="epoch")
                    self._open[name][0].epoch(row.epoch, metrics)
                    self._save(name, msgspec.structs.replace(self._states[name], epochs_logged=row.epoch))

        self._call(self._open, log)

    def histograms(self, epoch: int, weights: Callable[[], Mapping[str, Any]]) -> None:
        """Log an epoch's weights in the trackers that show how numbers are distributed: TensorBoard."""
        names = [name for name, (tracker, _) in self._open.items() if isinstance(tracker, TensorBoard)]
        self._call(names, lambda name: cast(TensorBoard, self._open[name][0]).histograms(epoch, weights()))

    def finish(self, outcome: Outcome) -> None:
        """Log the fold's result, and close."""

        def log(name: str) -> None:
            self._open[name][0].finish(outcome)
            self._save(name, msgspec.structs.replace(self._states[name], is_finished=True))

        self._call(self._open, log)
        self.close("finished")

    def close(self, ended: Ended) -> None:
        """Close what is open; an interrupted training does not wait long for it."""
        longest = _FAREWELL_SECONDS if ended == "interrupted" else math.inf
        self._call(self._open, lambda name: self._open[name][0].close(ended), longest)
        self._open.clear()

    def _save(self, name: str, state: TrackerState) -> None:
        self._states[name] = state
        write_states(self._path, self._states)

    def _call(self, names: Iterable[str], method: Callable[[str], None], longest: float = math.inf) -> None:
        for name in list(names):
            try:
                call_with_timeout(min(self._open[name][1].wait_seconds, longest), partial(method, name))
            except Exception as error:  # a client may raise anything
                del self._open[name]
                self._give_up(name, failure_line(name, error))


# ---- What a client raises, prints or hangs at does not reach the training

_LONGEST = 200
_ORNAMENTS = re.compile(r"\x1b\[[0-9;]*m|-{4,}|={4,}")
"""Colours and rules, which some clients put into their exceptions."""


def call_with_timeout(seconds: float, call: Callable[[], T]) -> T:
    """Make a call in a thread of its own, and wait for it no longer than this; then it is a ConfigError.

    A thread that gives no answer is left alone; it keeps no process from ending. The screen belongs to the command:
    what a client prints meanwhile is dropped, as are the tracebacks of its threads. What the call raises is raised, but
    SystemExit and its like as RuntimeError, for a client may not end a training.
    """
    answers: list[T] = []
    errors: list[Exception] = [RuntimeError("it ended without an answer")]

    def work() -> None:
        try:
            answers.append(call())
        except Exception as error:  # a client's own: they have no common type
            errors.append(error)
        except BaseException as error:
            errors.append(RuntimeError(f"{type(error).__name__} {error}"))

    thread = Thread(target=work, daemon=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        thread.start()
        thread.join(seconds)
    if thread.is_alive():
        raise ConfigError("tracking.wait_seconds", f"no answer within {seconds:g} s", "raise it, or track offline")
    if not answers:
        raise errors[-1]
    return answers[0]


def failure_line(tracker: str, error: Exception) -> str:
    """The line about a tracker that failed: which one, why, and what to do."""
    if isinstance(error, BirdinferError):
        why = str(error)
    else:
        text = " ".join(printable(_ORNAMENTS.sub(" ", str(error))).split())
        short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        why = f"{type(error).__name__}: {short} - mend it and --resume, or take it out of tracking.trackers"
    return f"tracker {tracker} is given up, the training continues: {why}"
