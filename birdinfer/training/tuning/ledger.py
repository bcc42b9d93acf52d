"""Who is at which trial, and how each went: the one room that speaks with Optuna about trials.

Every method that changes something is called under the study's lock (``lock.py``). A trial that was interrupted, or
whose worker has died, is closed and its values are queued as another one, which goes on with its run.
"""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from birdinfer.training.tuning.alive import Alive
from birdinfer.training.tuning.pruning import Steps, build_pruner
from birdinfer.training.tuning.records import State, TrialRecord
from birdinfer.training.tuning.sampling import SeededSampler, decoded, distributions, encoded
from birdinfer.training.tuning.space import Space
from birdinfer.training.tuning.values import Values

_WORKER, _CONTINUES, _DEFAULT, _DEATHS = "worker", "continues", "is_default", "deaths"
_PUT_BACK, _PROBLEM = "put_back", "problem"
_MOST_DEATHS = 1
"""Values at which a worker died are tried once more; who kills two workers, say for want of memory, is left alone."""
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class TakenOver(Exception):
    """Another worker took this one for dead and has its trial now."""


class Claimed:
    """A trial that is ours."""

    def __init__(self, trial: optuna.Trial, record: TrialRecord, lags: Callable[[], bool]) -> None:
        """It is running; ``lags`` says whether it lags behind the others."""
        self.record = record
        self.trial, self._lags = trial, lags

    def report(self, step: int, score: float) -> None:
        """The score as far as it is known after a step.

        Raises:
            TakenOver: the trial is another worker's now.
        """
        try:
            self.trial.report(score, step)
        except UpdateFinishedTrialError as error:
            raise TakenOver from error

    def should_end(self) -> bool:
        """Whether it is given up; the default never is, for all others are held against it."""
        return not self.record.is_default and self._lags()


class Ledger:
    """The trials of a study, for one of its workers."""

    def __init__(
        self, study: optuna.Study, space: Space, sampler: SeededSampler, pruner: str, steps: Steps, n_trials: int
    ) -> None:
        """Open it.

        Args:
            study: as it is stored.
            space: what is searched.
            sampler: draws what is tried next.
            pruner: gives trials up; a name.
            steps: how far a trial goes.
            n_trials: finished ones, after which nothing is left.

        Raises:
            ConfigError: there is no such pruner.
        """
        self.study, self._space, self._n_trials = study, space, n_trials
        study.sampler, self._pruner = sampler, build_pruner(pruner, steps)
        self._distributions = distributions(space)

    def records(self) -> list[TrialRecord]:
        """All trials as they stand."""
        return records_of(self.study, self._space)

    def is_done(self) -> bool:
        """Whether as many are finished as were asked for."""
        return sum(record.is_finished for record in self.records()) >= self._n_trials

    def claim(self, worker: str) -> Claimed | None:
        """The next trial: one that waits, else a new one; None while others are at all that are left."""
        records = self.records()
        if sum(record.is_finished or record.state == "running" for record in records) >= self._n_trials:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask(self._distributions)
        trial.set_user_attr(_WORKER, worker)
        return Claimed(trial, self._record(trial.number), lambda: self._lags(trial.number))

    def complete(self, claimed: Claimed, score: float) -> TrialRecord:
        """It went to its end."""
        return self._tell(claimed, TrialState.COMPLETE, score)

    def give_up(self, claimed: Claimed) -> TrialRecord:
        """It was not worth its end."""
        return self._tell(claimed, TrialState.PRUNED)

    def fail(self, claimed: Claimed, problem: str) -> TrialRecord:
        """It cannot be trained."""
        self._check_ours(claimed)
        claimed.trial.set_user_attr(_PROBLEM, problem)
        return self._tell(claimed, TrialState.FAIL)

    def put_back(self, claimed: Claimed) -> None:
        """It was interrupted; whoever comes next goes on with it."""
        self._check_ours(claimed)
        self._queue_again(self._record(claimed.record.number), claimed.record.deaths)

    def bury(self, alive: Alive) -> list[TrialRecord]:
        """Close the trials of workers that have died, and queue their values again.

        Returns:
            Them, as they were.
        """
        dead = [record for record in self.records() if record.state == "running" and self._is_dead(record, alive)]
        for record in dead:
            if record.deaths >= _MOST_DEATHS:
                self._set(record.number, _PROBLEM, "the worker died at it, as one did before")
                self.study.tell(record.number, state=TrialState.FAIL)
            else:
                self._queue_again(record, record.deaths + 1)
            alive.forget(record.worker)
        return dead

    def _lags(self, number: int) -> bool:
        records = self.records()
        return self._pruner(records[number], records)

    def _is_dead(self, record: TrialRecord, alive: Alive) -> bool:
        # Claiming is one step under the lock: a trial without a worker is of one that was killed within it.
        return not record.worker or alive.is_dead(record.worker)

    def _queue_again(self, record: TrialRecord, deaths: int) -> None:
        """Close a trial and queue its values; killed in between, the next one who looks does the rest."""
        self._set(record.number, _PUT_BACK, True)
        if not any(other.continues == record.number for other in self.records()):
            self.study.enqueue_trial(
                encoded(self._space, record.values),
                {_CONTINUES: record.number, _DEATHS: deaths, _DEFAULT: record.is_default},
            )
        self.study.tell(record.number, state=TrialState.FAIL)

    def _tell(self, claimed: Claimed, state: TrialState, score: float | None = None) -> TrialRecord:
        self._check_ours(claimed)
        self.study.tell(claimed.record.number, score, state)
        return self._record(claimed.record.number)

    def _check_ours(self, claimed: Claimed) -> None:
        if self._record(claimed.record.number).state != "running":
            raise TakenOver

    def _set(self, number: int, name: str, value: Any) -> None:
        """Optuna lets only a trial's owner note something, or the storage itself."""
        trial = self.study.get_trials(deepcopy=False)[number]
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _record(self, number: int) -> TrialRecord:
        return _record(self.study.get_trials(deepcopy=False)[number], self._space)


def records_of(study: optuna.Study, space: Space) -> list[TrialRecord]:
    """All trials of a study as they stand, by number."""
    return [_record(trial, space) for trial in study.get_trials(deepcopy=False)]


def queue_default(study: optuna.Study, space: Space, values: Values) -> None:
    """Make the base recipe's own values the first trial."""
    study.enqueue_trial(encoded(space, values), {_DEFAULT: True})


def _record(trial: FrozenTrial, space: Space) -> TrialRecord:
    noted, state = trial.user_attrs, _STATES[trial.state]
    state = "interrupted" if state == "failed" and noted.get(_PUT_BACK) else state
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    began = trial.datetime_start
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return TrialRecord(
        number=trial.number,
        state=state,
        score=trial.value if state == "complete" else None,
        seconds=seconds,
        worker=noted.get(_WORKER, ""),
        started="" if began is None else began.isoformat(timespec="seconds"),
        continues=noted.get(_CONTINUES),
        values=decoded(space, params),
        curve=dict(sorted(trial.intermediate_values.items())),
        is_default=noted.get(_DEFAULT, False),
        problem=noted.get(_PROBLEM, ""),
        deaths=noted.get(_DEATHS, 0),
    )
