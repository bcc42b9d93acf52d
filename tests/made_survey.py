"""A survey as tests need it: recordings with clock times, and detections in them, without any sound."""

from datetime import datetime
from pathlib import Path

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found
from birdinfer.detections.recordings import Recording
from birdinfer.species import Species


def recording(start: datetime | str | None, seconds: float = 3_600.0, site: str = "A", name: str = "a") -> Recording:
    """A recording that begins at a clock time, ISO text or datetime."""
    clock = datetime.fromisoformat(start) if isinstance(start, str) else start
    return Recording(path=Path(f"{name}.wav"), name=name, file=f"{name}.wav", seconds=seconds, site=site, start=clock)


def detection(of: Recording, label: str, begin: float, end: float, confidence: float = 0.5) -> Detection:
    """A detection from one second of a recording to another."""
    species = Species(label, f"Genus {label}", f"common {label}")
    return Detection(
        recording=of, species=species, start_seconds=begin, end_seconds=end, confidence=confidence, peak_seconds=begin
    )


def survey(*parts: tuple[Recording, list[tuple[object, ...]]]) -> Found:
    """Recordings, each with (label, begin, end[, confidence]) of its detections."""
    made = [(each, [detection(each, *found) for found in listed]) for each, listed in parts]
    return lambda: iter(made)
