"""Write an external model into a bundle's folder: whenever it is killed or refused, the old bundle is unchanged.

In: a graph, the bundle's folder, and its manifest with the new member. Out: the graph's copy and the manifest in that
folder, once the whole bundle has predicted with it.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from birdinfer.errors import BirdinferError, BundleError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, save_manifest
from birdinfer.inference.manifest import Manifest
from birdinfer.inference.predictor import Predictor
from birdinfer.system.files import atomic_file, atomic_folder, check_replaceable, write_atomic
from birdinfer.system.outputs import check_folder

ELSEWHERE = "choose another place: --bundle"


def existing_manifest(folder: Path) -> Manifest | None:
    """The manifest of the bundle in a folder; None if a new bundle can be made there."""
    if (folder / MANIFEST_NAME).is_file():
        return Bundle.load(folder).manifest
    check_folder(folder, hint=ELSEWHERE)
    check_replaceable(folder, "a bundle", ELSEWHERE)
    return None


def folder_to_write(folder: Path, old: Manifest | None) -> contextlib.AbstractContextManager[Path]:
    """The bundle's folder; a new one gets its name only when the block ends without an exception."""
    return contextlib.nullcontext(folder) if old else atomic_folder(folder, "a bundle", ELSEWHERE)


@contextlib.contextmanager
def copied(graph: Path, folder: Path, name: str) -> Iterator[Path]:
    """Copy a graph under a free name; the copy stays only if the block ends without an exception."""
    path = folder / f"{name}.onnx"
    count = 2
    while path.exists():
        path, count = folder / f"{name}-{count}.onnx", count + 1
    with graph.open("rb") as source, atomic_file(path) as target:
        shutil.copyfileobj(source, target)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def try_out(bundle: Bundle, graph: Path) -> None:
    """Predict a second of sound with the whole bundle; BundleError if it fails or returns no probabilities."""
    with tempfile.TemporaryDirectory() as temporary:
        sound = Path(temporary) / "second.wav"
        soundfile.write(sound, 0.3 * np.sin(np.arange(32_000) / 5), 32_000)
        try:
            probabilities = Predictor(bundle).predict(sound)
        except BirdinferError:
            raise
        except Exception as error:  # of the engine's own kinds, which share no base but Exception
            raise BundleError(graph, f"does not run as a member ({error})") from error
    n_columns = bundle.manifest.blend.n_columns(len(bundle.labels))
    if probabilities.shape != (1, n_columns) or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BundleError(graph, "returns no probabilities as a member", "see --activation and --output")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and restore the old one if the bundle cannot be loaded with it."""
    path = folder / MANIFEST_NAME
    before = path.read_bytes() if path.is_file() else None
    save_manifest(folder, manifest)
    try:
        Bundle.load(folder)
    except BaseException:
        if before is None:
            path.unlink()
        else:
            write_atomic(path, before)
        raise


def remove_unused_graphs(folder: Path, old: Manifest, new: Manifest, given: Path) -> None:
    """Remove the graphs of a member that was replaced, not the one that was given; one that stays does no harm."""
    used = {graph.file for member in new.members for graph in member.every_graph}
    for member in old.members:
        for graph in member.every_graph:
            if graph.file not in used:
                with contextlib.suppress(OSError):
                    if not given.samefile(folder / graph.file):
                        (folder / graph.file).unlink()
