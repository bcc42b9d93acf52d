"""A bundle: the folder that predicts, ``manifest.json`` and ``*.onnx``, verified before anything is run.

The manifest holds all that inference needs (labels, front end, post-processing, members), so that training and
prediction cannot disagree. Loading checks every file's sha256, refuses names that leave the folder and graphs that keep
weights in other files, which no sha256 covers, and recomputes the front end's fingerprint: a bundle whose spectrograms
would be computed differently today is refused. A loaded bundle is changed by ``with_...`` methods, which return another
one, and written back by :func:`store_settings`, one process at a time.

Members may share a graph (:mod:`birdinfer.export.fuse`): they name one file, and each its own outputs in it. A member
has one list of outputs for all its precisions, so those that share a file in one precision share one in every other; a
graph has one input, so their windows are the same. Such a file is read and run once for all of them.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
import numpy as np

from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.features import log_mel as mel
from birdinfer.features.spectrogram import fingerprint
from birdinfer.inference.ensemble import Blend, check_blend
from birdinfer.inference.manifest import (
    FORMAT,
    Graph,
    Manifest,
    Member,
    families_of,
    groups_and_families,
    scores_sha256,
)
from birdinfer.inference.onnx_files import external_files, other_kind
from birdinfer.inference.rank_blend import check_species
from birdinfer.postprocess.base import Pipeline, copy_table_into, tables_of, with_table_in
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import check_labels
from birdinfer.system.files import write_atomic
from birdinfer.system.locks import locked

MANIFEST_NAME = "manifest.json"
FINGERPRINT_TOLERANCE = 0.01
"""Largest difference in dB within one front end: processors differ by rounding, settings by more."""
_LONGEST_NAME_BYTES = 255
_USUAL_OVERLAP = "half a window is usual"
_UNREADABLE = "check its permissions and its disk"


class _FormatOnly(msgspec.Struct):
    format: int


class Bundle:
    """A verified bundle: its manifest and where its graphs are.

    >>> bundle = Bundle.load(demo_bundle_path())
    >>> [member.name for member in bundle.manifest.members]
    ['fold0', 'fold1']
    >>> bundle.labels[:3]
    ('synchi1', 'synwhi1', 'syntri1')
    >>> bundle.with_overlap(2.5).manifest.members[0].aggregation.stride_seconds  # another bundle, nothing is written
    2.5
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Hold a manifest that was checked; use :meth:`load`."""
        self.folder = folder
        self.manifest = manifest
        self.labels = tuple(species.label for species in manifest.species)

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read and verify a bundle.

        InputNotFoundError if the folder holds none; BundleError if it is damaged, has an unknown format, leaves its
        folder, or its front end has changed.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        raw = _read_manifest(folder)
        try:
            # The format first: an older manifest would be refused because of a field, which hides the reason.
            found = msgspec.json.decode(raw, type=_FormatOnly).format
            if found != FORMAT:
                raise BundleError(
                    path, f"has format {found}, known is {FORMAT}", "export it again, or update birdinfer"
                )
            manifest = msgspec.json.decode(raw, type=Manifest)
        except RecursionError as error:
            raise BundleError(path, "is nested too deep", "export it again") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BundleError(path, str(error), "export it again") from error
        bundle = cls(folder, manifest)
        bundle._check(path)
        return bundle

    def __repr__(self) -> str:
        n_members = len(self.manifest.members)
        size = f"{len(self.labels)} species, {n_members} member" + ("s" if n_members > 1 else "")
        return f"<Bundle {self.manifest.name}: {size}, in {self.folder}>"

    def graph_path(self, graph: Graph) -> Path:
        """Return the path of a graph; BundleError if its name leaves the bundle's folder."""
        name = PurePosixPath(graph.file)
        path = self.folder / name
        # No system has longer names, and looking for them would fail.
        is_long = any(len(part.encode()) > _LONGEST_NAME_BYTES for part in name.parts)
        leaves = is_long or name.is_absolute() or ".." in name.parts or "\\" in graph.file or "\0" in graph.file
        if leaves or not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(self.folder / MANIFEST_NAME, f"graph {graph.file!r} lies outside the bundle")
        return path

    @property
    def files(self) -> list[Path]:
        """The files that the bundle is read from: manifest, graphs, tables of steps."""
        graphs = {graph.file for member in self.manifest.members for graph in member.every_graph}
        tables = tables_of(self.manifest.post.steps)  # in the folder, or as they are given
        named = [Path(MANIFEST_NAME), *map(Path, sorted(graphs)), *tables]
        return [*(self.folder / name for name in named), *tables]

    def with_members(self, names: Collection[str]) -> "Bundle":
        """Keep only these members; a graph that they share with others is still computed as a whole."""
        members = tuple(member for member in self.manifest.members if member.name in names)
        blend = self.manifest.blend.among([member.name for member in members])
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, members=members, blend=blend))

    def with_species(self, labels: Collection[str]) -> "Bundle":
        """Score these species alone: the same bits, less time and memory. ONNX Runtime does not compute the others.

        The bundle itself is returned where a score depends on other species (a softmax does, too, but is computed in
        full), or where a member knows none of these.
        """
        manifest, wanted = self.manifest, frozenset(labels)
        all_columns: dict[str, int | tuple[int, ...]] = {label: column for column, label in enumerate(self.labels)}
        kept = [
            {label: column for label, column in (member.label_columns or all_columns).items() if label in wanted}
            for member in manifest.members
        ]
        if not all(kept) or not all(step.is_per_species for step in manifest.post.all_steps):
            return self
        members = tuple(
            msgspec.structs.replace(member, label_columns=columns)
            for member, columns in zip(manifest.members, kept, strict=True)
        )
        rated = zip(manifest.species, manifest.fallback_probabilities, strict=True)
        species, fallback = zip(*(pair for pair in rated if pair[0].label in wanted), strict=True)
        changed = msgspec.structs.replace(manifest, species=species, members=members, fallback_probabilities=fallback)
        return Bundle(self.folder, changed)

    def with_scoring(self, blend: Blend, post: PostConfig) -> "Bundle":
        """Replace the blend and the post-processing; ConfigError if the blend does not fit members and species.

        In a blend by rank, members that are in no group form one with those of the group that they are in now, or else
        with their family.
        """
        members = self.manifest.members
        blend = blend.filled(groups_and_families(self.manifest))
        check_species(blend.groups, self.manifest.species)
        check_blend(blend, [member.name for member in members], [member.weight for member in members])
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, blend=blend, post=post))

    def with_overlap(self, overlap_seconds: float | None, merge: Literal["mean", "max"] | None = None) -> "Bundle":
        """Change how far all members' windows overlap and how their scores are combined; None leaves it as it is.

        ConfigError if a member's windows are not longer than the overlap, or would be too close to each other.
        """
        members = []
        for member in self.manifest.members:
            aggregation = member.aggregation
            if overlap_seconds is not None:
                whose = f"windows of member {member.name!r}"
                aggregation = overlapping(
                    aggregation, overlap_seconds, member.input_config.window.window_seconds, whose
                )
                if member.sequence is not None and aggregation != member.aggregation:
                    what = f"{overlap_seconds:g} s, but the head of member {member.name!r} was fitted to other windows"
                    raise ConfigError("--overlap", what, "leave it out")
            if merge is not None:
                aggregation = msgspec.structs.replace(aggregation, overlap=merge)
            members.append(msgspec.structs.replace(member, aggregation=aggregation))
        return Bundle(self.folder, msgspec.structs.replace(self.manifest, members=tuple(members)))

    def sha256(self) -> str:
        """Digest of the manifest, and so of everything it lists; of its calibration alone not, see there."""
        return scores_sha256(self.manifest)

    def _check(self, path: Path) -> None:
        manifest = self.manifest
        if not manifest.members:
            raise BundleError(path, "has no members", "export it again")
        check_labels(self.labels, str(path), "rename the species and export it again")
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
            check_species(manifest.blend.groups, manifest.species)
            if manifest.blend.filled(families_of(manifest.members)) != manifest.blend:
                raise ConfigError("blend", "a member stands in no group", "birdinfer bundle set --blend fills them")
        except ConfigError as error:
            raise BundleError(path, str(error), "export it again") from error
        if len(set(names)) < len(names):
            raise BundleError(path, f"two members have one name ({', '.join(sorted(names))})")
        for member in manifest.members:
            self._check_member(path, member)
        for step in manifest.post.steps:
            with_table_in(step, self.folder)
        _check_sharing(path, manifest)
        # A file that members share is read once.
        stated = {(graph.file, graph.sha256): graph for member in manifest.members for graph in member.every_graph}
        for graph in (*stated.values(), *manifest.for_other_hosts):
            self._check_file(graph)
        # Folds share their front end: computed once for all of them.
        for member in {(one.input_config, one.frontend_fingerprint): one for one in manifest.members}.values():
            _check_front_end(path, member)

    def _check_member(self, path: Path, member: Member) -> None:
        unknown = sorted(set(member.label_columns or ()) - set(self.labels))
        if unknown:
            raise BundleError(path, f"member {member.name!r} scores {unknown[0]!r}, which is not a label of the bundle")
        share, outputs = member.aggregation.frame_share, member.outputs
        lacks_frames, lacks_clip = share > 0 and outputs.frames is None, share < 1 and outputs.clip is None
        if (lacks_frames or lacks_clip) and not outputs.is_encoder:
            missing = "frame" if outputs.frames is None else "clip"
            what = f"member {member.name!r}: frame_share is {share:g}, but it has no {missing}-wise output"
            raise BundleError(path, what, "export it again")
        try:
            make_grid(member.input_config, member.aggregation, self.manifest.rows)
        except ValueError as error:
            raise BundleError(path, f"member {member.name!r}: {error}") from error

    def _check_file(self, graph: Graph) -> None:
        path = self.graph_path(graph)
        if not path.is_file():
            raise BundleError(path, "is missing from the bundle", "copy the whole folder again")
        try:
            found = file_sha256(path)
            other = other_kind(path) if found != graph.sha256 else None
            beside = external_files(path)
        except OSError as error:
            raise BundleError(path, f"cannot be read ({error.strerror})", _UNREADABLE) from error
        if found != graph.sha256:
            changed = f"has changed (sha256 {found[:12]}, manifest says {graph.sha256[:12]})", "copy it again"
            raise BundleError(path, *(other or changed))
        if beside:
            hint = "save it as one file, which onnx.save can, and put its sha256 into the manifest"
            raise BundleError(path, f"keeps weights in {beside[0]!r}, whose sha256 no manifest states", hint)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        what = f"is not a bundle (no {MANIFEST_NAME})"
        raise InputNotFoundError(folder, what, "birdinfer export makes one") from error
    except OSError as error:
        raise BundleError(path, f"cannot be read ({error.strerror})", _UNREADABLE) from error


