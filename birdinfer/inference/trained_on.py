"""Which files the members of a bundle were trained on: ``folds.csv`` in the bundle's folder, from its training run.

A model scores its own training files better than any others, so what learns from its scores, or is validated on them,
has to know. Members of others (Perch, BirdNET) come without a record: they may have been trained on any file.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from birdinfer.inference.bundle import Bundle
from birdinfer.inference.manifest import Member
from birdinfer.tables.cells import whole_of
from birdinfer.tables.csv import rows

RECORD = "folds.csv"
SOUP = "soup"
"""Name of the member whose weights are the mean of all folds'."""
_NEVER = frozenset({-2, -3, -4})
"""Test files, files that were left out, and those of validation alone (:mod:`birdinfer.training.data.folds`)."""


class TrainedOn:
    """The record of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read it; MetadataError if it is damaged."""
        self._members = bundle.manifest.members
        self._folds: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
        path = bundle.folder / RECORD
        self.has_record = path.is_file()
        for _, cells in rows(path, ("filename", "fold")) if self.has_record else ():
            name, fold = _plain(cells["filename"]), whole_of(cells["fold"])
            if fold is not None and fold not in _NEVER:
                self._folds[name.name].append((name, fold))

    @property
    def without_record(self) -> tuple[str, ...]:
        """Names of the members of which it is not known what they were trained on."""
        return tuple(each.name for each in self._members if not (self.has_record and is_own(each)))

    def unaware_of(self, filenames: Iterable[str]) -> frozenset[str]:
        """Name the members that were trained on none of these files, as far as is known.

        A file may be named from another folder: ``robin/XC1.ogg`` and ``train_audio/robin/XC1.ogg`` are one.
        """
        folds = {fold for filename in filenames for fold in self._folds_of(_plain(filename))}
        return frozenset(
            each.name
            for each in self._members
            if not folds or not is_own(each) or (each.name != SOUP and folds == {each.fold})
        )

    def fold_of(self, filename: str) -> tuple[int, ...]:
        """The folds that hold a file out; none for a file that is not in the record, or that every fold trains on."""
        return tuple(sorted(fold for fold in self._folds_of(_plain(filename)) if fold >= 0))

    def _folds_of(self, name: PurePosixPath) -> set[int]:
        return {fold for known, fold in self._folds.get(name.name, ()) if ends_alike(known, name)}


def is_own(member: Member) -> bool:
    """Whether a member was trained by birdinfer, so that a record can state its files."""
    return member.fold is not None or member.name == SOUP


def family_of(bundle: Bundle, member: Member) -> str:
    """Name the kind of network of a member: ``sed efficientnet_b0``; of a model of others, its graph's name."""
    family = bundle.manifest.provenance.recipe.get("model", {}).get("family", "") if is_own(member) else ""
    return f"{family} {member.backbone or member.name}".strip()


def _plain(filename: str) -> PurePosixPath:
    """A file's name without the part of it that a clip is, and without its source (``@survey/x.ogg#t=5,10``)."""
    name = PurePosixPath(filename.partition("#t=")[0].replace("\\", "/"))
    is_of_source = len(name.parts) > 1 and name.parts[0].startswith("@")
    return PurePosixPath(*name.parts[1:]) if is_of_source else name


def ends_alike(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether two names can be one file's, seen from different folders."""
    n_parts = min(len(one.parts), len(other.parts))
    return one.parts[-n_parts:] == other.parts[-n_parts:]
