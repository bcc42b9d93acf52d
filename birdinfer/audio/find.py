"""Files and folders that are named -> recordings, each with its name, and all that looks like sound but is none.

A folder is searched to its bottom. Links are followed, each folder once (by device and inode). Nothing is left out
without a word: what looks like sound and cannot be opened is listed with the reason, other files are counted by ending,
folders of trash and of systems are named.

A recording's **name** is its path within its input without the ending: it stands in row ids, so it is text for any
table. Several folders are named from the folder that holds all of them; a file that is named itself, by its own name.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from birdinfer.audio.kinds import ending_of, sounds_by_content, sounds_by_name, without_ending
from birdinfer.errors import InputNotFoundError
from birdinfer.system.files import utf8_text

_APPLE_DOUBLE = bytes.fromhex("00051607")
_PASSED_OVER = frozenset(
    (".trash", ".trashes", "$recycle.bin", "recycler", "recycled", "system volume information", ".spotlight-v100",
     ".fseventsd", ".temporaryitems", ".documentrevisions-v100", "__macosx", "@eadir", "#recycle", "@recycle",
     "#snapshot", ".snapshot", ".snapshots", ".zfs", ".stversions", ".dropbox.cache", ".git", ".dvc")
)  # fmt: skip
"""Folders, lower case, in which systems keep what was removed, copies, indices or thumbnails."""
_NAMED = 3
"""Paths in one line."""


class Unopened(NamedTuple):
    """A file or folder that looks like sound and cannot be opened, or an input without sound."""

    path: Path
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search has found."""

    names: Mapping[Path, str]
    """The recordings and their names, which differ; in the order of the inputs, those of a folder sorted."""
    unopened: tuple[Unopened, ...]
    others: Mapping[str, int]
    """Files that are no sound, counted by ending."""
    passed_over: tuple[Path, ...]
    """Folders of trash and of systems, which were not searched."""
    linked: tuple[Path, ...]
    """Links to what was found elsewhere."""

    def require(self, hint: str = "name a sound file, or a folder that holds some") -> None:
        """Raise InputNotFoundError if there is no recording at all."""
        if not self.names and self.unopened:
            (path, problem), *more = self.unopened
            others = f" ({len(more)} more cannot be opened or hold none)" if more else ""
            raise InputNotFoundError(path, problem + others, hint)

    def notes(self) -> list[str]:
        """Describe in a line each what was left out and is no fault."""
        return [
            *([f"no sound, left out: {_counts(self.others)}"] if self.others else []),
            *([f"trash and system folders, not searched: {_listed(self.passed_over)}"] if self.passed_over else []),
            *([f"links to what is found elsewhere, left out: {_listed(self.linked)}"] if self.linked else []),
        ]


def find_recordings(inputs: Sequence[Path]) -> Found:
    """Search files and folders for recordings; the caller decides whether finding none is an error.

    Raises:
        InputNotFoundError: an input does not exist, or cannot be looked for.
    """
    search = _Search()
    for given in inputs:
        search.add(given)
    return search.found()


_Identity = tuple[int, int | str]


class _Hit(NamedTuple):
    path: Path
    given: Path
    within: str
    """The path within the input, with ``/`` between folders; "" if the file is the input."""
    is_link: bool


class _Folder(NamedTuple):
    path: Path
    within: str


