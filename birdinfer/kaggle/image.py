"""Kaggle's Python: its version, the wheels that it takes, the packages that it has.

Comes in: ``kaggle_image.toml`` beside this module. Goes out: whether a requirement is met on Kaggle without us, and the
tags and markers that Kaggle's pip sees, whatever machine this is.
"""

import functools
import tomllib
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

_FILE = Path(__file__).with_name("kaggle_image.toml")
_OLDEST_GLIBC_MINOR = 5
"""manylinux1 is glibc 2.5: there is no older tag (PEP 600)."""
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1")
"""Names from before PEP 600, for glibc 2.17, 2.12 and 2.5."""


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """What a notebook finds."""

    as_of: str
    """Year and month that these facts are of."""
    python: str
    """``3.12.12``."""
    glibc: str
    """``2.35``: a wheel for a newer one does not load."""
    machine: str
    distributions: dict[str, str]
    """Canonical name -> version of the packages that are there."""

    @property
    def python_minor(self) -> str:
        """``3.12``."""
        return ".".join(self.python.split(".")[:2])

    @property
    def glibc_version(self) -> tuple[int, int]:
        """(2, 35)."""
        major, minor = self.glibc.split(".")
        return int(major), int(minor)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags that load there, newest glibc first; a wheel built on any Linux says ``linux_x86_64``."""
        major, minor = self.glibc_version
        named = [f"manylinux_{major}_{each}" for each in range(minor, _OLDEST_GLIBC_MINOR - 1, -1)]
        return tuple(f"{name}_{self.machine}" for name in (*named, *_LEGACY, "linux"))

    @functools.cached_property
    def tags(self) -> frozenset[Tag]:
        """Every tag of a wheel that Kaggle's pip takes: some hundreds, made once."""
        major, minor = (int(part) for part in self.python_minor.split("."))
        abi = f"cp{major}{minor}"
        return frozenset(
            [
                *cpython_tags((major, minor), [abi], self.platforms),
                *compatible_tags((major, minor), abi, self.platforms),
            ]
        )

    def marker_environment(self, extra: str = "") -> dict[str, str]:
        """What a requirement's marker is asked against (PEP 508), as seen on Kaggle."""
        return {
            "extra": extra,
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.python_minor,
            "sys_platform": "linux",
        }

    def asks(self, requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
        """Whether a requirement counts on Kaggle for a package taken with these extras."""
        marker = requirement.marker
        return marker is None or any(marker.evaluate(self.marker_environment(extra)) for extra in ("", *extras))

    def has(self, requirement: Requirement) -> bool:
        """Whether Kaggle has the package already, in a version that will do."""
        version = self.distributions.get(canonicalize_name(requirement.name))
        return version is not None and requirement.specifier.contains(version, prereleases=True)


@functools.cache
def kaggle_image() -> Image:
    """The image as ``kaggle_image.toml`` has it."""
    return msgspec.convert(tomllib.loads(_FILE.read_text(encoding="utf-8")), Image)
