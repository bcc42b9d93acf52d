"""Recordings whose sound says where in the file it is, and detections in them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.detections.events import Detection
from birdinfer.detections.recordings import Recording
from birdinfer.species import Species

SPECIES = (
    Species("eurbla", "Turdus merula", "Eurasian Blackbird", "Aves"),
    Species("comcuc", "Cuculus canorus", "Common Cuckoo", "Aves"),
    Species("47158son16"),
)
RATE = 16_000


def climbing(seconds: float, rate: int = RATE) -> np.ndarray:
    """Sound whose value is its second: 12.5 s -> 0.125 (its mean over a stretch says where the stretch is)."""
    return (np.arange(round(seconds * rate)) / rate / 100).astype(np.float32)


def make_recording(path: Path, seconds: float = 60.0, **values: Any) -> Recording:
    """A recording of a path, which need not be there."""
    known = {"name": path.stem, "file": path.name, "sample_rate": RATE, "start": datetime(2025, 6, 1, 5, 59, 30)}
    return Recording(path=path, seconds=seconds, **known | values)


def make_detection(recording: Recording, start: float, confidence: float = 0.5, **values: Any) -> Detection:
    """A detection of five seconds of a blackbird."""
    known = {"species": SPECIES[0], "end_seconds": start + 5, "peak_seconds": start}
    return Detection(recording=recording, start_seconds=start, confidence=confidence, **known | values)


def found_of(*detections: Sequence[Detection]) -> Callable[[], Iterator[tuple[Recording, list[Detection]]]]:
    """What writes detections takes: the recordings with theirs, as often as they are asked for."""
    return lambda: iter([(each[0].recording, list(each)) for each in detections])
