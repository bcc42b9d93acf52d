"""Fetch a competition's data with Kaggle's own client: archive -> folder that ``birdinfer train --data`` takes.

Kaggle gives no size beforehand, so the disk is watched while the archive grows; before it is unpacked, its own table
says what is needed. Whatever stops it, the same command continues: the client the archive, birdinfer the files.
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from birdinfer.callbacks import Callback
from birdinfer.errors import OutputError
from birdinfer.kaggle.client import Client
from birdinfer.kaggle.competitions import Competition
from birdinfer.system.files import atomic_file, check_replaceable
from birdinfer.system.outputs import check_folder

LEAST_FREE_BYTES = 1_000_000_000
"""What stays free on the disk."""
_AGAIN = "the same command again continues"


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSettings:
    """What :func:`fetch` does."""

    competition: Competition
    output: Path  # folder of the data
    keep_archive: bool = False  # leave COMPETITION.zip beside the data


class FetchCallback(Callback):
    """Receive what fetching reports."""

    def on_bytes(self, n_bytes: int) -> None:
        """Report the size of what is downloaded so far (bytes)."""

    def on_unpacked(self, done_bytes: int, all_bytes: int) -> None:
        """Report how much is unpacked (bytes, of all)."""


def fetch(settings: FetchSettings, callback: FetchCallback) -> int:
    """Download and unpack a competition's data; return the number of its files.

    Raises:
        MissingExtraError: Kaggle's client is not installed.
        ConfigError: it knows no token.
        OutputError: Kaggle refuses, the disk is too small, or the archive is damaged.
    """
    archive = settings.output / f"{settings.competition.slug}.zip"
    check_folder(settings.output)
    check_replaceable(settings.output, "this download", "name another folder", archive.name)
    if not _is_whole(archive):
        client = Client()
        settings.output.mkdir(parents=True, exist_ok=True)

        def watch() -> None:
            callback.on_bytes(archive.stat().st_size if archive.exists() else 0)
            _check_free(settings.output, 0)

        client.download(settings.competition.slug, settings.output, watch)
        if not _is_whole(archive):
            raise OutputError(archive, "is no whole archive", "remove it, and fetch again")
    n_files = _unpack(archive, settings.output, callback)
    if not settings.keep_archive:
        archive.unlink()
    return n_files


def _is_whole(archive: Path) -> bool:
    """Whether the table at an archive's end can be read; the client's mark of an unfinished one is honoured."""
    partial = archive.with_name(f"{archive.name}.kaggle-partial")
    return not partial.exists() and zipfile.is_zipfile(archive)


def _unpack(archive: Path, folder: Path, callback: FetchCallback) -> int:
    with zipfile.ZipFile(archive) as packed:
        members = [member for member in packed.infolist() if not member.is_dir()]
        for member in members:
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                raise OutputError(archive, f"holds {member.filename!r}, outside the folder", "nothing was unpacked")
        missing = [member for member in members if not _is_there(folder / member.filename, member)]
        _check_free(folder, sum(member.file_size for member in missing))
        total, done = sum(member.file_size for member in members), 0
        done = total - sum(member.file_size for member in missing)
        for member in missing:
            try:
                with packed.open(member) as source, atomic_file(folder / member.filename) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            except (zipfile.BadZipFile, EOFError) as error:
                what = f"{member.filename} is damaged in it"
                raise OutputError(archive, what, "remove the archive, and fetch again") from error
            done += member.file_size
            callback.on_unpacked(done, total)
    return len(members)


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size


def _check_free(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + LEAST_FREE_BYTES:
        what = f"{free / 1e9:.1f} GB are free, {(needed + LEAST_FREE_BYTES) / 1e9:.1f} GB are needed"
        raise OutputError(folder, what, f"free some, or -o on another disk; {_AGAIN}")
