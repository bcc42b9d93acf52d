"""Several members' graphs -> one file: one input for all of them, and outputs named ``<member>/<output>``.

In: graphs that take the same input, log-mel [batch, 1, rows, columns] or waveforms [batch, samples], in fp32, fp16 or
INT8. Out: one graph that computes what they compute: bit by bit in ONNX Runtime, while OpenVINO rounds INT8 at other
places, by less than the two engines differ. All names inside begin with the member's, so that nothing collides.

Folds share no weights, and an engine itself runs once what is equal at their beginning (equal constants need not be
merged for that). So a fused graph saves calls and little else: :func:`faster_fused` measures whether it is worth it.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.convenience

from birdinfer.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.errors import BundleError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.throughput import speeds_in_turns

Float32 = npt.NDArray[np.float32]

WORTH_FUSING = 1.1
"""Times as fast as its parts a fused graph is to be before it takes their place. Two loads of the same graphs came out
up to 1.08 times as fast as each other on two busy cores, and separate files can be exchanged alone. Measured: three
efficientnet_b0 0.97 to 1.08, five networks of 0.1 million weights 1.03 to 1.11."""

_LABELS = "labels_sha256"
_ROUNDS = 9
_SECONDS = 0.4
_REMEDY = "export the members without --fuse"


def fuse(graphs: Mapping[str, Path], out: Path) -> dict[str, dict[str, str]]:
    """Write members' graphs as one.

    Entries of ``metadata_props`` that are equal in all of them are kept. Graphs of an older opset are raised to the
    newest among them.

    Args:
        graphs: member -> its ONNX file; two or more, whose one input has the same name, type and shape.
        out: where to.

    Returns:
        Member -> name of an output in its own graph -> its name in the fused one.

    Raises:
        ConfigError: fewer than two members, a name that cannot stand before a slash, or more than one file can hold.
        BundleError: a graph cannot be read, or they differ in input or labels, or in opsets that cannot be raised.
        OutputError: the graph cannot be written there.
    """
    _refuse_names(graphs)
    protos = {member: _read(path) for member, path in graphs.items()}
    newest = max(_opset(proto) for proto in protos.values())
    models = {member: ir.from_proto(_raised(proto, newest, graphs[member])) for member, proto in protos.items()}
    _refuse_differences(models, graphs)
    renamed = {member: _put_before(model.graph, member) for member, model in models.items()}
    fused = ir.to_proto(_as_one(list(models.values())))
    if fused.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF:
        raise ConfigError(
            "--fuse", f"{fused.ByteSize() / 1e9:.1f} GB are more than one ONNX file holds (2 GB)", _REMEDY
        )
    onnx.checker.check_model(fused, full_check=True)
    write_atomic(out, fused.SerializeToString())
    return renamed


def faster_fused(separate: Sequence[Path], fused: Path, heard: Float32, lanes: int, batch_size: int) -> float:
    """How many times as fast as its parts a fused graph is in ONNX Runtime, measured in turns in one run.

    OpenVINO is not asked: there birdinfer runs members that hear the same as one model anyway. Less than
    :data:`WORTH_FUSING` is not worth it.

    Args:
        separate: the members' own graphs, which are run one after the other.
        fused: all of them in one.
        heard: real windows [windows, ...] of their input, at least one.
        lanes: threads that call at once.
        batch_size: windows in a call.

    Returns:
        Windows per second of the fused graph over those of its parts: the median over rounds of either's turn.

    Raises:
        BundleError: a graph cannot be loaded.
    """
    plan = EnginePlan(EngineSpec(), lanes, batch_size)
    shape = heard.shape[1:]
    parts = [load_engine(plan, path, _outputs(path), shape) for path in separate]
    whole = load_engine(plan, fused, _outputs(fused), shape)
    runs = ((lambda batch: [part.run(batch) for part in parts], plan), (whole.run, plan))
    measured = speeds_in_turns(runs, heard, _ROUNDS, _SECONDS)
    return statistics.median(speed_fused / speed_separate for speed_separate, speed_fused in measured)


def _refuse_names(graphs: Mapping[str, Path]) -> None:
    if len(graphs) < 2:
        raise ConfigError(
            "--fuse", f"needs two members or more, got {len(graphs)}", "train more folds, or leave it out"
        )
    for member in graphs:
        if not member or "/" in member:
            raise ConfigError("--fuse", f"{member!r} cannot name a member of a fused graph", "use a name without '/'")


def _read(path: Path) -> onnx.ModelProto:
    """A graph without local functions, whose names would have to be kept apart, too."""
    try:
        return onnx.inliner.inline_local_functions(onnx.load(path))
    except Exception as error:  # protobuf's and onnx's own kinds share no base
        raise BundleError(path, f"cannot be read as an ONNX graph ({error})", "export it again") from error


def _opset(proto: onnx.ModelProto) -> int:
    return max((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), default=1)


def _raised(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    """The same graph in an opset that is not older than its own."""
    if _opset(proto) == opset:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        raise BundleError(path, f"cannot be raised from opset {_opset(proto)} to {opset} ({error})", _REMEDY) from error


def _refuse_differences(models: Mapping[str, ir.Model], paths: Mapping[str, Path]) -> None:
    """Refuse graphs that cannot share an input, a meaning of their columns, or an opset."""
    first, *others = models
    for member, model in models.items():
        if len(model.graph.inputs) != 1:
            raise BundleError(paths[member], f"takes {len(model.graph.inputs)} inputs, needed is one", _REMEDY)
    for member in others:
        model, wanted = models[member], models[first]
        if _said(model.graph.inputs[0]) != _said(wanted.graph.inputs[0]):
            found = f"takes {_said(model.graph.inputs[0])}, {first} takes {_said(wanted.graph.inputs[0])}"
            raise BundleError(paths[member], found, _REMEDY)
        if model.metadata_props.get(_LABELS) != wanted.metadata_props.get(_LABELS):
            raise BundleError(paths[member], f"was exported with other labels than {first}", _REMEDY)
        for domain in model.opset_imports.keys() & wanted.opset_imports.keys():
            if model.opset_imports[domain] != wanted.opset_imports[domain]:
                versions = f"{model.opset_imports[domain]}, {first} version {wanted.opset_imports[domain]}"
                raise BundleError(paths[member], f"needs {domain} in version {versions}", _REMEDY)


def _said(value: ir.Value) -> str:
    """Name, type and shape; an axis that is free is ``?`` whatever it is called."""
    sizes = None if value.shape is None else [str(size) if isinstance(size, int) else "?" for size in value.shape]
    return f"{value.name} {value.dtype} [{', '.join(sizes or ())}]"


def _put_before(graph: ir.Graph, member: str) -> dict[str, str]:
    """Let every name inside begin with the member's; the outputs' names before -> after."""
    own = [str(output.name) for output in graph.outputs]
    inside = list(graph.initializers.values())
    for node in graph.all_nodes():
        node.name = f"{member}/{node.name}" if node.name else None
        inside += [output for output in node.outputs if output.name]
        inside += [value for inner in _subgraphs(node) for value in (*inner.inputs, *inner.initializers.values())]
    for value in inside:
        value.name = f"{member}/{value.name}"
        # A size called "frames" is another number in another member's graph, and ONNX Runtime plans memory by the name.
        if value.shape is not None and not all(isinstance(size, int) for size in value.shape):
            value.shape = None if not value.is_graph_output() else _unnamed(value.shape)
    return {name: str(output.name) for name, output in zip(own, graph.outputs, strict=True)}


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Graphs within a node: the branches of an If, the body of a Loop."""
    found = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def _unnamed(shape: ir.Shape) -> ir.Shape:
    return ir.Shape([size if isinstance(size, int) else None for size in shape])


def _as_one(models: Sequence[ir.Model]) -> ir.Model:
    """Graphs whose inner names do not collide, behind the input of the first."""
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
    return [output.name for output in _read(path).graph.output]
