"""Write detections as Audacity's label tracks, one for each recording: begin, end and text with tabs between.

The text is ``NAME; SCORE``. A fourth column for the score, as BirdNET-Analyzer writes it, would become a part of the
text in Audacity and is refused by other readers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, TableSettings, plain_text, shown_names
from birdinfer.detections.formats.folders import write_per_recording
from birdinfer.detections.recordings import Recording

ENDING = ".txt"


def write_audacity(path: Path, found: Found, settings: TableSettings) -> None:
    """Write a folder with a label track for each recording with detections: an empty one is none to any reader."""
    names = shown_names(settings.species)

    def write(text: TextIO, _: Recording, detections: Sequence[Detection]) -> None:
        for detection in detections:
            times = f"{detection.start_seconds:.6f}\t{detection.end_seconds:.6f}"
            name = plain_text(names[detection.species.label])
            text.write(f"{times}\t{name}; {detection.confidence:.4f}\n")

    write_per_recording(path, ENDING, lambda: (each for each in found() if each[1]), write)
