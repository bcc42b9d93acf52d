"""The BirdCLEF competitions, and Kaggle's Python.

In: a competition's slug, the last part of its address. Out: what Kaggle gives a notebook of that year, and how long it
may take. The hidden test's size is a round number from the competitions' pages and winners' write-ups; it serves for
forecasts. Kaggle's Python has a version, a platform whose wheels it accepts, and installed packages.
"""

import difflib
import functools
import tomllib
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name

from birdinfer.errors import ConfigError
from birdinfer.submission.formats import N_SPECIES


class Competition(msgspec.Struct, frozen=True):
    """One year's competition."""

    slug: str
    year: int
    minutes_limit: int  # for the whole notebook, on a CPU, internet off
    n_hidden_files: int  # approximate number of soundscapes in the hidden test
    hidden_file_seconds: int  # length of each
    train_folder: str  # sound that the public run has as well: soundscapes if the year has any, else clips by species
    test_folder: str = "test_soundscapes"  # filled in the hidden run; empty or with one file in the public run
    sample_name: str = "sample_submission.csv"

    @property
    def hidden_seconds(self) -> int:
        """Sound in the hidden test, in seconds."""
        return self.n_hidden_files * self.hidden_file_seconds

    @property
    def n_species(self) -> int:
        """Number of species that a submission is asked for."""
        return N_SPECIES[self.year]


COMPETITIONS: dict[str, Competition] = {
    each.slug: each
    for each in (
        Competition("birdclef-2021", 2021, 540, 80, 600, "train_soundscapes"),
        Competition("birdclef-2022", 2022, 540, 5_500, 60, "train_audio"),
        Competition("birdclef-2023", 2023, 120, 200, 600, "train_audio"),
        Competition("birdclef-2024", 2024, 120, 1_100, 240, "unlabeled_soundscapes"),
        Competition("birdclef-2025", 2025, 90, 700, 60, "train_soundscapes"),
        Competition("birdclef-2026", 2026, 90, 600, 60, "train_soundscapes"),
    )
}  # by slug, oldest first


def competition(slug: str) -> Competition:
    """Find a competition by its slug; the ConfigError for an unknown one names the nearest.

    >>> competition("birdclef-2025").minutes_limit
    90
    """
    if slug in COMPETITIONS:
        return COMPETITIONS[slug]
    near = difflib.get_close_matches(slug, COMPETITIONS, n=1, cutoff=0)
    raise ConfigError("--competition", f"{slug!r} is not known", f"did you mean {near[0]}?")


# ---- Kaggle's Python

_FILE = Path(__file__).with_name("kaggle_image.toml")
_OLDEST_GLIBC_MINOR = 5  # manylinux1 is glibc 2.5: there is no older tag (PEP 600)
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1")  # names from before PEP 600, for glibc 2.17, 2.12 and 2.5


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The Python environment that a notebook runs in."""

    as_of: str  # year and month of these facts
    python: str  # ``3.12.12``
    glibc: str  # ``2.35``: a wheel for a newer one does not load
    machine: str
    distributions: dict[str, str]  # canonical name -> version of the installed packages

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
        """Platform tags that load there, newest glibc first, and ``linux_x86_64``, which any Linux builds."""
        major, minor = self.glibc_version
        named = [f"manylinux_{major}_{each}" for each in range(minor, _OLDEST_GLIBC_MINOR - 1, -1)]
        return tuple(f"{name}_{self.machine}" for name in (*named, *_LEGACY, "linux"))

    @functools.cached_property
    def tags(self) -> frozenset[Tag]:
        """All tags of wheels that Kaggle's pip accepts, some hundreds."""
        major, minor = (int(part) for part in self.python_minor.split("."))
        version, abi = (major, minor), f"cp{major}{minor}"
        cpython = cpython_tags(version, [abi], self.platforms)
        return frozenset([*cpython, *compatible_tags(version, abi, self.platforms)])

    def marker_environment(self, extra: str = "") -> dict[str, str]:
        """The variables of a requirement's marker (PEP 508) on Kaggle."""
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
        """Whether a requirement applies on Kaggle to a package installed with these extras."""
        marker = requirement.marker
        return marker is None or any(marker.evaluate(self.marker_environment(extra)) for extra in ("", *extras))

    def has(self, requirement: Requirement) -> bool:
        """Whether Kaggle has the package already, in a version that fits."""
        version = self.distributions.get(canonicalize_name(requirement.name))
        return version is not None and requirement.specifier.contains(version, prereleases=True)


@functools.cache
def kaggle_image() -> Image:
    """Read the image from ``kaggle_image.toml``."""
    return msgspec.convert(tomllib.loads(_FILE.read_text(encoding="utf-8")), Image)
