"""What decoding has shown of files, kept beside the report until it is written: a killed ``--sound`` continues.

A file is known by its path, size and time of change, and by what finds voices in it.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from birdinfer.errors import OutputError
from birdinfer.report.sound import SoundFacts
from birdinfer.system.files import check_writable
from birdinfer.training.data.duplicates import Fingerprint

_FORMAT = "1"
_PER_COMMIT = 50


class SoundProgress:
    """The facts of files that were decoded before; used from one thread."""

    def __init__(self, database: sqlite3.Connection, settings: str) -> None:
        self._database, self._settings, self._n = database, settings, 0
        database.execute("create table if not exists sounds (key text primary key, facts text, fingerprint blob)")

    def get(self, path: Path) -> SoundFacts | None:
        """Return what is known of a file; None if it is another one now, or was not decoded."""
        row = self._database.execute(
            "select facts, fingerprint from sounds where key = ?", (self._key(path),)
        ).fetchone()  # fmt: skip
        if row is None:
            return None
        return SoundFacts(path=path, fingerprint=None if row[1] is None else _unpacked(row[1]), **json.loads(row[0]))

    def put(self, facts: SoundFacts) -> None:
        """Keep the facts of a file."""
        known = asdict(facts)
        known.pop("path")
        known.pop("fingerprint")
        packed = None if facts.fingerprint is None else _packed(facts.fingerprint)
        row = self._key(facts.path), json.dumps(known), packed
        self._database.execute("insert or replace into sounds values (?, ?, ?)", row)
        self._n += 1
        if self._n % _PER_COMMIT == 0:
            self._database.commit()

    def _key(self, path: Path) -> str:
        try:
            found = path.stat()
            return json.dumps([str(path.resolve()), found.st_size, found.st_mtime_ns, self._settings])
        except OSError:
            return ""


@contextmanager
def sound_progress(path: Path, settings: str) -> Iterator[SoundProgress]:
    """Open the file of an earlier run, or a new one; it is kept if the block ends with an exception, else removed.

    Args:
        path: ``report.progress`` of the folder ``report``.
        settings: what the facts depend on besides the files.

    Raises:
        OutputError: it is there and holds something else, or cannot be written.
    """
    check_writable(path)
    database = sqlite3.connect(path)
    try:
        try:
            progress = SoundProgress(database, f"{_FORMAT} {settings}")
        except sqlite3.Error as error:
            what = f"holds other things than the progress of birdinfer data ({error})"
            raise OutputError(path, what, "name another folder with -o, or remove the file") from error
        yield progress
        database.commit()
    except BaseException:
        database.commit()
        database.close()
        raise
    database.close()
    path.unlink(missing_ok=True)


def _packed(found: Fingerprint) -> bytes:
    return b"".join(part.tobytes() for part in (found.words, found.doubtful, found.distinctive))


def _unpacked(packed: bytes) -> Fingerprint:
    n = len(packed) // 9
    words = np.frombuffer(packed, np.uint32, 2 * n)
    return Fingerprint(words[:n], words[n:], np.frombuffer(packed, np.bool_, n, 8 * n))
