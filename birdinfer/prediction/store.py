"""Store what a run has finished in an SQLite file beside its result, so that a killed run continues where it was.

``submission.csv.progress/`` is removed when the result is written and nothing is wrong with any file; else it stays, so
that the files with problems can be repeated. Each finished file is one commit: a kill costs only the files that were
being processed, a power cut also those of the last second or two. A checksum over a file's record and rows shows what a
disk has changed; such a file is processed again, and of a damaged database all that can be read is saved. On disks that
cannot keep a write-ahead log (network disks without shared memory) SQLite's rollback journal is used.
"""

import contextlib
import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

import msgspec

from birdinfer.audio.channels import split_channel
from birdinfer.audio.levels import ChannelLevel
from birdinfer.audio.speech import Span
from birdinfer.audio.status import FINE, Status
from birdinfer.errors import OutputError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.score_store import CHUNKS, Database, ScoreStore, file_id, named_errors
from birdinfer.system.locks import try_lock
from birdinfer.typing import Float32

FOLDER_ENDING = ".progress"
_DATABASE = "run.sqlite"
_OLDER_FORMAT = ("run.json", "done.jsonl", "scores.f32")  # in progress folders from before birdinfer used SQLite
_DAMAGED = f"{_DATABASE}-damaged"
_LOG_ENDINGS = ("-wal", "-shm", "-journal")
_FORMAT = 1  # ``PRAGMA user_version`` of a database that holds a run; 0: none was begun
_ENDED = 1  # ``PRAGMA application_id`` of a database whose run has tried every file
_SYNC_SECONDS = 1.0  # work that a power cut may cost: waiting for the disk after every file would cost more
_NOT_THERE = (-1, -1)  # size and time of a sound file that is gone
_NOT_DONE = frozenset({Status.skipped_by_budget, Status.stopped})
_TABLES = """
CREATE TABLE run (identity BLOB);
CREATE TABLE files (file BLOB PRIMARY KEY, record BLOB, crc32 INTEGER) WITHOUT ROWID;
"""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is stored of a finished file besides its rows; size and time are those when it was opened."""

    size_bytes: int
    modified_ns: int
    status: Status
    n_rows: int
    seconds: float
    expected_seconds: float | None
    level: str
    problem: str
    channel: str = ""
    levels: tuple[ChannelLevel, ...] = ()
    sample_rate: int = 0
    speech: tuple[Span, ...] | None = None


class RunStore:
    """Store rows and results of a run; a :class:`birdinfer.inference.results.ResultSink`.

    Use as a context manager; at the end of a run whose result is safe, :meth:`discard` it, or :meth:`end` it if files
    are to be repeated. Every method may raise an OutputError, in one line: the disk does not accept something, the
    folder is damaged or of an older version.
    """

    tried: dict[Path, SoundscapeResult]
    """Files of the run that is resumed with which something was wrong; each stands until it was repeated as well."""

    def __init__(
        self,
        result: Path,
        n_labels: int,
        names: Mapping[Path, str] | None = None,
        *,
        kept_from: Float32 | None = None,
    ) -> None:
        """Open the folder beside a result; raise OutputError if another process is at work there.

        ``names`` of the recordings identify them in the folder; each file's own name where they are left out.
        ``kept_from``: as of :class:`ScoreStore`.
        """
        self._names, self._kept_from = names or {}, kept_from
        self.folder = result.with_name(result.name + FOLDER_ENDING)
        self._trash = self.folder.with_name(f".{self.folder.name}.old")
        self._n_labels = n_labels
        self.tried = {}
        self._database: Database | None = None
        self._scores: ScoreStore | None = None
        self._sizes: dict[bytes, tuple[int, int]] = {}
        self._synced = time.monotonic()
        self._lock = contextlib.ExitStack()
        self._is_locked = self._lock.enter_context(try_lock(self.folder.with_name(f".{self.folder.name}.lock")))
        if not self._is_locked:
            problem = f"another process is writing it (see {self.folder})"
            raise OutputError(result, problem, "wait for it, or name another result")
        with contextlib.ExitStack() as on_error, named_errors(self.folder):
            on_error.callback(self.close)
            _check_is_own(self._trash)
            _check_is_own(self.folder)
            shutil.rmtree(self._trash, ignore_errors=True)  # of a process that was killed while it removed the folder
            self.folder.mkdir(parents=True, exist_ok=True)
            on_error.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_locked:
            with contextlib.suppress(OutputError):  # what cannot be read is left alone
                if not self.n_done():
                    self.discard()  # a run that was refused leaves nothing behind
        self.close()

    @property
    def scores(self) -> ScoreStore:
        """The rows of all files."""
        assert self._scores is not None  # begin() or resume() was called
        return self._scores

    def n_done(self) -> int:
        """Count the files that are finished, by this run or by a stopped one."""
        if not self._has_run():
            return 0
        with self._open().use() as connection:
            return int(connection.execute("SELECT count(*) FROM files").fetchone()[0])

    def has_ended(self) -> bool:
        """Whether the run has tried every file: what is left can only be repeated."""
        if not self._has_run():
            return False
        with self._open().use() as connection:
            return bool(connection.execute("PRAGMA application_id").fetchone() == (_ENDED,))

    def end(self) -> None:
        """Note that every file was tried, and keep what :meth:`resume` needs to repeat some of them."""
        with self._open().use() as connection:
            connection.execute(f"PRAGMA application_id = {_ENDED}")
            connection.commit()
        self.sync()

    def identity(self) -> RunIdentity | None:
        """Return what the stopped run was; None if there is none."""
        if not self._has_run():
            return None
        with self._open().use() as connection:
            (content,) = connection.execute("SELECT identity FROM run").fetchone() or (b"",)
        try:
            return msgspec.json.decode(_unsealed(content), type=RunIdentity)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            raise OutputError(self.folder, f"is damaged ({error})", "start again with --force") from error

    def begin(self, identity: RunIdentity) -> None:
        """Start a run; what the folder holds is lost."""
        self._close_database()
        with named_errors(self.folder):
            # The database goes first: a log without one is removed before the next database is made, and never read.
            for name in (_DATABASE, *(_DATABASE + ending for ending in _LOG_ENDINGS), _DAMAGED, *_OLDER_FORMAT):
                (self.folder / name).unlink(missing_ok=True)
        content = msgspec.json.encode(identity)
        self._begin(b"%b\n%08x" % (content, zlib.crc32(content)))

    def _begin(self, identity: bytes) -> None:
        with self._open().use() as connection:
            connection.executescript(f"BEGIN; {_TABLES} {CHUNKS}; PRAGMA user_version = {_FORMAT};")
            connection.execute("INSERT INTO run VALUES (?)", (identity,))
            connection.commit()

    def resume(self, identity: RunIdentity, paths: Sequence[Path]) -> dict[Path, SoundscapeResult]:
        """Continue the run that was stopped here, or start one if there is none.

        Returns the results of the finished files in the order of ``paths``; a file that has changed since, or was not
        among them, has to be processed. So do those in :attr:`tried`.

        Raises:
            OutputError: another run was stopped here that has finished files, or some of them are not in ``paths``, or
                not there: their rows would be lost. Nothing was changed.
        """
        found = self.identity()
        if found is None or not self.n_done():
            self.begin(identity)
            return {}
        if found != identity:
            raise OutputError(self.folder, found.difference(identity), "run it as it was, or start again with --force")
        path_of = {file_id(path, self._names): path for path in paths}
        known: dict[bytes, SoundscapeResult] = {}
        with self._open().use() as connection:
            stored = connection.execute("SELECT file, record, crc32 FROM files").fetchall()
            self._check_sources(stored, path_of)
            for file, content, checksum in stored:
                path = path_of.get(file)
                result = None if path is None else self._recovered(path, content, checksum)
                if result is not None:
                    known[file] = result
            gone = [(file,) for file, _, _ in stored if file not in known]
            connection.executemany("DELETE FROM files WHERE file = ?", gone)
            connection.execute("DELETE FROM chunks WHERE file NOT IN (SELECT file FROM files)")
            connection.execute("PRAGMA application_id = 0")
            connection.commit()
        in_order = {path: known[file] for file, path in path_of.items() if file in known}
        self.tried = {path: result for path, result in in_order.items() if result.status not in FINE}
        for path in self.tried:
            self.scores.repeat(file_id(path, self._names))
        return {path: result for path, result in in_order.items() if result.status in FINE}

    def _check_sources(self, stored: Sequence[tuple[bytes, object, object]], path_of: Mapping[bytes, Path]) -> None:
        """Refuse to lose the rows of finished files that are not among the inputs, or whose disk is gone."""
        lost = [
            file
            for file, content, checksum in stored
            if (file not in path_of or _size_and_time(path_of[file]) == _NOT_THERE)
            and (record := self._record(file, content, checksum)) is not None
            and record.status in FINE
        ]
        if lost:
            first = lost[0].decode(errors="replace")
            problem = f"holds {len(lost)} finished files that are not among the inputs, or gone: {first}"
            hint = "name the inputs of the stopped run, with their disk in its place, or start again with --force"
            raise OutputError(self.folder, problem, hint)

    def mend(self) -> bool:
        """Save what can be read of a damaged database; whether it was damaged. OutputError if nothing can be saved."""
        if (self.folder / _DAMAGED).exists():  # this was interrupted
            self._rename(_DAMAGED, _DATABASE)
        if not (self.folder / _DATABASE).exists():
            return False
        with contextlib.suppress(OutputError), self._open().use() as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() == (b"ok",):
                return False
        self._close_database()
        self._rename(_DATABASE, _DAMAGED)
        try:
            damaged = Database(self.folder, self.folder / _DAMAGED)
            with contextlib.closing(damaged):
                self._copy_readable(damaged)
        except BaseException:
            self._close_database()
            self._rename(_DAMAGED, _DATABASE)
            raise
        with named_errors(self.folder):
            for ending in (*_LOG_ENDINGS, ""):
                (self.folder / (_DAMAGED + ending)).unlink(missing_ok=True)
        return True

    def _rename(self, name: str, to: str) -> None:
        with named_errors(self.folder):
            for ending in (*_LOG_ENDINGS, ""):
                (self.folder / (to + ending)).unlink(missing_ok=True)
                if (self.folder / (name + ending)).exists():
                    (self.folder / (name + ending)).rename(self.folder / (to + ending))

    def _copy_readable(self, damaged: Database) -> None:
        """Copy the files whose record and rows can still be read; :meth:`resume` holds them against their checksums."""
        stored: dict[bytes, tuple[bytes, bytes, int]] = {}
        with damaged.use() as connection:
            (identity,) = connection.execute("SELECT identity FROM run").fetchone()
            for order in ("ASC", "DESC"):  # up to the damage, from either side
                with contextlib.suppress(sqlite3.DatabaseError):
                    rows = connection.execute(f"SELECT file, record, crc32 FROM files ORDER BY file {order}")
                    stored.update((row[0], row) for row in rows)
        self._begin(identity)
        old = ScoreStore(self._n_labels, damaged)  # copied as it is
        with self._open().use() as connection:
            for file, *record in stored.values():
                with contextlib.suppress(OutputError):  # its rows are where the damage is
                    chunks = [(file, first_row, rows) for first_row, rows in old.chunks(file)]
                    connection.executemany("INSERT INTO chunks VALUES (?, ?, ?)", chunks)
                    connection.execute("INSERT INTO files VALUES (?, ?, ?)", (file, *record))
            connection.commit()

    def note_opened(self, path: Path) -> None:
        """Note a file's size and time; should it grow while it is processed, it is not done."""
        self._sizes[file_id(path, self._names)] = _size_and_time(path)

    def add(self, path: Path, rows: Float32) -> None:
        """Store a file's next rows [n, species]."""
        self.scores.add(path, rows)

    def finish(self, result: SoundscapeResult) -> None:
        """Commit a finished file; one that there was no time for, or that was not there, is not done."""
        file = file_id(result.path, self._names)
        rows_checksum = self.scores.take_checksum(file)
        size_bytes, modified_ns = self._sizes.pop(file, _NOT_THERE)
        earlier = self.tried.get(result.path)
        is_better = result.status not in _NOT_DONE and (
            earlier is None or result.status in FINE or result.n_rows >= earlier.n_rows
        )
        self.scores.end_repetition(file, is_better)
        was_there = result.n_rows > 0 or result.status in FINE or size_bytes != _NOT_THERE[0]
        if not is_better or not was_there:
            return
        self.tried.pop(result.path, None)
        record = _Record(
            size_bytes, modified_ns, result.status, result.n_rows, result.seconds, result.expected_seconds,
            result.level, result.problem, result.channel, result.levels, result.sample_rate,
            result.speech,
        )  # fmt: skip
        content = msgspec.json.encode(record)
        checksum = zlib.crc32(file + content, rows_checksum)
        with self._open().use() as connection:
            connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (file, content, checksum))
            connection.commit()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has all finished files."""
        with self._open().use() as connection:
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Leave the folder as it is to the next process; harmless when repeated."""
        self._close_database()
        self._is_locked = False
        self._lock.close()

    def discard(self) -> None:
        """Remove the folder in one step, so that no half of it is ever taken for a run."""
        self._close_database()
        with contextlib.suppress(OSError):
            self.folder.rename(self._trash)
        shutil.rmtree(self._trash, ignore_errors=True)
        self.close()

    def _has_run(self) -> bool:
        if any((self.folder / name).exists() for name in _OLDER_FORMAT):
            problem = "holds the progress of an older birdinfer, which cannot be continued"
            raise OutputError(self.folder, problem, "start again with --force")
        if not (self.folder / _DATABASE).exists():
            return False
        with self._open().use() as connection:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            problem = f"holds the progress of another birdinfer (format {found})"
            raise OutputError(self.folder, problem, "start again with --force")
        return bool(found)

    def _open(self) -> Database:
        if self._database is None:
            self._database = Database(self.folder, self.folder / _DATABASE)
            self._scores = ScoreStore(self._n_labels, self._database, self._names, kept_from=self._kept_from)
        return self._database

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _record(self, file: bytes, content: object, checksum: object) -> _Record | None:
        """Return a file's record, if it and the rows are as they were written."""
        if not isinstance(content, bytes) or not isinstance(file, bytes):
            return None
        try:
            record = msgspec.json.decode(content, type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        rows_checksum = self.scores.recover(file, record.n_rows)
        is_whole = rows_checksum is not None and zlib.crc32(file + content, rows_checksum) == checksum
        if not is_whole:
            self.scores.forget(file)
        return record if is_whole else None

    def _recovered(self, path: Path, content: object, checksum: object) -> SoundscapeResult | None:
        """Return the result of a file whose record and rows are as they were written and which has not changed."""
        file = file_id(path, self._names)
        record = self._record(file, content, checksum)
        if record is None:
            return None
        if _size_and_time(path) != (record.size_bytes, record.modified_ns):
            self.scores.forget(file)
            return None
        return SoundscapeResult(
            path, record.status, n_rows=record.n_rows, seconds=record.seconds, expected_seconds=record.expected_seconds,
            level=record.level, problem=record.problem, channel=record.channel, levels=record.levels,
            sample_rate=record.sample_rate, speech=record.speech,
        )  # fmt: skip


def _check_is_own(folder: Path) -> None:
    """Refuse a folder that holds other files than a run's progress: it will be removed; OutputError."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    other = next((name for name in sorted(names) if not name.startswith((_DATABASE, _DAMAGED, *_OLDER_FORMAT))), None)
    if other is not None:
        raise OutputError(folder, f"holds {other}, which is no progress of a run", "move it, or name another result")


def count_done(folder: Path) -> int:
    """Count the finished files in the progress folder of a run, which another process may be writing; 0 if unknown."""
    name = f"file:{quote(os.fsencode(folder / _DATABASE))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(name, uri=True, timeout=0.0)) as connection:
            return int(connection.execute("SELECT count(*) FROM files").fetchone()[0])
    except sqlite3.Error:
        return 0


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return what shows that a sound file has changed."""
    try:
        found = split_channel(path)[0].stat()
    except (OSError, ValueError):
        return _NOT_THERE
    return found.st_size, found.st_mtime_ns


def _unsealed(identity: object) -> bytes:
    """Return an identity without its CRC-32, which older ones lack; TypeError or DecodeError if it is damaged."""
    if not isinstance(identity, bytes):
        raise TypeError("no identity")
    content, _, checksum = identity.rpartition(b"\n")
    if content and checksum != b"%08x" % zlib.crc32(content):
        raise msgspec.DecodeError("its identity has another checksum")
    return content or checksum
