"""A bundle: the folder that predicts. ``manifest.json`` and ``*.onnx``, verified before anything is run.

The manifest holds all that inference needs (labels, front end, post-processing, members), so that training and
prediction cannot disagree. Loading checks every file's sha256, refuses names that leave the folder, and recomputes the
front end's fingerprint: a bundle whose spectrograms would be computed differently today is refused.

Members may share a graph (``export/graphs/fuse.py``): they name one file, and each its own outputs in it. A member
has one list of outputs for all its precisions, so those that share a file in one precision share one in every other; a
graph has one input, so they hear the same windows. Such a file is read and run once for all of them.
"""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
import numpy as np

from birdinfer import mel
from birdinfer.config import PostConfig, TimelineConfig
from birdinfer.ensemble import Blend, check_blend
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.files import write_atomic
from birdinfer.labels import check_labels
from birdinfer.manifest import FORMAT, Graph, Manifest, Member
from birdinfer.postprocess.step_tables import resolved
from birdinfer.windows import place

MANIFEST_NAME = "manifest.json"
FINGERPRINT_TOLERANCE = 0.01
"""Largest difference in dB that still is the same front end: processors differ by rounding, settings by more."""
_LONGEST_NAME_BYTES = 255
_USUAL_OVERLAP = "half a window is usual"


class _FormatOnly(msgspec.Struct):
    """Any manifest, of whatever format."""

    format: int


class Bundle:
    """A verified bundle: its manifest and where its graphs are."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Hold a manifest that was checked; use :meth:`load`."""
        self.folder = folder
        self.manifest = manifest
        self.labels = tuple(species.label for species in manifest.species)

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read and verify a bundle.

        Raises:
            InputNotFoundError: there is no bundle there.
            BundleError: it is damaged, of an unknown format, leaves its folder, or its front end has changed.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise InputNotFoundError(folder, f"is not a bundle (no {MANIFEST_NAME})", "birdinfer export makes one")
        raw = path.read_bytes()
        try:
            # The format first: an older manifest would be refused for one of its fields, which helps nobody.
            found = msgspec.json.decode(raw, type=_FormatOnly).format
            if found != FORMAT:
                raise BundleError(
                    path, f"has format {found}, known is {FORMAT}", "export it again, or update birdinfer"
                )
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BundleError(path, str(error), "export it again") from error
        bundle = cls(folder, manifest)
        bundle._check(path)
        return bundle

    def graph_path(self, graph: Graph) -> Path:
        """Where a graph is.

        Raises:
            BundleError: the name leaves the bundle's folder.
        """
        name = PurePosixPath(graph.file)
        path = self.folder / name
        # No system has longer names, and they could not even be looked for.
        is_long = any(len(part.encode()) > _LONGEST_NAME_BYTES for part in name.parts)
        leaves = is_long or name.is_absolute() or ".." in name.parts or "\\" in graph.file or "\0" in graph.file
        if leaves or not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(self.folder / MANIFEST_NAME, f"graph {graph.file!r} lies outside the bundle")
        return path

    def with_members(self, names: Collection[str]) -> "Bundle":
        """The same bundle with these members alone; of a graph that they share with others, all is still computed."""
        members = tuple(member for member in self.manifest.members if member.name in names)
        blend = self.manifest.blend.among([member.name for member in members])
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, members=members, blend=blend))

    def with_scoring(self, blend: Blend, post: PostConfig) -> "Bundle":
        """The same bundle with its members blended otherwise, or their rows post-processed otherwise.

        Raises:
            ConfigError: the blend does not fit the members.
        """
        members = self.manifest.members
        check_blend(blend, [member.name for member in members], [member.weight for member in members])
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, blend=blend, post=post))

    def with_overlap(self, overlap_seconds: float | None, merge: Literal["mean", "max"] | None = None) -> "Bundle":
        """The same bundle with its members' windows laid otherwise.

        Args:
            overlap_seconds: what neighbouring windows share; as the manifest says if None.
            merge: how their scores meet; as the manifest says if None.

        Raises:
            ConfigError: a member's windows are not longer than the overlap, or would follow too close on each other.
        """
        members = []
        for member in self.manifest.members:
            timeline = member.timeline
            if overlap_seconds is not None:
                whose = f"windows of member {member.name!r}"
                timeline = overlapping(timeline, overlap_seconds, member.hearing.window.window_seconds, whose)
            if merge is not None:
                timeline = msgspec.structs.replace(timeline, overlap=merge)
            members.append(msgspec.structs.replace(member, timeline=timeline))
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, members=tuple(members)))

    def sha256(self) -> str:
        """Digest of the manifest, and so of all that it lists."""
        return hashlib.sha256(msgspec.json.encode(self.manifest)).hexdigest()

    def _check(self, path: Path) -> None:
        manifest = self.manifest
        if not manifest.members:
            raise BundleError(path, "has no members", "export it again")
        check_labels(self.labels, str(path))
        if len(manifest.fallback_probabilities) != len(self.labels):
            raise BundleError(
                path,
                f"fallback_probabilities has {len(manifest.fallback_probabilities)} values, labels {len(self.labels)}",
            )
        wrong = [value for value in manifest.fallback_probabilities if not 0 <= value <= 1]
        if wrong:
            raise BundleError(path, f"fallback_probabilities holds {wrong[0]}, allowed are 0 to 1", "export it again")
        names, weights = zip(*((member.name, member.weight) for member in manifest.members), strict=True)
        try:
            check_blend(manifest.blend, names, weights)
        except ConfigError as error:
            raise BundleError(path, str(error), "export it again") from error
        if len(set(names)) < len(names):
            raise BundleError(path, f"two members have one name ({', '.join(sorted(names))})")
        for member in manifest.members:
            self._check_member(path, member)
        for step in manifest.post.steps:
            resolved(step, self.folder)
        _check_sharing(path, manifest)
        # A file that members share is read once.
        stated = {(graph.file, graph.sha256): graph for member in manifest.members for graph in member.graphs.values()}
        for graph in (*stated.values(), *manifest.for_other_hosts):
            self._check_file(graph)
        # Folds share their front end: computed once for all of them.
        for member in {(one.frontend, one.frontend_fingerprint): one for one in manifest.members}.values():
            _check_front_end(path, member)

    def _check_member(self, path: Path, member: Member) -> None:
        unknown = sorted(set(member.label_columns or ()) - set(self.labels))
        if unknown:
            raise BundleError(path, f"member {member.name!r} scores {unknown[0]!r}, which is not a label of the bundle")
        try:
            place(member.hearing, member.timeline, self.manifest.rows)
        except ValueError as error:
            raise BundleError(path, f"member {member.name!r}: {error}") from error

    def _check_file(self, graph: Graph) -> None:
        path = self.graph_path(graph)
        if not path.is_file():
            raise BundleError(path, "is missing from the bundle", "copy the whole folder again")
        found = file_sha256(path)
        if found != graph.sha256:
            raise BundleError(
                path, f"has changed (sha256 {found[:12]}, manifest says {graph.sha256[:12]})", "copy it again"
            )


