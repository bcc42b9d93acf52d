"""One soundscape, read forward once -> batches of windows for every member group.

The file is decoded once and resampled once for each rate; each window grid has a cutter of its own. At most one batch
of each grid and one block are held, whatever the file's length.
"""

from collections.abc import Iterator, Mapping, Sequence

from birdinfer.audio.speech import VOICE_RATE, SpeechFinder
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.windows import WindowBatch, WindowCutter, WindowGrid
from birdinfer.errors import BirdinferError
from birdinfer.typing import Float32


class SoundscapeReader:
    """Reads the windows of one file for all member groups. A context manager."""

    n_rows: int = 0
    """Rows of the file; known when :meth:`batches` has ended."""

    def __init__(
        self,
        stream: AudioStream,
        grids: Sequence[WindowGrid],
        batch_windows: Sequence[int],
        speech: SpeechFinder | None = None,
    ) -> None:
        """Read a stream; ``batch_windows`` are the most windows in a batch, for each of the grids.

        ``speech``: finds human speech while the stream is read, and may silence it.
        """
        self._rates = [grid.sample_rate for grid in grids]
        pairs = enumerate(zip(grids, batch_windows, strict=True))
        self._cutters = [WindowCutter(grid, most, index) for index, (grid, most) in pairs]
        self.stream, self.speech = stream, speech

    def __enter__(self) -> "SoundscapeReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self.stream.close()

    def batches(self) -> Iterator[WindowBatch]:
        """Decode forward to the end: batches in the order of time, member group by member group.

        AudioError if no sample could be decoded; OSError, after the batches of what could, if the file broke off.
        """
        error: Exception | None = None
        is_decoded = False
        try:
            for block in self.stream.blocks_at(self._all_rates()):
                is_decoded = True
                yield from self._cut(block if self.speech is None else self.speech.push(block))
        except (BirdinferError, OSError) as failure:
            if not is_decoded:
                raise
            error = failure  # what was decoded before is sound
        if self.speech is not None:
            yield from self._cut(self.speech.rest())
        for cutter in self._cutters:
            yield from cutter.close()
        # Resamplers round: where a rest is just long enough for a row at one rate only, it is none.
        self.n_rows = min(cutter.n_rows for cutter in self._cutters)
        if error is not None:
            raise error

    def _all_rates(self) -> list[int]:
        return sorted({*self._rates, *(() if self.speech is None else (VOICE_RATE,))})

    def _cut(self, block: Mapping[int, Float32]) -> Iterator[WindowBatch]:
        for rate, cutter in zip(self._rates, self._cutters, strict=True):
            if rate in block:
                yield from cutter.push(block[rate])