def _check_sharing(path: Path, manifest: Manifest) -> None:
    """Refuse members that share a graph in one precision only, or that take different windows."""
    hint = "export it again, with or without --fuse"
    readers: dict[str, list[Member]] = {}
    for member in manifest.members:
        for file in dict.fromkeys(graph.file for graph in member.graphs.values()):
            readers.setdefault(file, []).append(member)
    for file, members in readers.items():
        names = " and ".join(repr(member.name) for member in (members[0], members[-1]))
        if any(readers[graph.file] != members for member in members for graph in member.graphs.values()):
            raise BundleError(path, f"members {names} share {file}, but not their graphs of every precision", hint)
        grids = {(each.input_config, make_grid(each.input_config, each.aggregation, manifest.rows)) for each in members}
        if len(grids) > 1:
            raise BundleError(path, f"members {names} share {file}, but take different windows", hint)


def sharing(members: Sequence[Member]) -> list[list[Member]]:
    """Group members that share their graphs; one that shares with no other is a group of its own."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.graphs["fp32"].file, []).append(member)
    return list(groups.values())


def _check_front_end(path: Path, member: Member) -> None:
    if member.spectrogram is not None:
        today = np.array(fingerprint(member.spectrogram))
    elif member.frontend is not None:
        today = np.array(mel.fingerprint(member.frontend))
    else:
        return
    stored = np.array(member.frontend_fingerprint or ())
    if stored.shape != today.shape or not np.allclose(today, stored, rtol=0, atol=FINGERPRINT_TOLERANCE):
        raise BundleError(
            path,
            f"member {member.name!r} was made with another front end (its fingerprint differs)",
            "export it again with this version",
        )


def overlapping(
    aggregation: AggregationConfig, overlap_seconds: float, window_seconds: float, whose: str
) -> AggregationConfig:
    """Set the stride so that neighbouring windows share some seconds; ConfigError if no stride does.

    >>> overlapping(AggregationConfig(), 2.0, 5.0, "windows").stride_seconds
    3.0
    """
    if not 0 <= overlap_seconds < window_seconds:
        problem = f"{overlap_seconds:g} s, but {whose} last {window_seconds:g} s"
        raise ConfigError("--overlap", problem, _USUAL_OVERLAP)
    stride_seconds = round(window_seconds - overlap_seconds, 9)  # 3 - 0.1 is 2.9, not 2.8999999999999999
    try:
        return msgspec.structs.replace(aggregation, stride_seconds=stride_seconds)
    except ValueError as error:
        raise ConfigError("--overlap", str(error), _USUAL_OVERLAP) from error


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, readable by people; after all other files, since it makes the folder a bundle."""
    write_atomic(folder / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def labels_sha256(labels: tuple[str, ...]) -> str:
    """Hex digest of the labels in column order: stored in each graph, so that it cannot fill the wrong columns."""
    return hashlib.sha256("\n".join(labels).encode()).hexdigest()


def demo_bundle_path() -> Path:
    """Find the small bundle of birdinfer, installed or in the checkout's ``exports/``, or raise InputNotFoundError."""
    return _shipped("demo", MANIFEST_NAME, "python train/build_demo.py")


def forest_demo_path() -> Path:
    """Find three minutes of real sound with their truth and a bundle for them, or raise InputNotFoundError."""
    return _shipped("forest_demo", f"forest/{MANIFEST_NAME}", "python train/build_forest_demo.py DATA")


def _shipped(name: str, marker: str, how: str) -> Path:
    package = Path(__file__).parents[1]
    for folder in (package / "shipped" / name, package.parent / "exports" / name):
        if (folder / marker).is_file():
            return folder
    raise InputNotFoundError(package / "shipped" / name, f"this installation has no {name}", how)


def store_settings(
    folder: Path, change: Callable[[Bundle], Bundle], on_wait: Callable[[str], None] = lambda line: None
) -> Bundle:
    """Change a bundle's manifest, copy its steps' tables into its folder, and return it as it is on disk now.

    No other process changes it meanwhile: ``change`` gets what is there once this one's turn has come, ``on_wait`` a
    line if that takes a while.

    Raises:
        InputNotFoundError: a step's table does not exist.
        ConfigError: a step does not fit the species.
        OutputError: the folder cannot be written; the manifest is unchanged.
    """
    _read_manifest(folder)  # a lock beside a folder that does not exist would make its parents
    with locked(folder, on_wait):
        bundle = change(Bundle.load(folder))
        post = stored_post(bundle.manifest.post, folder)
        # Refused before the manifest is changed; a table that was copied is then not used by anything.
        Pipeline([with_table_in(step, folder) for step in post.all_steps], bundle.manifest.species)
        save_manifest(folder, msgspec.structs.replace(bundle.manifest, post=post))
        return Bundle.load(folder)


def stored_post(post: PostConfig, folder: Path) -> PostConfig:
    """Copy the tables of post-processing into the bundle's folder and name them there; see :func:`copy_table_into`."""
    return msgspec.structs.replace(post, steps=tuple(copy_table_into(step, folder) for step in post.steps))
