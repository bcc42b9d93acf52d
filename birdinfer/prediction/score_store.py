"""Store scores of recordings, chunk by chunk, in memory or in an SQLite file that several threads share."""

import contextlib
import os
import sqlite3
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np

from birdinfer.audio.find import recording_name
from birdinfer.errors import OutputError
from birdinfer.typing import Float32

_CHUNK_ROWS = 1024
CHUNKS = "CREATE TABLE chunks (file BLOB, first_row INTEGER, rows BLOB, PRIMARY KEY (file, first_row)) WITHOUT ROWID"


class Database:
    """An SQLite connection that threads share; its errors name the folder that it lies in."""

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        """Open a database, or make it; one in memory without a path."""
        self._folder, self._lock = folder, threading.RLock()
        name = ":memory:" if path is None else f"file:{quote(os.fsencode(path))}?mode=rwc"
        with named_errors(folder), contextlib.ExitStack() as on_error:
            self._connection = sqlite3.connect(name, uri=True, timeout=30.0, check_same_thread=False)
            on_error.callback(self._connection.close)
            self._connection.text_factory = bytes
            if path is not None:
                self._make_durable()
            on_error.pop_all()

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection, for this thread alone."""
        with self._lock, named_errors(self._folder):
            yield self._connection

    def close(self) -> None:
        """Close it; harmless when repeated."""
        with contextlib.suppress(sqlite3.Error), self._lock:  # what is committed is safe
            self._connection.close()

    def _make_durable(self) -> None:
        self._connection.execute("PRAGMA trusted_schema = OFF")
        self._connection.execute("PRAGMA cell_size_check = ON")
        try:
            mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            mode = b""
        if mode == b"wal":
            self._connection.execute("PRAGMA synchronous = NORMAL")  # kills lose nothing; sync() waits for the disk
        else:
            self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.execute("PRAGMA synchronous = FULL")


@contextlib.contextmanager
def named_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk and of SQLite into an OutputError about the folder."""
    try:
        yield
    except OutputError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise OutputError(folder, f"is damaged ({error})", "start again with --force") from error
        raise OutputError(folder, f"cannot be written ({error})", "choose another place for the result") from error
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise OutputError(folder, problem, "choose another place for the result") from error


