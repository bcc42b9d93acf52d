"""What is kept of a unit: a Parquet table of scores, then a marker that says what became of each of its files.

The table is sparse and open to any program: ``file`` (the recording's name), ``start`` (seconds), ``label``, ``score``
(float32), a row for each score that is kept, by file, window and species. Its bytes follow from the unit's files and
the run's identity alone, whoever writes it. ``_scores/scores-DIGEST.parquet``, if asked for, has a row for each window,
with all its scores in the bundle's order.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from birdinfer.audio.levels import ChannelLevel
from birdinfer.audio.metadata import FileMetadata
from birdinfer.audio.speech import Span
from birdinfer.audio.status import FINE, Status
from birdinfer.detections.formats.parquet import load_pyarrow
from birdinfer.inference.results import SoundscapeResult
from birdinfer.typing import Float32


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a file: a :class:`~birdinfer.inference.results.SoundscapeResult` without its path."""

    name: str
    status: Status
    n_rows: int = 0
    seconds: float = 0.0
    expected_seconds: float | None = None
    problem: str = ""
    channel: str = ""
    levels: tuple[ChannelLevel, ...] = ()
    sample_rate: int = 0
    speech: tuple[Span, ...] | None = None
    metadata: FileMetadata = FileMetadata()

    @classmethod
    def of(cls, name: str, result: SoundscapeResult, metadata: FileMetadata) -> "FileRecord":
        """Keep a result."""
        return cls(
            name, result.status, result.n_rows, result.seconds, result.expected_seconds, result.problem,
            result.channel, result.levels, result.sample_rate, result.speech, metadata,
        )  # fmt: skip

    def result(self, path: Path) -> SoundscapeResult:
        """Return the result of the file at a path."""
        return SoundscapeResult(
            path, self.status, n_rows=self.n_rows, seconds=self.seconds, expected_seconds=self.expected_seconds,
            problem=self.problem, channel=self.channel, levels=self.levels, sample_rate=self.sample_rate,
            speech=self.speech,
        )  # fmt: skip


class Marker(msgspec.Struct, frozen=True):
    """A finished unit; equal for all who finish it, but for what it took them."""

    unit: int
    digest: str
    sha256: dict[str, str]
    """Of its tables, by their kind: ``part``, ``scores``."""
    files: tuple[FileRecord, ...]
    core_seconds: float = 0.0
    wall_seconds: float = 0.0
    host: str = ""

    @property
    def sound_seconds(self) -> float:
        """Sound that was processed."""
        return sum(each.seconds for each in self.files)

    @property
    def n_problems(self) -> int:
        """Files with which something is wrong."""
        return sum(each.status not in FINE for each in self.files)

    @classmethod
    def decode(cls, content: bytes) -> "Marker":
        """Read a marker; msgspec.DecodeError if it is none."""
        return msgspec.json.decode(content, type=cls)

    def encode(self) -> bytes:
        """Return the bytes of ``_markers/part-DIGEST.json``."""
        return msgspec.json.encode(self) + b"\n"


@dataclass(slots=True)
class KeptScores:
    """Scores of one recording that are kept, as they come chunk by chunk."""

    kept_from: Float32
    keep_top: int
    dtype: type[np.floating[Any]] | None
    """Of all scores; None: they are not kept."""
    n_rows: int = 0
    rows: list[np.ndarray[Any, Any]] = field(default_factory=list)
    columns: list[np.ndarray[Any, Any]] = field(default_factory=list)
    scores: list[Float32] = field(default_factory=list)
    wide: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def add(self, chunk: Float32) -> None:
        """Add the next rows [n, species]."""
        is_kept = chunk >= self.kept_from
        left = chunk.copy() if self.keep_top > 1 else chunk
        for _ in range(min(self.keep_top, chunk.shape[1])):
            best = left.argmax(axis=1)
            is_kept[np.arange(len(chunk)), best] = True
            if self.keep_top > 1:
                left[np.arange(len(chunk)), best] = -np.inf
        rows, columns = np.nonzero(is_kept)
        self.rows.append(rows + self.n_rows)
        self.columns.append(columns)
        self.scores.append(chunk[rows, columns])
        if self.dtype is not None:
            self.wide.append(chunk.astype(self.dtype))
        self.n_rows += len(chunk)


def tables_of(kept: Sequence[tuple[str, KeptScores]], labels: Sequence[str], row_seconds: float) -> dict[str, Any]:
    """Make the tables of a unit from the scores of its recordings, in order."""
    pyarrow, _ = load_pyarrow()
    rows = [np.concatenate([np.zeros(0, np.int64), *each.rows]) for _, each in kept]
    columns = [np.concatenate([np.zeros(0, np.int64), *each.columns]) for _, each in kept]
    scores = [np.concatenate([np.zeros(0, np.float32), *each.scores]) for _, each in kept]
    label_of, names = np.array(labels, object), np.array([name for name, _ in kept], object)
    empty = np.zeros(0, np.int64)
    tables = {
        "part": pyarrow.table(
            {
                "file": pyarrow.array(np.repeat(names, [len(each) for each in rows]), pyarrow.string()),
                "start": pyarrow.array(np.concatenate([empty, *rows]) * row_seconds, pyarrow.float64()),
                "label": pyarrow.array(label_of[np.concatenate([empty, *columns])], pyarrow.string()),
                "score": pyarrow.array(np.concatenate([np.zeros(0, np.float32), *scores]), pyarrow.float32()),
            }
        )
    }
    if any(each.dtype for _, each in kept):
        dtype = next(each.dtype for _, each in kept if each.dtype)
        n_rows = [each.n_rows for _, each in kept]
        flat = np.concatenate([np.zeros(0, dtype), *(chunk.ravel() for _, each in kept for chunk in each.wide)])
        tables["scores"] = pyarrow.table(
            {
                "file": pyarrow.array(np.repeat(names, n_rows), pyarrow.string()),
                "start": pyarrow.array(
                    np.concatenate([empty, *(np.arange(n) for n in n_rows)]) * row_seconds, pyarrow.float64()
                ),
                "scores": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), len(labels)),
            }
        )
    return tables


def joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the tables of several pieces of a unit."""
    pyarrow, _ = load_pyarrow()
    return {kind: pyarrow.concat_tables([each[kind] for each in tables]).combine_chunks() for kind in tables[0]}


def parquet_bytes(table: Any) -> bytes:
    """Return a table as a Parquet file: the same bytes for the same table."""
    _, parquet = load_pyarrow()
    buffer = io.BytesIO()
    repeated = [name for name in ("file", "start", "label") if name in table.column_names]
    parquet.write_table(table, buffer, compression="zstd", use_dictionary=repeated, row_group_size=1 << 20)
    return buffer.getvalue()


def read_tables(contents: dict[str, bytes]) -> dict[str, Any]:
    """Read tables back."""
    pyarrow, parquet = load_pyarrow()
    return {kind: parquet.read_table(pyarrow.BufferReader(content)) for kind, content in contents.items()}
