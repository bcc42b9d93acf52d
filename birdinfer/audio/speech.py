"""Where people speak in a file, found while it is read; and the sound without it.

In: blocks of mono float32 as :meth:`birdinfer.audio.stream.AudioStream.blocks_at` gives them, among them one at 16 kHz,
and for each 32 ms of it the probability of speech (:mod:`birdinfer.inference.voice`). Out: spans in seconds, and the
blocks, as they are or with speech replaced by silence. What is held does not grow with a file's length.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from birdinfer.typing import Float32

Span = tuple[float, float]
"""From and to, in seconds."""

VOICE_RATE = 16_000
"""Hz of the detector's input."""
VOICE_CHUNK = 512
"""Samples of it that get a probability."""

_CHUNK_SECONDS = VOICE_CHUNK / VOICE_RATE
_ON, _OFF = 0.5, 0.35
"""Silero's own thresholds: speech begins at the first, and ends below the second."""
_SHORTEST_SPEECH_SECONDS = 0.25
_SILENCE_CHUNKS = round(0.3 / _CHUNK_SECONDS)
"""A shorter pause is one between words."""
_PADDING_SECONDS = 0.1
"""Voices begin and end more softly than the detector notices; two paddings are shorter than a silence."""
_FADE_SECONDS = 0.01


class SpeechProbabilities(Protocol):
    """Scores sound at 16 kHz that comes in blocks; each chunk of 512 samples gets a probability from 0 to 1."""

    def push(self, samples: Float32) -> Float32:
        """Take the next samples and return the probabilities of the chunks that are now known [chunks]."""
        ...

    def finish(self) -> Float32:
        """Return the last probabilities [chunks], the last chunk filled up with zeros; no more samples come."""
        ...


class SpeechSpans:
    """Finds speech by hysteresis: from the first chunk at 0.5 until 0.3 s lie below 0.35.

    Spans last 0.25 s or more and are widened by 0.1 s on either side. They never touch.
    """

    def __init__(self) -> None:
        self._ended: list[Span] = []
        self._n_chunks = 0
        self._first = self._last = -1
        """Of the speech that has not ended; the first is -1 if there is none."""

    def push(self, probabilities: Float32) -> None:
        """Take the probabilities of the next chunks [chunks]."""
        pairs = zip((probabilities >= _ON).tolist(), (probabilities >= _OFF).tolist(), strict=True)
        for begins, continues in pairs:
            if begins and self._first < 0:
                self._first = self._n_chunks
            self._n_chunks += 1
            if self._first >= 0 and continues:
                self._last = self._n_chunks
            elif self._first >= 0 and self._n_chunks - self._last >= _SILENCE_CHUNKS:
                self._ended += self._unended()
                self._first = -1

    def latest_first(self) -> Iterator[Span]:
        """Yield all spans, the latest first; they may reach beyond either end of the sound."""
        yield from self._unended()
        yield from reversed(self._ended)

    def within(self, duration_seconds: float) -> list[Span]:
        """List the spans in order, cut off at either end of the sound."""
        spans = [(max(0.0, begin), min(duration_seconds, end)) for begin, end in self.latest_first()]
        return spans[::-1]

    @property
    def settled_seconds(self) -> float:
        """Until when nothing that is still to come can change what is speech."""
        if self._unended():
            return self._last * _CHUNK_SECONDS
        return (self._n_chunks if self._first < 0 else self._first) * _CHUNK_SECONDS - _PADDING_SECONDS

    def _unended(self) -> list[Span]:
        begin, end = self._first * _CHUNK_SECONDS, self._last * _CHUNK_SECONDS
        is_speech = self._first >= 0 and end - begin >= _SHORTEST_SPEECH_SECONDS
        return [(begin - _PADDING_SECONDS, end + _PADDING_SECONDS)] if is_speech else []


def spans_of(probabilities: Float32, duration_seconds: float) -> list[Span]:
    """Find the speech in a whole sound by its probabilities [chunks]; see :class:`SpeechSpans`."""
    found = SpeechSpans()
    found.push(probabilities)
    return found.within(duration_seconds)


