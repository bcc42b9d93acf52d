"""A bundle of three families whose scores differ in scale: two linear folds, a detector, an external graph."""

from pathlib import Path

import msgspec
from external_graphs import write_external_graph, write_list
from make_bundles import FRONTEND, LABELS, linear_member, write_bundle, write_framewise_graph

from birdinfer.inference.blend_text import parse_blend
from birdinfer.inference.bundle import Bundle, save_manifest
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.external.add_model import AddOptions, add_model
from birdinfer.inference.manifest import Outputs
from birdinfer.species import Species

CLASSES = ("Aves", "Aves", "Amphibia", "Insecta")
GROUPS = ("linear", "sed", "perch")


def write_three_families(folder: Path, blend: str = "rank", known: tuple[str, ...] = LABELS) -> Path:
    """Write the bundle; ``known``: the labels of the external graph."""
    write_bundle(folder)
    write_framewise_graph(folder / "sed.onnx", 7, 5)
    detector = linear_member(folder / "sed.onnx", FRONTEND, fold=0)
    detector = msgspec.structs.replace(detector, backbone="sed", outputs=Outputs(clip="clip", frames="frames"))
    manifest = Bundle.load(folder).manifest
    species = tuple(Species(label, class_name=name) for label, name in zip(LABELS, CLASSES, strict=True))
    save_manifest(folder, msgspec.structs.replace(manifest, members=(*manifest.members, detector), species=species))
    graph = write_external_graph(folder.with_name("perch.onnx"), len(known))
    add_model(graph, write_list(folder.with_name("perch.txt"), *known), folder, AddOptions(name="perch"))
    bundle = Bundle.load(folder)
    save_manifest(folder, bundle.with_scoring(parse_blend(blend), bundle.manifest.post).manifest)
    return folder


def alone(folder: Path, group: str) -> Bundle:
    """The bundle of one group's members alone, which are averaged."""
    bundle = Bundle.load(folder)
    members = bundle.manifest.blend.groups[group].members
    return bundle.with_scoring(Blend(), bundle.manifest.post).with_members(members)
