"""Write detections as Kaleidoscope's CSV of all recordings: only columns that it knows, since it hides all others.

``TOP1MATCH`` and ``TOP1DIST`` are where it shows a classifier's species and score; ``MANUAL ID`` is left to the user.
A path is ``INDIR/FOLDER/IN FILE``, channels count from 0.
"""

from pathlib import Path, PurePosixPath

from birdinfer.detections.formats.cells import (
    Found,
    TableSettings,
    file_cell,
    name_cell,
    plain_text,
    seconds_cell,
    shown_names,
)
from birdinfer.detections.recordings import Recording
from birdinfer.system.files import atomic_text
from birdinfer.tables.csv import CsvWriter

COLUMNS = ("INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST", "MANUAL ID")


def write_kaleidoscope(path: Path, found: Found, settings: TableSettings) -> None:
    """Write a row for each detection, whole or not at all."""
    names = shown_names(settings.species)
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row(COLUMNS[0], COLUMNS[1:])
        for recording, detections in found():
            folders = _folders(recording)
            for detection in detections:
                seconds = detection.end_seconds - detection.start_seconds
                cells = [
                    *folders[1:],
                    str((recording.channel or 1) - 1),
                    seconds_cell(detection.start_seconds),
                    seconds_cell(seconds),
                    name_cell(names[detection.species.label]),
                    f"{detection.confidence:.4f}",
                    "",
                ]
                table.row(folders[0], cells)


def _folders(recording: Recording) -> tuple[str, str, str]:
    """The folder of the input, the folder within it and the file's name."""
    path, within = recording.path.absolute(), PurePosixPath(recording.file)
    depth = len(within.parts)
    if path.parts[-depth:] != within.parts:  # a name with a number, or written with escapes
        return plain_text(str(path.parent)), "", file_cell(path.name)
    folder = str(Path(*within.parent.parts)) if depth > 1 else ""
    return plain_text(str(Path(*path.parts[:-depth]))), file_cell(folder), file_cell(path.name)
