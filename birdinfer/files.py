"""Writing to disk so that a reader never sees half a file or half a folder: temporary place, fsync, rename.

Killed at any moment, a writer of a file leaves the old one or the new one, never something in between. So does one of a
folder, but for the moment between the two renames that replace an older folder: then the older one waits beside.
"""

import contextlib
import glob
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from birdinfer.errors import BirdinferError, OutputError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends without an exception.

    Args:
        path: where the file is to stand; its folder is made if need be.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place for it") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; a result is meant to be read like any other file.
        os.chmod(name, 0o666 & ~_umask())  # noqa: PTH101
        Path(name).replace(path)
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place for it") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """As :func:`atomic_file`, for UTF-8 text whose line ends are written as they are given.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as raw:
        # surrogateescape: a file name that is not UTF-8 is written as the bytes that it is.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.detach()  # flushes; closing is atomic_file's


def remove_leftovers(path: Path) -> None:
    """Remove what writers that were killed have left beside a file; nobody may be writing it now."""
    with contextlib.suppress(OSError):
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            part.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file at once, or leave what was there.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_folder(path: Path, kind: str, remedy: str, marker: str | None = None) -> Iterator[Path]:
    """Make a folder that appears under its name, whole, only when the block ends without an exception.

    Args:
        path: where the folder is to stand; a link there is followed.
        kind: what the folder holds, as in "holds other things than a bundle".
        remedy: what the user can do where it cannot be written.
        marker: an older folder that holds a file of this name is replaced, one without it never touched; None: only an
            empty folder gives way.

    Yields:
        The folder to fill, which lies beside.

    Raises:
        OutputError: ``path`` holds something else, cannot be made or written to, or the disk is full.
    """
    check_replaceable(path, kind, remedy, marker)
    target = path.resolve()
    with _named_disk_errors(path, remedy):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    new, old = staging / "new", staging / "old"
    try:
        with _named_disk_errors(path, remedy, staging):
            new.mkdir()
            yield new
            _sync(new)
        check_replaceable(path, kind, remedy, marker)  # again: hours may have gone by
        with _named_disk_errors(path, remedy):
            _change_places(target, new, old)
    finally:
        # Where not even the older folder could be put back, it is kept in the only place where it is.
        if target.exists() or not old.exists():
            shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(path: Path, kind: str, remedy: str, marker: str | None = None) -> None:
    """Find out before hours of work, not after, that a folder may not stand there; arguments of :func:`atomic_folder`.

    Raises:
        OutputError: ``path`` is a file, or a folder that holds other things.
    """
    with _named_disk_errors(path, remedy):
        is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        if not is_free and not (marker is not None and (path / marker).is_file()):
            what = f"holds other things than {kind}" if path.is_dir() else "is a file"
            raise OutputError(path, what, remedy)


def _change_places(target: Path, new: Path, old: Path) -> None:
    """Put the new folder where the older one is, if there is one, or leave the older one there."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise


def _sync(folder: Path) -> None:
    """Have all files of a folder on the disk, so that a rename cannot come before what it promises."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def _named_disk_errors(path: Path, remedy: str, within: Path | None = None) -> Iterator[None]:
    """Errors of the disk name the result that was to be written; those about a file outside ``within`` are others'."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else None
        is_others = within is not None and named is not None and not Path(named).is_relative_to(within)
        if isinstance(error, BirdinferError) or error.errno is None or is_others:
            raise
        raise OutputError(path, f"cannot be written ({error.strerror})", remedy) from error


def check_writable(path: Path) -> None:
    """Find out before hours of work, not after, that a result could not be written.

    Raises:
        OutputError: ``path`` is a folder or a device, or its folder does not take files.
    """
    try:
        if path.is_dir():
            raise OutputError(path, "is a folder", "name a file in it")
        if path.exists() and not path.is_file():  # a rename would put a file in the place of /dev/null
            raise OutputError(path, "is no file", "name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place for it") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
