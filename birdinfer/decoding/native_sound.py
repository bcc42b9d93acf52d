"""A sound file as it is -> all its sound in order, at the file's own rates, with silence where some of it is missing.

In: a path. Out: pieces of mono float32 [samples]. One decoder after another works on the file: one for each link of a
chained Ogg, one behind each gap of a damaged Ogg or FLAC. What is missing is replaced by as much silence, so that what
follows keeps its time.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.decoding.byte_ranges import ByteRanges
from birdinfer.decoding.damage import Damage, truncated
from birdinfer.decoding.decoder import Decoder
from birdinfer.decoding.header_claims import claimed_frames
from birdinfer.decoding.ogg_pages import OggLayout, OggStream, OggStretch, read_layout
from birdinfer.errors import AudioError
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]

MOST_GAP_SECONDS = 600.0
"""A gap that claims to be longer is left out: a page's clock may say anything."""
_MOST_GAPS = 100
"""In one FLAC; behind each of them the file is opened again."""
_FLAC_STEP = 4096
"""Samples: the usual block. It is looked for the next whole one after as many, then twice as many, and so on."""
_OPUS_CLOCK_HZ = 48_000


class NativePiece(NamedTuple):
    """A stretch of sound."""

    link: int
    """Number of the stream in the chain, from 0."""
    sample_rate: int
    samples: Float32
    """Mono [samples], not always finite."""
    is_heard: bool
    """False: silence in place of sound that is missing."""


class _Part(NamedTuple):
    """What one decoder reads."""

    open: Callable[[], Decoder]
    link: int
    stream: OggStream | None = None
    stretch: OggStretch | None = None


