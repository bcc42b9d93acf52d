"""fp32 graph -> the same graph in 16 bits: fp16 for GPUs, bf16 to be half as large. Input and outputs stay float32.

* fp16 computes in fp16 wherever that does no harm (``half_nodes.py``), with casts where fp16 and fp32
  meet. It is meant for a GPU; on a CPU, ONNX Runtime casts each fp16 node's input back to fp32.
* bf16 stores the weights in bf16 and casts them to float32, which an engine does once, when it loads the graph. They
  are what OpenVINO rounds them to anyway where it is asked for bf16. ONNX Runtime has no bf16 convolution for a CPU, so
  there it computes in fp32: half the file, at the same speed.

Names, batch axis and ``metadata_props`` are not touched. ``onnxruntime.transformers.float16`` is not used: what passes
between two fp32 nodes goes through fp16 there, so that a power of 3 overflows on its way to the mean, and weights out
of range are clipped.
"""

from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from birdinfer.errors import ConfigError
from birdinfer.export.graphs.graph_edit import add_constant, array_of, drop_unused
from birdinfer.export.graphs.half_nodes import HEAVY, front_end_nodes, half_nodes, is_float
from birdinfer.files import write_atomic

FP16, BF16, FP32 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT


def write_fp16(graph: Path, out: Path) -> None:
    """Write the fp16 form of a graph.

    Args:
        graph: an fp32 graph of :mod:`birdinfer.export.graphs.onnx`.
        out: where to.

    Raises:
        ConfigError: it has no convolution or matrix product that may be fp16.
        OutputError: the graph cannot be written there.
    """
    model = _with_types(graph)
    half = half_nodes(model.graph)
    if not any(node.op_type in HEAVY for node in half):
        raise ConfigError(graph, "has no convolution or matrix product that may be fp16", "keep it in fp32")
    computed = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    constants = list(model.graph.initializers.values())
    for value in filter(is_float, computed):
        _meet(model.graph, value, half)
    for value in filter(is_float, constants):
        _constant_in_fp16(model.graph, value, half)
    drop_unused(model.graph)
    _write(model, out)


def write_bf16(graph: Path, out: Path) -> None:
    """Write a graph with its weights in bf16; biases and lone numbers, which weigh nothing, stay as they are.

    So do the tables of a front end within the graph: they are no weights, and a log-mel of 8 bits is none.

    Args:
        graph: an fp32 graph of :mod:`birdinfer.export.graphs.onnx`.
        out: where to.

    Raises:
        ConfigError: it stores no weights.
        OutputError: the graph cannot be written there.
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
        _hand_over(value.uses(), cast.outputs[0])
    drop_unused(model.graph)
    _write(model, out)


def _with_types(graph: Path) -> ir.Model:
    """A graph in which each value says its type: exporters leave out some."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(graph)))


def _meet(graph: ir.Graph, value: ir.Value, half: set[ir.Node]) -> None:
    """Let fp16 nodes read a value in fp16 and all others in fp32, whoever computes it."""
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
    _hand_over(others, cast.outputs[0])
    if is_fp16 and value.is_graph_output():
        _become_output(graph, value, cast.outputs[0])


def _become_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Put another value in the place, and under the name, of an output."""
    new.name, old.name = old.name, f"{old.name}_fp16"
    graph.outputs[list(graph.outputs).index(old)] = new


def _constant_in_fp16(graph: ir.Graph, value: ir.Value, half: set[ir.Node]) -> None:
    """Let fp16 nodes read a constant in fp16; that fp16 holds it, :func:`half_nodes` saw to."""
    uses = [(node, index) for node, index in value.uses() if node in half]
    if uses:
        _hand_over(uses, add_constant(graph, f"{value.name}_fp16", array_of(value).astype(np.float16)))


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)}, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = name, value.shape, to
    return node


def _hand_over(uses: Iterable[tuple[ir.Node, int]], new: ir.Value) -> None:
    for node, index in list(uses):
        node.replace_input_with(index, new)


def _write(model: ir.Model, out: Path) -> None:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    write_atomic(out, proto.SerializeToString())
