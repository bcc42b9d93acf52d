"""A sound file, possibly damaged -> all its sound in order, at the file's own rates, with silence for missing parts.

In: a path, and a mixer of channels. Out: pieces of mono float32 [samples], and what is wrong with the file: one status
and one line. One decoder after another reads the file: one for each link of a chained Ogg, one behind each gap of a
damaged Ogg or FLAC. Missing sound is replaced by as much silence, so that what follows keeps its time. What a header
claims is held against the bytes that are there, and where it is wrong, they are decoded without it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdinfer.audio.channels import MEAN, Mixer
from birdinfer.audio.decoder import ByteRanges, Decoder
from birdinfer.audio.flac import read_flac
from birdinfer.audio.headers import Header, read_header
from birdinfer.audio.mp3 import MOST_PADDING, Mp3, read_mp3
from birdinfer.audio.ogg import OggLayout, OggStream, OggStretch, read_layout
from birdinfer.audio.status import Status
from birdinfer.errors import AudioError
from birdinfer.typing import Float32

_SEVERITY = {status: place for place, status in enumerate(Status)}


class Damage:
    """What is wrong with one file: a status and a line."""

    def __init__(self) -> None:
        self._findings: list[tuple[Status, str]] = []
        self._n_gaps = 0
        self._gap_seconds = self._first_gap_at = 0.0

    def note(self, status: Status, what: str) -> None:
        """Add a finding, unless it is there already."""
        if (status, what) not in self._findings:
            self._findings.append((status, what))

    def gap(self, at_seconds: float, seconds: float) -> None:
        """Add a missing stretch; all of them become one finding."""
        if not self._n_gaps:
            self._first_gap_at = at_seconds
        self._n_gaps += 1
        self._gap_seconds += seconds

    @property
    def status(self) -> Status:
        """The worst finding."""
        found = [status for status, _ in self._all()]
        return max(found, key=_SEVERITY.__getitem__, default=Status.ok)

    @property
    def text(self) -> str:
        """All findings in one line, "" where there is none."""
        return "; ".join(what for _, what in self._all())

    def _all(self) -> list[tuple[Status, str]]:
        if not self._n_gaps:
            return self._findings
        where = f"at {self._first_gap_at:.1f} s"
        if self._n_gaps > 1:
            where = f"in {self._n_gaps} gaps, the first {where}"
        gaps = f"{seconds_apart(self._gap_seconds)} s missing {where}, taken as silence"
        return [(Status.damaged, gaps), *self._findings]


def seconds_apart(seconds: float, other: float = 0.0) -> str:
    """Format seconds with one decimal, or enough of them to distinguish them from others.

    >>> seconds_apart(0.02), seconds_apart(1.98, 2)
    ('0.02', '1.98')
    """
    return next(
        (text for text in (f"{seconds:.{places}f}" for places in range(1, 7)) if float(text) != _shown(other, text)),
        f"{seconds:.6f}",
    )


def truncated(decoded_seconds: float, expected_seconds: float | None) -> str:
    """Describe a truncated file.

    >>> truncated(23.4, 60), truncated(23.4, None)
    ('truncated: 23.4 of 60.0 s', 'truncated after 23.4 s')
    """
    if expected_seconds is None:
        return f"truncated after {decoded_seconds:.1f} s"
    decoded = seconds_apart(decoded_seconds, expected_seconds)
    return f"truncated: {decoded} of {_shown(expected_seconds, decoded):.{_places(decoded)}f} s"


def wrong_claim(header: Header, sample_rate: int) -> str:
    """Describe a header that is wrong, or leaves the length open."""
    there = header.frames / sample_rate
    if header.claimed is None:
        return f"its header leaves the length open, the file holds {there:.1f} s"
    claimed = seconds_apart(header.claimed / sample_rate, there)
    how = " (sizes have wrapped at 4 GiB)" if header.is_wrapped else ""
    return f"its header claims {claimed} s, the file holds {_shown(there, claimed):.{_places(claimed)}f} s{how}"


def _shown(seconds: float, like: str) -> float:
    return round(seconds, _places(like))


def _places(text: str) -> int:
    return len(text.rpartition(".")[2])


MOST_GAP_SECONDS = 600.0
"""A gap that claims to be longer is left out: a page's clock may hold any number."""
_MOST_GAPS = 100
"""In one FLAC; behind each of them the file is opened again."""
_FLAC_STEP = 4096
"""Samples: the usual block. The next whole one is searched after as many, then after twice as many, and so on."""
_OPUS_CLOCK_HZ = 48_000
_LEAST_ZERO_BYTES = 1 << 16
_LEAST_MP3_BYTES_PER_SECOND = 1_000
"""8 kbit/s, the lowest rate that frames can name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NativePiece:
    """A stretch of sound at the file's own rate."""

    link: int
    """Number of the stream in the chain, from 0."""
    sample_rate: int
    samples: Float32
    """Mono [samples], not always finite."""
    is_decoded: bool
    """False: silence in place of missing sound."""


