"""Write detections as Raven's selection tables: one for each recording, or a combined one with running times.

A combined table is opened in Raven together with the list of its recordings. The times of a recording begin where the
sound of those before it ends, to the sample; ``File Offset (s)`` is the time in the recording itself.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import (
    Found,
    TableSettings,
    name_cell,
    plain_text,
    seconds_cell,
    shown_names,
)
from birdinfer.detections.formats.folders import tables_folder, write_per_recording
from birdinfer.detections.recordings import Recording

COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
    "Common Name", "Scientific Name", "Species Code", "Confidence", "Begin Path", "File Offset (s)",
)  # fmt: skip
ENDING = ".selections.txt"
COMBINED, LIST = f"combined{ENDING}", "combined.list.txt"


def write_raven(path: Path, found: Found, settings: TableSettings) -> None:
    """Write a folder with a selection table for each recording; one without detections has a header only."""
    cells = _Cells(settings)

    def write(text: TextIO, recording: Recording, detections: Sequence[Detection]) -> None:
        _write_line(text, COLUMNS)
        for number, detection in enumerate(detections, start=1):
            _write_line(text, cells.of(number, detection))

    write_per_recording(path, ENDING, found, write)


def write_raven_combined(path: Path, found: Found, settings: TableSettings) -> None:
    """Write a folder with one selection table of all recordings, and the list of them that Raven opens with it."""
    cells, numbers = _Cells(settings), itertools.count(1)
    begin, end, latest = 0.0, 0.0, None
    with (
        tables_folder(path) as folder,
        (folder / COMBINED).open("w", encoding="utf-8", newline="") as text,
        (folder / LIST).open("w", encoding="utf-8", newline="") as listed,
    ):
        _write_line(text, COLUMNS)
        for recording, detections in found():
            if recording.seconds > 0:
                if recording.path != latest:  # the channels of a file begin together
                    _write_line(listed, [_path_cell(recording)])
                    begin, end, latest = end, end + recording.seconds, recording.path
                for detection in detections:
                    _write_line(text, cells.of(next(numbers), detection, begin))


class _Cells:
    """The cells of a row."""

    def __init__(self, settings: TableSettings) -> None:
        self._names = shown_names(settings.species)
        self._sample_rate = settings.sample_rate

    def of(self, number: int, detection: Detection, seconds_before: float = 0.0) -> list[str]:
        recording, species = detection.recording, detection.species
        sample_rate = min(recording.sample_rate or self._sample_rate, self._sample_rate)
        return [
            str(number),
            "Spectrogram 1",
            str(recording.channel or 1),
            seconds_cell(seconds_before + detection.start_seconds),
            seconds_cell(seconds_before + detection.end_seconds),
            "0.0",
            f"{sample_rate / 2:.1f}",
            _unquoted(name_cell(species.common_name or self._names[species.label])),
            _unquoted(name_cell(species.scientific_name)),
            _unquoted(name_cell(species.label)),
            f"{detection.confidence:.4f}",
            _path_cell(recording),
            seconds_cell(detection.start_seconds),
        ]


def _write_line(text: TextIO, cells: Iterable[str]) -> None:
    text.write("\t".join(cells) + "\n")


def _path_cell(recording: Recording) -> str:
    return plain_text(str(recording.path.absolute()))


def _unquoted(cell: str) -> str:
    """Raven knows no quotes; other readers take one at the beginning of a cell for the beginning of a quoted cell."""
    return f"'{cell[1:]}" if cell.startswith('"') else cell