class ScoreStore:
    """Scores of files, [rows, species] each, float32; added and read back in chunks, so that memory stays small.

    Threads may share it. A file is identified by the recording's name.

    >>> store = ScoreStore(n_labels=2)
    >>> store.add(Path("a.ogg"), np.array([[0.1, 0.9], [0.5, 0.5]], np.float32))
    >>> store.n_rows(Path("a.ogg")), store.row(Path("a.ogg"), 1)
    (2, array([0.5, 0.5], dtype=float32))
    """

    def __init__(
        self,
        n_labels: int,
        database: Database | None = None,
        names: Mapping[Path, str] | None = None,
        *,
        kept_from: Float32 | None = None,
    ) -> None:
        """Open an empty store of ``n_labels`` species per row; in memory, or in a database with a table of chunks.

        Scores that are less than ``kept_from`` [species] come back as 0: of thousands of species few are present.
        """
        self.n_labels = n_labels
        self._kept_from = kept_from
        self._names = names or {}
        self._database = database or Database(Path())
        if database is None:
            with self._database.use() as connection:
                connection.execute(CHUNKS)
        self._n_rows: dict[bytes, int] = {}
        self._repeated: dict[bytes, bytes] = {}
        """File -> the name under which its new rows wait until they replace those of an earlier attempt."""
        self._checksums: dict[bytes, int] = {}
        self._latest: tuple[bytes, int, Float32] = (b"", 0, np.zeros((0, n_labels), np.float32))

    def add(self, path: Path, rows: Float32) -> None:
        """Store a file's next scores [rows, species] behind those that it has."""
        file = file_id(path, self._names)
        file = self._repeated.get(file, file)
        rows = np.ascontiguousarray(rows, np.float32)
        with self._database.use() as connection:
            for begin in range(0, len(rows), _CHUNK_ROWS):
                chunk, first_row = rows[begin : begin + _CHUNK_ROWS], self._n_rows.get(file, 0)
                packed = self._packed(chunk)
                connection.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (file, first_row, packed))
                self._n_rows[file] = first_row + len(chunk)
                self._checksums[file] = zlib.crc32(packed, self._checksums.get(file, 0))

    def n_rows(self, path: Path) -> int | None:
        """Return how many rows a file has; None if it has none."""
        return self._n_rows.get(file_id(path, self._names))

    def row(self, path: Path, index: int) -> Float32 | None:
        """Return a row [species] of a file; None if it has no such row. The chunk that was read last is kept."""
        file = file_id(path, self._names)
        if not 0 <= index < self._n_rows.get(file, 0):
            return None
        latest, first_row, chunk = self._latest  # chunks never change, so that it needs no lock
        if latest != file or not first_row <= index < first_row + len(chunk):
            with self._database.use() as connection:
                first_row, raw = connection.execute(
                    "SELECT first_row, rows FROM chunks WHERE file = ? AND first_row <= ? "
                    "ORDER BY first_row DESC LIMIT 1",
                    (file, index),
                ).fetchone()
            chunk = self._array(raw)
            self._latest = (file, first_row, chunk)
        row: Float32 = chunk[index - first_row]
        return row

    def scores(self, path: Path) -> Float32 | None:
        """Return all scores [rows, species] of a file; None if it has none."""
        chunks = [chunk for _, chunk in self.blocks(path)]
        return np.concatenate(chunks) if chunks else None

    def blocks(self, path: Path) -> Iterator[tuple[int, Float32]]:
        """Yield the index of a block's first row and its scores [rows, species], for all of a file, in their order."""
        for first_row, raw in self.chunks(file_id(path, self._names)):
            yield first_row, self._array(raw)

    def chunks(self, file: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the index of a chunk's first row and its bytes, for all chunks of a file, in their order."""
        with self._database.use() as connection:
            query = "SELECT first_row, rows FROM chunks WHERE file = ? ORDER BY first_row"
            yield from connection.execute(query, (file,))

    def repeat(self, file: bytes) -> None:
        """Let a file's rows stand until :meth:`end_repetition`."""
        self._repeated[file] = file + b"\0"  # which no name has

    def end_repetition(self, file: bytes, is_better: bool) -> None:
        """Replace a file's rows by those that were added since, if these are better, else drop the new ones."""
        repeated = self._repeated.pop(file, None)
        if repeated is None:
            return
        n_rows, worse = self._n_rows.pop(repeated, 0), file if is_better else repeated
        with self._database.use() as connection:
            connection.execute("DELETE FROM chunks WHERE file = ?", (worse,))
            connection.execute("UPDATE chunks SET file = ? WHERE file = ?", (file, repeated))
        if is_better:
            self.forget(file)
            if n_rows:
                self._n_rows[file] = n_rows

    def recover(self, file: bytes, n_rows: int) -> int | None:
        """Use the rows that an earlier process stored, and return their CRC-32; None if they are not all there."""
        found, checksum = 0, 0
        for first_row, raw in self.chunks(file):
            n_rows_of_chunk = self._count_rows(raw) if isinstance(raw, bytes) else None
            if first_row != found or n_rows_of_chunk is None:
                return None
            found, checksum = found + n_rows_of_chunk, zlib.crc32(raw, checksum)
        if found != n_rows:
            return None
        if n_rows:
            self._n_rows[file] = n_rows
        return checksum

    def take_checksum(self, file: bytes) -> int:
        """Return the CRC-32 of the rows that were added for a file, which is finished now."""
        return self._checksums.pop(self._repeated.get(file, file), 0)

    def forget(self, file: bytes) -> None:
        """Forget the rows of a file."""
        self._n_rows.pop(file, None)
        if self._latest[0] == file:
            self._latest = (b"", 0, np.zeros((0, self.n_labels), np.float32))

    def _packed(self, rows: Float32) -> bytes | memoryview:
        """A chunk as it is stored: all scores; or how many rows, then places and scores of those that are kept."""
        if self._kept_from is None:
            return rows.data
        places = np.flatnonzero(rows >= self._kept_from).astype(np.uint32)
        return np.uint32(len(rows)).tobytes() + places.tobytes() + rows.reshape(-1)[places].tobytes()

    def _count_rows(self, raw: bytes) -> int | None:
        """Rows of a chunk; None if it cannot be one."""
        if self._kept_from is None:
            return None if len(raw) % (4 * self.n_labels) else len(raw) // (4 * self.n_labels)
        return int.from_bytes(raw[:4], sys.byteorder) if len(raw) % 8 == 4 else None

    def _array(self, raw: bytes) -> Float32:
        if self._kept_from is None:
            return np.frombuffer(raw, np.float32).reshape(-1, self.n_labels)
        n_rows, (places, scores) = np.frombuffer(raw[:4], np.uint32)[0], np.split(np.frombuffer(raw[4:], np.uint32), 2)
        rows = np.zeros((int(n_rows), self.n_labels), np.float32)
        rows.reshape(-1)[places] = scores.view(np.float32)
        return rows


def file_id(path: Path, names: Mapping[Path, str]) -> bytes:
    """Identify a file of a run by the recording's name; one that has none by its own."""
    return (names.get(path) or recording_name(path)).encode()
