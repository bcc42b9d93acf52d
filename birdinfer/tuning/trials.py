"""The trials of a study: who trains which, and what each has come to; all that is asked of Optuna but the sampling.

A worker holds a lease on the trial that it trains. A trial whose lease is free although it is not over was interrupted,
or its worker has died: the next worker claims it under its own number and resumes it.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from birdinfer.errors import ConfigError, OutputError
from birdinfer.runs.layout import STUDY_LEASE, trial_lease
from birdinfer.runs.study import State, TrialRecord, cell
from birdinfer.system.locks import Lease
from birdinfer.tuning.sampling import SeededSampler, decoded, distributions, encoded
from birdinfer.tuning.space import Space, Values

PRUNERS = ("halving", "hyperband", "median", "none")
_FACTOR = 3
_EARLIEST_SHARE = 9  # no trial is compared before a ninth of a fold's epochs
_MEDIAN_AFTER = 4  # complete trials that the median needs
_MOST_CRASHES = 1
"""A trial whose worker died is resumed once; one that ends two workers, say because there is no memory, has failed."""
_STUDY_LOCK_SECONDS = 60.0
"""What is done under a lock takes moments: whoever holds it for so long without a touch is dead."""
_WORKER, _DEFAULT, _CRASHES, _PROBLEM = "worker", "is_default", "crashes", "problem"
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps:
    """How far a trial goes: its folds one after another, a step an epoch."""

    per_fold: int
    """Epochs, the most that any trial may have: equal steps of two trials are the same epoch of the same fold."""
    n_folds: int  # of all repeats
    warmup_epochs: float  # in which the learning rate still rises, the most of any trial

    @property
    def first_compared(self) -> int:
        """The first step at which a score says something."""
        warm = math.ceil(self.warmup_epochs) + 1
        return max(1, min(self.per_fold, max(warm, math.ceil(self.per_fold / _EARLIEST_SHARE))))

    @property
    def n(self) -> int:
        """Steps of a whole trial."""
        return self.per_fold * self.n_folds


def build_pruner(name: str, steps: Steps) -> BasePruner:
    """Optuna's pruner of a name; ConfigError for an unknown one."""
    match name:
        case "halving":
            return SuccessiveHalvingPruner(steps.first_compared, _FACTOR)
        case "hyperband":
            with _quiet():
                return HyperbandPruner(steps.first_compared, steps.n, _FACTOR)
        case "median":
            return MedianPruner(_MEDIAN_AFTER, steps.first_compared)
        case "none":
            return NopPruner()
    raise ConfigError("--pruner", f"is {name!r}, allowed are {', '.join(PRUNERS)}")


def study_lock(study_dir: Path) -> Lease:
    """A lock that all workers of a study share, for what only one of them may do at a time."""
    return Lease(study_dir / STUDY_LEASE, _STUDY_LOCK_SECONDS)


_BEGUN = {"running", "interrupted"}


class LeaseLost(Exception):
    """This process was silent for so long that another worker has its trial now."""


class Claimed:
    """A trial that this process trains, until it is released or over."""

    def __init__(self, trial: optuna.Trial, record: TrialRecord, steps: Steps, lease: Lease) -> None:
        self.record, self.trial, self._steps, self._lease = record, trial, steps, lease
        self._known = set(record.curve)

    def report(self, step: int, score: float) -> None:
        """Write down the score after a step, unless it is known already; LeaseLost if another worker has the trial."""
        self.check_ours()
        if step not in self._known:
            self._known.add(step)
            self.trial.report(score, step)

    def should_end(self) -> bool:
        """Whether it lags too far behind other trials; never the recipe itself, which all others are compared with."""
        # At its last step pruning saves nothing, and a complete trial teaches the sampler more than a pruned one.
        is_last = max(self._known, default=0) >= self._steps.n
        return not is_last and self.trial.should_prune() and not self.record.is_default

    def check_ours(self) -> None:
        """Check that this process still has the trial."""
        its = self.trial.study.get_trials(deepcopy=False)[self.record.number]
        if self._lease.is_lost or its.state.is_finished() or its.user_attrs.get(_WORKER) != self.record.worker:
            raise LeaseLost

    def release(self) -> None:
        """Let others claim the trial, if it is not over."""
        self._lease.release()


