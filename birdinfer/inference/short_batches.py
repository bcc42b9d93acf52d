"""Window batches that do not fill a call of the graphs -> full calls, of windows of several files.

An engine of a fixed batch size computes the whole batch, however few windows there are: a folder of files of one window
would cost as many times more. No score depends on what else is in its batch.
"""

import threading
import time
from dataclasses import dataclass, field, replace

from birdinfer.audio.windows import WindowBatch
from birdinfer.inference.open_file import OpenFile

_MOST_SECONDS = 1.0
"""How long windows wait for others."""


@dataclass(frozen=True, slots=True)
class Read:
    """A batch of a file, or a part of one."""

    file: OpenFile
    batch: WindowBatch
    seconds: float
    """What reading it took."""
    at: float = field(default_factory=time.monotonic)
    is_last_part: bool = True
    """False: the rest of what was read still waits."""

    @property
    def is_short(self) -> bool:
        """Whether its last call of the graphs would not be filled."""
        return self.batch.n_windows % self.file.predictor.call_windows > 0

    def split(self, n_windows: int) -> tuple["Read", "Read"]:
        """Return the first windows and the rest, without reading time: it is counted once."""
        grid = self.file.predictor.member_groups[self.batch.member_group].grid
        first, rest = self.batch.split(n_windows, grid)
        return replace(self, batch=first, is_last_part=False), replace(self, batch=rest, seconds=0.0)


class ShortBatches:
    """What the workers hold together."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], list[Read]] = {}
        """Of each predictor and member group, which are computed apart."""
        self._lock = threading.Lock()

    def add(self, read: Read) -> list[list[Read]]:
        """Hold a batch; return what fills calls, each list of one member group, and what has waited long enough."""
        predictor = read.file.predictor
        key, ready = (id(predictor), read.batch.member_group), []
        with self._lock:
            held = [*self._held.pop(key, []), read]
            rest = sum(each.batch.n_windows for each in held) % predictor.call_windows
            if sum(each.batch.n_windows for each in held) >= predictor.call_windows:
                ready.append(held)
                held = []
                if rest:  # less than a call, as what was held before was: it is the end of this batch
                    ready[0][-1], left = read.split(read.batch.n_windows - rest)
                    held = [left]
            if held:
                self._held[key] = held
        return ready + self.late()

    def late(self, seconds: float = _MOST_SECONDS) -> list[list[Read]]:
        """Return those that have waited longer."""
        with self._lock:
            since = time.monotonic() - seconds
            return [self._held.pop(key) for key in [key for key, held in self._held.items() if held[0].at <= since]]
