"""MLflow: a fold as a run of an experiment, tagged with the name of its run.

Offline it lies in a database, ``FOLDER/mlflow.db``, with files beside it; online on the server of MLFLOW_TRACKING_URI.
A database, because MLflow 3 gives up its folders of text files. Folds that are trained side by side write to the same
one: one process at a time makes it, and a process that finds it locked waits.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from birdinfer.errors import ConfigError
from birdinfer.system.cpu import variable
from birdinfer.system.locks import locked
from birdinfer.training.tracking.base import Ended, FoldRecord, Outcome, client

DATABASE = "mlflow.db"
_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_LONGEST_PARAMETER = 6_000


class MLflow:
    """A fold's run in MLflow."""

    def start(self, record: FoldRecord, run_id: str, epochs_logged: int) -> str:
        self._client, experiment = _connected(record)
        steps = self._known_steps(run_id) if run_id else None
        self._steps = steps or frozenset()
        if steps is not None:
            self._client.update_run(run_id, status="RUNNING")
            self._run_id = run_id
        else:
            tags = {"birdinfer.run": "/".join(record.labels), "birdinfer.group": record.labels[0]}
            tags |= {"birdinfer.fold": str(record.fold)}
            self._run_id = str(self._client.create_run(experiment, tags=tags, run_name=record.title).info.run_id)
            kind = client("mlflow.entities", "mlflow").Param
            texts = {name: str(value)[:_LONGEST_PARAMETER] for name, value in record.parameters.items()}
            self._client.log_batch(self._run_id, params=[kind(name, text) for name, text in texts.items()])
        return self._run_id

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch not in self._steps:
            self._log(metrics, epoch)

    def finish(self, outcome: Outcome) -> None:
        self._log(outcome.figures, 0)
        for path in outcome.pictures:
            self._client.log_artifact(self._run_id, str(path), "pictures")
        if outcome.checkpoint is not None:
            self._client.log_artifact(self._run_id, str(outcome.checkpoint), "checkpoint")

    def close(self, ended: Ended) -> None:
        self._client.set_terminated(self._run_id, _STATUS[ended])

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        kind, now = client("mlflow.entities", "mlflow").Metric, round(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[kind(name, value, now, step) for name, value in metrics.items()])

    def _known_steps(self, run_id: str) -> frozenset[int] | None:
        """Epochs that the store has of an earlier run; None if it knows no such run."""
        try:
            self._client.get_run(run_id)
        except client("mlflow.exceptions", "mlflow").MlflowException:
            return None
        return frozenset(each.step for each in self._client.get_metric_history(run_id, "train_loss"))


def _connected(record: FoldRecord) -> tuple[Any, str]:
    with variable("MLFLOW_DISABLE_TELEMETRY", "true"):  # it is asked for once, at import
        connect = client("mlflow.tracking", "mlflow").MlflowClient
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if not record.is_online:
        return _local(connect, record)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if not server:
        raise ConfigError("tracking.mode", "is online, MLFLOW_TRACKING_URI is not set", "set it, or track offline")
    connected = connect(tracking_uri=server)
    return connected, _experiment(connected, record.project, None)


def _local(connect: Any, record: FoldRecord) -> tuple[Any, str]:
    # MLflow 3.17 uses what SQLAlchemy 2.1 calls deprecated; so it warns whoever imports it.
    client("mlflow.store.tracking.sqlalchemy_store", "mlflow", "The ``noload`` loader strategy")
    if "?" in str(record.folder):
        raise ConfigError(record.folder, "has a ?, where a database's address ends", "name a tracking.folder without")
    record.folder.mkdir(parents=True, exist_ok=True)
    with locked(record.folder):
        connected = connect(tracking_uri=f"sqlite:///{record.folder / DATABASE}?timeout={record.wait_seconds:g}")
        return connected, _experiment(connected, record.project, (record.folder / "artifacts").as_uri())


def _experiment(connected: Any, name: str, files: str | None) -> str:
    there = connected.get_experiment_by_name(name)
    return str(there.experiment_id if there else connected.create_experiment(name, artifact_location=files))