class Trials:
    """The trials of a study, for one of its workers."""

    def __init__(self, study_dir: Path, study: optuna.Study, space: Space, steps: Steps, n_trials: int) -> None:
        self.study, self._study_dir, self._space, self._steps, self._n_trials = study, study_dir, space, steps, n_trials
        self._distributions = distributions(space)

    def records(self) -> list[TrialRecord]:
        """All trials as they stand, by number."""
        return records_of(self.study, self._space)

    def is_done(self) -> bool:
        """Whether as many trials are finished as were asked for."""
        return sum(record.is_finished for record in self.records()) >= self._n_trials

    def claim(self, worker: str) -> Claimed | None:
        """Claim the next trial, with the study's lock; None while others train all that are left."""
        if self.is_done():
            return None
        for record in self.records():
            if record.state in _BEGUN and (claimed := self._reclaim(record, worker)) is not None:
                return claimed
        if sum(record.is_finished or record.state in _BEGUN for record in self.records()) >= self._n_trials:
            return None
        with _quiet():
            trial = self.study.ask(self._distributions)
        lease = Lease(trial_lease(self._study_dir, trial.number))
        lease.take(wait=True)
        return self._claimed(trial, lease, worker)

    def _reclaim(self, record: TrialRecord, worker: str) -> Claimed | None:
        """Claim a trial that has begun, if no worker has it; one that has ended two workers has failed."""
        lease = Lease(trial_lease(self._study_dir, record.number))
        if not lease.take():
            return None
        trial = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[record.number]._trial_id)
        crashes = record.crashes + (record.state == "running")  # its worker has not released it
        trial.set_user_attr(_CRASHES, crashes)
        if crashes > _MOST_CRASHES:
            trial.set_user_attr(_PROBLEM, "its worker died, as one before did")
            self.study.tell(trial, state=TrialState.FAIL)
            lease.release()
            return None
        with _quiet():
            # A worker that was killed while it claimed the trial may not have drawn all values.
            for key, choice in self._distributions.items():
                trial._suggest(key, choice)
        return self._claimed(trial, lease, worker)

    def _claimed(self, trial: optuna.Trial, lease: Lease, worker: str) -> Claimed:
        trial.set_user_attr(_WORKER, worker)
        return Claimed(trial, self.records()[trial.number], self._steps, lease)

    def finish(self, claimed: Claimed, score: float | None) -> TrialRecord:
        """Write down the score of a trial that was trained to its end; None for one that was pruned."""
        return self._close(claimed, TrialState.PRUNED if score is None else TrialState.COMPLETE, score)

    def fail(self, claimed: Claimed, problem: str) -> TrialRecord:
        """Write down why a trial cannot be trained."""
        claimed.check_ours()
        claimed.trial.set_user_attr(_PROBLEM, problem)
        return self._close(claimed, TrialState.FAIL)

    def release(self, claimed: Claimed) -> None:
        """Let the next worker resume an interrupted trial."""
        claimed.check_ours()
        claimed.trial.set_user_attr(_WORKER, "")
        claimed.release()

    def _close(self, claimed: Claimed, state: TrialState, score: float | None = None) -> TrialRecord:
        claimed.check_ours()
        self.study.tell(claimed.record.number, score, state)
        claimed.release()
        return self.records()[claimed.record.number]


def records_of(study: optuna.Study, space: Space) -> list[TrialRecord]:
    """All trials of a study as they stand, by number."""
    return [_record(trial, space) for trial in study.get_trials(deepcopy=False)]


def queue_default(study: optuna.Study, space: Space, values: Values) -> None:
    """Make the base recipe's own values the first trial."""
    study.enqueue_trial(encoded(space, values), {_DEFAULT: True})


