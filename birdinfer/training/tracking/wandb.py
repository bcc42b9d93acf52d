"""Weights & Biases: a fold as a run of a project, grouped by the name of its run.

Offline it lies in ``FOLDER/wandb/offline-run-*`` until ``wandb sync`` sends it. Online, WANDB_API_KEY says whose it is,
or what ``wandb login`` left. An interrupted fold continues under the same id: offline in a further folder, which
``wandb sync`` puts to the first.
"""

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from birdinfer.errors import ConfigError
from birdinfer.system.cpu import variable
from birdinfer.training.tracking.base import Ended, FoldRecord, Outcome, client

_FLUSH_INTERVAL, _FLUSH_SECONDS = "x_transaction_log_flush_interval", 0.05
"""W&B's own are 15 seconds, which a kill would lose; versions without this setting write when they like."""
_LONGEST_WRITE_SECONDS = 2.0
_EXIT_CODES = {"finished": 0, "stopped": 0, "failed": 1, "interrupted": 130}


class WandB:
    """A fold's run at W&B."""

    def start(self, record: FoldRecord, run_id: str, epochs_logged: int) -> str:
        run_id = run_id or uuid.uuid4().hex[:8]
        record.folder.mkdir(parents=True, exist_ok=True)
        with _at_home(record):
            self._wandb = client("wandb", "wandb")
            if record.is_online and not self._wandb.login(prompt=False):
                hint = "set it or run 'wandb login', or track offline"
                raise ConfigError("tracking.mode", "is online, WANDB_API_KEY is not set", hint)
            self._run = self._wandb.init(
                project=record.project, group=record.labels[0], name=record.title, id=run_id,
                resume="allow", reinit="create_new", allow_val_change=True, config=dict(record.parameters),
                dir=str(record.folder.parent),  # it makes a folder wandb there
                settings=self._settings(record),
            )  # fmt: skip
        # Its log lies beside the records: on a full disk each line of it would be a traceback on the screen.
        logging.getLogger("wandb").setLevel(logging.CRITICAL + 1)
        self._record = record
        self._until_written(0)
        return run_id

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        before = self._size()
        self._run.log(dict(metrics), step=epoch, commit=True)
        # Records go to W&B's own process, in order; this question is answered once the epoch has arrived there.
        dict(self._run.summary)
        self._until_written(before)

    def finish(self, outcome: Outcome) -> None:
        self._run.summary.update(dict(outcome.figures))
        if outcome.pictures:
            self._run.log({f"pictures/{path.stem}": self._wandb.Image(str(path)) for path in outcome.pictures})
        if outcome.checkpoint is not None:
            name = "-".join((*self._record.labels, f"fold{self._record.fold}"))
            with _at_home(self._record):
                # W&B takes letters, digits, dots, hyphens and underscores, 128 of them.
                artifact = self._wandb.Artifact(re.sub(r"[^A-Za-z0-9._-]", "_", name)[:128], type="model")
                # It is not copied once more: nothing changes it after a fold's end.
                artifact.add_file(str(outcome.checkpoint.resolve()), policy="immutable")
                self._run.log_artifact(artifact)

    def close(self, ended: Ended) -> None:
        """Online this waits until all is sent."""
        self._run.finish(exit_code=_EXIT_CODES[ended])

    def _until_written(self, before: int) -> None:
        """Wait until the run's file is longer than before and grows no more: W&B's process collects what it writes."""
        deadline, last = time.monotonic() + _LONGEST_WRITE_SECONDS, before
        while _FLUSH_INTERVAL in self._wandb.Settings.model_fields and time.monotonic() < deadline:
            time.sleep(2 * _FLUSH_SECONDS)
            if before < last == self._size():
                return
            last = self._size()

    def _size(self) -> int:
        path = Path(self._run.settings.sync_file)
        return path.stat().st_size if path.exists() else 0

    def _settings(self, record: FoldRecord) -> Any:
        return self._wandb.Settings(
            mode="online" if record.is_online else "offline",
            silent=True, console="off", disable_git=True, disable_code=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
            init_timeout=record.wait_seconds, finish_timeout=record.wait_seconds, finish_timeout_raises=True,
            **{name: _FLUSH_SECONDS for name in [_FLUSH_INTERVAL] if name in self._wandb.Settings.model_fields},
        )  # fmt: skip


@contextlib.contextmanager
def _at_home(record: FoldRecord) -> Iterator[None]:
    """While entered, W&B keeps its caches beside its records, says nothing, and reports no errors to its makers.

    It takes these orders from the environment alone.
    """
    values = dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"), str(record.folder / "cache"))
    with contextlib.ExitStack() as stack:
        for name, value in (values | {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}).items():
            stack.enter_context(variable(name, value))
        yield