def _check_sharing(path: Path, manifest: Manifest) -> None:
    """Refuse members that share a graph in one precision only, or that cannot be heard in one go."""
    remedy = "export it again, with or without --fuse"
    readers: dict[str, list[Member]] = {}
    for member in manifest.members:
        for file in dict.fromkeys(graph.file for graph in member.graphs.values()):
            readers.setdefault(file, []).append(member)
    for file, members in readers.items():
        names = " and ".join(repr(member.name) for member in (members[0], members[-1]))
        if any(readers[graph.file] != members for member in members for graph in member.graphs.values()):
            raise BundleError(path, f"members {names} share {file}, but not their graphs of every precision", remedy)
        if len({(member.hearing, place(member.hearing, member.timeline, manifest.rows)) for member in members}) > 1:
            raise BundleError(path, f"members {names} share {file}, but hear different windows", remedy)


def sharing(members: Sequence[Member]) -> list[list[Member]]:
    """Members in groups that share their graphs; one that shares with nobody is a group of its own."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.graphs["fp32"].file, []).append(member)
    return list(groups.values())


def _check_front_end(path: Path, member: Member) -> None:
    if member.frontend is None:
        return
    today = np.array(mel.fingerprint(member.frontend))
    stored = np.array(member.frontend_fingerprint or ())
    if stored.shape != today.shape or not np.allclose(today, stored, rtol=0, atol=FINGERPRINT_TOLERANCE):
        raise BundleError(
            path,
            f"member {member.name!r} was made with another front end (its fingerprint differs)",
            "export it again with this version",
        )


def overlapping(timeline: TimelineConfig, overlap_seconds: float, window_seconds: float, whose: str) -> TimelineConfig:
    """A timeline on which neighbouring windows share some seconds.

    Args:
        timeline: all but the stride.
        overlap_seconds: what they share.
        window_seconds: how long they are.
        whose: what the message calls the windows.

    Raises:
        ConfigError: the windows are not longer than that, or would follow too close on each other.
    """
    if not 0 <= overlap_seconds < window_seconds:
        problem = f"{overlap_seconds:g} s, but {whose} last {window_seconds:g} s"
        raise ConfigError("--overlap", problem, _USUAL_OVERLAP)
    stride_seconds = round(window_seconds - overlap_seconds, 9)  # 3 - 0.1 is 2.9, not 2.8999999999999999
    try:
        return msgspec.structs.replace(timeline, stride_seconds=stride_seconds)
    except ValueError as error:
        raise ConfigError("--overlap", str(error), _USUAL_OVERLAP) from error


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, readable by people; last of all files, for it makes the folder a bundle."""
    write_atomic(folder / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def labels_sha256(labels: tuple[str, ...]) -> str:
    """Hex digest of the labels in column order: stored in each graph, so that a graph cannot serve foreign columns."""
    return hashlib.sha256("\n".join(labels).encode()).hexdigest()


def demo_bundle_path() -> Path:
    """The small bundle that comes with birdinfer: within the installed package, or in the checkout's ``exports/``.

    Raises:
        InputNotFoundError: this installation has none.
    """
    package = Path(__file__).parent
    for folder in (package / "demo_bundle", package.parent / "exports" / "demo"):
        if (folder / MANIFEST_NAME).is_file():
            return folder
    raise InputNotFoundError(
        package / "demo_bundle", "this installation has no demo bundle", "python train/build_demo.py"
    )
