"""fp32 graph -> the same graph in 16 bits: fp16 for GPUs, bf16 to halve the file. Input and outputs stay float32.

fp16 computes in fp16 wherever that does no harm (:func:`half_nodes`); on a CPU, ONNX Runtime casts each fp16 node's
input back to fp32. bf16 stores weights, cast to float32 when an engine loads the graph: OpenVINO can compute in bf16,
ONNX Runtime has no bf16 convolution for a CPU and computes in fp32. Names, batch axis and ``metadata_props`` stay.
``onnxruntime.transformers.float16`` is not used: it sends what passes between two fp32 nodes through fp16, so that a
power of 3 overflows on its way to the mean, and clips weights that are out of range.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

import onnx
from birdinfer.errors import ConfigError
from birdinfer.export.onnx.edit import add_constant, array_of, drop_unused
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

# ---- Nodes that may compute in fp16

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"})  # the most work; accumulate in fp32 everywhere

_CURVES = frozenset(
    {"Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid", "Tanh"}
)
_ARITHMETIC = frozenset({"Abs", "Add", "Clip", "Div", "Max", "Min", "Mul", "Neg", "Sub", "Sum", "Where"})
_POOLS = frozenset({"AveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})
"""Pools of few values, or a choice among many."""
_PASS_THROUGH_OPS = frozenset({"Concat", "Expand", "Gather", "Identity", "Pad", "Shape", "Slice", "Split", "Tile"})
_SHAPERS = frozenset({"DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"})
IN_FP16 = HEAVY | _CURVES | _ARITHMETIC | _POOLS | _PASS_THROUGH_OPS | _SHAPERS
"""Operators that neither overflow nor add up many values."""

FRONT_END = "front_end/"  # prefix of the names of nodes that compute a log-mel within a graph
LARGEST = float(np.finfo(np.float16).max)
_LARGEST_CHANGE = float(np.finfo(np.float16).eps)  # of a scalar constant: the rounding of fp16, unless it is too small


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Find the nodes of an fp32 graph with types that compute in fp16; those inside a loop or branch stay fp32."""
    unsafe = {node for node in graph if not (node.op_type in IN_FP16 and _is_safe(node))}
    fp32 = _tail(graph) | front_end_nodes(graph) | unsafe
    return set(graph) - fp32 - _between(graph, fp32)


