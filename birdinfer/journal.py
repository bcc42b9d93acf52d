"""What a run has done so far, in a folder beside its result, so that a killed run goes on where it was.

``submission.csv.progress/`` holds ``run.json`` (what was run: bundle, engine, versions), ``scores.f32`` (the rows of
the files that are done, :mod:`birdinfer.spool`) and ``done.jsonl``: a line for each file that is done, with the line's
checksum in front, and in it the checksum of its rows, and size and time of the sound file. The folder goes when the
result is written.

Killed at any moment, the files that were being heard are repeated, no other. After a power cut, also those of the last
second or two: what a disk has lost or mixed up shows in the checksums, and is repeated. Nothing else in the folder is
trusted.
"""

import contextlib
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import OutputError
from birdinfer.files import write_atomic
from birdinfer.own_folder import OwnFolder
from birdinfer.run_identity import RunIdentity
from birdinfer.soundscape_result import SoundscapeResult
from birdinfer.spool import Piece, ScoreSpool
from birdinfer.status import Status

Float32 = npt.NDArray[np.float32]

FOLDER_ENDING = ".progress"
_RUN, _SCORES, _DONE = "run.json", "scores.f32", "done.jsonl"
_SYNC_SECONDS = 1.0
"""How much work a power cut may cost: waiting for the disk after every file would cost more."""
_NOT_DONE = frozenset({Status.skipped_by_budget, Status.stopped})


