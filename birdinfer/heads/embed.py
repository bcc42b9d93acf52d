"""Let the members of a bundle give their embedding: ``birdinfer bundle embed``."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
from onnx import TensorProto, helper

from birdinfer.heads.graph import last_linear
from birdinfer.inference.bundle import Bundle, file_sha256, sharing, store_settings
from birdinfer.inference.manifest import Manifest
from birdinfer.system.files import write_atomic


def let_embed(folder: Path, on_wait: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Let the members of a bundle give their embedding: the input of their last linear layer.

    Each graph is replaced by one with a further output; scores stay the same. Errors as of
    :func:`birdinfer.inference.bundle.store_settings`.

    Returns:
        For each member what it gives now, or why nothing.
    """
    said: dict[str, str] = {}
    old: list[Path] = []

    def change(bundle: Bundle) -> Bundle:
        manifest, widths = _with_embeddings(bundle)
        for before, member in zip(bundle.manifest.members, manifest.members, strict=True):
            given = f"{widths[member.name]} numbers" if member.name in widths else "has them"
            name = member.outputs.embedding
            said[member.name] = f"{given}, {name}" if name else "its scores are not one linear layer of an embedding"
            if member.graphs["fp32"] != before.graphs["fp32"]:
                old.append(bundle.graph_path(before.graphs["fp32"]))
        return Bundle(bundle.folder, manifest)

    stored = store_settings(folder, change, on_wait)
    for path in {*old} - {*stored.files}:
        path.unlink(missing_ok=True)
    return said


def _with_embeddings(bundle: Bundle) -> tuple[Manifest, dict[str, int]]:
    """The manifest with graphs that give embeddings, which are written beside the old ones, and their numbers."""
    widths: dict[str, int] = {}
    changed = {}
    for together in sharing(bundle.manifest.members):
        path = bundle.graph_path(together[0].graphs["fp32"])
        model, found = onnx.load(path), {}
        for member in together:
            if member.outputs.embedding is None:
                layer = last_linear(model.graph, member.outputs.clip)
                if layer is not None:
                    found[member.name], widths[member.name] = layer.embedding, layer.n_numbers
        if not found:
            continue
        for name, width in {found[name]: widths[name] for name in found}.items():
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
        content = model.SerializeToString()
        file = bundle.folder / f"{path.stem.removesuffix('-embedding')}-embedding.onnx"
        write_atomic(file, content)
        for member in together:
            graphs = {**member.graphs, "fp32": msgspec.structs.replace(
                member.graphs["fp32"], file=file.name, sha256=file_sha256(file))}  # fmt: skip
            outputs = msgspec.structs.replace(
                member.outputs, embedding=found.get(member.name, member.outputs.embedding)
            )
            changed[member.name] = msgspec.structs.replace(member, graphs=graphs, outputs=outputs)
    members = tuple(changed.get(member.name, member) for member in bundle.manifest.members)
    return msgspec.structs.replace(bundle.manifest, members=members), widths
