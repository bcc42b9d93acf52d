"""Download a public model's file: https, continued where it was cut, kept only if it is the file that was published.

In: an address. Out: a file of a folder of the user's cache. What is not whole yet is beside its name as ``NAME.part``.
Proxies are those of the environment (``https_proxy``). Nothing is asked of the network but this file.
"""

import hashlib
import http
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, OutputError
from birdinfer.system.files import cache_path
from birdinfer.system.locks import locked
from birdinfer.version import __version__

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
_AGAIN = "run the command again, it continues there"


def models_folder(name: str) -> Path:
    """Return the folder of a known model's files in the user's cache; it need not exist."""
    return cache_path().parent / "models" / name


def file_name(url: str) -> str:
    """Return the name of the file at an address.

    >>> file_name("https://zenodo.org/records/1/files/BirdNET%2B_Labels.csv?download=1")
    'BirdNET+_Labels.csv'
    """
    name = Path(unquote(urlsplit(url).path)).name
    return name if name.strip(".") else "model"


def download(
    url: str,
    folder: Path,
    *,
    n_bytes: int | None = None,
    sha256: str = "",
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Path:
    """Download a file, or continue a download that was cut; a file that is there is not asked for again.

    Args:
        url: https, or http of this machine.
        folder: where it is kept, under its own name.
        n_bytes: as published; None if not known.
        sha256: as published, in full or its beginning; "" if not known.
        on_progress: is called with the bytes that are there and those of the whole file, None if not known.
        on_wait: is called with a line while another process downloads into this folder.

    Raises:
        ConfigError: the address is none, or not of https.
        InputNotFoundError: there is no such file, or no such server.
        BundleError: the connection was cut, or the file is not the one that was published; this one is removed.
        OutputError: the folder cannot be written to.
    """
    _check_address(url)
    path = folder / file_name(url)
    with locked(folder, on_wait):
        if path.is_file() and not file_problem(path, n_bytes, sha256):
            return path
        part = path.with_name(path.name + ".part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(url, part, n_bytes, on_progress)
        except OSError as error:
            if isinstance(error, urllib.error.URLError | http.client.HTTPException | TimeoutError | ConnectionError):
                raise _cut(url, part) from error
            if isinstance(error, InputNotFoundError | OutputError):
                raise
            hint = "make space, or name another disk: XDG_CACHE_HOME"
            raise OutputError(part, f"cannot be written ({error.strerror})", hint) from error
        if problem := file_problem(part, n_bytes, sha256):
            part.unlink()
            raise BundleError(url, problem, "it was removed; take the file from where the model is published")
        part.replace(path)
    return path


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(url, f"is no address ({error})", "write https://...") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _OWN_HOSTS):
        raise ConfigError(url, "is not of https", "what comes over another way can be changed on it")


def _fetch(url: str, part: Path, n_bytes: int | None, on_progress: Callable[[int, int | None], None]) -> None:
    """Write the file to ``part``, from the byte on that it ends with."""
    begin = part.stat().st_size if part.is_file() else 0
    if begin and begin == n_bytes:
        return
    headers = {"User-Agent": f"birdinfer/{__version__}", **({"Range": f"bytes={begin}-"} if begin else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - see _check_address
    try:
        response: Any = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            part.unlink()  # longer than the file: of another version
            return _fetch(url, part, n_bytes, on_progress)
        hint = "see where the model is published, and name the file that you have: --from FILE"
        raise InputNotFoundError(url, f"the server answers {error.code} ({error.reason})", hint) from error
    with response:
        _check_address(response.geturl())  # after redirections
        is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = begin if is_rest else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdecimal() else None
        with part.open("ab" if is_rest else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                on_progress(done, total)
    if total is not None and done < total:
        raise ConnectionError
    return None


def _cut(url: str, part: Path) -> BundleError | InputNotFoundError:
    done = part.stat().st_size if part.is_file() else 0
    if not done:
        return InputNotFoundError(url, "cannot be reached", "is there a network? a proxy: set https_proxy")
    return BundleError(url, f"the connection was cut after {done / 1e6:.1f} MB", _AGAIN)


def file_problem(path: Path, n_bytes: int | None, sha256: str) -> str:
    """Say why a file is not the one that was published; "" if nothing speaks against it."""
    size = path.stat().st_size
    if n_bytes is not None and size != n_bytes:
        return f"the file has {size} bytes, published are {n_bytes}"
    if sha256:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(sha256):
            return f"the file has the SHA-256 {found[:16]}..., published is {sha256[:16]}..."
    return ""
