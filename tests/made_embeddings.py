"""Embeddings of which everything is known: a point for each species, and noise around it; a bundle that has some."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from birdinfer.inference.bundle import Bundle, file_sha256, save_manifest
from birdinfer.inference.embeddings import INDEX_COLUMNS, INDEX_NAME, INFO_NAME, EmbeddingInfo, Embeddings
from birdinfer.inference.manifest import Manifest
from birdinfer.system.files import atomic_text
from birdinfer.tables.csv import CsvWriter

INFO = EmbeddingInfo(
    bundle="nowhere", bundle_sha256="", member="fold0", graph_sha256="", output="scaled", window_seconds=5.0,
    stride_seconds=5.0,
)  # fmt: skip


def embeddings_of(values: np.ndarray, *recordings: str) -> Embeddings:
    """Windows of 5 s side by side; ``recordings`` names that of each window."""
    count: dict[str, int] = {}
    index = np.array([count.update({name: count.get(name, -1) + 1}) or count[name] for name in recordings])
    row_ids = tuple(f"{name}_{5 * (at + 1)}" for name, at in zip(recordings, index, strict=True))
    return Embeddings(
        info=INFO, values=values.astype(np.float16), row_ids=row_ids, recordings=recordings,
        start_seconds=5.0 * index, end_seconds=5.0 * (index + 1),
    )  # fmt: skip


def species_points(
    n_species: int, n_clips: int, n_windows: int = 2, *, width: int = 16, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``n_clips`` of each species: embeddings [windows, width], species and clip of each window."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (n_species, width))
    clips = np.repeat(np.arange(n_species * n_clips), n_windows)
    species = clips % n_species
    return (points[species] + rng.normal(0, noise, (len(clips), width))).astype(np.float32), species, clips


def write_embedding_bundle(bundle: Path, folder: Path) -> Bundle:
    """The first of the linear members with the 32 means of its bands as embedding: the input of its last layer."""
    import onnx
    from onnx import TensorProto, helper

    shutil.copytree(bundle, folder)
    path = folder / "fold0.onnx"
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["batch", 32]))
    onnx.save(model, path)
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    first, *others = manifest.members
    outputs = msgspec.structs.replace(first.outputs, embedding="scaled")
    graph = msgspec.structs.replace(first.graphs["fp32"], sha256=file_sha256(path))
    members = (msgspec.structs.replace(first, outputs=outputs, graphs={"fp32": graph}), *others)
    save_manifest(folder, msgspec.structs.replace(manifest, members=members))
    return Bundle.load(folder)


def write_embeddings(folder: Path, recordings: Mapping[str, np.ndarray]) -> Path:
    """Write embeddings [windows, numbers] of each recording as a run does, with windows of 5 s side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_NAME).write_bytes(msgspec.json.encode(INFO))
    with atomic_text(folder / INDEX_NAME) as text:
        table = CsvWriter(text)
        table.row(INDEX_COLUMNS[0], INDEX_COLUMNS[1:])
        for number, (name, values) in enumerate(recordings.items()):
            np.save(folder / f"{number}.npy", values.astype(np.float16))
            for at in range(len(values)):
                table.row(f"{name}_{5 * at + 5}", [name, f"{5 * at}.000", f"{5 * at + 5}.000", f"{number}.npy", at])
    return folder
