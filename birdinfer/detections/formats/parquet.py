"""Write detections as one Parquet table, row group by row group: long and sparse, a row for each detection.

Needs pyarrow (extra ``detect``). Names repeat, so all columns but the scores are encoded by dictionaries.
"""

from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, TableSettings, plain_text
from birdinfer.system.files import atomic_file
from birdinfer.tables.pyarrow_import import load_pyarrow as load_pyarrow

_GROUP_ROWS = 65_536
"""Rows that are in memory at a time."""
_SCORE = "confidence"


def _clock(row: Detection) -> object:
    """What the recorder's clock shows: the hour of the day is right without regard to zones."""
    clock = row.recording.clock(row.start_seconds)
    return None if clock is None else clock.replace(tzinfo=None)


def _utc(row: Detection) -> object:
    clock = row.recording.clock(row.start_seconds)
    return None if clock is None or clock.tzinfo is None else clock.astimezone(UTC)


COLUMNS: dict[str, tuple[str, Callable[[Detection], object]]] = {
    "file": ("text", lambda row: plain_text(row.recording.file)),
    "start": ("number", lambda row: row.start_seconds),
    "end": ("number", lambda row: row.end_seconds),
    "label": ("text", lambda row: row.species.label),
    "scientific_name": ("text", lambda row: row.species.scientific_name),
    "common_name": ("text", lambda row: row.species.common_name),
    "class_name": ("text", lambda row: row.species.class_name),
    _SCORE: ("score", lambda row: row.confidence),
    "peak": ("number", lambda row: row.peak_seconds),
    "windows": ("count", lambda row: row.n_windows),
    "clock_time": ("clock", _clock),
    "utc_time": ("utc", _utc),
    "time_source": ("text", lambda row: row.recording.time_source or None),
    "site": ("text", lambda row: plain_text(row.recording.site) or None),
    "latitude": ("number", lambda row: row.recording.latitude),
    "longitude": ("number", lambda row: row.recording.longitude),
    "channel": ("channel", lambda row: row.recording.channel),
}
"""Kind of value, and value, of each column; None: not known."""


def write_parquet(path: Path, found: Found, _: TableSettings) -> None:
    """Write a row for each detection, whole or not at all; MissingExtraError without pyarrow."""
    pyarrow, parquet = load_pyarrow()
    types = {
        "text": pyarrow.string(), "number": pyarrow.float64(), "score": pyarrow.float32(), "count": pyarrow.int32(),
        "clock": pyarrow.timestamp("ms"), "utc": pyarrow.timestamp("ms", "UTC"), "channel": pyarrow.int16(),
    }  # fmt: skip
    schema = pyarrow.schema([(name, types[kind]) for name, (kind, _) in COLUMNS.items()])
    repeated = [name for name in COLUMNS if name != _SCORE]
    with (
        atomic_file(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated) as writer,
    ):
        for rows in _groups(found):
            cells = [pyarrow.array([value(row) for row in rows], types[kind]) for kind, value in COLUMNS.values()]
            writer.write_table(pyarrow.Table.from_arrays(cells, schema=schema))


def _groups(found: Found) -> Iterator[list[Detection]]:
    rows: list[Detection] = []
    for _, detections in found():
        rows += detections
        while len(rows) >= _GROUP_ROWS:
            yield rows[:_GROUP_ROWS]
            del rows[:_GROUP_ROWS]
    if rows:
        yield rows
