"""Recorded voices for tests, and whether the network that finds them is there."""

import importlib.util

import numpy as np
import pytest

from birdinfer.audio.speech import VOICE_RATE
from birdinfer.audio.stream import AudioStream

needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason="needs silero-vad: pip install --no-deps silero-vad"
)


def load(path, rate=VOICE_RATE):
    with AudioStream(path, rate) as stream:
        return np.concatenate(list(stream.blocks()))
