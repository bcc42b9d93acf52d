"""Wheels: whether Kaggle's Python accepts one, which ones a submission needs, and where they come from.

The smallest set is chosen that makes ``birdinfer`` install on Kaggle without a network; requirements of a package that
Kaggle has are met there. Wheels come from folders, from pip, or from this checkout; their names give version and tags
(PEP 427), their METADATA the requirements.
"""

import contextlib
import importlib.util
import platform
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

import birdinfer
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.kaggle.competitions import Image

_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """One wheel file."""

    path: Path
    name: str  # canonical: lower case, with hyphens
    version: Version
    tags: frozenset[Tag]
    requires_python: SpecifierSet
    requires: tuple[Requirement, ...]


class MissingWheel(NamedTuple):
    """A requirement that no wheel meets."""

    requirement: str  # as pip takes it: ``onnxruntime>=1.20``
    needed_by: str  # the package that requires it
    reason: str  # what is wrong with the available wheels of this name; "" if there are none


class Selection(NamedTuple):
    """What a submission installs."""

    wheels: tuple[Wheel, ...]  # by name
    missing: tuple[MissingWheel, ...]


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's name and metadata; raise ConfigError if its name is not that of a wheel, or it is damaged."""
    with _whole(path):
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inner = next((each for each in archive.namelist() if each.endswith(".dist-info/METADATA")), None)
            if inner is None:
                raise ValueError("it has no METADATA")
            headers = HeaderParser().parsestr(archive.read(inner).decode())
        return Wheel(
            path=path,
            name=str(name),
            version=version,
            tags=tags,
            requires_python=SpecifierSet(headers.get("Requires-Python", "")),
            requires=tuple(map(Requirement, headers.get_all("Requires-Dist", []))),
        )


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn whatever a damaged wheel raises into one error that names it."""
    try:
        yield
    # One changed byte in a zip may end in BadZipFile, zlib.error, EOFError, struct.error ...
    except Exception as error:
        what = f"is not a whole wheel ({str(error) or type(error).__name__})"
        raise ConfigError(path, what, "download it again, or leave it out") from error


def incompatibility(wheel: Wheel, image: Image) -> str:
    """Return why a wheel does not run on Kaggle, as a text that follows its name; "" if it does."""
    if wheel.requires_python and not wheel.requires_python.contains(image.python, prereleases=True):
        return f"is for Python {wheel.requires_python}, Kaggle runs {image.python_minor}"
    if not wheel.tags & image.tags:
        return _tag_mismatch(wheel.tags, image)
    needed = _glibc_needed(wheel.path) if any(tag.platform.startswith("linux_") for tag in wheel.tags) else (0, 0)
    if needed > image.glibc_version:
        return f"was built for glibc {needed[0]}.{needed[1]}, Kaggle has {image.glibc}"
    return ""


def _tag_mismatch(tags: frozenset[Tag], image: Image) -> str:
    platforms = sorted({tag.platform for tag in tags})
    if not any(platform in (*image.platforms, "any") for platform in platforms):
        matches = [_MANYLINUX.match(platform) for platform in platforms if platform.endswith(image.machine)]
        glibc = next((f"{match[1]}.{match[2]}" for match in matches if match), "")
        if glibc:
            return f"needs glibc {glibc}, Kaggle has {image.glibc}"
        return f"is for {platforms[0]}, Kaggle runs Linux on {image.machine}"
    interpreters = sorted({tag.interpreter for tag in tags})
    # "cp311" -> "3.11", "py3" -> "3"
    shown = ", ".join(re.sub(r"^(?:cp|py)(\d)(\d*)$", r"\1.\2", each).rstrip(".") for each in interpreters)
    return f"is for Python {shown}, Kaggle runs {image.python_minor}"


def _glibc_needed(path: Path) -> tuple[int, int]:
    """The newest glibc that a wheel's libraries need; (0, 0) if none: the tag ``linux_x86_64`` does not say."""
    with _whole(path), zipfile.ZipFile(path) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so") or ".so." in name]
        named = [match for name in libraries for match in _GLIBC.findall(archive.read(name))]
    return max(((int(major), int(minor)) for major, minor in named), default=(0, 0))


def select(roots: Iterable[Requirement], available: Sequence[Wheel], image: Image) -> Selection:
    """Choose the newest wheels that meet the requirements ``roots`` on Kaggle, with all that these require in turn."""
    wanted: dict[str, list[Requirement]] = {}
    asked_by: dict[str, str] = {}
    chosen: dict[str, Wheel | None] = {}
    queue = deque((root, "a submission") for root in roots)
    while queue:
        need, asker = queue.popleft()
        name = canonicalize_name(need.name)
        if str(need) in map(str, wanted.setdefault(name, [])):
            continue
        wanted[name].append(need)
        if all(map(image.has, wanted[name])):
            continue
        asked_by.setdefault(name, asker)
        wheel = chosen[name] = _newest(wanted[name], available, image)
        if wheel is not None:
            extras = frozenset(extra for each in wanted[name] for extra in each.extras)
            queue.extend((each, name) for each in wheel.requires if image.asks(each, extras))
    missing = [
        MissingWheel(_joined(wanted[name]), asked_by[name], _refusals(wanted[name], available, image))
        for name, wheel in sorted(chosen.items())
        if wheel is None
    ]
    return Selection(tuple(wheel for _, wheel in sorted(chosen.items()) if wheel is not None), tuple(missing))


