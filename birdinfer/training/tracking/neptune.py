"""Neptune: a fold as a run, tagged with the name of its run.

neptune.ai has closed its service, and the client ends with version 1.14. Offline it lies in
``FOLDER/.neptune/offline/run__*``: an operation a line in data-*.log, and the pictures; of the checkpoint there is the
path. An interrupted fold continues under the same custom_run_id, in a further folder. Online is for a service of one's
own, with NEPTUNE_API_TOKEN.
"""

import logging
import os
import uuid
from collections.abc import Mapping

from birdinfer.errors import ConfigError
from birdinfer.system.cpu import variable
from birdinfer.training.tracking.base import Ended, FoldRecord, Outcome, client

_DATA_DIR = ".neptune"


class Neptune:
    """A fold's run in Neptune."""

    def start(self, record: FoldRecord, run_id: str, epochs_logged: int) -> str:
        if record.is_online and not os.environ.get("NEPTUNE_API_TOKEN"):
            raise ConfigError("tracking.mode", "is online, NEPTUNE_API_TOKEN is not set", "set it, or track offline")
        # Packages that the client needs use what jsonschema calls deprecated.
        neptune = client("neptune", "neptune", "jsonschema.RefResolver is deprecated")
        self._file = client("neptune.types", "neptune").File
        logging.getLogger("neptune").setLevel(logging.CRITICAL + 1)  # it logs to standard output
        run_id = run_id or uuid.uuid4().hex
        with variable("NEPTUNE_DATA_DIRECTORY", str(record.folder / _DATA_DIR)):
            self._run = neptune.init_run(
                project=record.project if record.is_online else None,
                mode="async" if record.is_online else "offline",
                custom_run_id=run_id,
                name=record.title, tags=list(record.labels),
                source_files=[], git_ref=False, capture_stdout=False, capture_stderr=False, capture_traceback=False,
                capture_hardware_metrics=False,
            )  # fmt: skip
        self._wait_seconds = record.wait_seconds
        self._run["parameters"] = dict(record.parameters)
        self._run.wait()
        return run_id

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._run[f"metrics/{name}"].append(value, step=epoch)
        self._run.wait()

    def finish(self, outcome: Outcome) -> None:
        for name, value in outcome.figures.items():
            self._run[f"figures/{name}"] = value
        for path in outcome.pictures:
            content = self._file.from_content(path.read_bytes(), extension="png")
            self._run[f"pictures/{path.stem}"].upload(content)
        if outcome.checkpoint is not None:
            self._run["checkpoint/best"].upload(str(outcome.checkpoint.resolve()))
        self._run.wait()

    def close(self, ended: Ended) -> None:
        self._run["ended"] = ended
        self._run["sys/failed"] = ended == "failed"
        self._run.stop(seconds=self._wait_seconds)
