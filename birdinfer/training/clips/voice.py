"""People's speech in a waveform -> where it is, and the waveform without it.

In: mono float32 [samples], at 16 kHz to be searched, at any rate to be cut. Out: spans in seconds, and the sound that
is left. Recordists name date and species at a clip's end; a network would learn their voices as well as the birds'.

The detector is Silero VAD (https://github.com/snakers4/silero-vad, MIT), a recurrent network over chunks of 512
samples, run by ONNX Runtime. Its package declares torch and torchaudio, which would replace the torch that is there,
so it is installed without its needs, and only its ONNX file is used: the one that takes many chunks in one call.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.engines.onnxruntime import open_session
from birdinfer.errors import ConfigError

Float32 = npt.NDArray[np.float32]
Span = tuple[float, float]
"""From and to, in seconds."""

VOICE_RATE = 16_000
"""Hz that the detector hears."""

_INSTALL = "pip install --no-deps silero-vad"
_CHUNK, _CONTEXT = 512, 64
"""Samples that get a probability, and samples of the chunk before that are heard with them."""
_STATE = (1, 1, 128)
_CHUNKS_PER_CALL = 512
"""16 s: long enough for the calls to cost nothing, short enough to need no memory."""

_ON, _OFF = 0.5, 0.35
"""Silero's own thresholds: speech begins at the first, and ends below the second."""
_SHORTEST_SPEECH_SECONDS = 0.25
_SHORTEST_SILENCE_SECONDS = 0.3
"""A shorter pause is one between words."""
_PADDING_SECONDS = 0.1
"""Voices begin and end more softly than the detector notices."""
_FADE_SECONDS = 0.01


class Removal(NamedTuple):
    """A waveform after :func:`remove_spans`."""

    samples: Float32
    removed_seconds: float
    note: str = ""
    """Why speech was left in, "" if none was."""


class VoiceDetector:
    """Silero VAD; may be called from several threads at once."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            ConfigError: silero-vad is not installed, or too old.
            MissingExtraError: onnxruntime is not installed.
        """
        self._session = open_session(_find_graph(), ["CPUExecutionProvider"])

    def probabilities(self, samples: Float32) -> Float32:
        """How likely each chunk of 32 ms is speech, 0 to 1.

        Args:
            samples: mono waveform at 16 kHz.

        Returns:
            [ceil(samples / 512)]; the last chunk is filled up with zeros.
        """
        hidden, cell = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
        found = [np.zeros(0, np.float32)]
        for chunks in _chunks(samples):
            inputs = {"input": chunks, "h": hidden, "c": cell}
            values, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            found.append(values.reshape(-1))
        return np.concatenate(found)

    def speech_spans(self, samples: Float32) -> list[Span]:
        """Where there is speech in a waveform [samples] at 16 kHz: spans in order, which do not touch."""
        return spans_of(self.probabilities(samples), len(samples) / VOICE_RATE)


def detector_version() -> str:
    """The version of the network, "" if it is not installed: another one finds other speech."""
    try:
        return importlib.metadata.version("silero-vad")
    except importlib.metadata.PackageNotFoundError:
        return ""


def spans_of(probabilities: Float32, duration_seconds: float) -> list[Span]:
    """Speech by hysteresis: from the first chunk at 0.5 until 0.3 s lie below 0.35.

    Args:
        probabilities: [chunks] of 32 ms, 0 to 1.
        duration_seconds: of the sound; no span reaches beyond it.

    Returns:
        Spans of 0.25 s or more, widened by 0.1 s on either side, joined where they then touch.
    """
    chunk_seconds = _CHUNK / VOICE_RATE
    spans: list[Span] = []
    for first, last in _runs(probabilities, round(_SHORTEST_SILENCE_SECONDS / chunk_seconds)):
        if (last - first) * chunk_seconds < _SHORTEST_SPEECH_SECONDS:
            continue
        begin = max(0.0, first * chunk_seconds - _PADDING_SECONDS)
        end = min(duration_seconds, last * chunk_seconds + _PADDING_SECONDS)
        if spans and begin <= spans[-1][1]:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return spans


def remove_spans(samples: Float32, spans: Sequence[Span], sample_rate: int, least_seconds: float) -> Removal:
    """Cut spans out of a waveform; what is left is joined by cross-fades of 10 ms of equal power.

    Args:
        samples: mono waveform.
        spans: from and to in seconds, in order, not touching.
        sample_rate: Hz, of the waveform.
        least_seconds: where less than this would be left, everything is, with a note.
    """
    cuts = [0, *(min(round(edge * sample_rate), len(samples)) for span in spans for edge in span), len(samples)]
    removed = sum(end - begin for begin, end in zip(cuts[1::2], cuts[2::2], strict=False)) / sample_rate
    if not removed:
        return Removal(samples, 0.0)
    kept = len(samples) / sample_rate - removed
    if kept < least_seconds:
        note = f"{removed:.1f} s of speech are left in, without them there would be {kept:.1f} s"
        return Removal(samples, 0.0, note)
    pieces = [samples[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True) if end > begin]
    return Removal(_joined(pieces, round(_FADE_SECONDS * sample_rate)), removed)


def _find_graph() -> Path:
    """The ONNX file within the installed package, which is not imported: it would import torch's audio."""
    found = importlib.util.find_spec("silero_vad")
    if found is None:
        raise ConfigError("data.remove_voice", "is true, silero-vad is not installed", _INSTALL)
    for folder in found.submodule_search_locations or ():
        path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
        if path.is_file():
            return path
    told = f"is true, silero-vad {detector_version()} lacks silero_vad_16k_sequence.onnx"
    raise ConfigError("data.remove_voice", told, _INSTALL.replace("silero-vad", "--upgrade silero-vad"))


def _chunks(samples: Float32) -> Iterator[Float32]:
    """[chunks, 64 + 512], at most 512 chunks at a time; before the first lie zeros."""
    n_chunks = -(-len(samples) // _CHUNK)
    padded = np.zeros(_CONTEXT + n_chunks * _CHUNK, np.float32)
    padded[_CONTEXT : _CONTEXT + len(samples)] = samples
    for first in range(0, n_chunks, _CHUNKS_PER_CALL):
        stretch = padded[first * _CHUNK : min(first + _CHUNKS_PER_CALL, n_chunks) * _CHUNK + _CONTEXT]
        yield np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(stretch, _CONTEXT + _CHUNK)[::_CHUNK])


def _runs(probabilities: Float32, shortest_silence: int) -> Iterator[tuple[int, int]]:
    """Begin and end of speech in chunks, pauses shorter than ``shortest_silence`` included."""
    first = last = -1
    for index, probability in enumerate(probabilities):
        if first < 0 and probability >= _ON:
            first = index
        if first >= 0 and probability >= _OFF:
            last = index + 1
        elif first >= 0 and index + 1 - last >= shortest_silence:
            yield first, last
            first = -1
    if first >= 0:
        yield first, last


def _joined(pieces: Sequence[Float32], n_fade: int) -> Float32:
    """The pieces one after another, each join a fade of at most ``n_fade`` samples that both share."""
    whole = [pieces[0]]
    for piece in pieces[1:]:
        before = whole.pop()
        shared = min(n_fade, len(before), len(piece))
        way = (
            (np.arange(shared, dtype=np.float32) + np.float32(0.5)) / np.float32(max(1, shared)) * np.float32(np.pi / 2)
        )
        kept = len(before) - shared
        join = before[kept:] * np.cos(way) + piece[:shared] * np.sin(way)
        whole += [before[:kept], join, piece[shared:]]
    return np.concatenate(whole)
