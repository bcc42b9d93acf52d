"""Edits of an encoder's graph: its embedding as an output, a head behind it, and what its own last layer says.

In: an ONNX graph that takes sound. Out: the same with the input of its last linear layer as a further output, or with a
head's layers, or nothing, in that one's place.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from birdinfer.errors import BundleError
from birdinfer.heads.window_head import Linear, Normalise, Rectify, Scale, WindowHead
from birdinfer.inference.bundle import labels_sha256
from birdinfer.typing import Float32

OUTPUT = "head_logits"
_PREFIX = "head_"
_ELEMENTWISE = {"Sigmoid", "Softmax", "Identity", "Cast", "Add", "Sub", "Mul", "Clip", "Squeeze", "Flatten", "Reshape"}
"""Nodes that may stand between the last linear layer and the scores."""


class LastLayer(NamedTuple):
    """The linear layer that an output comes from."""

    embedding: str
    """Name of its input."""
    n_numbers: int
    node: onnx.NodeProto
    behind: tuple[onnx.NodeProto, ...]
    """Nodes between it and the output, the last one first."""


def encoder_graph(path: Path, embedding: str) -> onnx.ModelProto:
    """Read a graph, and leave what its embedding needs; BundleError if it has no such output."""
    model = onnx.load(path)
    graph = model.graph
    kept = [output for output in graph.output if output.name == embedding]
    if not kept:
        raise BundleError(path, f"has no output {embedding!r}", "predict the embeddings again")
    del graph.output[:]
    graph.output.extend(kept)
    _drop_unused(graph)
    return model


def with_head(path: Path, embedding: str, head: WindowHead, labels: tuple[str, ...]) -> onnx.ModelProto:
    """Read a graph, and put a head's layers behind its embedding: its outputs are the head's logits and this."""
    model = encoder_graph(path, embedding)
    graph = model.graph
    if any(name.startswith(_PREFIX) for node in graph.node for name in (*node.input, *node.output)):
        raise BundleError(path, "has a tensor named as those of a head", "rename it")
    source = embedding
    if len(graph.output[0].type.tensor_type.shape.dim) == 3:  # of frames: their mean counts
        source = f"{_PREFIX}mean"
        graph.node.append(_mean(model, embedding, source))
    for number, layer in enumerate(head.layers):
        result = OUTPUT if number == len(head.layers) - 1 else f"{_PREFIX}layer{number}"
        for name, value in zip(layer._fields, layer, strict=True):
            graph.initializer.append(numpy_helper.from_array(value, f"{result}_{name}"))
        constants = [f"{result}_{name}" for name in layer._fields]
        match layer:
            case Linear():
                graph.node.append(helper.make_node("Gemm", [source, *constants], [result]))
            case Scale():
                graph.node.append(helper.make_node("Mul", [source, constants[0]], [f"{result}_scaled"]))
                graph.node.append(helper.make_node("Add", [f"{result}_scaled", constants[1]], [result]))
            case Rectify():
                graph.node.append(helper.make_node("Relu", [source], [result]))
            case Normalise():
                graph.node.append(helper.make_node("LpNormalization", [source], [result], axis=-1, p=2))
        source = result
    graph.output.insert(0, helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(labels)]))
    set_labels(model, labels)
    return model


def set_labels(model: onnx.ModelProto, labels: tuple[str, ...]) -> None:
    """Store the labels' digest, so that the graph cannot fill the wrong columns."""
    properties = {each.key: each.value for each in model.metadata_props}
    helper.set_model_props(model, {**properties, "labels_sha256": labels_sha256(labels)})


def last_linear(graph: onnx.GraphProto, output: str | None) -> LastLayer | None:
    """Find the linear layer that an output comes from; None if it comes from none."""
    maker = {name: node for node in graph.node for name in node.output}
    constants = {each.name: tuple(each.dims) for each in graph.initializer}
    name, behind = output or "", list[onnx.NodeProto]()
    while (node := maker.get(name)) is not None:
        if node.op_type in ("Gemm", "MatMul"):
            dims = constants.get(node.input[1], ())
            if len(dims) != 2:
                return None
            return LastLayer(node.input[0], dims[1] if _is_flipped(node) else dims[0], node, tuple(behind))
        changing = [each for each in node.input if each not in constants and not _is_constant(maker.get(each))]
        if node.op_type not in _ELEMENTWISE or len(changing) != 1:
            return None
        behind.append(node)
        name = changing[0]
    return None


def own_layer(graph: onnx.GraphProto, output: str | None, embedding: str) -> tuple[Float32, Float32] | None:
    """Read weights [numbers, labels] and offsets [labels] of the logits; None if these are not linear in the embedding.

    Of an output that is a sigmoid or softmax, those of what it takes.
    """
    layer = last_linear(graph, output)
    if layer is None or layer.embedding != embedding:
        return None
    values = {each.name: each for each in graph.initializer}
    weights = numpy_helper.to_array(values[layer.node.input[1]]).astype(np.float32)
    weights = weights.T if _is_flipped(layer.node) else weights
    biases = [*layer.node.input[2:]]
    for node in layer.behind:
        if node.op_type == "Add":
            biases += [name for name in node.input if name in values]
        elif node.op_type not in ("Sigmoid", "Softmax", "Identity"):
            return None
    factors = {each.name: each.f for each in layer.node.attribute if each.name in ("alpha", "beta")}
    if any(factor != 1 for factor in factors.values()) or any(name not in values for name in biases):
        return None
    offsets = sum((numpy_helper.to_array(values[name]) for name in biases), np.zeros(weights.shape[1]))
    return np.ascontiguousarray(weights), np.broadcast_to(offsets, weights.shape[1:]).astype(np.float32)


def _is_flipped(node: onnx.NodeProto) -> bool:
    return any(each.name == "transB" and each.i for each in node.attribute)


def _is_constant(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "Constant"


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
