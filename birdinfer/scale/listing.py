"""The files of an archive, listed once and frozen: a Parquet table that is written and read a few thousand at a time.

In: addresses. Out: :class:`ArchiveFile`, each with its recording's name, in the order of the listing, which is that of
``birdinfer predict`` for the same folders. A remote archive is walked folder by folder, so that ten million files take
no more memory than the fullest of their folders; local ones are found as by every other command.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from birdinfer.audio.find import find_recordings
from birdinfer.audio.kinds import sounds_by_name, without_ending
from birdinfer.callbacks import Callback
from birdinfer.detections.formats.parquet import load_pyarrow
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.scale.places import Listed, Place, StoreError
from birdinfer.system.files import utf8_text

GROUP_FILES = 8192
"""In a row group, at least, except for the last: what is in memory at a time."""


class ArchiveFile(NamedTuple):
    """A recording of an archive."""

    unit: int
    name: str
    """As in row ids."""
    path: str
    """As it was listed: a local path, perhaps relative, or an address."""
    size: int
    etag: str
    """What shows that it has changed."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds besides the files that can be listed."""

    files: Iterable[ArchiveFile]
    """All of unit 0; can be gone through once."""
    unopened: tuple[tuple[str, str], ...] = ()
    """Paths that look like sound and cannot be opened, and why."""


def list_archive(inputs: Sequence[str], callback: Callback) -> Archive:
    """List local files and folders, or one remote folder.

    Raises:
        InputNotFoundError: an input does not exist, or there is no recording in any.
        ConfigError: remote and local ones are mixed, or there are several remote ones.
    """
    if not any("://" in each for each in inputs):
        found = find_recordings([Path(each) for each in inputs])
        found.require()
        for line in found.notes():
            callback.on_message(line)
        files = (_local(path, name) for path, name in found.names.items())
        return Archive(files, tuple((str(path), problem) for path, problem in found.unopened))
    if len(inputs) > 1:
        raise ConfigError("archive", "several addresses are given", "name the folder that holds all of them")
    return Archive(_remote(Place(inputs[0])))


def _local(path: Path, name: str) -> ArchiveFile:
    try:
        size, etag = local_mark(path)
    except OSError:  # gone since it was found: the unit that comes to it says so
        size, etag = 0, ""
    return ArchiveFile(0, name, str(path), size, etag)


def local_mark(path: Path) -> tuple[int, str]:
    """Return size and time of a local file; OSError if it is not there."""
    found = path.stat()
    return found.st_size, str(found.st_mtime_ns)


def _remote(place: Place) -> Iterator[ArchiveFile]:
    n_found = 0
    try:
        for listed in place.walk():
            sounds = [each for each in listed if sounds_by_name(each.name)]
            # Web servers list names alone.
            sounds = [each if each.size else place.info(each.name) or each for each in sounds]
            n_found += len(sounds)
            for each, name in zip(sounds, _names(sounds), strict=True):
                yield ArchiveFile(0, name, place.at(each.name), each.size, each.etag)
    except StoreError as error:
        if error.kind == "gone":
            raise InputNotFoundError(place.uri, "no such file or folder") from error
        raise
    if not n_found:
        raise InputNotFoundError(place.uri, "holds no sound file", "name a folder that holds some")


def _names(files: Sequence[Listed]) -> list[str]:
    """Name the recordings of a folder: two that differ by their endings alone keep these."""
    short = [utf8_text(without_ending(each.name)) for each in files]
    times = Counter(short)
    return [name if times[name] == 1 else utf8_text(each.name) for each, name in zip(files, short, strict=True)]


class ListingWriter:
    """Writes the table of files; those of a unit are never in two row groups."""

    def __init__(self, path: Path) -> None:
        pyarrow, parquet = load_pyarrow()
        kinds = (pyarrow.int32(), pyarrow.string(), pyarrow.string(), pyarrow.int64(), pyarrow.string())
        self._pyarrow, self._schema = pyarrow, pyarrow.schema(list(zip(ArchiveFile._fields, kinds, strict=True)))
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._files: list[ArchiveFile] = []

    def add(self, files: Sequence[ArchiveFile]) -> None:
        """Add the files of a unit."""
        self._files += files
        if len(self._files) >= GROUP_FILES:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._files:
            columns = [self._pyarrow.array(column) for column in zip(*self._files, strict=True)]
            columns = [column.cast(kind) for column, kind in zip(columns, self._schema.types, strict=True)]
            self._writer.write_table(self._pyarrow.Table.from_arrays(columns, schema=self._schema))
        self._files = []


class Listing:
    """Reads the table of files; the row group that was read last is kept."""

    def __init__(self, source: Any) -> None:
        """Open a path, or a file that can be read here and there."""
        _, parquet = load_pyarrow()
        self._table = parquet.ParquetFile(source)
        metadata = self._table.metadata
        groups = [metadata.row_group(index).column(0).statistics for index in range(metadata.num_row_groups)]
        self._units = [(group.min, group.max) for group in groups]
        self._latest: tuple[int, list[ArchiveFile]] = (-1, [])

    def __iter__(self) -> Iterator[ArchiveFile]:
        for index in range(len(self._units)):
            yield from self._group(index)

    def of_unit(self, unit: int) -> list[ArchiveFile]:
        """Return the files of a unit, in order."""
        index = next(index for index, (first, last) in enumerate(self._units) if first <= unit <= last)
        if self._latest[0] != index:
            self._latest = (index, list(self._group(index)))
        return [each for each in self._latest[1] if each.unit == unit]

    def _group(self, index: int) -> Iterator[ArchiveFile]:
        columns = self._table.read_row_group(index).to_pydict()
        yield from map(ArchiveFile._make, zip(*(columns[name] for name in ArchiveFile._fields), strict=True))


def absolute(path: str, base: str) -> Path:
    """Return where a local file of a listing lies, which was made in the folder ``base``."""
    return Path(os.path.abspath(os.path.join(base, path)))  # noqa: PTH100, PTH118 - links stay as they are named
