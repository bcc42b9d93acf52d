"""Kaggle's Python, made here: an environment that has what a notebook finds there, and nothing else.

Comes in: the image's version and packages. Goes out: an interpreter to run a notebook with. The environment is made
once and kept in the cache; every run gets an empty one above it, so that what a notebook installs is gone afterwards.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import ConfigError, OutputError
from birdinfer.files import write_atomic
from birdinfer.kaggle.image import Image

FOR_NOTEBOOKS = ("matplotlib",)
"""What a notebook takes for granted beyond the image's list, which is of what birdinfer needs."""
_PYENV = Path.home() / ".pyenv" / "versions"
_LAYER = "import site; site.addsitedir({!r})\n"
_MAKE_SECONDS = 900


def find_python(minor: str) -> Path | None:
    """An interpreter of this minor version (``3.12``): on the PATH, or of pyenv or uv; None if there is none."""
    candidates = [shutil.which(f"python{minor}"), *sorted(map(str, _PYENV.glob(f"{minor}.*/bin/python")), reverse=True)]
    if uv := shutil.which("uv"):
        candidates.append(_said_by([uv, "python", "find", minor]))
    return next((Path(one) for one in candidates if one and version_of(Path(one)).startswith(f"{minor}.")), None)


def version_of(python: Path) -> str:
    """``3.12.1``; "" if it does not run."""
    return _said_by([str(python), "-c", "import platform; print(platform.python_version())"])


def clean_python(image: Image, cache: Path | None = None) -> Path:
    """The interpreter of an environment with the image's packages, made where it is not in the cache yet.

    Args:
        image: Kaggle's version of Python, and its packages.
        cache: folder to keep it in; the user's cache if None.

    Raises:
        ConfigError: there is no such Python here, or its packages cannot be had.
        OutputError: the cache cannot be written.
    """
    wanted = sorted(f"{name}=={version}" for name, version in image.distributions.items()) + list(FOR_NOTEBOOKS)
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    folder = (cache or cache_folder()) / f"kaggle-python{image.python_minor}-{digest}"
    if not (folder / "bin" / "python").exists():
        _make(folder, image.python_minor, wanted)
    return folder / "bin" / "python"


def layer(folder: Path, python: Path) -> Path:
    """An environment above another one: it sees all that is there, and what is installed goes into ``folder``.

    Args:
        folder: new.
        python: interpreter of the environment below.

    Returns:
        The interpreter to run.

    Raises:
        ConfigError: ``python`` is none.
    """
    below = _said_by([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    if not below or not _runs([str(python), "-m", "venv", "--without-pip", str(folder)]):
        raise ConfigError("--python", f"{python} makes no environment", "name a Python with its venv module")
    above = folder / "bin" / "python"
    inside = Path(_said_by([str(above), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
    write_atomic(inside / "below.pth", _LAYER.format(below))
    return above


def _make(folder: Path, minor: str, requirements: Sequence[str]) -> None:
    base = find_python(minor)
    if base is None:
        raise ConfigError("--python", f"there is no Python {minor}, which Kaggle runs", f"uv python install {minor}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "set XDG_CACHE_HOME") from error
    try:
        if not _runs([str(base), "-m", "venv", str(staging)]):
            raise ConfigError("--python", f"{base} makes no environment", "install its venv module")
        _install(staging / "bin" / "python", requirements)
        if not folder.exists():  # another run may have been faster
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _install(python: Path, requirements: Sequence[str]) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise ConfigError("--python", f"Kaggle's packages cannot be had ({last})", "go online once, or name a Python")


def cache_folder() -> Path:
    """Where environments are kept: ``$XDG_CACHE_HOME/birdinfer``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdinfer"


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=_MAKE_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _said_by(command: Sequence[str]) -> str:
    """What a program prints; "" if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