@dataclass(frozen=True, slots=True)
class _Part:
    open: Callable[[], Decoder]
    link: int
    stream: OggStream | None = None
    stretch: OggStretch | None = None


class NativeSound:
    """The sound of one file, read forward once."""

    _stopped: str = ""
    _is_forced: bool = False
    """Whether an MP3 cannot be opened by its own count of frames."""

    def __init__(self, path: Path) -> None:
        """Open a file; raises InputNotFoundError or AudioError."""
        self.path, self.damage = path, Damage()
        claim = _read_claim(path)
        self._layout = claim if isinstance(claim, OggLayout) else None
        self._header = claim if isinstance(claim, Header) else None
        self._mp3 = claim if isinstance(claim, Mp3) else None
        self._parts = _parts(path, self._layout) or [_Part(self._open_plain, 0)]
        self._decoder = self._open_first()
        self.expected_seconds = self._expected()
        """What the header claims, where it counts samples."""
        self.position_seconds = 0.0
        """Seconds read so far, with the silence in place of missing sound."""
        self.mixer = Mixer(MEAN)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._decoder.close()

    @property
    def estimated_seconds(self) -> float:
        """How long the file seems to be before it is read; for showing progress only."""
        decoder = self._decoder
        if self._header is not None:
            return self._header.frames / decoder.sample_rate
        if self._mp3 is not None:
            slowest = self.path.stat().st_size / _LEAST_MP3_BYTES_PER_SECOND
            return min(slowest, (decoder.frames or 2**62) / decoder.sample_rate)
        if decoder.frames is None:
            return self.path.stat().st_size / (decoder.sample_rate * decoder.channels)  # FLAC: about half of 16 bits
        stretch = self._parts[0].stretch
        share = (
            sum(one.length for one in stretch.ranges if not isinstance(one, bytes)) / self.path.stat().st_size
            if stretch
            else 1.0
        )
        return decoder.frames / decoder.sample_rate / max(share, 1e-3)

    @property
    def blank(self) -> float | None:
        """The value of uncompressed samples whose bytes are zeros; None for other files."""
        return self._decoder.blank

    @property
    def channels(self) -> int:
        """How many channels the first stream has."""
        return self._decoder.channels

    @property
    def sample_rate(self) -> int:
        """The rate of the stream that is read, in Hz."""
        return self._decoder.sample_rate

    def pieces(self) -> Iterator[NativePiece]:
        """Decode forward to the end; then ``damage`` is known, and the mixer has measured all channels."""
        for index, part in enumerate(self._parts):
            if index and not self._open_next(part):
                continue
            if self._layout:
                yield from self._silence_before(index)
            yield from self._decode(part)
            self._decoder.close()
        self._note_the_end()

    def check_claim(self) -> Damage:
        """Note what the header of uncompressed sound claims against its bytes, without decoding."""
        rate, header = self._decoder.sample_rate, self._header
        if header is not None and header.claimed != header.frames:
            if header.is_believed and header.claimed is not None:
                self.damage.note(Status.truncated, truncated(header.frames / rate, header.claimed / rate))
            else:
                self._note_claim(header)
        return self.damage

    def _open_first(self) -> Decoder:
        while True:
            try:
                return self._parts[0].open()
            except AudioError as error:
                if len(self._parts) == 1:
                    raise
                self._note_lost(self._parts.pop(0), error)

    def _open_plain(self) -> Decoder:
        try:
            return _open_plain(self.path, self._header)
        except AudioError:
            if self._mp3 is None:
                raise
            decoder = self._mp3.open_all()
            self._is_forced = True
            return decoder

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
        frame = 0
        for _ in range(_MOST_GAPS):
            mix = self.mixer.measured(self._decoder.sample_rate, self._decoder.step)
            for block in self._decoder.blocks(mix=mix):
                frame += len(block)
                yield self._piece(part.link, block, is_decoded=True)
            resumed = self._resume(part, frame) if self._decoder.failure and self._decoder.is_flac else None
            if resumed is None:
                break
            yield from self._silence(part.link, resumed - frame)
            frame = resumed
        if self._decoder.failure:
            self._stopped = self._decoder.failure
        elif self._layout is not None:
            self._compare_with_clock(part, frame)
        elif self._is_forced:
            self._note_claim(Header(frames=frame, claimed=0))
        elif self._mp3 is not None and self._mp3.has_frame_at(self._decoder.n_bytes_read):
            yield from self._behind_claim(self._mp3, part.link, frame)

    def _compare_with_clock(self, part: _Part, n_decoded: int) -> None:
        """Hold what was decoded of an Ogg's pages against the clock of the last of them."""
        stream, stretch, decoder = part.stream, part.stretch, self._decoder
        if stream is not None and stretch is not None and stretch.is_mended:
            clock_hz = _OPUS_CLOCK_HZ if stream.codec == "opus" else decoder.sample_rate
            claimed = (stretch.granule - stream.first.skipped) * decoder.sample_rate // clock_hz
            self._note_claim(Header(frames=n_decoded, claimed=claimed if claimed >= 0 else None))
        elif n_decoded < (decoder.frames or 0):
            if stretch is None:  # all pages are whole
                self._note_claim(Header(frames=n_decoded, claimed=decoder.frames))
                return
            lost_seconds = ((decoder.frames or 0) - n_decoded) / decoder.sample_rate
            self.damage.note(Status.damaged, f"{lost_seconds:.3f} s cannot be decoded")

    def _note_claim(self, header: Header) -> None:
        self.damage.note(Status.length_unknown, wrong_claim(header, self._decoder.sample_rate))

    def _behind_claim(self, mp3: Mp3, link: int, n_decoded: int) -> Iterator[NativePiece]:
        """Decode what follows the length that an MP3's header claims, or that libsndfile has guessed."""
        with contextlib.suppress(AudioError):
            decoder = mp3.open_all()
            self._decoder.close()
            self._decoder, frame = decoder, mp3.n_skipped
            for block in decoder.blocks(mix=self.mixer.mix):
                frame += len(block)
                if frame > n_decoded:
                    yield self._piece(link, block[max(0, n_decoded - frame + len(block)) :], is_decoded=True)
            if mp3.claims_frames:
                self._note_claim(Header(frames=frame, claimed=n_decoded))

    def _resume(self, part: _Part, frame: int) -> int | None:
        """Open the file again behind a broken place; return the sample where it continues, None if there is none."""
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
        """Yield silence for missing pages before a stretch of an Ogg, as long as the clocks of the pages say."""
        part = self._parts[index]
        stream, stretch, decoder = part.stream, part.stretch, self._decoder
        if stream is None or stretch is None or not stretch.is_after_break or decoder.frames is None:
            return
        before = self._parts[index - 1] if index else part
        since = (
            before.stretch.granule if before.stretch and before.link == part.link and index else stream.first.skipped
        )
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
            yield self._piece(link, np.zeros(count, np.float32), is_decoded=False)
            frames -= count

    def _piece(self, link: int, samples: Float32, is_decoded: bool) -> NativePiece:
        rate = self._decoder.sample_rate
        self.position_seconds += len(samples) / rate
        return NativePiece(link=link, sample_rate=rate, samples=samples, is_decoded=is_decoded)

    def _expected(self) -> float | None:
        """Return the seconds that the header claims; None where it claims none or is known to be wrong."""
        decoder, header = self._decoder, self._header
        if header is not None:
            frames = header.claimed if header.is_believed else None
        elif self._mp3 is not None:
            frames = decoder.frames if self._mp3.claims_frames and not self._is_forced else None
        elif decoder.counts_samples and not decoder.is_uncompressed and len(self._parts) == 1:
            frames = decoder.frames
        else:
            frames = None
        return frames / decoder.sample_rate if frames else None

    def _note_the_end(self) -> None:
        rate, header = self._decoder.sample_rate, self._header
        expected = self.expected_seconds
        if header is not None and not header.is_believed:
            expected = header.frames / rate
            self._note_claim(header)
        slack = MOST_PADDING if self._mp3 else 0.5
        is_short = expected is not None and self.position_seconds < expected - slack / rate
        if expected is not None and is_short and self._mp3 is not None and self._mp3.is_whole:
            self._note_claim(Header(frames=round(self.position_seconds * rate), claimed=round(expected * rate)))
            is_short, self.expected_seconds = False, None
        # Behind the last sample that the header counts a decoder may fail on a tag.
        is_cut = expected is None and bool(self._stopped or (self._layout and self._layout.is_cut))
        if is_short or is_cut:
            how_far = truncated(self.position_seconds, expected if is_short else None)
            self.damage.note(Status.truncated, how_far + (f" ({self._stopped})" if self._stopped else ""))
        if self._decoder.blank is None and (n_zeros := _zeros_at_the_end(self.path)):
            self.damage.note(Status.length_unknown, f"{n_zeros} zero bytes follow, as in a file that was not filled")
        if self._layout and self._layout.n_broken:
            pages = "a page" if self._layout.n_broken == 1 else f"{self._layout.n_broken} pages"
            self.damage.note(Status.damaged, f"{pages} broken")


