"""Sound that is fetched ahead while other sound is predicted, on a bounded part of the disk.

A file of a remote archive gets a local path, where it appears in the order in which it was announced: several are
fetched at a time. What waits to be predicted takes at most ``most_bytes``, or a single file. A file that the archive no
longer has, or has changed, leaves a problem in its place; any other failure is raised where the file is waited for.
"""

import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from birdinfer.scale.listing import ArchiveFile
from birdinfer.scale.places import Place

STREAMS = 8
"""Files that are fetched at a time: one stream of an object store gives 20 to 100 MB/s."""
MOST_BYTES = 4 << 30
GONE, CHANGED = "is no longer in the archive", "has changed since it was listed"


class Stager:
    """Fetches files of one place ahead; use as a context manager."""

    def __init__(self, place: Place, folder: Path, most_bytes: int = MOST_BYTES, streams: int = STREAMS) -> None:
        self._place, self._folder, self._most_bytes = place, folder, most_bytes
        self._pool = ThreadPoolExecutor(streams, "stage")
        self._changed = threading.Condition()
        self._held: dict[Path, int] = {}
        """Bytes of the files that are there or on their way."""
        self._coming: dict[Path, Future[str]] = {}
        self._dropped: set[Path] = set()
        self._n_announced = self._n_begun = 0
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def announce(self, files: Iterable[ArchiveFile]) -> list[Path]:
        """Return the paths where files will be; they are fetched in this order, as soon as there is space."""
        paths = []
        for each in files:
            path = self._folder / str(self._n_announced) / each.path.rpartition("/")[2]
            self._coming[path] = self._pool.submit(self._fetch, self._n_announced, each, path)
            self._n_announced += 1
            paths.append(path)
        return paths

    def wait(self, path: Path) -> str:
        """Wait until a file is there; return why it never will be, "" if it is. StoreError if it cannot be fetched."""
        return self._coming[path].result()

    def release(self, path: Path) -> None:
        """Remove a file that was predicted, or is not needed any more; harmless when repeated."""
        coming = self._coming.pop(path, None)
        if coming is None:
            return
        with self._changed:
            self._dropped.add(path)
        coming.add_done_callback(lambda _: self._remove(path))

    def _remove(self, path: Path) -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        with self._changed:
            self._held.pop(path, None)
            self._dropped.discard(path)
            self._changed.notify_all()

    def _fetch(self, number: int, file: ArchiveFile, path: Path) -> str:
        with self._changed:
            # In turn: were a later file let in first, it would be held until this one, which needs its space, is done.
            self._changed.wait_for(lambda: self._is_closed or (number == self._n_begun and self._has_space(file, path)))
            is_needed = not self._is_closed and path not in self._dropped
            self._n_begun = number + 1
            if is_needed:
                self._held[path] = file.size
            self._changed.notify_all()
        if not is_needed:
            return "not reached"
        name = file.path.removeprefix(f"{self._place.uri}/")
        found = self._place.info(name)
        if found is None:
            problem = GONE
        elif (file.size and found.size != file.size) or (file.etag and found.etag != file.etag):
            problem = CHANGED
        else:
            self._place.fetch(name, path, file.size or None)
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")  # a reader that comes to it finds nothing to read, whatever else is wrong
        return problem

    def _has_space(self, file: ArchiveFile, path: Path) -> bool:
        held = sum(self._held.values())
        return path in self._dropped or not held or held + file.size <= self._most_bytes