def _record(trial: FrozenTrial, space: Space) -> TrialRecord:
    noted, state = trial.user_attrs, _STATES[trial.state]
    state = "interrupted" if state == "running" and not noted.get(_WORKER) else state
    start = trial.datetime_start
    return TrialRecord(
        number=trial.number,
        state=state,
        score=trial.value if state == "complete" else None,
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        worker=noted.get(_WORKER, ""),
        started="" if start is None else start.isoformat(timespec="seconds"),
        values=decoded(space, trial.params or trial.system_attrs.get("fixed_params", {})),
        curve=dict(sorted(trial.intermediate_values.items())),
        is_default=noted.get(_DEFAULT, False),
        problem=noted.get(_PROBLEM, ""),
        crashes=noted.get(_CRASHES, 0),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: what counts as experimental depends on Optuna's version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- Importance: how much of the score's variance each key explains

FEWEST_TRIALS = 4
_BEST_SHARE, _MOST_SHARE, _BEST_TRIALS = 0.1, 0.5, 5
"""The best tenth is compared with all; of few trials the best five, or half."""


def importance_of(study: optuna.Study, records: Sequence[TrialRecord], keys: Sequence[str]) -> dict[str, float]:
    """Each key's share of 1, the largest first; empty for few complete trials, or if all scores or values are equal."""
    complete = [record for record in records if record.score is not None]
    varied = [key for key in keys if len({cell(record.values[key]) for record in complete}) > 1]
    if len(complete) < FEWEST_TRIALS or not varied or len({record.score for record in complete}) < 2:
        return {}
    share = min(_MOST_SHARE, max(_BEST_SHARE, _BEST_TRIALS / len(complete)))
    with _quiet():
        found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study, params=varied)
    total = math.fsum(found.values())
    if not total > 0 or not math.isfinite(total):
        return {}
    shares = {key: found.get(key, 0.0) / total for key in keys}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


# ---- Storage: a journal that is only ever appended to, or an SQLite file

_FILES = {"journal": "study.journal", "sqlite": "study.db"}
STORAGES = tuple(_FILES)
_NAME = "search"
_BUSY_SECONDS = 60  # how long SQLite waits for another worker


def storage_kind(study_dir: Path) -> str | None:
    """How a study is stored; None if there is none, or nothing in it."""
    for kind, name in _FILES.items():
        with contextlib.suppress(OSError):
            if (study_dir / name).stat().st_size:
                return kind
    return None


def open_study(
    study_dir: Path, kind: str, sampler: SeededSampler | None = None, pruner: BasePruner | None = None
) -> optuna.Study:
    """The study in a folder, empty if there is none yet; higher scores are better. ConfigError for a damaged one."""
    optuna.logging.disable_default_handler()
    path = (study_dir / _FILES[kind]).resolve()
    try:
        with _quiet():
            storage: BaseStorage
            if kind == "journal":
                storage = JournalStorage(_Journal(path))
            else:
                storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}})
            return optuna.create_study(
                storage=storage, sampler=sampler or optuna.samplers.RandomSampler(), pruner=pruner or NopPruner(),
                study_name=_NAME, direction="maximize", load_if_exists=True,
            )  # fmt: skip
    except OutputError:
        raise
    except Exception as error:  # a damaged file makes SQLAlchemy and Optuna raise whatever they meet
        what = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        raise ConfigError(path, what, "it is damaged: search again with another --study") from error


class _Journal(JournalFileBackend):
    """Optuna's journal, locked by a lease; a full disk is an OutputError, and no fault of the trial."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _JournalLock(path))  # type: ignore[arg-type]
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(self._path, f"cannot be written ({error.strerror})") from error


class _JournalLock:
    """All that Optuna asks of a lock. It also removes the line that a power cut has left unfinished."""

    def __init__(self, path: Path) -> None:
        self._journal, self._lease = path, Lease(path.with_name(f"{path.name}.lock"), _STUDY_LOCK_SECONDS)

    def acquire(self) -> bool:
        self._lease.take(wait=True)
        with self._journal.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lease.release()