class _Search:
    def __init__(self) -> None:
        self._hits: dict[str, _Hit] = {}
        self._folders: list[Path] = []  # inputs
        self._places: set[Path] = set()  # searched folders, without links
        self._searched: set[_Identity] = set()
        self._meets_searched = False
        self._unopened: list[Unopened] = []
        self._others: Counter[str] = Counter()
        self._passed_over: list[Path] = []
        self._linked: list[Path] = []

    def add(self, given: Path) -> None:
        whole = os.path.abspath(given)  # noqa: PTH100 - links stay as they are named
        status = self._status(given)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            self._hits.setdefault(whole, _Hit(given, given, "", False))
            return
        self._folders.append(given)
        others, n_unopened = Counter(self._others), len(self._unopened)
        self._meets_searched = False
        hits = sorted(self._hits_in(given), key=lambda hit: hit.path)
        for hit in hits:
            self._hits.setdefault(os.path.join(whole, hit.within), hit)  # noqa: PTH118
        is_searched = self._meets_searched and bool(self._hits)
        if not hits and not is_searched and len(self._unopened) == n_unopened:
            there = _counts(self._others - others)
            self._unopened.append(Unopened(given, "holds no sound file" + (f", only {there}" if there else "")))

    def found(self) -> Found:
        hits = list(self._hits.values())
        if any(hit.is_link for hit in hits):
            real = {_identity(hit.path) for hit in hits if not hit.is_link}
            self._linked += [hit.path for hit in hits if hit.is_link and _identity(hit.path) in real]
            left_out = set(self._linked)
            hits = [hit for hit in hits if hit.path not in left_out]
        return Found(
            names=_names(hits, self._folders), unopened=tuple(self._unopened), others=dict(self._others),
            passed_over=tuple(self._passed_over), linked=tuple(self._linked),
        )  # fmt: skip

    def _status(self, given: Path) -> os.stat_result | None:
        """Look at an input; None if it is a link to nothing, as a shell's ``*`` may name, which is listed."""
        try:
            return given.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: NUL in a name
            if isinstance(error, ValueError) or not given.is_symlink():
                raise InputNotFoundError(given, "no such file or folder") from error
            self._unopened.append(Unopened(given, _to_nothing(given)))
            return None
        except OSError as error:  # a name that is too long, a folder of another user
            raise InputNotFoundError(given, f"cannot be looked for ({error.strerror})") from error

    def _hits_in(self, given: Path) -> Iterator[_Hit]:
        """Search a folder: real folders before links, so that a recording has the name of its own place."""
        above = {_identity(parent) for parent in given.resolve().parents}
        linked = [_Folder(given, "")]
        while linked:
            top = linked.pop(0)
            if _identity(top.path) in self._searched | above:
                self._meets_searched = True
                self._linked += [top.path] if top.path.is_symlink() else []
                continue
            folders = [top]
            while folders:
                folder = folders.pop()
                place = folder.path.resolve()
                if place in self._places:  # an input within this one
                    self._meets_searched = True
                    continue
                self._places.add(place)
                self._searched.add(_identity(folder.path))
                for entry in self._entries(folder.path):
                    inner = _Folder(folder.path / entry.name, f"{folder.within}/{entry.name}".lstrip("/"))
                    try:
                        is_link = entry.is_symlink()
                        if not entry.is_dir():
                            if self._is_sound(inner.path, entry):
                                yield _Hit(inner.path, given, inner.within, is_link)
                        elif _is_passed_over(entry.name):
                            self._passed_over.append(inner.path)
                        else:
                            (linked if is_link else folders).append(inner)
                    except OSError as error:
                        self._note_unless_other(inner.path, f"cannot be opened ({error.strerror})")

    def _entries(self, folder: Path) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except OSError as error:
            if folder.name == "lost+found":  # of the system, on every disk of Linux
                self._passed_over.append(folder)
            else:
                self._unopened.append(Unopened(folder, f"is a folder that cannot be searched ({error.strerror})"))

    def _is_sound(self, path: Path, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry that is no folder is a recording; count it, or list it, if not."""
        if not entry.is_file():
            is_link = entry.is_symlink()
            self._note_unless_other(path, _to_nothing(path) if is_link else "is no file", is_link=is_link)
            return False
        if path.name.startswith("._") and _is_apple_double(path):
            self._others["._* of macOS"] += 1
            return False
        by_name = sounds_by_name(path.name)
        is_sound = sounds_by_content(path) if by_name is None else by_name
        if not is_sound:
            self._others[ending_of(path.name)] += 1
        return is_sound

    def _note_unless_other(self, path: Path, problem: str, is_link: bool = True) -> None:
        """List what may be sound, or a folder of it; a pipe or socket without a sound's ending is neither."""
        by_name = sounds_by_name(path.name)
        if by_name or (by_name is None and is_link):
            self._unopened.append(Unopened(path, problem))
        else:
            self._others[ending_of(path.name)] += 1


def recording_name(path: Path) -> str:
    """Name a recording by itself: its file's name without the ending."""
    return utf8_text(without_ending(path.name))


def _names(hits: Sequence[_Hit], folders: Sequence[Path]) -> dict[Path, str]:
    """Give each recording the shortest of its spellings that no other one has."""
    base = _common(folders)
    prefix = {folder: _within(folder, base) for folder in folders}
    base_of_all = _common([*folders, *(hit.path.parent for hit in hits if not hit.within)])

    def short(hit: _Hit) -> str:
        return f"{prefix[hit.given]}/{hit.within}".lstrip("/") if hit.within else hit.path.name

    def whole(hit: _Hit) -> str:
        return _within(hit.path, base_of_all)

    spellings: list[Callable[[_Hit], str]] = [
        lambda hit: without_ending(short(hit)), lambda hit: without_ending(whole(hit)), short, whole,
    ]  # fmt: skip
    names: dict[Path, str] = {}
    taken: set[str] = set()
    left = list(hits)
    for spell in spellings:
        spelled = {hit.path: utf8_text(spell(hit)) for hit in left}
        times = Counter(spelled.values())
        unique = {path: name for path, name in spelled.items() if times[name] == 1 and name not in taken}
        names |= unique
        taken.update(unique.values())
        left = [hit for hit in left if hit.path not in names]
    numbered = {hit.path: f"{utf8_text(whole(hit))}#{number}" for number, hit in enumerate(left, start=1)}
    return {hit.path: names.get(hit.path) or numbered[hit.path] for hit in hits}


def _common(folders: Iterable[Path]) -> str:
    """The folder that holds all of these; "" if there is none."""
    try:
        return os.path.commonpath([os.path.abspath(folder) for folder in folders])  # noqa: PTH100
    except ValueError:  # none at all, or several drives
        return ""


def _within(path: Path, base: str) -> str:
    """The path within a folder, with ``/`` between its parts; its name where it lies elsewhere."""
    whole = os.path.abspath(path)  # noqa: PTH100
    if not base:
        return path.name
    return "" if whole == base else whole[len(base) :].replace(os.sep, "/").lstrip("/")


def _identity(path: Path) -> _Identity:
    """Device and inode; the path on disks without inodes, and of what is gone meanwhile."""
    try:
        found = path.stat()
    except OSError:
        return (-1, str(path))
    return (found.st_dev, found.st_ino or str(path.resolve()))


def _to_nothing(link: Path) -> str:
    return f"links to {link.readlink()}, which is not there"


def _counts(others: Mapping[str, int]) -> str:
    """``12 .txt, 3 .csv and 4 others``."""
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in kinds[_NAMED:])
    return ", ".join(f"{count} {kind}" for kind, count in kinds[:_NAMED]) + (f" and {rest} others" if rest else "")


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(str, paths[:_NAMED])) + more


def _is_passed_over(name: str) -> bool:
    return name.lower() in _PASSED_OVER or name.lower().startswith(".trash-")


def _is_apple_double(path: Path) -> bool:
    """Whether macOS wrote it beside a file on a disk of another format: ``._a.wav`` with attributes of ``a.wav``.

    By name and by the first bytes of the format (RFC 1740, appendix A): no recording may vanish because of its name.
    """
    with path.open("rb") as file:
        return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
