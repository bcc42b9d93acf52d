"""All members of a bundle in one file each precision, where that is faster than a file a member.

In: members with graphs of their own, in the bundle's folder. Out: the same members; either untouched, or sharing graphs
in all their precisions. Which it is, is measured.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.bundle import file_sha256
from birdinfer.config import Hearing
from birdinfer.cores import available_cores
from birdinfer.errors import BundleError, ConfigError
from birdinfer.export.graphs.fuse import WORTH_FUSING, faster_fused, fuse
from birdinfer.export.options import Reporter
from birdinfer.manifest import Graph, Member, Precision
from birdinfer.predictor import BATCH_SIZE

Float32 = npt.NDArray[np.float32]

NAME = "fused"
_OPTION = "--fuse"


def fused_if_faster(members: Sequence[Member], staging: Path, heard: Float32, reporter: Reporter) -> list[Member]:
    """Fuse the members' graphs, keep that if it is faster.

    Args:
        members: at least two that hear the same.
        staging: the bundle's folder.
        heard: real windows [windows, ...].
        reporter: is told which it was.

    Raises:
        ConfigError: one member alone, or more than one file can hold.
        BundleError: members that hear differently.
    """
    reporter.step("fusing", 0, 1)
    files = {member.name: staging / member.graphs["fp32"].file for member in members}
    fused = staging / f"{NAME}.onnx"
    renamed = fuse(files, fused)
    times = faster_fused(list(files.values()), fused, heard, available_cores(), BATCH_SIZE)
    if times < WORTH_FUSING:
        fused.unlink()
        reporter.line(
            f"fused: {times:.2f} times as fast as {len(files)} files, worth it from {WORTH_FUSING:g} on: not kept"
        )
        return list(members)
    reporter.line(f"fused: {times:.2f} times as fast as {len(files)} files: kept")
    shared = _all_shared(members, staging, reporter)
    for member in members:
        for graph in member.graphs.values():
            (staging / graph.file).unlink()
    return [_of(member, shared, renamed[member.name]) for member in members]


def check_fusable(hearings: Sequence[Hearing]) -> None:
    """Refuse members that no file can hold together, before they are made.

    Args:
        hearings: what each of them hears.

    Raises:
        ConfigError: one member alone, or members that hear differently.
    """
    if len(hearings) < 2:
        raise ConfigError(_OPTION, f"needs two members or more, got {len(hearings)}", "leave it out")
    if any(hearing != hearings[0] for hearing in hearings):
        raise ConfigError(_OPTION, "needs members that hear the same, these do not", "leave it out")


def _all_shared(members: Sequence[Member], staging: Path, reporter: Reporter) -> dict[Precision, Graph]:
    """A file of each precision; one whose graphs cannot meet is left out, which is said."""
    shared: dict[Precision, Graph] = {}
    for precision in _precisions(members):
        try:
            shared[precision] = _shared(precision, members, staging)
        except BundleError as error:  # dynamic INT8, which takes one window a call, beside fp32
            reporter.line(f"{NAME}: {precision} left out: {Path(error.where).stem} {error.what}")
    return shared


def _precisions(members: Sequence[Member]) -> list[Precision]:
    return list(dict.fromkeys(precision for member in members for precision in member.graphs))


def _shared(precision: Precision, members: Sequence[Member], staging: Path) -> Graph:
    """One file of all members; a member without this precision is in it in fp32."""
    path = staging / (f"{NAME}.onnx" if precision == "fp32" else f"{NAME}.{precision}.onnx")
    graphs = {member.name: member.graphs.get(precision, member.graphs["fp32"]) for member in members}
    if precision != "fp32":
        fuse({name: staging / graph.file for name, graph in graphs.items()}, path)
    differences = [graph.max_probability_difference for graph in graphs.values()]
    known = [difference for difference in differences if difference is not None]
    return Graph(path.name, file_sha256(path), max(known, default=None))


def _of(member: Member, shared: dict[Precision, Graph], renamed: dict[str, str]) -> Member:
    outputs = member.outputs
    return msgspec.structs.replace(
        member,
        graphs=shared,
        outputs=msgspec.structs.replace(
            outputs,
            clip=None if outputs.clip is None else renamed[outputs.clip],
            frames=None if outputs.frames is None else renamed[outputs.frames],
        ),
    )
