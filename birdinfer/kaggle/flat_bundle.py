"""A bundle for Kaggle: one flat folder with the files that its manifest needs, and no others.

Kaggle's client leaves out sub-folders without a word that anyone would read, and files of some names. So what lies in
folders of the bundle comes up to the top, and names that would meet there are refused.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from birdinfer.bundle import MANIFEST_NAME, Bundle, save_manifest
from birdinfer.errors import BundleError
from birdinfer.manifest import Graph, Manifest
from birdinfer.postprocess.step_tables import TableStep

NEVER_UPLOADED = frozenset(
    {
        "dataset-metadata.json",
        "datapackage.json",
        "kernel-metadata.json",
        "model-metadata.json",
        "model-instance-metadata.json",
        *(f"dataset-cover-image.{suffix}" for suffix in ("png", "jpg", "jpeg", "webp")),
    }
)
"""Files that Kaggle's client takes for its own."""


def write_flat_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle into a folder, flat; graphs for other hosts stay behind, for birdinfer does not run them.

    Args:
        bundle: verified.
        folder: exists; holds nothing of these names.

    Raises:
        BundleError: two files would have one name, or one has a name that Kaggle keeps to itself.
    """
    names = sorted(set(_files(bundle.manifest)))
    _check_names(bundle.folder, names)
    for name in names:
        shutil.copyfile(bundle.folder / name, folder / flat(name))
    save_manifest(folder, _flattened(bundle.manifest))
    Bundle.load(folder)


def left_behind(bundle: Bundle) -> list[str]:
    """Files of the bundle's folder that are not packed, by their path in it."""
    packed = {MANIFEST_NAME, *_files(bundle.manifest)}
    there = (path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file())
    return sorted(set(there) - packed)


def not_uploaded(folder: Path) -> list[tuple[str, str]]:
    """What of a data set's folder Kaggle's client would leave out, and why; its metadata are meant to stay."""
    told = [
        (path.name, _why_skipped(path)) for path in sorted(folder.iterdir()) if path.name != "dataset-metadata.json"
    ]
    return [(name, why) for name, why in told if why]


def flat(name: str) -> str:
    """Where a file of a bundle lies in the data set: ``int8/fold0.onnx`` -> ``fold0.onnx``."""
    return PurePosixPath(name).name


def _why_skipped(path: Path) -> str:
    if path.is_dir():
        return "is a folder: Kaggle's client leaves folders out"
    if not path.is_file():
        return "is no file"
    return "has a name that Kaggle's client keeps to itself" if path.name in NEVER_UPLOADED else ""


def _files(manifest: Manifest) -> Iterator[str]:
    """Graphs of all precisions and tables of steps, as the manifest names them."""
    for member in manifest.members:
        yield from (graph.file for graph in member.graphs.values())
    yield from (step.table for step in manifest.post.steps if isinstance(step, TableStep))


def _check_names(folder: Path, names: list[str]) -> None:
    taken: dict[str, str] = {MANIFEST_NAME: MANIFEST_NAME}
    for name in names:
        # Two names that differ in case alone are one file on the disks of Windows and macOS.
        other = taken.setdefault(flat(name).lower(), name)
        if other != name:
            remedy = "rename one of them in the bundle"
            raise BundleError(folder, f"{other} and {name} would both be {flat(name)} in a flat folder", remedy)
        if flat(name) in NEVER_UPLOADED:
            raise BundleError(folder / name, "has a name that Kaggle's client keeps to itself", "give it another name")


def _flattened(manifest: Manifest) -> Manifest:
    replace = msgspec.structs.replace

    def moved(graph: Graph) -> Graph:
        return replace(graph, file=flat(graph.file))

    members = tuple(
        replace(member, graphs={precision: moved(graph) for precision, graph in member.graphs.items()})
        for member in manifest.members
    )
    steps = tuple(
        replace(step, table=flat(step.table)) if isinstance(step, TableStep) else step for step in manifest.post.steps
    )
    return replace(manifest, members=members, post=replace(manifest.post, steps=steps), for_other_hosts=())
