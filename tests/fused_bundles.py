"""Bundles whose members share one graph, made of those of ``make_bundles``."""

from pathlib import Path

import msgspec

from birdinfer.export.fuse import fuse
from birdinfer.inference.bundle import Bundle, file_sha256, save_manifest
from birdinfer.inference.manifest import Graph, Outputs


def share_one_graph(folder: Path) -> Path:
    """Put the fp32 graphs of all members of a bundle into one file, and remove their own."""
    manifest = Bundle.load(folder).manifest
    own = {member.name: folder / member.graphs["fp32"].file for member in manifest.members}
    renamed = fuse(own, folder / "fused.onnx")
    graph = Graph("fused.onnx", file_sha256(folder / "fused.onnx"))
    members = tuple(
        msgspec.structs.replace(
            member, graphs={"fp32": graph}, outputs=Outputs(renamed[member.name][member.outputs.clip or ""])
        )
        for member in manifest.members
    )
    for path in own.values():
        path.unlink()
    save_manifest(folder, msgspec.structs.replace(manifest, members=members))
    return folder
