"""Writing to disk so that a reader never sees half a file: temporary file, fsync, rename.

Killed at any moment, a writer here leaves the old file or the new one, never something in between.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from birdinfer.errors import OutputError


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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file at once, or leave what was there.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path) -> None:
    """Find out before hours of work, not after, that a result could not be written.

    Raises:
        OutputError: ``path`` is a folder, or its folder does not take files.
    """
    if path.is_dir():
        raise OutputError(path, "is a folder", "name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "choose another place for it") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
