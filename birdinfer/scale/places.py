"""Folders where archives and results lie: local, ``s3://``, ``gs://``, ``az://``, ``https://``, all through fsspec.

Credentials and endpoints are the providers' own (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``gcloud auth`` ...); birdinfer
reads none. A call that fails for a passing reason is repeated, each time after a longer wait; what remains is a
:class:`StoreError`, whose ``kind`` says what a run has to do about it. A file is written whole or not at all, so that
two writers of the same bytes never disturb each other.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar, cast

import numpy as np

from birdinfer.errors import BirdinferError, ConfigError, MissingExtraError
from birdinfer.system.files import atomic_file, write_atomic

Kind = Literal["throttled", "credentials", "gone", "network", "disk full"]
_T = TypeVar("_T")
_ATTEMPTS = 7
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 20.0
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp",
    "https": "aiohttp",
}  # fmt: skip
_HINTS: dict[Kind, str] = {
    "throttled": "run it again later, or with fewer workers",
    "credentials": "renew them as your provider says, and run it again: it continues",
    "gone": "check its name",
    "network": "run it again: it continues",
    "disk full": "free some space, or name another --scratch, and run it again: it continues",
}
_CLIENTS = {"botocore", "aiobotocore", "aiohttp", "fsspec", "gcsfs", "azure"}
_MARKS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified")
_BY_STATUS: dict[object, Kind] = {
    429: "throttled",
    503: "throttled",
    401: "credentials",
    403: "credentials",
    404: "gone",
}
_WORDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("throttled", re.compile(r"slow ?down|reduce your request rate|throttl|too ?many ?requests", re.IGNORECASE)),
    ("credentials", re.compile(r"credential|token (has )?expired|expired ?token|access ?denied", re.IGNORECASE)),
)


class StoreError(BirdinferError, OSError):
    """A place does not give or take a file."""

    def __init__(self, where: str | Path, what: str, kind: Kind) -> None:
        super().__init__(where, what, _HINTS[kind])
        self.kind: Kind = kind
        """``credentials`` and ``disk full`` end a run; of the others the next attempt may do better."""

    @property
    def ends_run(self) -> bool:
        """Whether all other work would fail in the same way."""
        return self.kind in {"credentials", "disk full"}


class Listed(NamedTuple):
    """A file of a listing."""

    name: str
    """Its path within the place, with ``/``."""
    size: int
    etag: str
    """What shows that the file has changed: a store's checksum or version, or the time of a local file."""


