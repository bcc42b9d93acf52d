"""Sound at 16 kHz -> the probability of speech, by Silero VAD.

In: mono float32 [samples] at 16 kHz, whole or in blocks. Out: a probability for each 32 ms, from which
:mod:`birdinfer.audio.speech` makes spans.

The detector is Silero VAD (https://github.com/snakers4/silero-vad, MIT), a recurrent network over chunks of 512
samples, run by ONNX Runtime. Its package declares torch and torchaudio, which would replace the torch that is there,
so it is installed without its needs, and only its ONNX file is used: the one that takes many chunks in one call.
It was made for microphones before a mouth. In forests, wind and a shifted zero hide voices from it that people can
follow, so what is slower than 80 Hz is taken away, and quiet sound is raised to the level that it knows.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from birdinfer.audio.speech import VOICE_CHUNK, VOICE_RATE, Span, SpeechFinder, SpeechMuter, spans_of
from birdinfer.errors import ConfigError
from birdinfer.inference.engines.onnxruntime import open_session
from birdinfer.typing import Float32

VoiceMode = Literal["skip", "mute"]
"""What becomes of human speech: its windows are left out, or it is replaced by silence before anything is scored."""

_INSTALL = "pip install --no-deps silero-vad"
_CONTEXT = 64
"""Samples of the chunk before that are passed with a chunk."""
_HALF_MEAN = 100
"""Samples on either side of a sample whose mean is taken from it: together 12.6 ms, a period of 80 Hz."""
_LEVEL, _MAX_GAIN = 0.03, 30.0
"""Quieter calls are raised to this RMS."""
_PREPARATION = "high-pass"
"""What is done before; part of the version."""
_STATE = (1, 1, 128)
_CHUNKS_PER_CALL = 512
"""16 s: long enough for the calls to cost nothing, short enough to need no memory."""


class VoiceDetector:
    """Silero VAD; may be called from several threads at once."""

    def __init__(self, asked_by: str) -> None:
        """Load the network; ``asked_by``: the option that needs it.

        Raises:
            ConfigError: silero-vad is not installed, or too old.
            MissingExtraError: onnxruntime is not installed.
        """
        self._session = open_session(_find_graph(asked_by), ["CPUExecutionProvider"])

    def stream(self) -> "VoiceStream":
        """Begin a sound that comes in blocks."""
        return VoiceStream(self._session)

    def probabilities(self, samples: Float32) -> Float32:
        """How likely each chunk of 512 samples at 16 kHz is speech, 0 to 1; the last one is filled up with zeros."""
        stream = self.stream()
        return np.concatenate([stream.push(samples), stream.finish()])

    def speech_spans(self, samples: Float32) -> list[Span]:
        """Where there is speech in a waveform [samples] at 16 kHz: spans in order, which do not touch."""
        return spans_of(self.probabilities(samples), len(samples) / VOICE_RATE)


class VoiceStream:
    """Scores one sound block by block (:class:`birdinfer.audio.speech.SpeechProbabilities`).

    Its calls are of the same 512 chunks whatever the blocks, and the level is one for each call, so that bits do not
    depend on blocks either.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._state = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
        self._held = np.zeros(_HALF_MEAN + _CONTEXT, np.float32)
        """Samples that are not scored yet, behind those before that are needed, too."""

    def push(self, samples: Float32) -> Float32:
        """Take the next samples and return the probabilities of the chunks that are now known [chunks]."""
        self._held = np.concatenate([self._held, samples])
        n_samples, found = _CHUNKS_PER_CALL * VOICE_CHUNK, [np.zeros(0, np.float32)]
        n_needed = n_samples + _CONTEXT + 2 * _HALF_MEAN
        while len(self._held) >= n_needed:
            found.append(self._run(self._held[:n_needed]))
            self._held = self._held[n_samples:]
        return np.concatenate(found)

    def finish(self) -> Float32:
        """Return the last probabilities [chunks]; no more samples come."""
        n_left = len(self._held) - _CONTEXT - _HALF_MEAN
        held = np.pad(self._held, (0, -n_left % VOICE_CHUNK + _HALF_MEAN))
        return self._run(held) if n_left else np.zeros(0, np.float32)

    def _run(self, samples: Float32) -> Float32:
        prepared = prepare_voice(samples)
        chunks = np.lib.stride_tricks.sliding_window_view(prepared, _CONTEXT + VOICE_CHUNK)[::VOICE_CHUNK]
        hidden, cell = self._state
        inputs = {"input": np.ascontiguousarray(chunks), "h": hidden, "c": cell}
        values, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
        self._state = hidden, cell
        return np.asarray(values, np.float32).reshape(-1)


def prepare_voice(samples: Float32) -> Float32:
    """Take the mean of 100 samples on either side from each of [100 + n + 100]; raise n quiet ones to an RMS of 0.03.

    At most 30 times. The mean is a low-pass with its first zero at 80 Hz, where voices begin.
    """
    n_mean = 2 * _HALF_MEAN + 1
    sums = np.concatenate([[0.0], np.cumsum(samples, dtype=np.float64)])
    high = samples[_HALF_MEAN:-_HALF_MEAN] - (sums[n_mean:] - sums[:-n_mean]) / n_mean
    gain = min(max(_LEVEL / max(float(high.std()), 1e-9), 1.0), _MAX_GAIN)
    return np.asarray(gain * high, np.float32)


def speech_finders(mode: VoiceMode) -> Callable[[], SpeechFinder]:
    """Load the network and return what makes a finder of speech for each file.

    Raises:
        ConfigError: silero-vad is not installed, or too old.
        MissingExtraError: onnxruntime is not installed.
    """
    detector = VoiceDetector("--voice")
    kind = SpeechMuter if mode == "mute" else SpeechFinder
    return lambda: kind(detector.stream())


def detector_version() -> str:
    """Return what finds speech, "" if it is not installed: another version, or preparation, finds other speech."""
    try:
        return f"{importlib.metadata.version('silero-vad')} {_PREPARATION}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _find_graph(asked_by: str) -> Path:
    """The ONNX file within the installed package, which is not imported: it would import torch's audio."""
    found = importlib.util.find_spec("silero_vad")
    if found is None:
        raise ConfigError(asked_by, "needs silero-vad, which is not installed", _INSTALL)
    for folder in found.submodule_search_locations or ():
        path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
        if path.is_file():
            return path
    what = f"needs another silero-vad: {importlib.metadata.version('silero-vad')} lacks silero_vad_16k_sequence.onnx"
    raise ConfigError(asked_by, what, _INSTALL.replace("silero-vad", "--upgrade silero-vad"))
