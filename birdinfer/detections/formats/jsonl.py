"""Write detections as JSON, an object in a line for each; null is what is not known."""

from pathlib import Path

import msgspec

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, TableSettings, clock_cell, plain_text
from birdinfer.system.files import atomic_file


class Line(msgspec.Struct, frozen=True):
    """A detection; its keys are the columns of the Parquet table."""

    file: str
    start: float
    end: float
    label: str
    scientific_name: str
    common_name: str
    class_name: str
    confidence: float
    peak: float
    windows: int
    clock_time: str | None
    time_source: str | None
    site: str | None
    latitude: float | None
    longitude: float | None
    channel: int | None


def write_jsonl(path: Path, found: Found, _: TableSettings) -> None:
    """Write a line for each detection, whole or not at all."""
    encode = msgspec.json.Encoder().encode
    with atomic_file(path) as file:
        for _recording, detections in found():
            for detection in detections:
                file.write(encode(_line(detection)) + b"\n")


def _line(detection: Detection) -> Line:
    recording, species = detection.recording, detection.species
    return Line(
        file=plain_text(recording.file),
        start=round(detection.start_seconds, 6),
        end=round(detection.end_seconds, 6),
        label=species.label,
        scientific_name=plain_text(species.scientific_name),
        common_name=plain_text(species.common_name),
        class_name=plain_text(species.class_name),
        confidence=round(detection.confidence, 6),
        peak=round(detection.peak_seconds, 6),
        windows=detection.n_windows,
        clock_time=clock_cell(detection) or None,
        time_source=recording.time_source or None,
        site=plain_text(recording.site) or None,
        latitude=recording.latitude,
        longitude=recording.longitude,
        channel=recording.channel,
    )
