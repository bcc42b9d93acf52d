"""Wheels: what one says of itself, whether Kaggle's Python takes it, and which ones a submission needs.

Comes in: wheel files. Their names give version and tags (PEP 427), their METADATA what they need in turn. Goes out: the
smallest set that makes ``birdinfer`` install on Kaggle without a network, and what is missing from it. The needs of a
package that Kaggle has are Kaggle's own business.
"""

import contextlib
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from birdinfer.errors import ConfigError
from birdinfer.kaggle.image import Image

_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")


class Wheel(NamedTuple):
    """One wheel file."""

    path: Path
    name: str
    """Canonical: lower case, with hyphens."""
    version: Version
    tags: frozenset[Tag]
    requires_python: SpecifierSet
    requires: tuple[Requirement, ...]


class MissingWheel(NamedTuple):
    """A requirement that no wheel meets."""

    requirement: str
    """As pip takes it: ``onnxruntime>=1.20``."""
    needed_by: str
    """The package that asks for it."""
    reason: str
    """What is wrong with the wheels of it that are there; "" where there are none."""


class Selection(NamedTuple):
    """What a submission installs."""

    wheels: tuple[Wheel, ...]
    """By name."""
    missing: tuple[MissingWheel, ...]


def read_wheel(path: Path) -> Wheel:
    """What a wheel says of itself.

    Raises:
        ConfigError: it has no name of a wheel, or is damaged.
    """
    with _whole(path):
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inner = next((each for each in archive.namelist() if each.endswith(".dist-info/METADATA")), None)
            if inner is None:
                raise ValueError("it has no METADATA")
            headers = HeaderParser().parsestr(archive.read(inner).decode())
        needs = tuple(Requirement(text) for text in headers.get_all("Requires-Dist", []))
        return Wheel(path, str(name), version, tags, SpecifierSet(headers.get("Requires-Python", "")), needs)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever a damaged wheel raises names the wheel; packaging's and decoding's errors are ValueErrors."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        what = f"is not a whole wheel ({error})"
        raise ConfigError(path, what, "download it again, or leave it out") from error


def why_not(wheel: Wheel, image: Image) -> str:
    """Why a wheel does not run on Kaggle, in words that follow its name; "" if it does.

    Raises:
        ConfigError: it is damaged.
    """
    if wheel.requires_python and not wheel.requires_python.contains(image.python, prereleases=True):
        return f"is for Python {wheel.requires_python}, Kaggle runs {image.python_minor}"
    if not wheel.tags & image.tags:
        return _foreign(wheel.tags, image)
    needed = _glibc_needed(wheel.path) if any(tag.platform.startswith("linux_") for tag in wheel.tags) else (0, 0)
    if needed > image.glibc_version:
        return f"was built for glibc {needed[0]}.{needed[1]}, Kaggle has {image.glibc}"
    return ""


def _foreign(tags: frozenset[Tag], image: Image) -> str:
    """What of a wheel's tags is not Kaggle's: the platform, or the Python."""
    platforms = sorted({tag.platform for tag in tags})
    if not any(platform in (*image.platforms, "any") for platform in platforms):
        matches = [_MANYLINUX.match(platform) for platform in platforms if platform.endswith(image.machine)]
        glibc = next((f"{match[1]}.{match[2]}" for match in matches if match), "")
        if glibc:
            return f"needs glibc {glibc}, Kaggle has {image.glibc}"
        return f"is for {platforms[0]}, Kaggle runs Linux on {image.machine}"
    interpreters = sorted({tag.interpreter for tag in tags})
    shown = ", ".join(re.sub(r"^(?:cp|py)(\d)(\d*)$", _spelt, each) for each in interpreters)
    return f"is for Python {shown}, Kaggle runs {image.python_minor}"


def _spelt(match: re.Match[str]) -> str:
    """``cp311`` -> ``3.11``."""
    return ".".join(part for part in match.groups() if part)


def _glibc_needed(path: Path) -> tuple[int, int]:
    """The newest glibc that a wheel's libraries name; (0, 0) if none.

    A wheel that was only ever built here carries the tag ``linux_x86_64``, which promises nothing.
    """
    with _whole(path), zipfile.ZipFile(path) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so") or ".so." in name]
        named = [match for name in libraries for match in _GLIBC.findall(archive.read(name))]
    return max(((int(major), int(minor)) for major, minor in named), default=(0, 0))


def select(roots: Iterable[Requirement], available: Sequence[Wheel], image: Image) -> Selection:
    """The wheels that meet some requirements on Kaggle, and all that these need in turn.

    Args:
        roots: what is to be installed.
        available: wheels to choose from; of several that will do, the newest is taken.
        image: what Kaggle has.
    """
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
            queue.extend((each, name) for each in _needs(wheel, wanted[name], image))
    missing = [
        MissingWheel(_joined(wanted[name]), asked_by[name], _refusals(wanted[name], available, image))
        for name, wheel in sorted(chosen.items())
        if wheel is None
    ]
    return Selection(tuple(wheel for _, wheel in sorted(chosen.items()) if wheel is not None), tuple(missing))


def _newest(needs: Sequence[Requirement], available: Sequence[Wheel], image: Image) -> Wheel | None:
    fitting = [wheel for wheel in _of_name(needs, available) if _meets(wheel, needs) and not why_not(wheel, image)]
    return max(fitting, key=lambda wheel: wheel.version, default=None)


def _of_name(needs: Sequence[Requirement], available: Sequence[Wheel]) -> list[Wheel]:
    name = canonicalize_name(needs[0].name)
    return [wheel for wheel in available if wheel.name == name]


def _meets(wheel: Wheel, needs: Sequence[Requirement]) -> bool:
    return all(need.specifier.contains(wheel.version, prereleases=True) for need in needs)


def _needs(wheel: Wheel, asked: Sequence[Requirement], image: Image) -> list[Requirement]:
    """What a wheel needs on Kaggle, taken with the extras that were asked for; its own extras belong to that."""
    extras = frozenset(extra for need in asked for extra in need.extras)
    return [need for need in wheel.requires if image.asks(need, extras)]


def _joined(needs: Sequence[Requirement]) -> str:
    """All that is asked of one package, as one requirement: ``numpy<3,>=1.26``."""
    specifier = SpecifierSet(",".join(str(need.specifier) for need in needs if need.specifier))
    return f"{needs[0].name}{specifier}"


def _refusals(needs: Sequence[Requirement], available: Sequence[Wheel], image: Image) -> str:
    """What is wrong with the wheels of that name."""
    return "; ".join(
        f"{wheel.path.name} {why_not(wheel, image) or f'is version {wheel.version}'}"
        for wheel in _of_name(needs, available)
    )


def foreign_wheels(folder: Path, image: Image) -> list[tuple[Path, str]]:
    """Wheels in a folder that Kaggle does not take, and why.

    Raises:
        ConfigError: a wheel is damaged.
    """
    told = ((path, why_not(read_wheel(path), image)) for path in sorted(folder.glob("*.whl")))
    return [(path, reason) for path, reason in told if reason]
