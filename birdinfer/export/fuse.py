"""Fuse a bundle's members into one file per precision, if that is measured to be faster than a file per member.

In: members with graphs of their own in the bundle's folder. Out: the same members, either unchanged or with shared
graphs in all their precisions. A fused graph has one input, and outputs named ``<member>/<output>``.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import onnx_ir as ir
import onnx_ir.convenience

import onnx
from birdinfer.config import InputConfig
from birdinfer.errors import BundleError, ConfigError
from birdinfer.export.callbacks import ExportCallback
from birdinfer.export.onnx.opset import opset_of, raised_to, read_graph
from birdinfer.inference.bundle import file_sha256
from birdinfer.inference.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.inference.engines.benchmark import speeds_in_turns
from birdinfer.inference.manifest import Graph, Member, Precision
from birdinfer.inference.predictor import BATCH_SIZE
from birdinfer.system.cpu import available_cores
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

NAME = "fused"
WORTH_FUSING = 1.1
"""How many times as fast as its parts a fused graph must be to replace them. Two loads of the same graphs differed by
up to 1.08 on two busy cores, and separate files can be exchanged one by one. Measured: three efficientnet_b0 0.97 to
1.08, five networks of 0.1 million weights 1.03 to 1.11."""

_LABELS = "labels_sha256"
_ROUNDS, _SECONDS = 9, 0.4
_HINT = "export the members without --fuse"


def fuse(graphs: Mapping[str, Path], out: Path) -> dict[str, dict[str, str]]:
    """Write members' graphs (member -> ONNX file, two or more, the same one input) as one into the new file ``out``.

    Entries of ``metadata_props`` that are equal in all of them are kept. Graphs of an older opset are converted to the
    newest among them. Returns member -> name of an output in its own graph -> its name in the fused one. Raises
    ConfigError for too few members, a name with a slash or more than a file can hold, BundleError if a graph cannot be
    read or they differ in input, labels, or opsets that cannot be converted.
    """
    _refuse_names(graphs)
    protos = {member: read_graph(path) for member, path in graphs.items()}
    newest = max(opset_of(proto) for proto in protos.values())
    models = {
        member: ir.from_proto(raised_to(proto, newest, graphs[member], _HINT)) for member, proto in protos.items()
    }
    _refuse_differences(models, graphs)
    renamed = {member: _prefix_names(model.graph, member) for member, model in models.items()}
    fused = ir.to_proto(_joined(list(models.values())))
    if fused.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF:
        raise ConfigError("--fuse", f"{fused.ByteSize() / 1e9:.1f} GB are more than one ONNX file holds (2 GB)", _HINT)
    onnx.checker.check_model(fused, full_check=True)
    write_atomic(out, fused.SerializeToString())
    return renamed


def faster_fused(separate: Sequence[Path], fused: Path, inputs: Float32, plan: EnginePlan) -> float:
    """Measure how many times as fast as its parts, run one after the other, a fused graph is: the median over rounds.

    OpenVINO is not measured: there birdinfer runs members with the same input as one model anyway.
    """
    shape = inputs.shape[1:]
    parts = [load_engine(plan, path, _outputs(path), shape) for path in separate]
    whole = load_engine(plan, fused, _outputs(fused), shape)
    runs = ((lambda batch: [part.run(batch) for part in parts], plan), (whole.run, plan))
    measured = speeds_in_turns(runs, inputs, _ROUNDS, _SECONDS)
    return statistics.median(speed_fused / speed_separate for speed_separate, speed_fused in measured)


def _refuse_names(graphs: Mapping[str, Path]) -> None:
    if len(graphs) < 2:
        what = f"needs two members or more, got {len(graphs)}"
        raise ConfigError("--fuse", what, "train more folds, or leave it out")
    for member in graphs:
        if not member or "/" in member:
            raise ConfigError("--fuse", f"{member!r} cannot name a member of a fused graph", "use a name without '/'")


def _refuse_differences(models: Mapping[str, ir.Model], paths: Mapping[str, Path]) -> None:
    first, *others = models
    for member, model in models.items():
        if len(model.graph.inputs) != 1:
            raise BundleError(paths[member], f"takes {len(model.graph.inputs)} inputs, needed is one", _HINT)
    for member in others:
        model, reference = models[member], models[first]
        own, other = (_signature(each.graph.inputs[0]) for each in (model, reference))
        if own != other:
            raise BundleError(paths[member], f"takes {own}, {first} takes {other}", _HINT)
        if model.metadata_props.get(_LABELS) != reference.metadata_props.get(_LABELS):
            raise BundleError(paths[member], f"was exported with other labels than {first}", _HINT)
        for domain in model.opset_imports.keys() & reference.opset_imports.keys():
            if model.opset_imports[domain] != reference.opset_imports[domain]:
                versions = f"{model.opset_imports[domain]}, {first} version {reference.opset_imports[domain]}"
                raise BundleError(paths[member], f"needs {domain} in version {versions}", _HINT)


def _signature(value: ir.Value) -> str:
    sizes = None if value.shape is None else [str(size) if isinstance(size, int) else "?" for size in value.shape]
    return f"{value.name} {value.dtype} [{', '.join(sizes or ())}]"


def _prefix_names(graph: ir.Graph, member: str) -> dict[str, str]:
    """Prefix every name inside with the member's; return the outputs' names before -> after."""
    own = [str(output.name) for output in graph.outputs]
    inside = list(graph.initializers.values())
    for node in graph.all_nodes():
        node.name = f"{member}/{node.name}" if node.name else None
        inside += [output for output in node.outputs if output.name]
        inside += [value for inner in _subgraphs(node) for value in (*inner.inputs, *inner.initializers.values())]
    for value in inside:
        value.name = f"{member}/{value.name}"
        # A size named "frames" is another number in another member's graph, and ONNX Runtime plans memory by the name.
        if value.shape is not None and not all(isinstance(size, int) for size in value.shape):
            sizes = [size if isinstance(size, int) else None for size in value.shape]
            value.shape = ir.Shape(sizes) if value.is_graph_output() else None
    return {name: str(output.name) for name, output in zip(own, graph.outputs, strict=True)}


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    found = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def _joined(models: Sequence[ir.Model]) -> ir.Model:
    shared = models[0].graph.inputs[0]
    nodes, constants, outputs, opsets = [], [], [], {}
    for model in models:
        graph = model.graph
        if graph.inputs[0] is not shared:
            onnx_ir.convenience.replace_all_uses_with(graph.inputs[0], shared)
        opsets.update(graph.opset_imports)
        outputs += list(graph.outputs)
        constants += list(graph.initializers.values())
        nodes += list(graph)
        graph.inputs.clear()
        graph.outputs.clear()
        graph.initializers.clear()
        graph.remove(list(graph))
    whole = ir.Graph([shared], outputs, nodes=nodes, initializers=constants, opset_imports=opsets, name="fused")
    common = set.intersection(*(set(model.metadata_props.items()) for model in models))
    kept = {key: value for key, value in models[0].metadata_props.items() if (key, value) in common}
    return ir.Model(whole, ir_version=max(model.ir_version for model in models), metadata_props=kept)


def _outputs(path: Path) -> list[str]:
    return [output.name for output in read_graph(path).graph.output]


# ---- A bundle's members


def fused_if_faster(
    members: Sequence[Member], staging: Path, inputs: Float32, callback: ExportCallback
) -> list[Member]:
    """Fuse the members' graphs in the folder ``staging`` and keep the result if it is faster on real windows."""
    callback.on_progress("fusing", 0, 1)
    files = {member.name: staging / member.graphs["fp32"].file for member in members}
    fused = staging / f"{NAME}.onnx"
    renamed = fuse(files, fused)
    plan = EnginePlan(EngineSpec(), available_cores(), BATCH_SIZE)
    times = faster_fused(list(files.values()), fused, inputs, plan)
    speed = f"fused: {times:.2f} times as fast as {len(files)} files"
    if times < WORTH_FUSING:
        fused.unlink()
        callback.on_message(f"{speed}, worth it from {WORTH_FUSING:g} on: not kept")
        return list(members)
    callback.on_message(f"{speed}: kept")
    shared = _all_shared(members, staging, callback)
    for member in members:
        for graph in member.graphs.values():
            (staging / graph.file).unlink()
    return [_sharing(member, shared, renamed[member.name]) for member in members]