class NativeSound:
    """The sound of one file, read forward once."""

    is_cancelled: bool = False
    """Whether channels that differ have averaged to a constant."""

    _stopped: str = ""
    """Why the last decoder that stopped early did."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            InputNotFoundError: there is no such file.
            AudioError: it is not sound.
        """
        self.path, self.damage = path, Damage()
        self._layout = _ogg_layout(path)
        self._parts = _parts(path, self._layout)
        self._decoder = self._open_first()
        self.expected_seconds = self._expected()
        """What the header claims, where it counts samples."""
        self.position_seconds = 0.0
        """Where the reading has come to, silence in place of missing sound included."""

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._decoder.close()

    @property
    def estimated_seconds(self) -> float:
        """How long the file seems to be before it is read: to tell how far the reading is, for nothing else."""
        decoder = self._decoder
        if decoder.frames is None:
            return self.path.stat().st_size / (decoder.sample_rate * decoder.channels)  # FLAC: about half of 16 bits
        stretch = self._parts[0].stretch
        share = sum(one.length for one in stretch.ranges) / self.path.stat().st_size if stretch else 1.0
        return decoder.frames / decoder.sample_rate / max(share, 1e-3)

    def pieces(self) -> Iterator[NativePiece]:
        """Decode forward to the end; afterwards ``damage`` is known."""
        for index, part in enumerate(self._parts):
            if index and not self._open_next(part):
                continue
            if self._layout:
                yield from self._silence_before(index)
            yield from self._decode(part)
            self.is_cancelled |= self._decoder.is_cancelled
            self._decoder.close()
        self._note_the_end()

    def _open_first(self) -> Decoder:
        """The first part that can be opened; those before it are noted."""
        while True:
            try:
                return self._parts[0].open()
            except AudioError as error:
                if len(self._parts) == 1:
                    raise
                self._note_lost(self._parts.pop(0), error)

    def _open_next(self, part: _Part) -> bool:
        try:
            self._decoder = part.open()
        except AudioError as error:
            self._note_lost(part, error)
            return False
        return True

    def _note_lost(self, part: _Part, error: AudioError) -> None:
        self.damage.note(Status.damaged, f"stream {part.link + 1} in part {error.what}")

    def _decode(self, part: _Part) -> Iterator[NativePiece]:
        """All of one part; behind a broken frame of a FLAC it goes on."""
        frame = 0
        for _ in range(_MOST_GAPS):
            for block in self._decoder.blocks():
                frame += len(block)
                yield self._piece(part.link, block, is_heard=True)
            resumed = self._resume(part, frame) if self._decoder.failure and self._decoder.is_flac else None
            if resumed is None:
                break
            yield from self._silence(part.link, resumed - frame)
            frame = resumed
        if self._decoder.failure:
            self._stopped = self._decoder.failure
        elif self._layout and frame < (self._decoder.frames or 0):
            lost_seconds = ((self._decoder.frames or 0) - frame) / self._decoder.sample_rate
            self.damage.note(Status.damaged, f"{lost_seconds:.3f} s cannot be decoded")

    def _resume(self, part: _Part, frame: int) -> int | None:
        """Open the file again behind a broken place; the sample where it goes on, None if there is none."""
        step, most = _FLAC_STEP, MOST_GAP_SECONDS * self._decoder.sample_rate
        while step <= most and frame + step < (self._decoder.frames or 2**62):
            decoder = part.open()
            if decoder.seek(frame + step) and len(decoder.read(1)) and decoder.seek(frame + step):
                self._decoder.close()
                self._decoder = decoder
                return frame + step
            decoder.close()
            step *= 2
        return None

    def _silence_before(self, index: int) -> Iterator[NativePiece]:
        """As much silence as pages are missing before a stretch of an Ogg, by the clocks of the pages."""
        part = self._parts[index]
        stream, stretch, decoder = part.stream, part.stretch, self._decoder
        if stream is None or stretch is None or not stretch.is_after_break or decoder.frames is None:
            return
        before = self._parts[index - 1] if index else part
        since = before.stretch.granule if before.stretch and before.link == part.link and index else 0
        clock_hz = _OPUS_CLOCK_HZ if stream.codec == "opus" else decoder.sample_rate
        missing = (stretch.granule - since) * decoder.sample_rate // clock_hz - decoder.frames
        if missing > MOST_GAP_SECONDS * decoder.sample_rate:
            self.damage.note(Status.damaged, f"{missing / decoder.sample_rate:.0f} s missing, left out")
        elif missing > 0:
            yield from self._silence(part.link, missing)

    def _silence(self, link: int, frames: int) -> Iterator[NativePiece]:
        self.damage.gap(self.position_seconds, frames / self._decoder.sample_rate)
        while frames > 0:
            count = min(frames, self._decoder.block_frames)
            yield self._piece(link, np.zeros(count, np.float32), is_heard=False)
            frames -= count

    def _piece(self, link: int, samples: Float32, is_heard: bool) -> NativePiece:
        rate = self._decoder.sample_rate
        self.position_seconds += len(samples) / rate
        return NativePiece(link, rate, samples, is_heard)

    def _expected(self) -> float | None:
        """Seconds that the header claims; None where it claims none, or is not to be trusted."""
        decoder = self._decoder
        if not decoder.counts_samples or len(self._parts) > 1:
            return None
        if decoder.is_flac:
            return decoder.frames / decoder.sample_rate if decoder.frames else None
        frames = claimed_frames(self.path) if decoder.is_uncompressed else decoder.frames
        return None if frames is None or frames < (decoder.frames or 0) else frames / decoder.sample_rate

    def _note_the_end(self) -> None:
        expected = self.expected_seconds
        is_short = expected is not None and self.position_seconds < expected - 0.5 / self._decoder.sample_rate
        # Behind the last sample that the header counts a decoder may stumble over a tag.
        is_cut = expected is None and bool(self._stopped or (self._layout and self._layout.is_cut))
        if is_short or is_cut:
            how_far = truncated(self.position_seconds, expected if is_short else None)
            self.damage.note(Status.truncated, how_far + (f" ({self._stopped})" if self._stopped else ""))
        if self._layout and self._layout.n_broken:
            pages = "a page" if self._layout.n_broken == 1 else f"{self._layout.n_broken} pages"
            self.damage.note(Status.damaged, f"{pages} broken")


def _ogg_layout(path: Path) -> OggLayout | None:
    """What an Ogg is made of; None for all else, and for what cannot be read, which the decoder will say."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            is_ogg = file.read(4) == b"OggS"
        return read_layout(path) if is_ogg else None
    except (OSError, ValueError):
        return None


def _parts(path: Path, layout: OggLayout | None) -> list[_Part]:
    if layout is None or layout.is_plain:
        return [_Part(lambda: Decoder(path), 0)]

    def opener(stretch: OggStretch) -> Callable[[], Decoder]:
        return lambda: Decoder(path, ByteRanges(path, stretch.ranges))

    return [
        _Part(opener(stretch), link, stream, stretch)
        for link, stream in enumerate(layout.streams)
        for stretch in stream.stretches
    ] or [_Part(lambda: Decoder(path), 0)]
