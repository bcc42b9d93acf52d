r"""Find the recordings that a table means: other programs spell their names in other ways.

A recording's name is its path within the folder of recordings, with ``/`` between folders and without the ending. In
tables stand backslashes (Windows), folders in front, ``.OGG`` for ``.ogg``, an accent as two characters (macOS), or the
file's name alone. Each is found if it can mean one recording only.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from birdinfer.audio.kinds import sounds_by_name
from birdinfer.errors import MetadataError
from birdinfer.tables.row_ids import row_stem

_NAMED = 3
_DATED = re.compile("[0-9]+_[A-Z]{3}_[0-9]{8}")
"""A file of 2021, whose date its row ids leave out."""


def spelled(name: str) -> str:
    r"""Spell a recording's name as all tables are compared: ``/`` between folders, NFC, without the ending of sound.

    >>> spelled("siteA\\20250227_060000.WAV"), spelled("./PLOT7.a")
    ('siteA/20250227_060000', 'PLOT7.a')
    """
    path = PurePosixPath(unicodedata.normalize("NFC", name.strip()).replace("\\", "/"))
    whole = str(path) if path.name else ""
    return whole[: -len(path.suffix)] if path.suffix and sounds_by_name(path.name) else whole


class Recordings:
    """The recordings that there are, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._exact: dict[str, str] = {}
        self._same_file: dict[str, list[str]] = {}
        for name in self._names:
            self._exact.setdefault(name, name)
            self._same_file.setdefault(_file(name), []).append(name)
            if _DATED.fullmatch(_file(name)):
                self._same_file.setdefault(row_stem(_file(name), 2021), []).append(name)

    def find(self, name: str) -> list[str]:
        """List those that a name of a table can mean: none, one, or several that it does not keep apart."""
        if name in self._exact:
            return [name]
        asked = spelled(name)
        alike = self._same_file.get(_file(asked), [])
        same = [each for each in alike if spelled(each) == asked]
        return same or [each for each in alike if is_tail(spelled(each), asked) or _file(asked) != _file(each)]

    def only(self) -> str:
        """Return the recording if there is just one, else ""."""
        return self._names[0] if len(self._names) == 1 else ""

    def nearest(self, name: str) -> str:
        """Return the name that is spelled most like one that was not found."""
        asked = spelled(name)
        near = difflib.get_close_matches(asked.casefold(), [each.casefold() for each in self._names], 1, 0)
        return next((each for each in self._names if each.casefold() in near), "")


def match_recordings(
    asked: Iterable[tuple[int, str]], recordings: Recordings, path: Path, where: str
) -> dict[str, str]:
    """Find the recording of each name.

    Args:
        asked: number of a row, and the name that it holds.
        recordings: those that there are.
        path: the table.
        where: what holds the recordings, for messages.

    Returns:
        The recording's name by the name that the table holds.

    Raises:
        MetadataError: a name means none or several, or two names with other folders mean the same; with the row.
    """
    found: dict[str, str] = {}
    longest: dict[str, str] = {}
    for row, name in asked:
        if name in found:
            continue
        meant = recordings.find(name)
        if len(meant) != 1:
            raise _not_one(path, row, name, meant, recordings, where)
        found[name] = meant[0]
        one, other = sorted((spelled(name), longest.get(meant[0], spelled(name))), key=len)
        if not is_tail(one, other):
            what = f"row {row}: {one!r} and {other!r} would both be {meant[0]!r} of {where}"
            raise MetadataError(path, what, "recordings of one name in two folders: keep the folders in both")
        longest[meant[0]] = other
    return found


def is_tail(one: str, other: str) -> bool:
    """Whether one path is the end of the other, folder by folder."""
    short, long = sorted((one.split("/"), other.split("/")), key=len)
    return long[-len(short) :] == short


def _not_one(
    path: Path, row: int, name: str, meant: Sequence[str], recordings: Recordings, where: str
) -> MetadataError:
    if meant:
        shown = ", ".join(map(repr, meant[:_NAMED])) + (", ..." if len(meant) > _NAMED else "")
        return MetadataError(path, f"row {row}: {name!r} may be {shown} of {where}", "write the folder, too")
    nearest = recordings.nearest(name)
    hint = f"the nearest there is {nearest!r}" if nearest else ""
    return MetadataError(path, f"row {row}: {where} has no recording {name!r}", hint)


def _file(name: str) -> str:
    return spelled(name).rpartition("/")[2]


_OWN_ENDING = re.compile(
    r"(?:[.](?:birdnet|table(?:[.][0-9]+)?|selections?(?:[.][0-9]+)?|results?|audacity|labels?|scores?|txt|csv|tsv))+$",
    re.IGNORECASE,
)
"""Of a table that a program writes for a recording: ``NAME.Table.1.selections.txt``, ``NAME.BirdNET.results.csv``.
Other numbers are the recording's, as in ``SITE.20210502.120000``."""


def recording_of_table(path: Path, recordings: Recordings, where: str) -> str:
    """Find the recording of a table that names none: the one whose name it has, or the only one.

    Raises:
        MetadataError: there are several, and none has its name.
    """
    for name in (f"{path.parent.name}/{own_recording(path)}", own_recording(path)):
        found = recordings.find(name)
        if len(found) == 1:
            return found[0]
    only = recordings.only()
    if only:
        return only
    what = f"names no recording, and {where} has several"
    raise MetadataError(path, what, f"call it as the recording, e.g. {recordings.nearest(own_recording(path))}.txt")


def own_recording(path: Path) -> str:
    """Return the name of the recording that a table is about, by the table's own name.

    >>> own_recording(Path("PLOT7_20250227_010002.Table.1.selections.txt"))
    'PLOT7_20250227_010002'
    """
    return spelled(_OWN_ENDING.sub("", path.name))