def check_fusable(inputs: Sequence[InputConfig]) -> None:
    """Raise ConfigError for a single member or members with different inputs, before they are made."""
    if len(inputs) < 2:
        raise ConfigError("--fuse", f"needs two members or more, got {len(inputs)}", "leave it out")
    if any(input_config != inputs[0] for input_config in inputs):
        raise ConfigError("--fuse", "needs members with the same input, these have different ones", "leave it out")


def _all_shared(members: Sequence[Member], staging: Path, callback: ExportCallback) -> dict[Precision, Graph]:
    shared: dict[Precision, Graph] = {}
    for precision in dict.fromkeys(precision for member in members for precision in member.graphs):
        try:
            shared[precision] = _shared(precision, members, staging)
        except BundleError as error:  # dynamic INT8, which takes one window a call, beside fp32
            callback.on_message(f"{NAME}: {precision} left out: {Path(error.where).stem} {error.what}")
    return shared


def _shared(precision: Precision, members: Sequence[Member], staging: Path) -> Graph:
    """One file with all members; a member without this precision is in it in fp32."""
    path = staging / (f"{NAME}.onnx" if precision == "fp32" else f"{NAME}.{precision}.onnx")
    graphs = {member.name: member.graphs.get(precision, member.graphs["fp32"]) for member in members}
    if precision != "fp32":
        fuse({name: staging / graph.file for name, graph in graphs.items()}, path)
    differences = [graph.max_probability_difference for graph in graphs.values()]
    known = [difference for difference in differences if difference is not None]
    return Graph(path.name, file_sha256(path), max(known, default=None))


def _sharing(member: Member, shared: dict[Precision, Graph], renamed: dict[str, str]) -> Member:
    clip, frames = (name and renamed[name] for name in (member.outputs.clip, member.outputs.frames))
    outputs = msgspec.structs.replace(member.outputs, clip=clip, frames=frames)
    return msgspec.structs.replace(member, graphs=shared, outputs=outputs)