class SpeechFinder:
    """Finds the speech in a file whose blocks pass through it unchanged. Not thread-safe."""

    def __init__(self, probabilities: SpeechProbabilities) -> None:
        """Start a file."""
        self._probabilities = probabilities
        self._n_samples = 0
        self._found = SpeechSpans()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Speech that was found so far, in seconds with milliseconds; complete after :meth:`rest`."""
        spans = self._found.within(self._n_samples / VOICE_RATE)
        return tuple((round(begin, 3), round(end, 3)) for begin, end in spans)

    def push(self, block: Mapping[int, Float32]) -> Mapping[int, Float32]:
        """Take the next block by rate, and return what may be cut into windows."""
        if VOICE_RATE in block:
            self._n_samples += len(block[VOICE_RATE])
            self._found.push(self._probabilities.push(block[VOICE_RATE]))
        return block

    def rest(self) -> Mapping[int, Float32]:
        """Return what was kept; no more blocks come."""
        self._found.push(self._probabilities.finish())
        return {}


class SpeechMuter(SpeechFinder):
    """Replaces the speech in a file by silence, with fades of 10 ms. It keeps some 17 s, until speech is decided."""

    def __init__(self, probabilities: SpeechProbabilities) -> None:
        """Start a file."""
        super().__init__(probabilities)
        self._kept: dict[int, _Kept] = {}

    def push(self, block: Mapping[int, Float32]) -> Mapping[int, Float32]:
        """Take the next block by rate, and return what may be cut into windows."""
        super().push(block)
        for rate, samples in block.items():
            self._kept.setdefault(rate, _Kept(rate)).push(samples)
        return self._take(self._found.settled_seconds)

    def rest(self) -> Mapping[int, Float32]:
        """Return what was kept; no more blocks come."""
        super().rest()
        return self._take(math.inf)

    def _take(self, until_seconds: float) -> dict[int, Float32]:
        taken = {rate: kept.take(until_seconds, self._found) for rate, kept in self._kept.items()}
        return {rate: samples for rate, samples in taken.items() if len(samples)}


class _Kept:
    """Samples of one rate that may still become silence."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._pieces: list[Float32] = []
        self._begin = 0

    def push(self, samples: Float32) -> None:
        self._pieces.append(samples)

    def take(self, until_seconds: float, found: SpeechSpans) -> Float32:
        samples = np.concatenate([np.zeros(0, np.float32), *self._pieces])  # a copy: it is changed
        n_taken = min(len(samples), max(0.0, until_seconds * self._rate - self._begin))
        taken, left = np.split(samples, [int(n_taken)])
        _mute(taken, self._begin, self._rate, found.latest_first())
        self._pieces, self._begin = [left], self._begin + len(taken)
        return taken


def _mute(samples: Float32, first: int, sample_rate: int, latest_first: Iterator[Span]) -> None:
    """Set speech in samples, the first of which has this number in its file, to zero."""
    n_fade = round(_FADE_SECONDS * sample_rate)
    for span in latest_first:
        begin, end = (round(edge * sample_rate) - first for edge in span)
        if end <= 0:
            return
        index = np.arange(max(begin, 0), min(end, len(samples)))
        gain = 1 - np.minimum(index - begin, end - index) / n_fade
        samples[index] *= np.maximum(gain, 0).astype(np.float32)


def speech_seconds(spans: Sequence[Span]) -> float:
    """Sum the lengths of spans.

    >>> speech_seconds([(1.0, 2.5), (4.0, 4.5)])
    2.0
    """
    return math.fsum(end - begin for begin, end in spans)


def rows_with_speech(spans: Sequence[Span], row_seconds: float) -> frozenset[int]:
    """Return the indices of the rows, from 0, that spans touch.

    >>> sorted(rows_with_speech([(4.9, 5.0), (12.0, 21.0)], 5.0))
    [0, 2, 3, 4]
    """
    return frozenset(
        row for begin, end in spans for row in range(int(begin // row_seconds), math.ceil(end / row_seconds))
    )
