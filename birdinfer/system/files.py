"""Files and folders that appear whole or not at all: written under a temporary name, synced, renamed.

A link stays a link: what it points to is replaced, and keeps its permissions. A writer that is killed leaves the old
file or the new one, never something in between. The same holds for folders, except between the two renames that replace
an older folder: then the older one lies beside its name.
"""

import codecs
import contextlib
import glob
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from birdinfer.errors import BirdinferError, OutputError

_ELSEWHERE = "choose another place for it"
_ESCAPED = "birdinfer.escaped"
"""How bytes that are no text are encoded."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends without an exception; its folder is made.

    OutputError if it cannot be made or written to, is a folder or a device, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    _refuse_other_than_file(path)
    with _named_disk_errors(path, _ELSEWHERE):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with _named_disk_errors(path, _ELSEWHERE):
            with os.fdopen(descriptor, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, _mode(target))  # noqa: PTH101
            Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that the umask allows: mkstemp's are for the owner alone."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        os.umask(umask := os.umask(0))
        return 0o666 & ~umask


def _refuse_other_than_file(path: Path) -> None:
    with _named_disk_errors(path, _ELSEWHERE):
        if path.is_dir():
            raise OutputError(path, "is a folder", "name a file in it")
        if path.exists() and not path.is_file():  # a rename would put a file in the place of /dev/null
            raise OutputError(path, "is no file", "name a file")


@contextlib.contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Open a text file as :func:`atomic_file` does; UTF-8, line ends are written as they are given.

    Names of files that are not UTF-8 are written as :func:`utf8_text` spells them.
    """
    with atomic_file(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", errors=_ESCAPED, newline="")
        yield text
        text.detach()  # flushes; closing is atomic_file's


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    numbers = [ord(sign) - 0xDC00 if 0xDC80 <= ord(sign) <= 0xDCFF else ord(sign) for sign in signs]
    return "".join(f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}" for number in numbers), error.end


codecs.register_error(_ESCAPED, _escape)


def utf8_text(name: str) -> str:
    r"""Write a file's name as text that can be stored: bytes that are not UTF-8 become escapes.

    >>> print(utf8_text(os.fsdecode(b"H\xf6hle.wav")))
    H\xf6hle.wav
    """
    return name if name.isascii() else name.encode(errors=_ESCAPED).decode()


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers have left beside a file or folder; no process may be writing it now.

    An older folder whose place no other one has taken is kept.
    """
    target = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            if not part.is_dir():
                part.unlink(missing_ok=True)
            elif target.exists() or not (part / "old").exists():
                shutil.rmtree(part, ignore_errors=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file at once, or leave what was there; OutputError if it cannot be written."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_folder(path: Path, kind: str, hint: str, marker: str | None = None) -> Iterator[Path]:
    """Make a folder that appears under its name, whole, only when the block ends without an exception.

    Args:
        path: the folder; a link is followed.
        kind: what the folder holds, as in "holds other things than a bundle".
        hint: what the user can do where it cannot be written: of the OutputError.
        marker: an older folder with a file of this name is replaced, one without it is refused; None: only an empty
            folder is replaced.
    """
    check_replaceable(path, kind, hint, marker)
    target = Path(os.path.realpath(path))
    with _named_disk_errors(path, hint):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    new, old = staging / "new", staging / "old"
    try:
        with _named_disk_errors(path, hint, staging):
            new.mkdir()
            yield new
            _sync(new)
        check_replaceable(path, kind, hint, marker)  # again: hours may have gone by
        with _named_disk_errors(path, hint):
            _change_places(target, new, old)
    finally:
        # If not even the older folder could be restored, it stays where it is.
        if target.exists() or not old.exists():
            shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(path: Path, kind: str, hint: str, marker: str | None = None) -> None:
    """Check before hours of work that :func:`atomic_folder` can put a folder there; errors as there."""
    with _named_disk_errors(path, hint):
        is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        if not is_free and not (marker is not None and (path / marker).is_file()):
            what = f"holds other things than {kind}" if path.is_dir() else "is a file"
            raise OutputError(path, what, hint)


def _change_places(target: Path, new: Path, old: Path) -> None:
    """Replace an older folder by the new one, or leave the older one in its place."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise


def _sync(folder: Path) -> None:
    """Write all files of a folder to the disk, so that the rename cannot become visible before them."""
    from concurrent.futures import ThreadPoolExecutor  # not at the top: it imports logging, and most runs start without

    def sync(path: Path) -> None:
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    # Several at a time share a commit of the disk's journal: 1,000 small files in 0.2 s instead of 5.5 s.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, (path for path in folder.rglob("*") if path.is_file())))


@contextlib.contextmanager
def _named_disk_errors(path: Path, hint: str, within: Path | None = None) -> Iterator[None]:
    """Name the result in errors of the disk, except in those about a file outside ``within``."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else None
        is_others = within is not None and named is not None and not Path(named).is_relative_to(within)
        if isinstance(error, BirdinferError) or error.errno is None or is_others:
            raise
        raise OutputError(path, f"cannot be written ({error.strerror})", hint) from error


def check_writable(path: Path) -> None:
    """Check before hours of work that a result can be written; OutputError if not."""
    _refuse_other_than_file(path)
    with _named_disk_errors(path, _ELSEWHERE):
        # Its folder is not made yet: a command that is refused for another reason leaves nothing behind.
        folder = next(above for above in Path(os.path.realpath(path)).parents if above.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass


def cache_path() -> Path:
    """The file that remembers engines: ``$XDG_CACHE_HOME/birdinfer/engines.json``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdinfer" / "engines.json"