def front_end_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Find the nodes that compute a log-mel: those of its name, logarithms before the tail, and all before these."""
    found: set[ir.Node] = set()
    tail = _tail(graph)
    waiting = [node for node in graph if (node.name or "").startswith(FRONT_END)]
    waiting += [node for node in graph if node.op_type == "Log" and node not in tail]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [before for value in node.inputs if value is not None and (before := value.producer())]
    return found


def _tail(graph: ir.Graph) -> set[ir.Node]:
    """The classifier and all after it: no convolution or matrix product follows."""
    is_before_heavy: set[ir.Node] = set()
    for node in reversed(graph):
        if any(reader.op_type in HEAVY or reader in is_before_heavy for reader in _readers(node)):
            is_before_heavy.add(node)
    return {node for node in graph if node not in is_before_heavy and node.op_type not in ("Conv", "ConvTranspose")}


def _between(graph: ir.Graph, fp32: set[ir.Node]) -> set[ir.Node]:
    """Light nodes that read floats only from fp32 nodes and are read only by fp32 nodes, singly or in groups."""
    found = {node for node in graph if node.op_type in IN_FP16 - HEAVY and node not in fp32 and _computed_floats(node)}
    waiting = list(found)
    while waiting:
        node = waiting.pop()
        before = [value.producer() for value in _computed_floats(node)]
        after = list(_readers(node))
        if node in found and not all(one in fp32 or one in found for one in (*before, *after)):
            found.remove(node)
            waiting += [one for one in (*before, *after) if one in found]  # they have lost a neighbour
    return found


def _is_safe(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or not any(is_float(value) for value in node.inputs if value is not None):
        return False
    if node.op_type == "Div" and (node.inputs[1] is None or node.inputs[1].const_value is None):
        return False  # the divisor is computed and may be close to 0
    floats = [value for value in node.inputs if value is not None and is_float(value)]
    return all(_holds(array_of(value)) for value in floats if value.const_value is not None)


def _holds(array: Float32) -> bool:
    """Whether fp16 can hold these constants: none out of range, a scalar unchanged except for rounding."""
    if not np.all(np.abs(array) <= LARGEST):
        return False
    return array.size != 1 or bool(np.all(np.abs(array.astype(np.float16) - array) <= _LARGEST_CHANGE * np.abs(array)))


def is_float(value: ir.Value) -> bool:
    """Whether a value is float32."""
    return value.dtype == ir.DataType.FLOAT


def _computed_floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and is_float(value) and value.const_value is None]


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    for output in node.outputs:
        yield from output.consumers()


# ---- Writing 16-bit graphs

FP16, FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def write_fp16(graph: Path, out: Path) -> None:
    """Write the fp16 form of an exported fp32 graph; ConfigError if no convolution or product in it may be fp16."""
    # Exporters leave some types out.
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(graph)))
    half = half_nodes(model.graph)
    if not any(node.op_type in HEAVY for node in half):
        raise ConfigError(graph, "has no convolution or matrix product that may be fp16", "keep it in fp32")
    computed = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    constants = list(model.graph.initializers.values())
    for value in filter(is_float, computed):
        _meet(model.graph, value, half)
    for value in filter(is_float, constants):
        uses = [(node, index) for node, index in value.uses() if node in half]
        if uses:  # ``half_nodes`` has checked that fp16 can hold the constant
            _let_read(uses, add_constant(model.graph, f"{value.name}_fp16", array_of(value).astype(np.float16)))
    drop_unused(model.graph)
    _write(model, out)


def write_bf16(graph: Path, out: Path) -> None:
    """Write an exported fp32 graph with its weights in bf16; biases and scalars, which take no space, stay as they are.

    So do the tables of a front end within the graph, because a log-mel needs more than the 8 bits of bf16. Raises
    ConfigError if it stores no weights.
    """
    model = ir.load(graph)
    front_end = front_end_nodes(model.graph)
    constants = filter(is_float, model.graph.initializers.values())
    weights = [value for value in constants if array_of(value).ndim > 1 and front_end.isdisjoint(value.consumers())]
    if not weights:
        raise ConfigError(graph, "stores no weights that could be bf16", "keep it in fp32")
    for value in weights:
        stored = add_constant(model.graph, f"{value.name}_bf16", array_of(value).astype(ml_dtypes.bfloat16))
        cast = _cast(stored, FP32, f"{value.name}_fp32")
        model.graph.insert_before(model.graph[0], cast)
        _let_read(value.uses(), cast.outputs[0])
    drop_unused(model.graph)
    _write(model, out)


def _meet(graph: ir.Graph, value: ir.Value, half: set[ir.Node]) -> None:
    """Let fp16 nodes read a value in fp16 and all others in fp32, whichever kind of node computes it."""
    producer = value.producer()
    is_fp16 = producer in half
    others = [(node, index) for node, index in value.uses() if (node in half) != is_fp16]
    if is_fp16:
        value.dtype = FP16
    if not others and not (is_fp16 and value.is_graph_output()):
        return
    cast = _cast(value, FP32 if is_fp16 else FP16, f"{value.name}_{'fp32' if is_fp16 else 'fp16'}")
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    _let_read(others, cast.outputs[0])
    if is_fp16 and value.is_graph_output():
        new = cast.outputs[0]
        new.name, value.name = value.name, f"{value.name}_fp16"
        graph.outputs[list(graph.outputs).index(value)] = new


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)}, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = name, value.shape, to
    return node


def _let_read(uses: Iterable[tuple[ir.Node, int]], new: ir.Value) -> None:
    for node, index in list(uses):
        node.replace_input_with(index, new)


def _write(model: ir.Model, out: Path) -> None:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    write_atomic(out, proto.SerializeToString())