def _newest(needs: Sequence[Requirement], available: Sequence[Wheel], image: Image) -> Wheel | None:
    def fits(wheel: Wheel) -> bool:
        meets = all(need.specifier.contains(wheel.version, prereleases=True) for need in needs)
        return meets and not incompatibility(wheel, image)

    return max(filter(fits, _of_name(needs, available)), key=lambda wheel: wheel.version, default=None)


def _of_name(needs: Sequence[Requirement], available: Sequence[Wheel]) -> list[Wheel]:
    name = canonicalize_name(needs[0].name)
    return [wheel for wheel in available if wheel.name == name]


def _joined(needs: Sequence[Requirement]) -> str:
    """All requirements of one package as one: ``numpy<3,>=1.26``."""
    specifier = SpecifierSet(",".join(str(need.specifier) for need in needs if need.specifier))
    return f"{needs[0].name}{specifier}"


def _refusals(needs: Sequence[Requirement], available: Sequence[Wheel], image: Image) -> str:
    return "; ".join(
        f"{wheel.path.name} {incompatibility(wheel, image) or f'is version {wheel.version}'}"
        for wheel in _of_name(needs, available)
    )


def unusable_wheels(folder: Path, image: Image) -> list[tuple[Path, str]]:
    """Find the wheels in a folder that Kaggle does not accept, and why; raise ConfigError if one is damaged."""
    checked = ((path, incompatibility(read_wheel(path), image)) for path in sorted(folder.glob("*.whl")))
    return [(path, reason) for path, reason in checked if reason]


# ---- Where wheels come from

_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""Platforms that projects publish for; pip includes manylinux2010 and manylinux1 in manylinux2014."""
_MINUTES = 15
_SOURCES = ("birdinfer", "exports/demo", "exports/forest_demo", "train/slurm")
_SOURCE_FILES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
_KERNEL_SOURCE = "birdinfer/features/kernels/log_mel.c"


def wheels_in(folders: Sequence[Path]) -> list[Wheel]:
    """Read all wheels in some folders, without sub-folders."""
    for folder in folders:
        if not folder.is_dir():
            raise InputNotFoundError(folder, "no such folder of wheels", "name one, or let --download fetch them")
    return [read_wheel(path) for folder in folders for path in sorted(folder.glob("*.whl"))]


def download_command(requirements: Sequence[str], into: Path, image: Image) -> list[str]:
    """Return the pip command that downloads wheels for Kaggle's Python and their requirements, from any Python."""
    platforms = [f"--platform={name}_{image.machine}" for name in _PLATFORMS]
    return [
        *(sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={image.python_minor}", *platforms, f"--dest={into}", *requirements),
    ]


def download(requirements: Sequence[str], into: Path, image: Image) -> str:
    """Download these wheels, without their requirements; return pip's error message, "" if all are there.

    Wheels downloaded before a failure stay.
    """
    alone = ("--no-deps", "--quiet", "--disable-pip-version-check")
    return _failure(_run([*download_command(requirements, into, image), *alone]))


def checkout() -> Path | None:
    """Find the checkout that this birdinfer runs from; None if it was installed from a wheel."""
    root = Path(birdinfer.__file__).parents[1]
    return root if all((root / name).is_file() for name in ("pyproject.toml", "hatch_build.py")) else None


def build(root: Path, into: Path, image: Image) -> Wheel:
    """Build birdinfer's own wheel from a copy of the checkout ``root`` into an empty folder; OutputError if that fails.

    A front end's kernel that is compiled on another kind of machine would not load on Kaggle: without its source the
    wheel is pure Python, and numpy does the kernel's work.
    """
    copy = into / "source"  # the build compiles into the package's folder
    for name in _SOURCES:
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in _SOURCE_FILES:
        shutil.copy(root / name, copy / name)
    if (platform.system(), platform.machine()) != ("Linux", image.machine):
        (copy / _KERNEL_SOURCE).unlink()
    # Without isolation nothing is downloaded, but hatchling has to be installed.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    problem = _failure(_run([*command, *isolation, f"--wheel-dir={into}", str(copy)]))
    built = sorted(into.glob("birdinfer-*.whl"))
    if problem or not built:
        hint = f"try it yourself: pip wheel --no-deps {root}"
        raise OutputError("birdinfer's wheel", problem or "pip made none", hint)
    return read_wheel(built[0])


def as_typed(command: Sequence[str]) -> str:
    """Join a command as a user types it, with ``python`` for this interpreter."""
    return shlex.join(["python" if word == sys.executable else word for word in command])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60 * _MINUTES, check=False)
    except subprocess.TimeoutExpired as error:
        what = f"was not done after {_MINUTES} minutes"
        raise ConfigError("pip", what, "see whether its index can be reached") from error


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """Pip's last error on one line; "" if it did not fail."""
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"pip ended with {done.returncode}"])[-1]
