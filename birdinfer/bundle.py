"""A bundle: the folder that predicts. ``manifest.json`` and ``*.onnx``, verified before anything is run.

The manifest holds all that inference needs (labels, front end, post-processing, members), so that training and
prediction cannot disagree. Loading checks every file's sha256, refuses names that leave the folder, and recomputes the
front end's fingerprint: a bundle whose spectrograms would be computed differently today is refused.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from birdinfer import mel
from birdinfer.config import FrontEndConfig, PostConfig
from birdinfer.errors import BundleError, InputNotFoundError
from birdinfer.files import write_atomic
from birdinfer.labels import Species, check_labels

MANIFEST_NAME = "manifest.json"
FORMAT = 1
FINGERPRINT_TOLERANCE = 0.01
"""Largest difference in dB that still is the same front end: processors differ by rounding, settings by more."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the ensemble."""

    file: str
    """Name of the graph within the bundle's folder."""
    sha256: str
    fold: int
    backbone: str
    weight: float = 1.0
    """Its say in the weighted mean."""
    out_of_fold_macro_auc: float | None = None
    max_probability_difference: float | None = None
    """Largest |p_onnx - p_torch| over the real windows it was compared on."""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a bundle comes from."""

    created_utc: str
    run: str
    versions: dict[str, str]
    recipe: dict[str, Any]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``."""

    format: int
    name: str
    species: tuple[Species, ...]
    """In column order."""
    frontend: FrontEndConfig
    post: PostConfig
    members: tuple[Member, ...]
    frontend_fingerprint: tuple[float, ...]
    """:func:`birdinfer.mel.fingerprint` when the bundle was made."""
    fallback_probabilities: tuple[float, ...]
    """Per species: the mean out-of-fold probability, which fills the rows of a file that cannot be read."""
    provenance: Provenance


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
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BundleError(path, str(error), "export it again") from error
        bundle = cls(folder, manifest)
        bundle._check(path)
        return bundle

    def member_path(self, member: Member) -> Path:
        """Where a member's graph is.

        Raises:
            BundleError: the name leaves the bundle's folder.
        """
        name = PurePosixPath(member.file)
        path = self.folder / name
        leaves = name.is_absolute() or ".." in name.parts or "\\" in member.file
        if leaves or not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(self.folder / MANIFEST_NAME, f"member {member.file!r} lies outside the bundle")
        return path

    def _check(self, path: Path) -> None:
        manifest = self.manifest
        if manifest.format != FORMAT:
            raise BundleError(path, f"has format {manifest.format}, known is {FORMAT}", "update birdinfer")
        if not manifest.members:
            raise BundleError(path, "has no members", "export it again")
        check_labels(self.labels, str(path))
        if len(manifest.fallback_probabilities) != len(self.labels):
            raise BundleError(
                path,
                f"fallback_probabilities has {len(manifest.fallback_probabilities)} values, labels {len(self.labels)}",
            )
        if not sum(member.weight for member in manifest.members) > 0:
            raise BundleError(path, "the members' weights sum to 0")
        for member in manifest.members:
            self._check_file(member)
        self._check_front_end(path)

    def _check_file(self, member: Member) -> None:
        path = self.member_path(member)
        if not path.is_file():
            raise BundleError(path, "is missing from the bundle", "copy the whole folder again")
        found = file_sha256(path)
        if found != member.sha256:
            raise BundleError(
                path, f"has changed (sha256 {found[:12]}, manifest says {member.sha256[:12]})", "copy it again"
            )

    def _check_front_end(self, path: Path) -> None:
        today = np.array(mel.fingerprint(self.manifest.frontend))
        stored = np.array(self.manifest.frontend_fingerprint)
        if stored.shape != today.shape or not np.allclose(today, stored, rtol=0, atol=FINGERPRINT_TOLERANCE):
            raise BundleError(
                path, "was made with another front end (its fingerprint differs)", "export it again with this version"
            )


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