def open_sound(path: Path) -> Decoder:
    """Open a file, of a chained Ogg the first link, with a header that fits its bytes; raises AudioError."""
    claim = _read_claim(path)
    return _open_plain(path, claim if isinstance(claim, Header) else None)


def _open_plain(path: Path, header: Header | None) -> Decoder:
    if header is None or header.open is None:
        return Decoder(path)
    if not header.is_wrong:
        with contextlib.suppress(AudioError):
            decoder = Decoder(path)
            if decoder.frames == header.frames:
                return decoder
            decoder.close()
    return header.open()


def _zeros_at_the_end(path: Path) -> int:
    """Count the zeros that end compressed sound, 0 where they are few: a tag may be filled up with them."""
    n_zeros = 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        left = file.seek(0, 2)
        while left > 0:
            # Few at first: nearly every file ends with something else.
            left -= (length := min(left, _LEAST_ZERO_BYTES if n_zeros else 64))
            file.seek(left)
            block = file.read(length)
            written = block.rstrip(b"\0")
            n_zeros += length - len(written)
            if written:
                break
    return n_zeros if n_zeros >= _LEAST_ZERO_BYTES else 0


def _read_claim(path: Path) -> Header | Mp3 | OggLayout | None:
    """Read what a file claims; None where it claims nothing, or cannot be read, which the decoder reports."""
    try:
        if not path.is_file():  # a pipe might never end
            return None
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"OggS":
            return read_layout(path)
        if magic == b"fLaC":
            return read_flac(path)
        return read_mp3(path) if magic[:1] == b"\xff" or magic[:3] == b"ID3" else read_header(path)
    except (OSError, ValueError):
        return None


def _parts(path: Path, layout: OggLayout | None) -> list[_Part]:
    if layout is None or layout.is_plain:
        return []

    def opener(stretch: OggStretch) -> Callable[[], Decoder]:
        return lambda: Decoder(path, ByteRanges(path, stretch.ranges))

    return [
        _Part(opener(stretch), link, stream, stretch)
        for link, stream in enumerate(layout.streams)
        for stretch in stream.stretches
    ]
