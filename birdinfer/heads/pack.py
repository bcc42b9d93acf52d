"""Graphs with an embedding: let a member give one, and pack a head behind it.

In: a bundle whose graphs take sound. Out: the same graph with the input of its last linear layer as a second output, or
with a head's layer in that one's place: a bundle that predicts the head's species in one pass, like any other.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from birdinfer.errors import BundleError
from birdinfer.heads.linear import LinearHead
from birdinfer.inference.bundle import Bundle, file_sha256, labels_sha256, save_manifest, sharing, store_settings
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.manifest import FORMAT, Graph, Manifest, Outputs, Provenance
from birdinfer.inference.member_group import load_member_groups, sample_shape
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.system.files import atomic_folder, write_atomic
from birdinfer.typing import Float32
from birdinfer.version import __version__

OUTPUT = "head_logits"
MAX_DIFFERENCE = 1e-5
"""Of a probability, between the packed graph and the head in Python."""
_ELEMENTWISE = {"Sigmoid", "Softmax", "Identity", "Cast", "Add", "Sub", "Mul", "Clip", "Squeeze", "Flatten", "Reshape"}
"""Nodes that may stand between the last linear layer and the scores."""


def pack_head(
    encoder: Bundle, member_name: str, head: LinearHead, species: Sequence[Species], folder: Path, *,
    fallback: Float32, macro_auc: float | None, recipe: dict[str, object],
) -> Bundle:  # fmt: skip
    """Make a bundle of a member of another one with a head in the place of its last layer.

    Args:
        encoder: the bundle whose embeddings the head was fitted to.
        member_name: of the member that gave them.
        head: scores the ``species``.
        species: in the order of the head's columns.
        folder: of the new bundle; must be free, or an older head's.
        fallback: probability of each species for a file that cannot be read.
        macro_auc: of the cross-validation.
        recipe: how the head was fitted, for the manifest.

    Raises:
        BundleError: the graph has no such embedding, or the packed one scores otherwise than the head.
        OutputError: the folder cannot be written, or holds something else.
    """
    member = next(each for each in encoder.manifest.members if each.name == member_name)
    path = encoder.graph_path(member.graphs["fp32"])
    labels = tuple(each.label for each in species)
    model = _with_head(path, member.outputs.embedding or "", head, labels)
    hint = "name another folder with -o"
    with atomic_folder(folder, "a bundle", hint) as staging:
        file = staging / f"{member.name}.onnx"
        write_atomic(file, model.SerializeToString())
        outputs = Outputs(clip=OUTPUT, activation=head.activation, embedding=member.outputs.embedding)
        packed = msgspec.structs.replace(
            member, graphs={"fp32": Graph(file.name, file_sha256(file))}, outputs=outputs, label_columns=None,
            aggregation=msgspec.structs.replace(member.aggregation, frame_share=0.0), weight=1.0, fold=None,
            out_of_fold_macro_auc=macro_auc, variants=(),
        )  # fmt: skip
        manifest = Manifest(
            format=FORMAT, name=folder.resolve().name, species=tuple(species), rows=encoder.manifest.rows,
            post=PostConfig((1.0,)), members=(packed,),
            fallback_probabilities=tuple(round(float(each), 7) for each in np.clip(fallback, 0, 1)),
            provenance=Provenance(
                created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), run=f"head on {encoder.manifest.name}",
                versions={**encoder.manifest.provenance.versions, "birdinfer": __version__}, recipe=recipe,
            ),
        )  # fmt: skip
        save_manifest(staging, manifest)
        _check_scores(Bundle.load(staging), head)
    return Bundle.load(folder)


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
                layer = _last_linear(model.graph, member.outputs.clip)
                if layer is not None:
                    found[member.name], widths[member.name] = layer
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


def _with_head(path: Path, embedding: str, head: LinearHead, labels: tuple[str, ...]) -> onnx.ModelProto:
    model = onnx.load(path)
    graph = model.graph
    kept = [output for output in graph.output if output.name == embedding]
    if not kept:
        raise BundleError(path, f"has no output {embedding!r}", "predict the embeddings again")
    del graph.output[:]
    graph.output.extend(kept)
    _drop_unused(graph)
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    names = {"weights": "head_weights", "offsets": "head_offsets"}
    if taken & {*names.values(), OUTPUT}:
        raise BundleError(path, "has a tensor named as those of a head", "rename it")
    graph.initializer.append(numpy_helper.from_array(head.weights, names["weights"]))
    graph.initializer.append(numpy_helper.from_array(head.offsets, names["offsets"]))
    source = embedding
    if len(kept[0].type.tensor_type.shape.dim) == 3:  # of frames: their mean counts
        source = "head_mean"
        graph.node.append(_mean(model, embedding, source))
    graph.node.append(helper.make_node("Gemm", [source, *names.values()], [OUTPUT], name="head"))
    graph.output.insert(0, helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(labels)]))
    properties = {each.key: each.value for each in model.metadata_props}
    helper.set_model_props(model, {**properties, "labels_sha256": labels_sha256(labels)})
    return model


def _mean(model: onnx.ModelProto, frames: str, mean: str) -> onnx.NodeProto:
    """The mean over the frames; its axes are an input from opset 18 on."""
    opset = next(each.version for each in model.opset_import if not each.domain)
    if opset >= 18:
        model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "head_axes"))
        return helper.make_node("ReduceMean", [frames, "head_axes"], [mean], keepdims=0)
    return helper.make_node("ReduceMean", [frames], [mean], keepdims=0, axes=[1])


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(_read_by(node))
    constants = [each for each in graph.initializer if each.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, within its branches and loops too."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                names |= _read_by(each)
            names.update(output.name for output in inner.output)
    return names


def _last_linear(graph: onnx.GraphProto, output: str | None) -> tuple[str, int] | None:
    """The input of the linear layer that an output comes from, and its numbers; None if it comes from none."""
    maker = {name: node for node in graph.node for name in node.output}
    constants = {each.name: tuple(each.dims) for each in graph.initializer}
    name = output or ""
    while (node := maker.get(name)) is not None:
        if node.op_type in ("Gemm", "MatMul"):
            dims = constants.get(node.input[1], ())
            flipped = next((each.i for each in node.attribute if each.name == "transB"), 0)
            return (node.input[0], dims[1] if flipped else dims[0]) if len(dims) == 2 else None
        changing = [each for each in node.input if each not in constants and not _is_constant(maker.get(each))]
        if node.op_type not in _ELEMENTWISE or len(changing) != 1:
            return None
        name = changing[0]
    return None


def _is_constant(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "Constant"


def _check_scores(bundle: Bundle, head: LinearHead) -> None:
    """Hold the packed graph against the head, on noise."""
    (group,) = load_member_groups(bundle, EnginePlan(), embeddings=True)
    shape = sample_shape(group.input_config)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, *shape)).astype(np.float32)
    (scores,) = group.score(0, noise)
    if scores.clip is None or scores.embeddings is None:
        raise BundleError(bundle.folder, "gives no scores or no embeddings", "predict the embeddings again")
    most = float(np.abs(scores.clip - head.predict(scores.embeddings)).max())
    if not most <= MAX_DIFFERENCE:
        raise BundleError(bundle.folder, f"scores otherwise than the head in Python, by {most:.2g}")
