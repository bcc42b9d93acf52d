"""Reading and changing an ONNX graph in memory: the few verbs that rewriting and quantising it are made of.

In and out: nodes and values of :mod:`onnx_ir`. An activation is [batch, channels, height, width]; a "map" is one with
more than one number a channel. Nothing here knows what a change is for.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def nodes_of(graph: ir.Graph, op_type: str) -> list[ir.Node]:
    """All nodes of one kind, in the graph's order; a list, so that the graph may be changed meanwhile."""
    return [node for node in graph if node.op_type == op_type]


def input_of(node: ir.Node, index: int = 0) -> ir.Value:
    """The value that a node reads at an index, where it is certain to read one."""
    value = node.inputs[index]
    assert value is not None
    return value


def array_of(value: ir.Value) -> npt.NDArray[np.float32]:
    """What a constant holds."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def ints_of(node: ir.Node, name: str) -> list[int]:
    """A node's attribute that is a list of whole numbers."""
    return list(node.attributes[name].as_ints())


def int_of(node: ir.Node, name: str) -> int:
    """A node's attribute that is a whole number."""
    return node.attributes[name].as_int()


def size_of(value: ir.Value) -> tuple[int, int] | None:
    """(height, width) of an activation [batch, channels, height, width]; None for others."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def is_map(value: ir.Value) -> bool:
    """Whether it is a whole activation and not one number a channel."""
    return size_of(value) not in (None, (1, 1))


def channels_of(value: ir.Value) -> int | None:
    """Channels of an activation [batch, channels, ...]; None where the graph does not say."""
    channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return channels if isinstance(channels, int) else None


def has_constant_weight(node: ir.Node) -> bool:
    """Whether a node is a two-dimensional convolution whose weight is stored in the graph."""
    weight = node.inputs[1] if node.op_type == "Conv" else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 4


def add_constant(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    """A new constant of the graph."""
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
    """The fp32 output of a new node that stands before another."""
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name = f"{name}_output"
    node.outputs[0].shape, node.outputs[0].dtype = shape, ir.DataType.FLOAT
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let all that read one value read another."""
    ir.convenience.replace_all_uses_with(old, new)


def drop_unused(graph: ir.Graph) -> None:
    """Remove nodes and constants that nobody reads any more."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
