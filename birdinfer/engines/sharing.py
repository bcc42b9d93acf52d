"""One device, many lanes: the windows that lanes bring while the device is busy become its next batch.

Batches so form across files, and reading and the front end run ahead on the cores while the device works. No thread of
its own and no waiting time to choose: a lane that gets the device runs what has gathered, for itself and the others.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from birdinfer.engines.protocol import Engine

Float32 = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Request:
    windows: Float32
    is_done: bool = False
    outputs: dict[str, Float32] = field(default_factory=dict)
    error: BaseException | None = None


class SharedBatches:
    """An engine that gathers the calls of many threads into batches."""

    def __init__(self, engine: Engine, batch_size: int) -> None:
        """Stand before an engine that takes one call at a time.

        Args:
            engine: what runs.
            batch_size: gather up to this many windows; a single call that is larger goes through whole.
        """
        self.facts = engine.facts
        self._engine, self._batch_size = engine, batch_size
        self._waiting: list[_Request] = []
        self._desk = threading.Condition()
        self._is_busy = False

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...]; waits for the device."""
        request = _Request(batch)
        with self._desk:
            self._waiting.append(request)
        while (taken := self._wait(request)) is not None:
            self._serve(taken)
        if request.error is not None:
            raise request.error
        return request.outputs

    def _wait(self, request: _Request) -> list[_Request] | None:
        """None once the request is done; else, when the device is free, the requests that this lane is to run on it."""
        with self._desk:
            while self._is_busy and not request.is_done:
                self._desk.wait()
            if request.is_done:
                return None
            self._is_busy = True
            return self._take()

    def _take(self) -> list[_Request]:
        """The requests that waited longest, up to a batch: perhaps full without this lane's own, which is then next."""
        n_taken, n_windows = 0, 0
        for request in self._waiting:
            if n_taken and n_windows + len(request.windows) > self._batch_size:
                break
            n_taken, n_windows = n_taken + 1, n_windows + len(request.windows)
        taken, self._waiting = self._waiting[:n_taken], self._waiting[n_taken:]
        return taken

    def _serve(self, requests: list[_Request]) -> None:
        """Run them as one batch and hand each its part."""
        try:
            outputs = self._engine.run(np.concatenate([request.windows for request in requests]))
            begin = 0
            for request in requests:
                end = begin + len(request.windows)
                request.outputs = {name: output[begin:end] for name, output in outputs.items()}
                begin = end
        except BaseException as error:  # each lane that waits must hear of it
            for request in requests:
                request.error = error
        with self._desk:
            for request in requests:
                request.is_done = True
            self._is_busy = False
            self._desk.notify_all()
