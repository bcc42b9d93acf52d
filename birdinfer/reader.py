"""One soundscape, read forward once -> runs of windows for every kind of listener.

The file is decoded once and resampled once for each rate; each placement of windows has a cutter of its own on that
sound. At most one run for each placement and one block are held, whatever the file's length.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AudioStream
from birdinfer.errors import BirdinferError
from birdinfer.windows import Placement, RunCutter, WindowRun

Float32 = npt.NDArray[np.float32]


class HeardRun(NamedTuple):
    """A run of windows, and whose it is."""

    listener: int
    """Index of the placement that it was cut for."""
    run: WindowRun


class SoundscapeReader:
    """A file on its way to the listeners.

    Use as a context manager, or call :meth:`close`.
    """

    n_rows: int = 0
    """Rows of the file; known when :meth:`runs` has ended."""

    def __init__(self, path: Path, placements: Sequence[Placement], run_windows: Sequence[int]) -> None:
        """Open a file.

        Args:
            path: the sound file.
            placements: how each listener's windows lie.
            run_windows: the most windows in a run, for each listener.

        Raises:
            InputNotFoundError: there is no such file.
            AudioError: it is not sound.
        """
        self._rates = [placement.sample_rate for placement in placements]
        self._cutters = [RunCutter(place, most) for place, most in zip(placements, run_windows, strict=True)]
        self.stream = AudioStream(path, self._rates[0])

    def __enter__(self) -> "SoundscapeReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self.stream.close()

    def runs(self) -> Iterator[HeardRun]:
        """Decode forward to the end.

        Yields:
            Runs in the order of time, listener by listener.

        Raises:
            AudioError: not one sample could be decoded.
            OSError: the file could not be read to its end; comes after the runs of what was heard.
        """
        error: Exception | None = None
        is_heard = False
        try:
            for block in self.stream.blocks_at(sorted(set(self._rates))):
                is_heard = True
                yield from self._cut(block)
        except (BirdinferError, OSError) as failure:
            if not is_heard:
                raise
            error = failure  # what was heard before it is sound
        for index, cutter in enumerate(self._cutters):
            for run in cutter.close():
                yield HeardRun(index, run)
        # Resamplers round: where a rest is just long enough for a row at one rate only, it is none.
        self.n_rows = min(cutter.n_rows for cutter in self._cutters)
        if error is not None:
            raise error

    def _cut(self, block: dict[int, Float32]) -> Iterator[HeardRun]:
        for index, (rate, cutter) in enumerate(zip(self._rates, self._cutters, strict=True)):
            if rate in block:
                for run in cutter.push(block[rate]):
                    yield HeardRun(index, run)
