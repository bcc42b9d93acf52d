"""Detections as the tables that people's programs open: one module for each format, one entry in :data:`FORMATS`.

In: recordings with their detections, one after the other. Out: a file or a folder in the folder of results.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from birdinfer.detections.formats.audacity import write_audacity
from birdinfer.detections.formats.cells import Found, TableSettings
from birdinfer.detections.formats.csv import COLUMNS as CSV_COLUMNS
from birdinfer.detections.formats.csv import write_csv
from birdinfer.detections.formats.folders import HINT, check_tables_folder
from birdinfer.detections.formats.jsonl import write_jsonl
from birdinfer.detections.formats.kaleidoscope import COLUMNS as KALEIDOSCOPE_COLUMNS
from birdinfer.detections.formats.kaleidoscope import write_kaleidoscope
from birdinfer.detections.formats.parquet import load_pyarrow, write_parquet
from birdinfer.detections.formats.raven import write_raven, write_raven_combined
from birdinfer.errors import ConfigError
from birdinfer.system.outputs import Kind, check_folder, check_outputs

__all__ = ["FORMATS", "Found", "TableSettings", "check_tables", "write_table"]


class Format(NamedTuple):
    """How detections are written."""

    output: str
    """Name of the file or folder in the folder of results."""
    write: Callable[[Path, Found, TableSettings], None]
    starts_with: str | None = None
    """How a file of birdinfer begins; None: a folder."""


FORMATS = {
    "csv": Format("detections.csv", write_csv, ",".join(CSV_COLUMNS)),
    "parquet": Format("detections.parquet", write_parquet, "PAR1"),
    "jsonl": Format("detections.jsonl", write_jsonl, '{"file":'),
    "raven": Format("raven", write_raven),
    "raven-combined": Format("raven-combined", write_raven_combined),
    "audacity": Format("audacity", write_audacity),
    "kaleidoscope": Format("kaleidoscope.csv", write_kaleidoscope, ",".join(KALEIDOSCOPE_COLUMNS)),
}


def check_tables(names: Sequence[str], folder: Path, inputs: Iterable[Path] = (), *, force: bool = False) -> None:
    """Check before hours of work that detections can be written in these formats.

    Args:
        names: of :data:`FORMATS`.
        folder: of results.
        inputs: files that the command reads.
        force: replace files that are not birdinfer's.

    Raises:
        ConfigError: there is no such format.
        MissingExtraError: Parquet is asked for, and pyarrow is not installed.
        OutputError: a table would replace an input, or what is not birdinfer's.
    """
    inputs = list(inputs)
    for name in names:
        if name not in FORMATS:
            raise ConfigError("format", f"there is no {name!r}", f"there are {', '.join(FORMATS)}")
        if name == "parquet":
            load_pyarrow()
        path, start = folder / FORMATS[name].output, FORMATS[name].starts_with
        if start is None:
            check_folder(path, inputs, hint=HINT)
            check_tables_folder(path)
        else:
            check_outputs([(path, _kind(path, start))], inputs, force=force)


def write_table(name: str, folder: Path, found: Found, settings: TableSettings) -> Path:
    """Write detections in one format, whole or not at all, in place of an older table.

    Args:
        name: of :data:`FORMATS`.
        folder: of results.
        found: recordings and their detections.
        settings: what tables need to know of the bundle.

    Returns:
        The file or folder that was written.

    Raises:
        OutputError: it cannot be written, or would replace what is not birdinfer's.
    """
    path = folder / FORMATS[name].output
    FORMATS[name].write(path, found, settings)
    return path


def _kind(path: Path, start: str) -> Kind:
    return Kind("table of detections", (path.suffix,), lambda head: head.startswith(start.encode()))
