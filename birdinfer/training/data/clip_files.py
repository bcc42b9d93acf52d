"""The file names of train.csv -> the sound files of a data folder, in the layouts of all years of BirdCLEF.

People's tables spell names otherwise than the disk does: with backslashes, the folder of clips in front, another case,
no ending, another form of an accent (macOS). A name that fits one file alone is that file's. A part of a file, as the
columns ``start`` and ``end`` give it, is a clip of its own, named as the web's media fragments are: ``x.ogg#t=5,10``.
"""

import math
import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from birdinfer.audio.kinds import AUDIO_SUFFIXES

AUDIO_FOLDERS = ("train_audio", "train_short_audio")
_STRETCH = re.compile(r"(.+)#t=([0-9.e+-]+),([0-9.e+-]+|inf)", re.DOTALL)


def audio_folder(data_dir: Path) -> Path | None:
    """The folder of a data set that holds its clips; None if there is none."""
    return next((data_dir / name for name in AUDIO_FOLDERS if (data_dir / name).is_dir()), None)


class Stretch(NamedTuple):
    """A file's name and the part of it that a clip is, in seconds."""

    filename: str
    begin_seconds: float = 0.0
    end_seconds: float = math.inf

    @property
    def name(self) -> str:
        """The clip's: the file's own, if the clip is all of it."""
        whole = self.begin_seconds == 0 and self.end_seconds == math.inf
        return self.filename if whole else f"{self.filename}#t={self.begin_seconds:g},{self.end_seconds:g}"


def stretch_of(name: str) -> Stretch:
    """Take apart what :attr:`Stretch.name` gives.

    >>> stretch_of("dog/x.ogg#t=5,10")
    Stretch(filename='dog/x.ogg', begin_seconds=5.0, end_seconds=10.0)
    """
    found = _STRETCH.fullmatch(name)
    try:
        return Stretch(found[1], float(found[2]), float(found[3])) if found else Stretch(name)
    except ValueError:
        return Stretch(name)


class ClipFile(NamedTuple):
    """A clip's file."""

    name: str
    """As the disk spells it below the folder; as it is listed if that is right, or if there is no such file."""
    path: Path
    """May not be there."""


class ClipFiles:
    """The sound files of one folder of clips."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, filename: str, label: str) -> ClipFile:
        """Find the file of a listed name; the first years list bare names and keep files in folders named as labels."""
        for path in (self._folder / filename, self._folder / label / filename):
            if os.path.exists(path):  # noqa: PTH110 - which knows no name that is too long to ask for
                return ClipFile(file_name(filename), path)
        fitting = self._fitting(filename, label, PurePosixPath(_plain(filename)).suffix not in AUDIO_SUFFIXES)
        if len(fitting) == 1:
            return ClipFile(fitting[0], self._folder / fitting[0])
        return ClipFile(filename, self._folder / filename)

    def hint(self, filename: str, label: str) -> str:
        """Name the files that a name may mean for which :meth:`find` finds none; "" if there are none."""
        fitting = self._fitting(filename, label, True)
        return f"{' and '.join(f'{self._folder.name}/{name}' for name in fitting)} may be meant" if fitting else ""

    def _fitting(self, filename: str, label: str, any_ending: bool) -> list[str]:
        key = _plain(filename)
        wanted = (key, f"{_plain(label)}/{key}")
        found = [name for one in wanted for name in self._by_name.get(one, [])]
        if found or not any_ending:
            return found
        return [name for one in wanted for name in self._by_stem.get(one, self._by_stem.get(_without_ending(one), []))]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        # Not even to be looked for is a name with a NUL, which a checkpoint made by hand may state.
        for folder, _, files in os.walk(self._folder) if self._folder.is_dir() else ():
            for file in sorted(files):
                name = Path(folder, file).relative_to(self._folder).as_posix()
                names[_plain(name)].append(name)
        return dict(names)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = defaultdict(list)
        for key, names in self._by_name.items():
            if PurePosixPath(key).suffix in AUDIO_SUFFIXES:
                stems[_without_ending(key)] += names
        return dict(stems)


def file_name(listed: str) -> str:
    """A listed name without doubled slashes and ``./``."""
    return PurePosixPath(listed).as_posix()


def _plain(name: str) -> str:
    """What is left of all spellings of a name: below the folder of clips, with slashes, in lower case, composed."""
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold()).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    for folder in AUDIO_FOLDERS:
        if folder in parts[:-1]:
            parts = parts[parts.index(folder) + 1 :]
    return "/".join(parts)


def _without_ending(key: str) -> str:
    return key[: len(key) - len(PurePosixPath(key).suffix)]