class _Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of ``done.jsonl``."""

    stem: str
    """Percent-encoded, for a name may hold any byte."""
    size_bytes: int
    modified_ns: int
    """Of the sound file, as it was when it was heard."""
    status: Status
    seconds: float
    expected_seconds: float | None
    level: str
    problem: str
    pieces: tuple[tuple[int, int], ...]
    rows_crc32: int


class Journal:
    """Keeps rows and results of a run; a :class:`birdinfer.soundscape_result.Keeper`.

    Use as a context manager; :meth:`discard` at the end of a run whose result is safe.
    """

    def __init__(self, result: Path, n_labels: int) -> None:
        """Open the folder beside a result, which nobody else may be writing to.

        Args:
            result: the table that the run is to write.
            n_labels: species per row.

        Raises:
            OutputError: the folder cannot be made, or another process is at work there.
        """
        self._own = OwnFolder(result.with_name(result.name + FOLDER_ENDING), result)
        self.folder = self._own.path
        self._n_labels = n_labels
        self._spool: ScoreSpool | None = None
        self._lines: BinaryIO | None = None
        self._synced = time.monotonic()
        self._sizes: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own.is_ours and next(self._stored(), None) is None:
            self.discard()  # a run that was refused leaves nothing behind
        self.close()

    @property
    def spool(self) -> ScoreSpool:
        """The rows."""
        assert self._spool is not None  # begin() or resume() came first
        return self._spool

    def n_done(self) -> int:
        """Files that are done here, by this run or by one that was stopped."""
        return sum(1 for _ in self._stored())

    def identity(self) -> RunIdentity | None:
        """What the run that was stopped here was; None if there is none.

        Raises:
            OutputError: nobody can tell.
        """
        path = self.folder / _RUN
        try:
            return msgspec.json.decode(path.read_bytes(), type=RunIdentity)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OutputError(path, f"does not tell what was run here ({error})", "begin anew with --force") from error

    def begin(self, identity: RunIdentity) -> None:
        """Begin anew; what was here is lost.

        Raises:
            OutputError: the disk does not take it.
        """
        with self._own.named_errors():
            for name in (_DONE, _SCORES, _RUN):
                (self.folder / name).unlink(missing_ok=True)
        write_atomic(self.folder / _RUN, msgspec.json.encode(identity))
        self._open()

    def resume(self, identity: RunIdentity, paths: Sequence[Path]) -> dict[Path, SoundscapeResult]:
        """Go on with the run that was stopped here, or begin where there is none.

        Args:
            identity: of the run that is to go on.
            paths: its sound files. One that has changed since, or was not among them, is to be heard.

        Returns:
            What became of the files that are done.

        Raises:
            OutputError: another run was stopped here that has done something.
        """
        found, stored = self.identity(), list(self._stored())
        if found is None or not stored:
            self.begin(identity)
            return {}
        if found != identity:
            raise OutputError(self.folder, found.difference(identity), "run it as it was, or begin anew with --force")
        self._open()
        by_stem = {path.stem: path for path in paths}
        done = {}
        for line, record in stored:
            path = by_stem.get(_decoded(record.stem))
            if path is not None and _size_and_time(path) == (record.size_bytes, record.modified_ns):
                pieces = [Piece(*piece) for piece in record.pieces]
                if self.spool.recall(path.stem, pieces, record.rows_crc32):
                    done[path] = (line, _result(path, record))
        self._rewrite([line for line, _ in done.values()])
        return {path: result for path, (_, result) in done.items()}

    def note_opened(self, path: Path) -> None:
        """A file is about to be heard as it is now: should it grow meanwhile, it is not done."""
        self._sizes[path.stem] = _size_and_time(path)

    def add(self, path: Path, rows: Float32) -> None:
        """A file's next rows [n, species].

        Raises:
            OutputError: the disk does not take them.
        """
        self.spool.add(path.stem, rows)

    def finish(self, result: SoundscapeResult) -> None:
        """A file is done.

        Raises:
            OutputError: the disk does not take it.
        """
        if result.status in _NOT_DONE:
            return
        assert self._lines is not None
        with self._own.named_errors():
            self._lines.write(_line(self._record(result)))
            self._lines.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have all of it on the disk; the rows first, for the lines promise them.

        Raises:
            OutputError: the disk does not take it.
        """
        assert self._lines is not None
        with self._own.named_errors():
            self.spool.sync()
            os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Leave the folder as it is; harmless when repeated."""
        self._close_files()
        self._own.let_go()

    def discard(self) -> None:
        """The result is written: the folder goes, in one step, so that no half of it is ever taken for a run."""
        self._close_files()
        self._own.remove()

    def _close_files(self) -> None:
        if self._spool is not None:
            self._spool.close()
        if self._lines is not None:
            with contextlib.suppress(OSError):  # of a line that the disk did not take, as was said when it was written
                self._lines.close()

    def _open(self) -> None:
        self._spool = ScoreSpool(self.folder / _SCORES, self._n_labels)
        with self._own.named_errors():
            self._lines = (self.folder / _DONE).open("ab")

    def _rewrite(self, lines: list[bytes]) -> None:
        """Leave the lines that hold: after half a line, or one that does not hold, nothing could be added."""
        assert self._lines is not None
        self._lines.close()
        write_atomic(self.folder / _DONE, b"".join(lines))
        with self._own.named_errors():
            self._lines = (self.folder / _DONE).open("ab")

    def _stored(self) -> Iterator[tuple[bytes, _Done]]:
        """The lines that are whole; one that a kill or a power cut has torn is passed over."""
        try:
            lines = (self.folder / _DONE).read_bytes().splitlines(keepends=True)
        except OSError:
            return
        for line in lines:
            checksum, _, content = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(content):
                with contextlib.suppress(msgspec.DecodeError):
                    yield line, msgspec.json.decode(content, type=_Done)

    def _record(self, result: SoundscapeResult) -> _Done:
        stem = result.path.stem
        size, modified = self._sizes.pop(stem)
        return _Done(
            quote(os.fsencode(stem)),
            size,
            modified,
            result.status,
            result.seconds,
            result.expected_seconds,
            result.level,
            result.problem,
            tuple(tuple(piece) for piece in self.spool.pieces(stem)),  # type: ignore[misc]
            self.spool.checksum(stem),
        )


def _line(record: _Done) -> bytes:
    content = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _decoded(stem: str) -> str:
    return os.fsdecode(unquote_to_bytes(stem))


def _result(path: Path, record: _Done) -> SoundscapeResult:
    return SoundscapeResult(
        path,
        record.status,
        None,
        sum(n_rows for _, n_rows in record.pieces),
        record.seconds,
        record.expected_seconds,
        record.level,
        record.problem,
    )


def _size_and_time(path: Path) -> tuple[int, int]:
    """What tells that a sound file has changed; (-1, -1) where it is gone."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return (-1, -1)
    return found.st_size, found.st_mtime_ns
