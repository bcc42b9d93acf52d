"""Recordings and detections as a run finds them, to be written in every format."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from birdinfer.detections.events import Detection
from birdinfer.detections.formats import TableSettings
from birdinfer.detections.recordings import Recording
from birdinfer.species import Species

BLACKBIRD = Species("eurbla", "Turdus merula", "Eurasian Blackbird", "Aves")
CUCKOO = Species("0012", "Cuculus canorus", "Common Cuckoo", "Aves")
CICADA = Species("47158son16", "Insecta", "", "Insecta")
SPECIES = (BLACKBIRD, CUCKOO, CICADA, Species("47158son17", "Insecta", "", "Insecta"))
SETTINGS = TableSettings(species=SPECIES, sample_rate=32_000)
WINTER = timezone(timedelta(hours=1))


def make_recording(file: str, **others: object) -> Recording:
    """A minute of sound."""
    values = {
        "path": Path("/cards") / file,
        "name": file.rpartition(".")[0] or file,
        "file": file,
        "seconds": 60.0,
        "sample_rate": 48_000,
    }
    return Recording(**values | others)


def make_detection(
    recording: Recording, start: float = 0.0, species: Species = BLACKBIRD, **others: object
) -> Detection:
    """One of five seconds."""
    values = {"end_seconds": start + 5, "confidence": 0.5, "peak_seconds": start}
    return Detection(recording=recording, species=species, start_seconds=start, **values | others)


def found() -> Iterator[tuple[Recording, list[Detection]]]:
    """Two sites: a recording over midnight, one without detections, one that could not be read, a last one."""
    start = datetime(2025, 2, 27, 23, 59, 55, tzinfo=WINTER)
    first = make_recording(
        "siteA/a.WAV", site="siteA", start=start, time_source="GUANO", latitude=-12.5, longitude=130.25
    )
    yield (
        first,
        [
            make_detection(first, 0.0, confidence=0.12345678),
            make_detection(first, 5.0, end_seconds=20.0, confidence=0.987654, peak_seconds=10.0, n_windows=3),
            make_detection(first, 5.0, CUCKOO),
        ],
    )
    yield make_recording("siteA/b.flac", seconds=10.00002), []
    yield make_recording("siteB/bad.wav", seconds=0.0), []
    last = make_recording("siteB/c.ogg", sample_rate=22_050)
    yield last, [make_detection(last, 2.5, CICADA, end_seconds=7.25)]


def found_in(*names: str, species: Species = BLACKBIRD) -> "list[tuple[Recording, list[Detection]]]":
    """One detection in each recording of these names."""
    recordings = [make_recording(name) for name in names]
    return [(each, [make_detection(each, species=species)]) for each in recordings]
