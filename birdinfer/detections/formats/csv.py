"""Write detections as one CSV: the columns of BirdNET-Analyzer first, as its users' scripts read them, then others."""

from pathlib import Path

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import (
    Found,
    TableSettings,
    clock_cell,
    degrees_cell,
    file_cell,
    name_cell,
    seconds_cell,
)
from birdinfer.system.files import atomic_text
from birdinfer.tables.csv import CsvWriter

COLUMNS = (
    "Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File",
    "Label", "Class name", "Peak (s)", "Windows", "Clock time", "Time source", "Site", "Latitude", "Longitude",
    "Channel",
)  # fmt: skip


def write_csv(path: Path, found: Found, _: TableSettings) -> None:
    """Write a row for each detection, whole or not at all."""
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row(COLUMNS[0], COLUMNS[1:])
        for _recording, detections in found():
            for detection in detections:
                start, *others = _cells(detection)
                table.row(start, others)


def _cells(detection: Detection) -> list[str]:
    recording, species = detection.recording, detection.species
    return [
        seconds_cell(detection.start_seconds),
        seconds_cell(detection.end_seconds),
        name_cell(species.scientific_name),
        name_cell(species.common_name),
        f"{detection.confidence:.6f}",
        file_cell(recording.file),
        name_cell(species.label),
        name_cell(species.class_name),
        seconds_cell(detection.peak_seconds),
        str(detection.n_windows),
        clock_cell(detection),
        recording.time_source,
        name_cell(recording.site),
        degrees_cell(recording.latitude),
        degrees_cell(recording.longitude),
        "" if recording.channel is None else str(recording.channel),
    ]
