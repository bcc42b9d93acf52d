"""Functions that read and change an ONNX graph in memory, for rewriting and quantising it.

In and out: nodes and values of :mod:`onnx_ir`. An activation is [batch, channels, height, width]; a "map" is one with
more than one number per channel.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer.typing import Float32


def nodes_of(graph: ir.Graph, op_type: str) -> list[ir.Node]:
    """List all nodes of one kind in the graph's order; the graph may be changed while the list is used."""
    return [node for node in graph if node.op_type == op_type]


def input_of(node: ir.Node, index: int = 0) -> ir.Value:
    """Return the value that a node reads at an index; it must read one."""
    value = node.inputs[index]
    assert value is not None
    return value


def array_of(value: ir.Value) -> Float32:
    """Return the array of a constant."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def ints_of(node: ir.Node, name: str) -> list[int]:
    """Return an attribute that is a list of integers."""
    return list(node.attributes[name].as_ints())


def int_of(node: ir.Node, name: str) -> int:
    """Return an attribute that is an integer."""
    return node.attributes[name].as_int()


def size_of(value: ir.Value) -> tuple[int, int] | None:
    """Return (height, width) of an activation [batch, channels, height, width]; None for other shapes."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def is_map(value: ir.Value) -> bool:
    """Whether a value is a whole activation and not one number per channel."""
    return size_of(value) not in (None, (1, 1))


def channels_of(value: ir.Value) -> int | None:
    """Return the channels of an activation [batch, channels, ...]; None if the graph does not store them."""
    channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return channels if isinstance(channels, int) else None


def has_constant_weight(node: ir.Node) -> bool:
    """Whether a node is a two-dimensional convolution whose weight is stored in the graph."""
    weight = node.inputs[1] if node.op_type == "Conv" else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 4


def add_constant(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    """Add a constant to the graph."""
    tensor, shape = ir.tensor(np.asarray(array), name=name), ir.Shape(np.shape(array))
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def insert_before(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    name: str,
    shape: ir.Shape | None,
    **attributes: int | float | str | Sequence[int],
) -> ir.Value:
    """Insert a node before another one and return its fp32 output."""
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name = f"{name}_output"
    node.outputs[0].shape, node.outputs[0].dtype = shape, ir.DataType.FLOAT
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of one value read another."""
    ir.convenience.replace_all_uses_with(old, new)


def drop_unused(graph: ir.Graph) -> None:
    """Remove nodes and constants without readers."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