class Place:
    """A folder at an address; ``~`` and links of local ones are followed."""

    def __init__(self, uri: str | Path) -> None:
        """Open a place, nothing is read; ConfigError if no such kind is known, MissingExtraError without its extra."""
        text = str(uri)
        scheme, colon, rest = text.partition("://")
        self.is_local = not colon or scheme == "file"
        self.uri = os.path.abspath(Path(rest if colon else text).expanduser()) if self.is_local else text.rstrip("/")  # noqa: PTH100
        try:
            import fsspec

            # Listings are never remembered: other machines write here.
            options = {"auto_mkdir": True} if self.is_local else {"use_listings_cache": False}
            self.files, self.root = fsspec.core.url_to_fs(self.uri, **options)
        except ImportError as error:
            raise MissingExtraError(_PACKAGES.get(scheme, "fsspec"), "scale") from error
        except ValueError as error:
            known = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "https"))
            raise ConfigError(text, f"{scheme}:// is no kind of place that is known", f"known are {known}") from error
        self.root = self.root.rstrip("/") or "/"

    def __str__(self) -> str:
        return self.uri

    def at(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.uri}/{name}" if name else self.uri

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return self._retried(name, lambda: cast(bytes, self.files.cat_file(self._path(name))))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, in place of an older one."""
        if self.is_local:
            self._retried(name, lambda: write_atomic(Path(self._path(name)), content))
        else:
            self._retried(name, lambda: self.files.pipe_file(self._path(name), content))

    def upload(self, path: Path, name: str) -> None:
        """Write a local file, whole or not at all."""
        if self.is_local:
            self._retried(name, lambda: _copy(path, Path(self._path(name))))
        else:
            self._retried(name, lambda: self.files.put_file(str(path), self._path(name)))

    def fetch(self, name: str, to: Path, size: int | None = None) -> None:
        """Copy a file to a local one, which appears when all its bytes, ``size`` of them, are there."""
        part = to.with_name(f"{to.name}.{os.getpid()}.part")

        def fetch() -> None:
            to.parent.mkdir(parents=True, exist_ok=True)
            self.files.get_file(self._path(name), str(part))
            found = part.stat().st_size
            if size is not None and found != size:
                raise TimeoutError(f"{found} of {size} bytes came")
            part.replace(to)

        try:
            self._retried(name, fetch)
        finally:
            part.unlink(missing_ok=True)

    def open(self, name: str) -> BinaryIO:
        """Open a file to be read here and there."""
        return self._retried(name, lambda: cast(BinaryIO, self.files.open(self._path(name), "rb")))

    def info(self, name: str) -> Listed | None:
        """Look at a file; None if it is not there."""
        try:
            return _listed(name, self._retried(name, lambda: cast(dict[str, Any], self.files.info(self._path(name)))))
        except StoreError as error:
            if error.kind == "gone":
                return None
            raise

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._retried(name, lambda: self.files.rm_file(self._path(name)))
        except StoreError as error:
            if error.kind != "gone":
                raise

    def names(self, folder: str) -> list[str]:
        """List the names of the files in a folder; none if there is no such folder."""
        try:
            found = self._retried(folder, lambda: self.files.ls(self._path(folder), detail=False))
        except StoreError as error:
            if error.kind == "gone":
                return []
            raise
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def walk(self, folder: str = "") -> Iterator[list[Listed]]:
        """Yield the files of each folder, sorted, folder by folder: never more than one of them is in memory.

        StoreError ``gone`` if there is neither a folder nor a file.
        """
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            entries = self._retried(here, lambda here=here: self.files.ls(self._path(here), detail=True))  # type: ignore[misc]
            files, folders = [], []
            for entry in entries:
                name = entry["name"].rstrip("/").removeprefix(self.root).lstrip("/")
                if entry["type"] == "directory":
                    folders.append(name)
                elif name != here.strip("/") or not here:
                    files.append(_listed(name, entry))
            waiting += sorted((name for name in folders if name != here), reverse=True)
            yield sorted(files)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _retried(self, name: str, call: Callable[[], _T]) -> _T:
        for attempt in range(_ATTEMPTS):
            try:
                return call()
            except Exception as error:
                kind = kind_of(error)
                last = attempt + 1 == _ATTEMPTS or kind not in {"throttled", "network"} or self.is_local
                if kind is None:
                    raise
                if last:
                    raise StoreError(self.at(name), f"{_what(kind)} ({_text(error)})", kind) from error
                # By chance a little longer or shorter: a thousand workers must not come back all at once.
                wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)
                time.sleep(wait * np.random.default_rng().uniform(0.5, 1.0))
        raise AssertionError("unreachable")


def kind_of(error: BaseException) -> Kind | None:
    """Distinguish why a place has refused; None if the place has nothing to do with it."""
    cause: BaseException | None = error
    is_network = False
    for _ in range(8):
        if cause is None:
            break
        if kind := _own_kind(cause):
            return kind
        is_network |= isinstance(cause, OSError | EOFError) or type(cause).__module__.partition(".")[0] in _CLIENTS
        cause = cause.__cause__ or cause.__context__
    return "network" if is_network else None


def _own_kind(error: BaseException) -> Kind | None:
    """The kind of an error by itself: by its number, its class, the store's answer, its text."""
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "disk full"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "gone"
    if isinstance(error, PermissionError):
        return "credentials"
    if number == errno.EBUSY:
        return "throttled"
    answer = getattr(error, "response", None)
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    stated = (
        metadata.get("HTTPStatusCode"),
        *(getattr(error, name, None) for name in ("status", "code", "status_code")),
    )
    for status in stated:
        if isinstance(status, int) and status in _BY_STATUS:
            return _BY_STATUS[status]
    if number is not None:  # the text of such an error may name a path, in which any word may stand
        return None
    text = f"{type(error).__name__} {error}"
    return next((kind for kind, words in _WORDS if words.search(text)), None)


def _what(kind: Kind) -> str:
    return {
        "throttled": "the store asks for fewer requests", "credentials": "access is not allowed, or no longer",
        "gone": "is not there", "network": "the store does not answer", "disk full": "the disk is full",
    }[kind]  # fmt: skip


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _listed(name: str, entry: dict[str, Any]) -> Listed:
    mark = next((entry[key] for key in _MARKS if entry.get(key)), "")
    return Listed(name, int(entry.get("size") or 0), str(mark).strip('"'))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, atomic_file(target) as copy:
        while block := file.read(1 << 20):
            copy.write(block)
